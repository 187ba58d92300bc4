"""What every metric must do, whoever wrote it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError

from aigc_lab import evaluate, noise
from aigc_lab.config import Strict
from aigc_lab.contracts.base import Broken, Contracts, say
from aigc_lab.data.base import Dataset
from aigc_lab.evaluate import Evaluator, ScoringSplit
from aigc_lab.experiment import Protocol
from aigc_lab.features import FeatureStore
from aigc_lab.metrics.base import Metric, Real, Score
from aigc_lab.samples import Images, Samples


@dataclass(frozen=True)
class Case:
    """A metric, a dataset that it can measure, a store that makes its features, and how many samples are scored."""

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

    def faulty(self) -> tuple[Samples, Samples, str]:
        """Real samples, as many that have the fault which the metric tells them from, and what those are."""
        if self.metric.tells == "collapse":
            return self.real(), self.real(1).take(torch.zeros(self.n, dtype=torch.long)), "one sample over and over"
        if self.metric.tells == "copies":
            return self.dataset.load("holdout").take(slice(0, self.n)), self.real(), "copies of training samples"
        return self.real(), self.noise(), "noise"

    def scores(self, samples: Samples, split: ScoringSplit = "reference") -> dict[str, Score]:
        return {score.name: score for score in self.evaluator.evaluate(samples, split)}

    def scores_without_train(self, samples: Samples) -> list[Score]:
        """As where only two folders are given."""
        reference, holdout = self.dataset.load("reference"), self.dataset.load("holdout").take(slice(0, self.n))
        real = Real(reference, holdout, reference)
        return evaluate.score([self.metric], samples, real, self.dataset, self.store, "reference")

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
    declared, made = dict(case.metric.gives), case.scores(case.real())
    if made.keys() != declared.keys():
        raise Broken(f"gives names {sorted(declared)}, and scores returns {sorted(made)}")
    for name, score in made.items():
        if score.better != declared[name]:
            raise Broken(f"{name} is declared better when {declared[name]}, and its score says {score.better}")


@METRIC.add(it_gives_the_scores_that_it_declares)
def the_interval_holds_the_value(case: Case) -> None:
    """A ranking quotes the interval beside the value, and two that overlap are not told apart."""
    for samples in (case.real(), case.noise()):
        for name, score in case.scores(samples).items():
            if not all(map(math.isfinite, (score.value, score.low, score.high, score.floor))):
                raise Broken(f"{name}: value, interval or floor is not finite: {score}")
            if not score.low <= score.value <= score.high:
                raise Broken(f"{name} is {score.value:.4g}, outside its interval [{score.low:.4g}, {score.high:.4g}]")
            if score.n != len(samples):
                raise Broken(f"{name} says n = {score.n} for {len(samples)} samples")


@METRIC.add(the_interval_holds_the_value)
def real_samples_score_better_than_faulty_ones(case: Case) -> None:
    """The least that a measure of samples can know; one that does not would let a sweep select noise."""
    sound, faulty, what = case.faulty()
    real, static = case.scores(sound), case.scores(faulty)
    for name, better in case.metric.gives.items():
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
    second = case.scores(case.real())
    for name in [name for name in first if first[name] != second[name]]:
        raise Broken(f"{name} is {_shown(first[name])} and then {_shown(second[name])}: draw from noise.generator")


@METRIC.add(scores_repeat_to_the_bit)
def the_signature_is_all_that_the_number_depends_on(case: Case) -> None:
    """Scores of one signature are ranked together: what changes the number must change the signature."""
    first = signatures(case.scores(case.real()))
    if first != signatures(case.scores(case.noise())):
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
    for bad in (math.nan, math.inf):
        samples = case.noise()
        samples.values[3].view(-1)[0] = bad
        refused(case, samples, f"of {case.n} samples", f"samples with one {bad}")


@METRIC.add(it_gives_the_scores_that_it_declares)
def another_shape_is_refused(case: Case) -> None:
    """Samples of another shape than the dataset's are a fault of the system, and the message must say so."""
    samples = case.noise()
    wider = replace(samples, values=torch.cat([samples.values, samples.values], 1))
    refused(case, wider, str(case.dataset.shape), "samples of another shape")


def refused(case: Case, samples: Samples, words: str, what: str) -> None:
    try:
        case.scores(samples)
    except ValueError as error:
        if words not in str(error):
            raise Broken(f"{what} are refused without the words '{words}': {say(error)}") from error
    else:
        raise Broken(f"{what} get a score: start with samples.canonical(), which refuses them")


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
