"""What every metric must do, whoever wrote it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError

from aigc_lab.config import Strict
from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.contracts.stand_ins import (
    Codebook,
    Components,
    FixedGame,
    Frequencies,
    NaNCodebook,
    NaNComponents,
    NaNFrequencies,
    WithoutFirst,
)
from aigc_lab.data.base import SPLITS, Dataset
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.host import names
from aigc_lab.metrics.base import Coder, Game, Metric, Real, Score
from aigc_lab.modalities.base import modality_of
from aigc_lab.samples import Samples
from aigc_lab.scoring import evidence
from aigc_lab.scoring.evaluator import SCORING_SPLITS, Evaluator, ScoringSplit
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.text.likelihood import Likelihood

# What a metric may look at besides samples.
System = Coder | Game | Likelihood
# Needs of a metric whose score is of the system and of real samples.
_ENCODED = {"encoder", "codes"}


@dataclass(frozen=True)
class Case:
    """A metric, a dataset that it accepts, a store of its features, and the number `n` of samples that are scored.

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
        """A case of `n` samples, or of as many as the smallest split has."""
        spare = len(dataset.load("train")) // (2 if "train" in metric.needs else 1)
        return cls(metric, dataset, store, min(n, spare, *(len(dataset.load(split)) for split in SCORING_SPLITS)))

    @cached_property
    def evaluator(self) -> Evaluator:
        protocol = Protocol(name="contract", samples=self.n, metrics=["any"])
        dataset = WithoutFirst(self.dataset, self.n) if "train" in self.metric.needs else self.dataset
        return Evaluator(protocol, [self.metric], dataset, self.store)

    def real(self, count: int | None = None) -> Samples:
        return self.dataset.load("train").take(slice(0, count or self.n))

    def noise(self) -> Samples:
        real = self.real()
        labels = real.labels if "labels" in self.metric.needs else None
        return replace(modality_of(real).noise(real, self.n, "contract"), labels=labels)

    @cached_property
    def systems(self) -> Mapping[str, System]:
        """Stand-ins for the generators of the `real` samples and the `noise`; empty for a metric of samples alone."""
        if "game" in self.metric.needs:
            return {"real": FixedGame(0.0), "noise": FixedGame(1.0)}
        if "likelihood" in self.metric.needs:
            return {"real": Frequencies.fitted(self.dataset.load("train")), "noise": Frequencies.uniform(self.real())}
        if not self.metric.needs & _ENCODED:
            return {}
        if self.dataset.shape.vocabulary is not None:
            sentences = [self.dataset.load(split).values for split in SPLITS]
            return {"real": Codebook(torch.cat(sentences)), "noise": Codebook(sentences[0][:1])}
        return {"real": Components.fitted(self.dataset.load("train")), "noise": Components.blind(self.real())}

    @property
    def breaking(self) -> System:
        """An autoencoder that encodes one of the samples as no number."""
        train = self.dataset.load("train")
        if self.dataset.shape.vocabulary is not None:
            return NaNCodebook(train.values)
        whole = Components.fitted(train)
        return NaNComponents(whole.weight, whole.mean, whole.sigma, whole.size)

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

    def contrast(self) -> tuple[dict[str, Score], dict[str, Score], str]:
        """Scores of real samples, scores of as many faulty ones (`Metric.tells` says which fault), and their name."""
        if self.metric.tells == "collapse":
            one = self.real(1).take(torch.zeros(self.n, dtype=torch.long))
            if "labels" in self.metric.needs:  # whatever class it is asked for
                one = replace(one, labels=self.real().labels)
            return self.of_real, self.scores(one), "one sample over and over"
        if self.metric.tells == "copies":
            copies = self.dataset.load("train").take(slice(self.n, 2 * self.n))
            return self.of_real, self.scores(copies), "copies of training samples"
        return self.of_real, self.of_noise, "noise"

    def scores_without_train(self, samples: Samples) -> list[Score]:
        """Scores without a training split, as of two folders."""
        reference, holdout = self.dataset.load("reference"), self.dataset.load("holdout").take(slice(0, self.n))
        real = Real(reference, holdout, reference)
        system = self.systems.get("real")
        return evidence.score([self.metric], samples, real, self.dataset, self.store, "reference", system)

    def like(self, metric: Metric) -> "Case":
        return replace(self, metric=metric)


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
    declared, scores = dict(case.metric.gives), case.of_real
    if scores.keys() != declared.keys():
        raise Broken(f"gives names {sorted(declared)}, and scores returns {sorted(scores)}")
    for name, score in scores.items():
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
            if case.metric.needs & _ENCODED:
                there = len(case.dataset.load("reference"))
                if not 1 < score.n <= there:
                    raise Broken(f"{name} says n = {score.n}, and there are {there} real samples to encode")
            elif score.n != case.n:
                raise Broken(f"{name} says n = {score.n} for {case.n} samples")


@METRIC.add(the_interval_holds_the_value)
def real_samples_score_better_than_faulty_ones(case: Case) -> None:
    """The least that a measure of samples can know; one that does not would let a sweep select noise."""
    real, static, what = case.contrast()
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
    """Pairs of `key=value` and the metric with this key of its Config changed, for each number, switch and choice."""
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
        endless = NaNFrequencies(Frequencies.fitted(case.dataset.load("train")).share)
        refused(case, case.real(), f" of {case.n} sentences", "a likelihood of NaN", endless)
        return
    kind = modality_of(case.dataset.shape)
    lines = kind.shown_as == "lines"
    if case.metric.needs & _ENCODED:
        counted = "s" if lines else "samples"
        n = case.of_real[min(case.of_real)].n
        refused(case, case.real(), f" of {n} {counted}", "codes with NaN", case.breaking)
        return
    if "game" in case.metric.needs:
        refused(case, case.real(), "not finite", "a position of NaN", FixedGame(math.nan))
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
