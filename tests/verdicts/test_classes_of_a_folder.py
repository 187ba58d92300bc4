"""The classes of a folder keep their names in what is said of a run: "shoes", and not a number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_lab.data.folder import Folder
from aigc_lab.display.run_page import _missing_bins
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics.fd import FD
from aigc_lab.samples import Images
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.verdicts.conclusion import Collapse
from aigc_lab.verdicts.states import MISSING

COLOURS = {"bags": (220, 40, 40), "hats": (40, 200, 60), "shoes": (30, 60, 220)}


def product(name: str, number: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """A square in the colour of its class, of its own size, place and shade, on a grained ground."""
    source = np.random.default_rng([*COLOURS].index(name) * 10_000 + number)
    pixels = source.normal(225, 8, (24, 24, 3))
    side, (top, left) = source.integers(8, 14), source.integers(1, 9, 2)
    pixels[top : top + side, left : left + side] = np.array(COLOURS[name]) + source.normal(0, 18, 3)
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture
def shop(tmp_path: Path) -> Folder:
    for name in COLOURS:
        (tmp_path / "shop" / name).mkdir(parents=True)
        for number in range(200):
            Image.fromarray(product(name, number)).save(tmp_path / "shop" / name / f"{number:03d}.png")
    return Folder(Folder.Config(path=str(tmp_path / "shop"), size=24), tmp_path / "data")


def test_what_600_pictures_lack_is_called_by_its_folder(shop: Folder, tmp_path: Path) -> None:
    assert "420 train, 90 reference, 90 holdout" in shop.notes[0] and "3 classes by folder" in shop.notes[0]
    metric = FD(FD.Config(features="random"))
    store = FeatureStore(shop, cache=tmp_path / "cache", weights=PUBLISHED, device="cpu")
    evaluator = Evaluator(Protocol(name="mine", samples=90, metrics=["fd"]), [metric], shop, store)
    made = np.stack([product(("bags", "hats")[number % 2], 1000 + number) for number in range(90)])
    verdict = evaluator.judge(Images(torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()))
    assert verdict is not None and verdict.verdict == Collapse.SEVERE, verdict
    assert "class shoes" in verdict.reason and "|by:classes|" in verdict.signature
    assert [row["name"] for row in verdict.bins] == ["bags", "hats", "shoes"]
    assert _missing_bins({"evidence": verdict.as_dict()}) == ["shoes"]
    shown = [evaluator.missing([{"name": name, "state": MISSING}]) for name in ("shoes", "2", "0")]
    assert shown[0] == shown[1] != shown[2]  # judged before its classes had names, a run knows their numbers
    whole = np.stack([product([*COLOURS][number % 3], 2000 + number) for number in range(90)])
    honest = evaluator.judge(Images(torch.from_numpy(whole).permute(0, 3, 1, 2).contiguous()))
    assert honest is not None and honest.verdict in (Collapse.NONE, Collapse.INCONCLUSIVE), honest
