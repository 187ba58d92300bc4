"""Lookup of extractors by name: a plugin of ours or of a package, a user's file `./mine.py`, or `./net.pt2`, which
`torch.export.save` wrote.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.base import Dataset
from aigc_lab.errors import UsageError
from aigc_lab.extractors.base import Extractor, as_rgb
from aigc_lab.host.files import sha256
from aigc_lab.host.weights import WeightsPolicy

_EXPORTED = ".pt2"


def is_file(name: str) -> bool:
    """Whether a name of features is that of a user's file."""
    return plugins.is_file(name) or name.endswith(_EXPORTED)


def find_extractor(name: str, near: Path | None = None) -> type[Extractor]:
    """Extractor class of a name; files are looked for in the folder `near` and then in the working directory."""
    if name.endswith(_EXPORTED):
        return _exported(plugins.located(name, near))
    return plugins.find(Extractor, name, near)  # type: ignore[type-abstract]


@cache
def _exported(path: Path) -> type[Extractor]:
    named = re.sub(r"\W", "_", path.stem)
    return type(named, (Exported,), {"path": path, "short": named, "__module__": f"{__name__}.{named}"})


class Exported(Extractor):
    """Program that `torch.export.save` wrote, for networks of users that are loaded without their code.

    Its one input is float32 [N, C, H, W] in [0, 1]. If it fixes H and W, images are resized to that (bilinear,
    antialiased); if it fixes N, the last batch is filled up; if C is 3, grey images become RGB. Its output is vectors
    [N, d], or vectors and logits. The identity is the sha256 of the file. Raises `UsageError` for other programs.
    """

    path: ClassVar[Path]

    def __init__(self, device: str) -> None:
        _harmless(self.path)
        try:
            program = torch.export.load(self.path)
            (input,) = program.graph_signature.user_inputs
            value = next(node for node in program.graph.nodes if node.name == input).meta["val"]
            batch, *shape = (side if isinstance(side, int) else None for side in value.shape)
            self._channels, height, width = shape
        except Exception as error:  # noqa: BLE001 -- a file of another version or form fails in many ways
            raise UsageError(
                f"{self.path}: it is no exported program of one input [N, C, H, W] that this torch can read "
                f"({type(error).__name__}: {error!s:.200})"
            ) from None
        if value.dtype != torch.float32:
            raise UsageError(f"{self.path}: its input is {value.dtype}; export it for float32 images from 0 to 1")
        self._batch, self._size = batch, (height, width) if height and width else None
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        # Its own guards are Python that would be executed: the shapes are seen to here.
        self.network = program.module(check_guards=False)
        size = f"{height}x{width} bilinear smoothed" if self._size else "as they are"
        self.identity = f"{self.short}:{sha256(self.path)[:8]}:images {size}"

    @classmethod
    def check(cls, dataset: Dataset, weights: WeightsPolicy) -> None:
        super().check(dataset, weights)
        _harmless(cls.path)

    @classmethod
    def prepare(
        cls, dataset: Dataset, *, cache: Path, weights: WeightsPolicy, device: str, say: Callable[[str], None]
    ) -> Self:
        cls.check(dataset, weights)
        extractor, channels = cls(device), dataset.shape.size[0]
        if extractor._channels not in (None, 3, channels):
            raise UsageError(f"{cls.path}: it reads {extractor._channels} channels, and {dataset.name} has {channels}")
        return extractor

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        values = (as_rgb(images) if self._channels == 3 else images).float() / 255
        if self._size and self._size != tuple(values.shape[2:]):
            values = F.interpolate(values, self._size, mode="bilinear", antialias=True)
        count = len(values)
        parts = [self._one(part) for part in torch.split(values, self._batch or count)]
        vectors, logits = (
            [part[index][: self._batch or count] for part in parts if part[index] is not None] for index in (0, 1)
        )
        return torch.cat(vectors)[:count], torch.cat(logits)[:count] if logits else None

    def _one(self, values: Tensor) -> tuple[Tensor, Any]:
        if self._batch:
            values = F.pad(values, (0, 0, 0, 0, 0, 0, 0, self._batch - len(values)))
        outputs = self.network(values.contiguous())
        vectors, logits, *_ = (*outputs, None) if isinstance(outputs, tuple | list) else (outputs, None)
        if not isinstance(vectors, Tensor) or vectors.ndim != 2:
            raise UsageError(
                f"{self.path}: it gives {getattr(vectors, 'shape', type(vectors))}, and not vectors [N, d]"
            )
        return vectors, logits


# ---- what torch.export.load would run

_RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/(?:weights|constants)/(?:model_\w+_config\.json|(?:weight|tensor)_\d+)|extra/.*"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(?:aten|prims|torchvision)\.\w+\.\w+"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge)|torch\.sym_\w+"
)
_SYMBOLIC = re.compile(
    r"(?:(?:Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|positive|nonnegative"
    r"|integer|True|False)\b|'[suz]\d+'|\d+|[-(),= ])*"
)


def _harmless(path: Path) -> None:
    """Raises `UsageError` for a file that could make `torch.export.load` execute code from it.

    In torch 2.15 that function unpickles weights and constants if their index says so, and sample inputs if they are
    more than tensors; loads compiled libraries; evaluates symbolic sizes as Python; and looks operators up by any name
    below `torch`. A network of tensors needs none of this, and each is checked here. What remains is trust in torch's
    reader of zip files and in the operators' code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            root = names[0].partition("/")[0] + "/"
            strange = [name for name in names if not _RECORDS.fullmatch(name.removeprefix(root))]
            strange += [name for name in names if not name.startswith(root) or names.count(name) > 1]
            if strange:
                raise _Harm(f"it holds {strange[0]}")
            for index in (name for name in names if name.endswith("_config.json")):
                for name, meta in json.loads(archive.read(index))["config"].items():
                    if meta["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", meta["path_name"]):
                        raise _Harm(f"{name} is a pickle")
            model = json.loads(archive.read(f"{root}models/model.json"))
            for key, text in _strings(model):
                pattern = {"target": _OPERATORS, "expr_str": _SYMBOLIC}.get(key)
                if pattern and not pattern.fullmatch(text):
                    raise _Harm(f"it calls {text:.60}" if key == "target" else f"it computes {text:.60}")
            torch.load(io.BytesIO(archive.read(f"{root}data/sample_inputs/model.pt")), weights_only=True)
    except _Harm as harm:
        raise UsageError(f"{path}: {harm}, and nothing but a network of tensors is loaded") from None
    except Exception as error:  # noqa: BLE001 -- whatever is no such archive
        raise UsageError(f"{path}: torch.export.save did not write it ({type(error).__name__})") from None


class _Harm(Exception): ...


def _strings(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON document, with the nearest key above it."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _strings(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, key)
