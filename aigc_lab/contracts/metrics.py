"""What every metric must do, whoever wrote it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor

from aigc_lab.config import Strict
from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.data.base import SPLITS, Dataset, Modes, Split
from aigc_lab.experiment.experiment import Protocol
from aigc_lab.host import names
from aigc_lab.metrics.base import Autoencoder, Game, Metric, Real, Score
from aigc_lab.modalities.base import modality_of
from aigc_lab.objectives.likelihood import gaussian_nll
from aigc_lab.samples import Samples, Text
from aigc_lab.scoring import evidence
from aigc_lab.scoring.evaluator import SCORING_SPLITS, Evaluator, ScoringSplit
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Shape
from aigc_lab.text.likelihood import Likelihood
from aigc_lab.text.vocabulary import PAD

# What a metric may look at besides samples.
System = Autoencoder | Game | Likelihood


@dataclass(frozen=True)
class Case:
    """A metric, a dataset that it can measure, a store that makes its features, and how many samples are scored.

    What is scored is `real` or `noise`. The samples that a system trained on are the rest of the train split: `real`
    ones that were among them would be copies. A metric that needs an encoder scores what made the samples: for `real`
    ones it is principal components fitted to the train split, for `noise` one that encodes nothing. One that needs a
    game scores a game: for `real` one at rest, for `noise` one that is not.
    """

    metric: Metric
    dataset: Dataset
    store: FeatureStore
    n: int

    @classmethod
    def of(cls, metric: Metric, dataset: Dataset, store: FeatureStore, n: int) -> "Case":
        """With `n` samples, or fewer where the splits do not have as many."""
        spare = len(dataset.load("train")) // (2 if "train" in metric.needs else 1)
        return cls(metric, dataset, store, min(n, spare, *(len(dataset.load(split)) for split in SCORING_SPLITS)))

    @cached_property
    def evaluator(self) -> Evaluator:
        protocol = Protocol(name="contract", samples=self.n, metrics=["any"])
        known = _Rest(self.dataset, self.n) if "train" in self.metric.needs else self.dataset
        return Evaluator(protocol, [self.metric], known, self.store)

    def real(self, count: int | None = None) -> Samples:
        return self.dataset.load("train").take(slice(0, count or self.n))

    def noise(self) -> Samples:
        real = self.real()
        labels = real.labels if "labels" in self.metric.needs else None
        return replace(modality_of(real).noise(real, self.n, "contract"), labels=labels)

    @cached_property
    def systems(self) -> Mapping[str, System]:
        """What made the `real` samples and the `noise`, for a metric that looks at it."""
        if "game" in self.metric.needs:
            return {"real": At(0.0), "noise": At(1.0)}
        if "likelihood" in self.metric.needs:
            return {"real": Frequencies.fitted(self.dataset.load("train")), "noise": Frequencies.uniform(self.real())}
        if "encoder" not in self.metric.needs:
            return {}
        if self.dataset.shape.vocabulary is not None:
            known = [self.dataset.load(split).values for split in SPLITS]
            return {"real": Codebook(torch.cat(known)), "noise": Codebook(known[0][:1])}
        return {"real": Components.fitted(self.dataset.load("train")), "noise": Components.blind(self.real())}

    @property
    def breaking(self) -> System:
        """An autoencoder that encodes one of the samples as no number."""
        train = self.dataset.load("train")
        if self.dataset.shape.vocabulary is not None:
            return _BreakingCodes(train.values)
        whole = Components.fitted(train)
        return _Breaking(whole.weight, whole.mean, whole.sigma, whole.size)

    def scores(
        self, samples: Samples, split: ScoringSplit = "reference", system: System | None = None
    ) -> dict[str, Score]:
        by = system or self.systems.get("real")
        return {score.name: score for score in self.evaluator.evaluate(samples, split, by)}

    @cached_property
    def of_real(self) -> dict[str, Score]:
        return self.scores(self.real())

    @cached_property
    def of_noise(self) -> dict[str, Score]:
        return self.scores(self.noise(), system=self.systems.get("noise"))

    def told_apart(self) -> tuple[dict[str, Score], dict[str, Score], str]:
        """Scores of real samples, of as many with the fault that the metric tells them from, and what those are."""
        if self.metric.tells == "collapse":
            one = self.real(1).take(torch.zeros(self.n, dtype=torch.long))
            return self.of_real, self.scores(one), "one sample over and over"
        if self.metric.tells == "copies":
            known = self.dataset.load("train").take(slice(self.n, 2 * self.n))
            return self.of_real, self.scores(known), "copies of training samples"
        return self.of_real, self.of_noise, "noise"

    def scores_without_train(self, samples: Samples) -> list[Score]:
        """As where only two folders are given."""
        reference, holdout = self.dataset.load("reference"), self.dataset.load("holdout").take(slice(0, self.n))
        real = Real(reference, holdout, reference)
        system = self.systems.get("real")
        return evidence.score([self.metric], samples, real, self.dataset, self.store, "reference", system)

    def like(self, metric: Metric) -> "Case":
        return replace(self, metric=metric)


class _Rest(Dataset):
    """A dataset of which the first `n` training samples are taken away."""

    def __init__(self, whole: Dataset, n: int) -> None:
        super().__init__(whole.config, whole.data_dir)
        self._whole, self._n = whole, n
        # The same data: what is scored is named by it.
        self.digest = whole.digest

    @property
    def name(self) -> str:
        return self._whole.name

    @property
    def shape(self) -> Shape:
        return self._whole.shape

    @property
    def modes(self) -> Modes | None:
        return self._whole.modes

    @property
    def likelihood(self) -> Likelihood | None:
        return self._whole.likelihood

    @lru_cache(maxsize=3)  # noqa: B019 -- real features are kept by object
    def load(self, split: Split) -> Samples:
        samples = self._whole.load(split)
        return samples.take(slice(self._n, None)) if split == "train" else samples


@dataclass(frozen=True)
class At:
    """A game whose two numbers are both `place`."""

    place: float

    def position(self) -> torch.Tensor:
        return torch.full((2,), self.place, dtype=torch.float64)


@dataclass(frozen=True)
class Frequencies:
    """Words that do not know of each other: each has its own probability [V]."""

    share: Tensor

    @classmethod
    def fitted(cls, samples: Samples) -> "Frequencies":
        """As often as in the samples, and one time more."""
        assert isinstance(samples, Text)
        counts = torch.bincount(samples.values.flatten(), minlength=len(samples.vocabulary)).double() + 1
        counts[PAD] = 0
        return cls(counts / counts.sum())

    @classmethod
    def uniform(cls, like: Samples) -> "Frequencies":
        assert isinstance(like, Text)
        return cls(torch.full((len(like.vocabulary),), 1 / len(like.vocabulary), dtype=torch.float64))

    def token_nll(self, words: Tensor) -> Tensor:
        return torch.where(words == PAD, 0.0, -self.share[words].log())


class _Endless(Frequencies):
    """What it says of a few sentences is no number."""

    def token_nll(self, words: Tensor) -> Tensor:
        return super().token_nll(words).index_fill(0, torch.tensor([3]), math.nan)


@dataclass(frozen=True)
class Codebook:
    """A code of sentences that it knows by heart [N, L]: the number of the sentence, or of the first for another."""

    known: Tensor

    def encode(self, words: Tensor) -> tuple[Tensor, Tensor]:
        same = (words[:, None, : self.known.shape[1]] == self.known).all(2)
        mean = same.double().argmax(1, keepdim=True).double()
        return mean, torch.zeros_like(mean)

    def decode(self, latents: Tensor) -> Tensor:
        return self.known[latents[:, 0].long()]

    def log_likelihood(self, words: Tensor, latents: Tensor) -> Tensor:
        return -(self.decode(latents) != words).double().sum(1)


@dataclass(frozen=True)
class _BreakingCodes(Codebook):
    """One of the sentences that it sees together is encoded as no number."""

    def encode(self, words: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = super().encode(words)
        return mean.index_fill(0, torch.tensor([3]), math.nan), log_variance


@dataclass(frozen=True)
class Components:
    """The linear autoencoder whose posterior is exact: p(x|z) = N(Wz + μ, σ²), probabilistic principal components
    (Tipping & Bishop 1999).
    """

    weight: Tensor
    mean: Tensor
    sigma: float
    size: tuple[int, ...]

    @classmethod
    def fitted(cls, samples: Samples, latents: int = 8) -> "Components":
        """The maximum of the likelihood."""
        rows = _pixels(samples)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        variance = values[:-latents].mean()
        weight = vectors[:, -latents:] * (values[-latents:] - variance).clamp_min(0).sqrt()
        return cls(weight, rows.mean(0), variance.sqrt().item(), tuple(samples.values.shape[1:]))

    @classmethod
    def blind(cls, like: Samples, latents: int = 8) -> "Components":
        """Whatever it is shown, it encodes nothing and expects grey."""
        size = tuple(like.values.shape[1:])
        grey = torch.full((math.prod(size),), 0.5, dtype=torch.float64)
        return cls(grey.new_zeros(len(grey), latents), grey, 1.0, size)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # WᵀW is diagonal, so the posterior's covariance is too.
        precision = self.weight.square().sum(0) / self.sigma**2 + 1
        mean = (images.flatten(1).double() - self.mean) @ self.weight / self.sigma**2 / precision
        return mean, (-precision.log()).expand_as(mean)

    def decode(self, latents: Tensor) -> Tensor:
        return self._centres(latents).clamp(0, 1).float().reshape(-1, *self.size)

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        return -gaussian_nll(self._centres(latents), torch.tensor(self.sigma).log(), images.flatten(1).double())

    def _centres(self, latents: Tensor) -> Tensor:
        return latents.double() @ self.weight.T + self.mean


@dataclass(frozen=True)
class _Breaking(Components):
    """One of the images that it sees together is encoded as no number."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = super().encode(images)
        return mean.index_fill(0, torch.tensor([3]), math.nan), log_variance


def _pixels(samples: Samples) -> Tensor:
    return samples.as_inputs().flatten(1).double()


METRIC: Contracts[Case] = Contracts()


@METRIC.add(once=True)
def unknown_keys_are_refused(case: Case) -> None:
    """A misspelt key of a protocol would be ignored, and the score would be another than the file says."""
    config = type(case.metric.config)
    if not issubclass(config, Strict):
        raise Broken("Config is no aigc_lab.config.Strict: write class Config(Strict)")
    try:
        config.model_validate({**case.metric.config.model_dump(), "no_such_knob": 1})
    except ValidationError as error:
        if any(each["loc"] == ("no_such_knob",) for each in error.errors()):
            return
    raise Broken("Config takes no_such_knob=1: leave model_config as Strict has it")


@METRIC.add()
def it_gives_the_scores_that_it_declares(case: Case) -> None:
    """An experiment's objective is checked against `gives` before training: a score that never comes ends it after."""
    declared, made = dict(case.metric.gives), case.of_real
    if made.keys() != declared.keys():
        raise Broken(f"gives names {sorted(declared)}, and scores returns {sorted(made)}")
    for name, score in made.items():
        if score.better != declared[name]:
            raise Broken(f"{name} is declared better when {declared[name]}, and its score says {score.better}")


@METRIC.add()
def its_scores_can_be_stored(case: Case) -> None:
    """MLflow takes no @, % or + in a name, and would refuse the score of a finished training."""
    try:
        names.refuse_scores(case.metric.gives)
    except ValueError as error:
        raise Broken(str(error)) from None


@METRIC.add(it_gives_the_scores_that_it_declares)
def the_interval_holds_the_value(case: Case) -> None:
    """A ranking quotes the interval beside the value, and two that overlap are not told apart."""
    for scores in (case.of_real, case.of_noise):
        for name, score in scores.items():
            if not all(map(math.isfinite, (score.value, score.low, score.high, score.floor))):
                raise Broken(f"{name}: value, interval or floor is not finite: {score}")
            if not score.low <= score.value <= score.high:
                raise Broken(f"{name} is {score.value:.4g}, outside its interval [{score.low:.4g}, {score.high:.4g}]")
            if "encoder" in case.metric.needs:
                there = len(case.dataset.load("reference"))
                if not 1 < score.n <= there:
                    raise Broken(f"{name} says n = {score.n}, and there are {there} real samples to encode")
            elif score.n != case.n:
                raise Broken(f"{name} says n = {score.n} for {case.n} samples")


@METRIC.add(the_interval_holds_the_value)
def real_samples_score_better_than_faulty_ones(case: Case) -> None:
    """The least that a measure of samples can know; one that does not would let a sweep select noise."""
    real, static, what = case.told_apart()
    for name, better in case.metric.gives.items():
        if name in case.metric.describing() and case.metric.tells != "copies":
            continue
        good, bad = real[name], static[name]
        sign = 1 if better == "higher" else -1
        # Noise may reach the best value of a count (all modes, a little), and then its interval tells.
        ends = [(sign * s.value, s.low if sign > 0 else -s.high) for s in (good, bad)]
        if not ends[0] > ends[1]:
            raise Broken(f"{name} ({better} is better): real {_shown(good)}, {what} {_shown(bad)}")
        if sign * good.floor < sign * bad.value:
            raise Broken(f"{name} ({better} is better): the floor is {good.floor:.4g}, {what} score {bad.value:.4g}")


@METRIC.add(it_gives_the_scores_that_it_declares)
def what_it_needs_it_asks_for(case: Case) -> None:
    """Folders may be scored without a training split: a metric that needs one says so, and one that does not works."""
    samples, needs = case.real(), "train" in case.metric.needs
    try:
        case.scores_without_train(samples)
    except ValueError as error:
        if not needs:
            raise Broken(f"without training samples it says '{say(error)}': name train in needs") from error
        if "train" not in str(error):
            raise Broken(f"without training samples it says '{say(error)}': use evidence.train") from error
    else:
        if needs:
            raise Broken("it needs train, and without training samples it gives a score: use evidence.train")


def _shown(score: Score) -> str:
    return f"{score.value:.4g} [{score.low:.4g}, {score.high:.4g}]"


@METRIC.add(it_gives_the_scores_that_it_declares)
def scores_repeat_to_the_bit(case: Case) -> None:
    """Selection and resume compare scores of the same samples: they must be the same."""
    other = case.like(type(case.metric)(case.metric.config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = other.scores(case.real())
    second = case.of_real
    for name in [name for name in first if first[name] != second[name]]:
        raise Broken(f"{name} is {_shown(first[name])} and then {_shown(second[name])}: draw from noise.generator")


@METRIC.add(scores_repeat_to_the_bit)
def the_signature_is_all_that_the_number_depends_on(case: Case) -> None:
    """Scores of one signature are ranked together: what changes the number must change the signature."""
    first = signatures(case.of_real)
    if first != signatures(case.of_noise):
        raise Broken("the signature depends on the samples: it says how was measured, and not what")
    parts = {
        "n": f"n:{case.n}",
        "version": f"v:{case.metric.version}",
        "dataset": f"data:{case.dataset.name}:{case.dataset.digest[:8]}",
        "reference": f"ref:reference:{len(case.dataset.load('reference'))}",
    }
    if case.metric.extractor:
        parts["features"] = case.store.extractor(case.metric.extractor).identity
    for signature in first:
        for what, part in parts.items():
            if part not in signature.split("|"):
                raise Broken(f"the signature {signature} lacks the {what} ({part}): use self.signature(evidence)")
    others = {"fewer samples": case.scores(case.real(case.n - 20)), "the holdout": case.scores(case.real(), "holdout")}
    others |= {what: case.like(metric).scores(case.real()) for what, metric in changed(case.metric)}
    for what, scores in others.items():
        if not first.isdisjoint(signatures(scores)):
            raise Broken(f"with {what} the signature stays {min(first)}: add it to self.signature(evidence, …)")


def signatures(scores: dict[str, Score]) -> set[str]:
    return {score.signature for score in scores.values()}


def changed(metric: Metric) -> Iterator[tuple[str, Metric]]:
    """The metric with each number, switch and choice of its Config set to something else, and what was set."""
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
        config = type(metric.config).model_validate(metric.config.model_dump() | {field: other})
        yield f"{field}={other}", type(metric)(config)


@METRIC.add(it_gives_the_scores_that_it_declares)
def what_is_no_number_is_refused(case: Case) -> None:
    """One NaN among the samples must stop the scoring with a count, and not become a score or a crash."""
    if "likelihood" in case.metric.needs:
        endless = _Endless(Frequencies.fitted(case.dataset.load("train")).share)
        refused(case, case.real(), f" of {case.n} sentences", "a likelihood of NaN", endless)
        return
    kind = modality_of(case.dataset.shape)
    lines = kind.shown_as == "lines"
    if "encoder" in case.metric.needs:
        counted = "s" if lines else "samples"
        n = case.of_real[min(case.of_real)].n
        refused(case, case.real(), f" of {n} {counted}", "codes with NaN", case.breaking)
        return
    if "game" in case.metric.needs:
        refused(case, case.real(), "not finite", "a position of NaN", At(math.nan))
        return
    for samples, what in kind.unscorable(case.noise()):
        refused(case, samples, f"of {case.n} {'sentences' if lines else 'samples'}", what)


@METRIC.add(it_gives_the_scores_that_it_declares)
def another_shape_is_refused(case: Case) -> None:
    """Samples of another shape than the dataset's are a fault of the system, and the message must say so."""
    samples = case.noise()
    if not samples.fixed_size:
        return
    wider = replace(samples, values=torch.cat([samples.values, samples.values], 1))
    refused(case, wider, str(case.dataset.shape), "samples of another shape")


def refused(case: Case, samples: Samples, words: str, what: str, system: System | None = None) -> None:
    try:
        case.scores(samples, system=system)
    except ValueError as error:
        if words not in str(error):
            raise Broken(f"{what} are refused without the words '{words}': {say(error)}") from error
    else:
        remedy = "look at all that it returns" if system else "start with samples.canonical(), which refuses them"
        raise Broken(f"{what} get a score: {remedy}")


@METRIC.add()
def too_few_samples_are_refused(case: Case) -> None:
    """A number that three samples cannot support is worse than none: `check` refuses it before any training."""
    case.metric.check(case.dataset, 10_000)
    try:
        case.metric.check(case.dataset, 3)
    except ValueError as error:
        if "3" not in str(error).replace(".", " ").replace(",", " ").split():
            raise Broken(f"three samples are refused without saying 3: {say(error)}") from error
    else:
        raise Broken("check accepts three samples: raise ValueError below the number that it needs")
