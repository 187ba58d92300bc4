"""What every file in `metrics/` must do, found by name; and that `fid` is pytorch-fid's to the last feature."""

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import Judged
from pytorch_fid import inception as theirs

from aigc_lab import noise, plugins
from aigc_lab.contracts.base import Contract
from aigc_lab.contracts.metrics import METRIC, Case
from aigc_lab.data.base import Dataset, Split
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.extractors import inception as ours
from aigc_lab.extractors import stacked_digits
from aigc_lab.extractors.base import Extractor
from aigc_lab.features import FeatureStore
from aigc_lab.files import sha256
from aigc_lab.metrics.base import Metric
from aigc_lab.samples import Images, Modality, Shape

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


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right form with random weights, under the name of the published one.

    Its batch normalisation has seen some images: untouched, a random Inception lets next to nothing through.
    """
    network = theirs._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=network.state_dict()):
        whole = theirs.fid_inception_v3()
    for module in whole.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    digits = Digits(Digits.Config(), Path()).load("train").take(slice(0, 24)).unit()
    with torch.no_grad():
        whole.train()(F.interpolate(digits.expand(-1, 3, -1, -1), (75, 75)) * 2 - 1)
    path = tmp_path_factory.mktemp("weights") / ours.FILE
    torch.save(whole.state_dict(), path)
    return path


def suits(metric: Metric, dataset: Dataset, weights_dir: Path) -> bool:
    """As an experiment file is checked; a refusal must be a `ValueError` that says what is missing."""
    try:
        metric.check(dataset, 2000)
        if metric.extractor:
            plugins.find(Extractor, metric.extractor).check(dataset, weights_dir)  # type: ignore[type-abstract]
    except ValueError as error:
        assert len(str(error)) > 20  # noqa: PT017 -- fine to be refused, and then in words
        return False
    return True


@pytest.fixture(scope="session")
def setting(judged: Judged, inception_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @cache
    def build(name: str) -> Case:
        kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
        metric = kind(kind.Config())
        heavy = metric.extractor == "inception"
        digits = Few(Digits.Config(), Path()) if heavy else judged.dataset
        stacked = Stacked(Digits.Config(), Path())
        candidates = [digits, Ring(Ring.Config(points=1000), Path()), stacked, Large(Digits.Config(), Path())]
        dataset = next(c for c in candidates if suits(metric, c, inception_weights.parent))
        folder = judged.cache if dataset is judged.dataset else tmp_path_factory.mktemp("cache")
        store = FeatureStore(dataset, cache=folder, weights_dir=inception_weights.parent, device="cpu")
        if dataset is stacked:
            # Four digits of 16 pixels are learned in a fifth of the time that ten of 32 take.
            with mock.patch.object(stacked_digits, "_ROUNDS", 1):
                store.extractor("stacked_digits")
        if heavy:
            with mock.patch.object(ours, "SHA256_PREFIX", sha256(inception_weights)[:8]):
                network: Any = store.extractor("inception").network
            # At 75 pixels, the least that it takes, Inception is sixteen times faster.
            network.resize_input = False
            network.register_forward_pre_hook(lambda module, args: (F.interpolate(args[0], (75, 75)),))
        sizes = {"few": 80, "few-stacked": 1400, "large": 44}
        return Case(metric, dataset, store, sizes.get(dataset.name, 400))

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
    suited = {key: suits(kind(kind.Config()), dataset, tmp_path) for key, dataset in both.items()}
    assert [key for key, yes in suited.items() if not yes] == [modality]


def test_a_frechet_distance_is_named_by_its_features() -> None:
    kind = plugins.find(Metric, "fd")  # type: ignore[type-abstract]
    assert list(kind(kind.Config()).gives) == ["fd_clf"]
    assert list(kind(kind.Config.model_validate({"features": "inception"})).gives) == ["fd_inception"]
    assert list(plugins.find(Metric, "fid")(plugins.find(Metric, "fid").Config()).gives) == ["fid"]  # type: ignore[type-abstract]


def prepare(weights_dir: Path) -> ours.Inception:
    dataset = Digits(Digits.Config(), Path())
    return ours.Inception.prepare(dataset, cache=Path(), weights_dir=weights_dir, device="cpu", say=print)


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_features_are_pytorch_fids(channels: int, inception_weights: Path) -> None:
    state = torch.load(inception_weights, weights_only=True)
    with mock.patch.object(theirs, "load_state_dict_from_url", return_value=state):
        reference = theirs.InceptionV3([theirs.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    with mock.patch.object(ours, "SHA256_PREFIX", sha256(inception_weights)[:8]):
        extractor = prepare(inception_weights.parent)
    images = torch.randint(0, 256, (3, channels, 32, 32), generator=torch.Generator().manual_seed(0))
    ready = images.float().expand(-1, 3, -1, -1) / 255
    with torch.no_grad():
        truth = reference(ready)[0].squeeze(3).squeeze(2)
    features = extractor.extract(Images(images.to(torch.uint8)), block=2)
    assert features.vectors.shape == (3, 2048) and features.logits is None
    torch.testing.assert_close(features.vectors, truth, rtol=1e-4, atol=1e-5)
    assert truth.std(0).mean() > 1e-3, "the weights tell images apart"
    assert extractor.identity.endswith(sha256(inception_weights)[:8])


def test_inception_weights_of_another_hash_are_refused(inception_weights: Path) -> None:
    with pytest.raises(UsageError, match="6726825d") as caught:
        prepare(inception_weights.parent)
    assert str(inception_weights) in str(caught.value) and ours.ADDRESS in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_missing_inception_weights_name_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for weights_dir in (tmp_path, None):
        with pytest.raises(UsageError, match="AIGC_LAB_WEIGHTS_DIR") as caught:
            ours.Inception.check(Digits(Digits.Config(), tmp_path), weights_dir)
        assert ours.FILE in str(caught.value) and ours.ADDRESS in str(caught.value)
    # Torch's hub folder is the second place to look.
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / ours.FILE).touch()
    assert ours.weights_file(tmp_path) == tmp_path / "hub" / "checkpoints" / ours.FILE
