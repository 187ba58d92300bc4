"""Networks that users bring: a file of features, and weights of the published forms, small and random."""

import json
import math
import string
import zipfile
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from aigc_lab.extractors.minilm import MiniLM
from aigc_lab.host.files import sha256
from aigc_lab.nets import bert, vit

FORMS = {"dinov2": vit.Form(64, 2, 4, 14, 37), "clip": vit.Form(64, 2, 1, 32, 7, output=16)}

MINE = '''"""Features of my own."""

import torch

from aigc_lab.extractors.base import Extractor, as_rgb


class Mine(Extractor):
    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU())

    def __call__(self, images):
        return self.network(as_rgb(images).float() / 127.5 - 1).mean((2, 3)), None
'''


def random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=source) for name, shape in shapes.items()}


# ---- all-MiniLM-L6-v2 in small: the same files, of two narrow layers, and letters as pieces of words

SMALL_BERT = bert.Form(width=16, depth=2, heads=4, inner=32, pieces=0, places=256)
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PIECES = (*_MARKS, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), ".", "!", "the")


def waves(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by a formula, which every library and every machine gives alike."""
    made = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        values = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * (0.7 + 0.13 * number)) * 0.5
        made[name] = (values.reshape(shape) + (1 if name.endswith("LayerNorm.weight") else 0)).float()
    return made


def small_minilm(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Installs a package of the published layout in `folder` for `MiniLM`; returns its archive."""
    form = SMALL_BERT._replace(pieces=len(PIECES))
    archive = folder / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model.safetensors", save(waves(bert.shapes(form))))
        file.writestr("tokenizer.json", json.dumps({"model": {"vocab": {each: n for n, each in enumerate(PIECES)}}}))
    spec = ModuleSpec("all_minilm_l6_v2", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    published = replace(MiniLM.published, sha256=sha256(archive), spec=lambda: spec)
    patch.setattr(MiniLM, "published", published)
    patch.setattr(MiniLM, "form", form)
    patch.setattr(MiniLM, "dimensions", form.width)
    return archive
