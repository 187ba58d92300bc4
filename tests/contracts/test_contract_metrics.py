"""What every file in `metrics/` must do, found by name."""

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import Judged
from pydantic import ValidationError

from aigc_lab import noise, plugins
from aigc_lab.contracts.base import Contract
from aigc_lab.contracts.metrics import METRIC, Case
from aigc_lab.data.base import Dataset, Split
from aigc_lab.data.digits import Digits
from aigc_lab.data.dirac import Dirac
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.ring import Ring
from aigc_lab.data.shapes import Shapes
from aigc_lab.extractors import stacked_digits
from aigc_lab.extractors.shared import lookup
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.base import Metric, Real
from aigc_lab.samples import Images
from aigc_lab.scoring.evidence import score
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Modality, Shape

# Less of what only costs time.
SMALL: dict[str, dict[str, Any]] = {"cas": {"steps": 30}}

every_metric = pytest.mark.parametrize("name", plugins.names("metrics"))


class Few(Digits):
    """Eighty digits a split: enough for a network of this size."""

    name = "few"

    def load(self, split: Split) -> Images:
        return super().load(split).take(slice(0, 80))


class Tiny(Digits):
    """Five hundred digits at their own 8×8 pixels to train on: a classifier of them takes a second, and learns more
    from more of them.
    """

    name = "tiny"

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 8, 8), classes=10)

    @lru_cache(maxsize=3)  # noqa: B019
    def load(self, split: Split) -> Images:
        digits = super().load(split).take(slice(0, 500))
        return Images(F.avg_pool2d(digits.unit(), 2), digits.labels).canonical()


class Stacked(Digits):
    """Three digits below 4 as colours: 64 modes instead of a thousand, from the digits of each split."""

    name = "few-stacked"

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (3, 16, 16), classes=64)

    @lru_cache(maxsize=3)  # noqa: B019
    def load(self, split: Split) -> Images:
        digits = super().load(split)
        assert digits.labels is not None
        digits = digits.take((digits.labels < 4).nonzero().flatten())
        picks = torch.randint(len(digits), (1400, 3), generator=noise.generator("few stacked", split))
        assert digits.labels is not None
        return Images(digits.values[picks, 0], (digits.labels[picks] * torch.tensor([16, 4, 1])).sum(1))


class Large(Digits):
    """The digits in the size that MS-SSIM needs, and few of them."""

    name = "large"

    @property
    def shape(self) -> Shape:
        return Shape(Modality.IMAGES, (1, 162, 162), classes=10)

    @lru_cache(maxsize=3)  # noqa: B019
    def load(self, split: Split) -> Images:
        digits = super().load(split).take(slice(0, 60))
        return Images(F.interpolate(digits.unit(), (162, 162)), digits.labels).canonical()


def suits(metric: Metric, dataset: Dataset, weights: WeightsPolicy) -> bool:
    """As an experiment file is checked; a refusal must be a `ValueError` that says what is missing."""
    try:
        metric.check(dataset, 2000)
        if metric.extractor:
            lookup.find_extractor(metric.extractor).check(dataset, weights)
    except ValueError as error:
        assert len(str(error)) > 20  # noqa: PT017 -- fine to be refused, and then in words
        return False
    return True


@pytest.fixture(scope="session")
def setting(
    judged: Judged, inception_weights: WeightsPolicy, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Case]:
    @cache
    def build(name: str) -> Case:
        kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
        metric = kind(kind.Config.model_validate(SMALL.get(name, {})))
        heavy = (metric.extractor or "").startswith("inception")
        few = Few if heavy else Tiny if name == "cas" else None
        digits = few(Digits.Config(), Path()) if few else judged.dataset
        stacked = Stacked(Digits.Config(), Path())
        candidates = [digits, Ring(Ring.Config(points=1000), Path()), stacked, Large(Digits.Config(), Path())]
        candidates.append(PyDoc(PyDoc.Config(), Path()))
        candidates.append(Dirac(Dirac.Config(points=500), Path()))
        candidates.append(Shapes(Shapes.Config(size=16, channels=1, train=600, reference=400, holdout=400), Path()))
        dataset = next(c for c in candidates if suits(metric, c, inception_weights))
        folder = judged.cache if dataset is judged.dataset else tmp_path_factory.mktemp("cache")
        store = FeatureStore(dataset, cache=folder, weights=inception_weights, device="cpu")
        if dataset is stacked:
            # Four digits of 16 pixels are learned in a fifth of the time that ten of 32 take.
            with mock.patch.object(stacked_digits, "_ROUNDS", 1):
                store.extractor("stacked_digits")
        if heavy:
            network: Any = store.extractor(str(metric.extractor)).network
            network.blocks.resize_input = False
            # 75 pixels are the least that it takes: sixteen times faster.
            network.register_forward_pre_hook(lambda _, images: F.interpolate(images[0].float(), (75, 75)))
        sizes = {"few": 80, "few-stacked": 1400, "large": 44}
        return Case.of(metric, dataset, store, sizes.get(dataset.name, 400))

    return build


Build = Callable[[str], Case]


@pytest.mark.parametrize("contract", METRIC, ids=lambda contract: contract.name.replace(" ", "_"))
@every_metric
def test_a_metric_keeps_its_contracts(name: str, contract: Contract[Case], setting: Build) -> None:
    contract.check(setting(name))


@pytest.mark.parametrize(("name", "modality"), [("fd", "points"), ("classifier_score", "points"), ("modes", "images")])
def test_a_dataset_that_it_cannot_measure_is_refused(name: str, modality: str, tmp_path: Path) -> None:
    kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
    both: dict[str, Dataset] = {"points": Ring(Ring.Config(), tmp_path), "images": Digits(Digits.Config(), tmp_path)}
    assert both[modality].shape.modality == Modality(modality)
    suited = {key: suits(kind(kind.Config()), dataset, WeightsPolicy()) for key, dataset in both.items()}
    assert [key for key, yes in suited.items() if not yes] == [modality]


def test_a_frechet_distance_is_named_by_its_features() -> None:
    kind = plugins.find(Metric, "fd")  # type: ignore[type-abstract]
    assert list(kind(kind.Config()).gives) == ["fd_clf"]
    assert list(kind(kind.Config.model_validate({"features": "inception"})).gives) == ["fd_inception"]
    fid, debiased = (plugins.find(Metric, name) for name in ("fid", "fd_debiased"))  # type: ignore[type-abstract]
    for dims, name, extractor in ((2048, "fid", "inception"), (192, "fid_192", "inception_192")):
        metric = fid(fid.Config.model_validate({"dims": dims}))
        assert (list(metric.gives), metric.extractor) == ([name], extractor)
    with pytest.raises(ValidationError, match="2048"):
        fid.Config.model_validate({"dims": 100})
    assert list(debiased(debiased.Config()).gives) == ["fd_clf_debiased"]
    assert list(debiased(debiased.Config.model_validate({"features": "inception"})).gives) == ["fid_debiased"]


@pytest.mark.parametrize(("features", "needed"), [("classifier", 128), ("inception", 8192)])
def test_a_bias_is_corrected_from_four_samples_a_dimension_on(features: str, needed: int, tmp_path: Path) -> None:
    kind = plugins.find(Metric, "fd_debiased")  # type: ignore[type-abstract]
    metric, dataset = kind(kind.Config.model_validate({"features": features})), Digits(Digits.Config(), tmp_path)
    metric.check(dataset, needed)
    with pytest.raises(ValueError, match=f"only from {needed:,} samples on: {needed - 1:,} .* kid is unbiased"):
        metric.check(dataset, needed - 1)


def test_a_reference_that_is_too_small_for_it_is_refused_too(judged: Judged) -> None:
    kind = plugins.find(Metric, "fd_debiased")  # type: ignore[type-abstract]
    store = FeatureStore(judged.dataset, cache=judged.cache, weights=WeightsPolicy(), device="cpu")
    train, reference = judged.dataset.load("train"), judged.dataset.load("reference")
    real = Real(reference.take(slice(0, 127)), reference, reference)
    with pytest.raises(ValueError, match="127 reference samples are too few"):
        score([kind(kind.Config())], train.take(slice(0, 128)), real, judged.dataset, store, "reference")
