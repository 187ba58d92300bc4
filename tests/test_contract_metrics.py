"""What every file in `metrics/` must do, found by name; and that `fid` is pytorch-fid's to the last feature."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from conftest import Judged
from pydantic import ValidationError
from pytorch_fid import inception as theirs

from aigc_lab import noise, plugins
from aigc_lab.data.base import Dataset, Split
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import Evaluator, ScoringSplit
from aigc_lab.experiment import Protocol
from aigc_lab.extractors import inception as ours
from aigc_lab.extractors.base import Extractor
from aigc_lab.features import FeatureStore
from aigc_lab.files import sha256
from aigc_lab.metrics.base import Metric, Score
from aigc_lab.samples import Images, Modality, Samples

every_metric = pytest.mark.parametrize("name", plugins.names("metrics"))


class Few(Digits):
    """Eighty digits a split: enough for a network of this size."""

    name = "few"

    def load(self, split: Split) -> Images:
        return super().load(split).take(slice(0, 80))


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


@dataclass
class Setting:
    """A dataset with a protocol of one metric, and what samples of it look like."""

    metric: Metric
    dataset: Dataset
    store: FeatureStore
    n: int

    @cached_property
    def evaluator(self) -> Evaluator:
        protocol = Protocol(name="contract", samples=self.n, metrics=["any"])
        return Evaluator(protocol, [self.metric], self.dataset, self.store)

    def real(self, count: int | None = None) -> Samples:
        return self.dataset.load("train").take(slice(0, count or self.n))

    def noise(self) -> Samples:
        real = self.real()
        values = noise.draw(noise.Draw((self.n, *real.values.shape[1:]), "uniform"), "contract")
        return replace(real, values=(values + 1) / 2 if isinstance(real, Images) else values * 2, labels=None)

    def scores(self, samples: Samples, split: ScoringSplit = "reference") -> dict[str, Score]:
        return {score.name: score for score in self.evaluator.evaluate(samples, split)}


def suits(metric: Metric, dataset: Dataset, weights_dir: Path) -> bool:
    """As an experiment file is checked; a refusal must be a `ValueError` that says what is missing."""
    try:
        metric.check(dataset, 1000)
        if metric.extractor:
            plugins.find(Extractor, metric.extractor).check(dataset, weights_dir)  # type: ignore[type-abstract]
    except ValueError as error:
        assert len(str(error)) > 20  # noqa: PT017 -- fine to be refused, and then in words
        return False
    return True


@pytest.fixture(scope="session")
def setting(
    judged: Judged, inception_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Setting]:
    @cache
    def build(name: str) -> Setting:
        kind = plugins.find(Metric, name)  # type: ignore[type-abstract]
        metric = kind(kind.Config())
        heavy = metric.extractor == "inception"
        digits = Few(Digits.Config(), Path()) if heavy else judged.dataset
        candidates = [digits, Ring(Ring.Config(points=1000), Path())]
        dataset = next(c for c in candidates if suits(metric, c, inception_weights.parent))
        folder = tmp_path_factory.mktemp("cache") if heavy else judged.cache
        store = FeatureStore(dataset, cache=folder, weights_dir=inception_weights.parent, device="cpu")
        if heavy:
            with mock.patch.object(ours, "SHA256_PREFIX", sha256(inception_weights)[:8]):
                network: Any = store.extractor("inception").network
            # At 75 pixels, the least that it takes, Inception is sixteen times faster.
            network.resize_input = False
            network.register_forward_pre_hook(lambda module, args: (F.interpolate(args[0], (75, 75)),))
        return Setting(metric, dataset, store, 80 if heavy else 400)

    return build


Build = Callable[[str], Setting]


def changed(metric: Metric) -> Iterator[Metric]:
    """The metric with each number, switch and choice of its Config set to something else."""
    for field, info in type(metric.config).model_fields.items():
        value = getattr(metric.config, field)
        if get_origin(info.annotation) is Literal:
            other: Any = next(choice for choice in get_args(info.annotation) if choice != value)
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, int | float):
            other = value + 1
        else:
            continue
        yield type(metric)(type(metric.config).model_validate(metric.config.model_dump() | {field: other}))


@every_metric
def test_unknown_keys_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="no_such_knob"):
        plugins.find(Metric, name).Config.model_validate({"no_such_knob": 1})  # type: ignore[type-abstract]


@every_metric
def test_real_samples_score_better_than_noise(name: str, setting: Build) -> None:
    here = setting(name)
    real, static = here.scores(here.real()), here.scores(here.noise())
    assert real.keys() == static.keys() == here.metric.gives.keys()
    for key, better in here.metric.gives.items():
        first, second = real[key], static[key]
        assert first.better == second.better == better
        if key == "modes":
            # Noise on a square covers all modes a little; what it cannot reach is their share.
            assert first.low > second.low
        elif better == "lower":
            assert first.value < second.value and first.floor < second.value
        else:
            assert first.value > second.value and first.floor > second.value


@every_metric
def test_the_interval_holds_the_value(name: str, setting: Build) -> None:
    here = setting(name)
    for samples in (here.real(), here.noise()):
        for score in here.scores(samples).values():
            assert all(map(math.isfinite, (score.value, score.low, score.high, score.floor)))
            assert score.low <= score.value <= score.high
            assert score.n == len(samples)


@every_metric
def test_scores_repeat_to_the_bit(name: str, setting: Build) -> None:
    here = setting(name)
    kind = type(here.metric)
    other = Setting(kind(kind.Config()), here.dataset, here.store, here.n)
    torch.manual_seed(5)
    assert other.scores(here.real()) == here.scores(here.real())


@every_metric
def test_the_signature_is_all_that_the_number_depends_on(name: str, setting: Build) -> None:
    here = setting(name)
    first = {score.signature for score in here.scores(here.real()).values()}
    assert first == {score.signature for score in here.scores(here.noise()).values()}
    for signature in first:
        parts = signature.split("|")
        assert f"n:{here.n}" in parts and f"v:{here.metric.version}" in parts
        assert f"data:{here.dataset.name}:{here.dataset.digest[:8]}" in parts
        assert f"ref:reference:{len(here.dataset.load('reference'))}" in parts
        if here.metric.extractor:
            assert here.store.extractor(here.metric.extractor).identity in parts

    fewer = here.scores(here.real(here.n - 20))
    holdout = here.scores(here.real(), "holdout")
    others = [{score.signature for score in scores.values()} for scores in (fewer, holdout)]
    for metric in changed(here.metric):
        scores = Setting(metric, here.dataset, here.store, here.n).scores(here.real())
        others.append({score.signature for score in scores.values()})
    assert all(first.isdisjoint(other) for other in others)


@every_metric
def test_what_is_no_number_is_refused(name: str, setting: Build) -> None:
    here = setting(name)
    for bad in (math.nan, math.inf):
        samples = here.noise()
        samples.values[3].view(-1)[0] = bad
        with pytest.raises(ValueError, match=r"1 of \d+ samples"):
            here.scores(samples)


@every_metric
def test_another_shape_is_refused(name: str, setting: Build) -> None:
    here = setting(name)
    samples = here.noise()
    wider = replace(samples, values=torch.cat([samples.values, samples.values], 1))
    with pytest.raises(ValueError, match=str(here.dataset.shape)):
        here.scores(wider)


@every_metric
def test_too_few_samples_are_refused(name: str, setting: Build) -> None:
    here = setting(name)
    here.metric.check(here.dataset, 10_000)
    with pytest.raises(ValueError, match=r"\b3\b"):
        here.metric.check(here.dataset, 3)


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
