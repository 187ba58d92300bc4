"""Scores of codes on pictures whose factors are known, and what is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aigc_lab.data.base import Dataset, Split
from aigc_lab.data.digits import Digits
from aigc_lab.data.shapes import Shapes
from aigc_lab.metrics.base import Coder, Evidence, Real, Score
from aigc_lab.metrics.base import scored as base_scored
from aigc_lab.metrics.disentanglement import _T95, Disentanglement, _dci, _gaps, factors_of
from aigc_lab.samples import Images
from aigc_lab.statistics.disentanglement import Coded, dci, mig, sap
from aigc_lab.statistics.intervals import Z95

CONFIG = {"train": 300, "reference": 1200, "holdout": 600}


def shapes(**keys: Any) -> Shapes:
    return Shapes(Shapes.Config(**CONFIG | keys, size=16), Path())


@dataclass
class Oracle:
    """Encodes pictures as their true factors, found by their pixels; keeps the first `latents` of them."""

    dataset: Shapes
    split: Split = "reference"
    latents: int = 6

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.dataset.load(self.split).values
        rows = {picture.numpy().tobytes(): row for row, picture in enumerate(pixels)}
        known = self.dataset.factors(self.split).values
        stored = (images * 255).round().to(torch.uint8)
        mean = known[[rows[picture.numpy().tobytes()] for picture in stored]][:, : self.latents]
        return mean, torch.full_like(mean, -torch.inf)

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError


def scored(dataset: Dataset, system: Coder | None, split: Split = "reference", **keys: Any) -> dict[str, Score]:
    metric = Disentanglement(Disentanglement.Config(**{"limit": 1000, "fitted": 400} | keys))
    images = dataset.load(split)
    evidence = Evidence(images, Real(images, images, images), dataset, _no_features, _no_features, "signed", system)
    metric.refuse_lacking(evidence)
    return {each.name: each for each in base_scored(metric, evidence, lambda name, why: None)}


def _no_features(*_: object) -> Any:
    raise AssertionError("codes are compared, not features")


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_the_true_factors_as_codes(kind: str) -> None:
    scores = scored(shapes(factors=kind), Oracle(shapes(factors=kind)))
    assert list(scores) == ["mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness"]
    assert {name: each.n for name, each in scores.items()} == dict.fromkeys(("mig", "sap"), 1000) | dict.fromkeys(
        list(scores)[2:], 400
    )
    for name, each in scores.items():
        assert each.value > 0.9, name
        assert each.floor < 0.1, name
        assert each.low <= each.value <= each.high <= 1
        assert "|floor:chance|" in each.signature


class OneHot(Oracle):
    """The same, with the form as the probabilities of its classes, in another order, and one column each."""

    told = True

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = super().encode(images)
        size = self.dataset.factors("reference").sizes[0]
        assert size is not None
        chances = 0.9 * torch.nn.functional.one_hot((size - 1 - mean[:, 0]).long(), size) + 0.1 / size
        return torch.cat([chances, mean[:, 1:]], 1), torch.cat(
            [log_variance[:, :1].expand(-1, size), log_variance[:, 1:]], 1
        )

    @property
    def one_hot_sizes(self) -> tuple[int, ...]:
        size = self.dataset.factors("reference").sizes[0]
        return (size,) if self.told and size else ()


class Columns(OneHot):
    told = False


def test_a_categorical_code_is_one_latent() -> None:
    """By itself each of its columns is a bad code; all together are as good as the number."""
    data = shapes()
    assert data.factors("reference").names[0] in data.factors("reference").nominal
    whole, one_hot, columns = (scored(data, kind(data)) for kind in (Oracle, OneHot, Columns))
    for name in ("mig", "sap"):
        assert one_hot[name].value == pytest.approx(whole[name].value, abs=1e-9)
    assert one_hot["dci_completeness"].value > columns["dci_completeness"].value + 0.03
    assert columns["mig"].value < whole["mig"].value - 0.1
    assert "|codes:likeliest-class|" in one_hot["mig"].signature != whole["mig"].signature


def test_holdout_is_scored_by_its_own_factors() -> None:
    assert scored(shapes(), Oracle(shapes(), "holdout"), "holdout")["mig"].value > 0.8  # 600 fill 20 × 20 bins thinly


def blurred(seed: int, n: int) -> Coded:
    """Codes that are factors with noise of 0.3 upon them."""
    random = np.random.default_rng(seed)
    factors = np.column_stack([random.integers(4, size=n), random.random((n, 5))])
    codes = factors + 0.3 * random.normal(size=factors.shape)
    return Coded(codes, factors, (4, *[None] * 5), (True, *[False] * 5))


def test_intervals_are_as_wide_as_scores_spread() -> None:
    """Bootstrap standard errors against the standard deviation over independent sets of pictures."""
    n, half = 600, np.arange(300)
    measured = [(mig(each), sap(each)) for each in (blurred(seed, n) for seed in range(150))]
    spread = np.std(measured, axis=0, ddof=1).tolist()
    forests = [dci(each.take(half), each.take(half + 300)) for each in (blurred(seed, n) for seed in range(12))]
    spread += np.std(forests, axis=0, ddof=1).tolist()
    errors = []
    for seed in range(2):
        coded = blurred(seed, n)
        widths = [each.high - each.low for each in [*_gaps(coded, "signed"), *_dci(coded, n, "signed")]]
        errors.append(np.array(widths) / 2 / ([Z95] * 2 + [_T95] * 3))
    assert np.mean(errors, axis=0) == pytest.approx(spread, rel=0.5)


def test_a_code_of_one_latent_is_left_out() -> None:
    assert scored(shapes(), Oracle(shapes(), latents=1)) == {}


def test_data_without_factors_and_systems_without_codes_are_refused() -> None:
    metric = Disentanglement(Disentanglement.Config())
    with pytest.raises(ValueError, match="those of dataset digits are not known"):
        metric.check(Digits(Digits.Config(), Path()), 1000)
    with pytest.raises(ValueError, match="at least 100"):
        metric.check(shapes(), 99)
    metric.check(shapes(), 1000)
    with pytest.raises(ValueError, match="one that encodes"):
        scored(shapes(), None)
    foreign = Images(255 - shapes().load("reference").values)
    with pytest.raises(ValueError, match="no split of dataset shapes"):
        factors_of(shapes(), foreign)
