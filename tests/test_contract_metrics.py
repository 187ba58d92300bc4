"""What every file in `metrics/` must do, found by name."""

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from conftest import Judged

from aigc_lab import extractor_files, noise, plugins
from aigc_lab.contracts.base import Contract
from aigc_lab.contracts.metrics import METRIC, Case
from aigc_lab.data.base import Dataset, Split
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.extractors import stacked_digits
from aigc_lab.features import FeatureStore
from aigc_lab.metrics.base import Metric
from aigc_lab.samples import Images, Modality, Shape
from aigc_lab.weights import WeightsPolicy

every_metric = pytest.mark.parametrize("name", plugins.names("metrics"))


class Few(Digits):
    """Eighty digits a split: enough for a network of this size."""

    name = "few"

    def load(self, split: Split) -> Images:
        return super().load(split).take(slice(0, 80))


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


def suits(metric: Metric, dataset: Dataset, weights: WeightsPolicy) -> bool:
    """As an experiment file is checked; a refusal must be a `ValueError` that says what is missing."""
    try:
        metric.check(dataset, 2000)
        if metric.extractor:
            extractor_files.find(metric.extractor).check(dataset, weights)
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
        metric = kind(kind.Config())
        heavy = (metric.extractor or "").startswith("inception")
        digits = Few(Digits.Config(), Path()) if heavy else judged.dataset
        stacked = Stacked(Digits.Config(), Path())
        candidates = [digits, Ring(Ring.Config(points=1000), Path()), stacked]
        dataset = next(c for c in candidates if suits(metric, c, inception_weights))
        folder = judged.cache if dataset is judged.dataset else tmp_path_factory.mktemp("cache")
        store = FeatureStore(dataset, cache=folder, weights=inception_weights, device="cpu")
        if dataset is stacked:
            # Four digits of 16 pixels are learned in a fifth of the time that ten of 32 take.
            with mock.patch.object(stacked_digits, "_ROUNDS", 1):
                store.extractor("stacked_digits")
        if heavy:
            network: Any = store.extractor(str(metric.extractor)).network
            network.size = 75  # the least that it takes: sixteen times faster
        return Case(metric, dataset, store, 80 if heavy else 1400 if dataset is stacked else 400)

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
    assert list(plugins.find(Metric, "fid")(plugins.find(Metric, "fid").Config()).gives) == ["fid"]  # type: ignore[type-abstract]
