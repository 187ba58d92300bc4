"""What is measured: a metric turns evidence into scores, and a score says how it was computed.

Nothing heavy is imported here: metrics of words are computed without torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from aigc_lab import plugins
from aigc_lab.config import Strict
from aigc_lab.shape import Modality
from aigc_lab.statistics import Z95
from aigc_lab.text.likelihood import Likelihood

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from aigc_lab.data.base import Dataset
    from aigc_lab.extractors.base import Features
    from aigc_lab.samples import Samples

T = TypeVar("T")
Better = Literal["lower", "higher"]
Need = Literal["train", "labels", "encoder", "game", "likelihood"]
Fault = Literal["noise", "collapse", "copies"]


@dataclass(frozen=True)
class Score:
    """A claim: the value, its 95 % sampling interval, what real samples get at the same n, and how it was computed.

    Scores of different signatures are never ranked together. A metric may give NumPy's numbers: they are Python's from
    here on, for a score is sent and stored as JSON and in databases, which know no others.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    floor: float
    signature: str
    better: Better

    def __post_init__(self) -> None:
        for field_name, kind in (("value", float), ("low", float), ("high", float), ("floor", float), ("n", int)):
            given = getattr(self, field_name)
            try:
                object.__setattr__(self, field_name, kind(given))
            except (TypeError, ValueError):
                raise ValueError(f"score {self.name}: {field_name} should be a number, not {given!r}") from None


@dataclass(frozen=True)
class Real:
    """The real samples of a scoring: the `reference` that is compared with; the floor, which is a second set `floor` of
    real samples, as many as were generated where there are as many, and what it is compared `against`: the reference
    too, or a part of it that shares nothing with the floor; and the samples that systems trained on, where they are
    known. Where floor or `against` are rows of a set whose features are known anyway, `parts` says of which.
    """

    reference: Samples
    floor: Samples
    against: Samples
    train: Samples | None = None
    parts: tuple[Part, ...] = ()
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """What depends on these samples alone, under a name that says all else that it depends on: computed the first
        time that it is asked for, and not for each of a sweep's runs.
        """
        if what not in self._known:
            self._known[what] = compute()
        found: T = self._known[what]
        return found


class Part(NamedTuple):
    """Samples that are the `rows` of others."""

    samples: Samples
    whole: Samples
    rows: Tensor | slice


@runtime_checkable
class Autoencoder(Protocol):
    """A system with an encoder q(z|x), diagonal Gaussian, a prior N(0, I) and a likelihood p(x|z). What it returns for
    a sample does not depend on the others beside it. In the place of images it may take and give sentences, `Text`'s
    numbers of words [N, L]. An attribute `likelihood` may name p(x|z): scores in nats compare within one name.
    """

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each [N, latents], for float images in [0, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """The mean of p(x|z) as float images in [0, 1], one for each of the latents [N, D]."""

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        """Log p(x|z) [N] in nats a sample, of N float images in [0, 1] with N latents."""


@runtime_checkable
class Game(Protocol):
    """A system of two numbers, one of each player, that rests at (0, 0)."""

    def position(self) -> Tensor:
        """Both numbers, float64 [2]."""


@dataclass(frozen=True)
class Evidence:
    """What a metric may look at. `features(extractor, samples)` and `identity(extractor)` are lazy: a metric pays for
    what it uses. `system` is who generated the samples, where it encodes too or is a game. Features are on the host;
    what takes long is done on `device`.
    """

    generated: Samples
    real: Real
    dataset: Dataset
    features: Callable[[str, Samples], Features]
    identity: Callable[[str], str]
    signature: str
    system: Autoencoder | Game | Likelihood | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        shape, got = self.dataset.shape, self.generated
        if got.modality == shape.modality == Modality.TEXT:
            return  # sentences are of any length
        if got.modality != shape.modality or tuple(got.values.shape[1:]) != shape.size:
            made = f"{got.modality} {'×'.join(map(str, got.values.shape[1:]))}"
            raise ValueError(f"dataset {self.dataset.name} holds {shape}, and the samples to score are {made}")

    @property
    def train(self) -> Samples:
        """The samples that systems trained on. Raises `ValueError` where they are not known."""
        if self.real.train is None:
            raise ValueError("it needs the samples of the train split, and only real samples to compare with are given")
        return self.real.train


class Metric(ABC):
    """A metric is pure: it knows neither training nor storage. `version` changes when its numbers would."""

    Config: ClassVar[type[Strict]]
    version: ClassVar[int] = 1
    #: of how many samples it reads the features one by one, at most; moments are those of all
    keeps: ClassVar[int] = 50_000
    #: what it needs besides generated and reference samples
    needs: ClassVar[frozenset[Need]] = frozenset()
    #: scores that say what a system is like, of which neither more nor less is better: no objective of a sweep
    describes: ClassVar[frozenset[str]] = frozenset()
    #: what it must tell real samples from, at least: a measure of diversity may prefer noise, one of copying a collapse
    tells: ClassVar[Fault] = "noise"

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    @abstractmethod
    def gives(self) -> dict[str, Better]:
        """The names of the scores it gives, and which way each is better."""

    @property
    def extractor(self) -> str | None:
        """The feature extractor it needs, or None."""
        return None

    @abstractmethod
    def check(self, dataset: Dataset, samples: int) -> None:
        """Raises `ValueError` when the dataset or the number of samples cannot support it. Loads nothing."""

    def refuse_few(self, evidence: Evidence) -> None:
        """Raises `ValueError` where a set that it compares with has fewer samples than it asks of the generated ones:
        the reference, and the training samples if it `needs` them.
        """
        sets = {"reference": evidence.real.reference}
        if "train" in self.needs and evidence.real.train is not None:
            sets["train"] = evidence.real.train
        for name, samples in sets.items():
            try:
                self.check(evidence.dataset, len(samples))
            except ValueError as error:
                raise ValueError(f"{name} set: {error}") from None

    def refuse_lacking(self, evidence: Evidence) -> None:
        """Raises `ValueError` for evidence that lacks what it `needs`, with what is missing and for which metric."""
        real, metric = evidence.real, plugins.name_of(type(self))
        if "train" in self.needs and real.train is None:
            raise ValueError(
                f"{metric} needs what the generator was trained on, which is not known here: name it (train)"
            )
        if "game" in self.needs and not isinstance(evidence.system, Game):
            raise ValueError(f"{metric} needs the system itself, a game of two numbers, and not samples alone")
        if "likelihood" in self.needs and not isinstance(evidence.system, Likelihood):
            raise ValueError(
                f"{metric} needs the system that made the sentences, and one that gives them a probability (token_nll)"
            )
        if "encoder" in self.needs and not isinstance(evidence.system, Autoencoder):
            raise ValueError(
                f"{metric} needs the system that made the samples, and one with an encoder "
                "(encode, decode, log_likelihood)"
            )
        if "labels" in self.needs:
            sets = {"generated": evidence.generated, "reference": real.reference, "train": real.train}
            sets |= {"second real": real.floor, "held against": real.against}
            lacking = [name for name, samples in sets.items() if samples is not None and samples.labels is None]
            if lacking:
                raise ValueError(
                    f"labels missing for {metric}: the {lacking[0]} samples come without their classes "
                    "(class folders, or an array 'labels' in the .npz file)"
                )

    @abstractmethod
    def scores(self, evidence: Evidence) -> list[Score]:
        """The scores that it `gives`. Raises `ValueError` for samples that it must not see (NaN, wrong shapes)."""

    def of_real(self, evidence: Evidence, signature: str, compute: Callable[[], T]) -> T:
        """What it computes of the real samples alone, once for all that it scores under this signature. All of it: a
        second call under the same signature is answered with what the first one computed.
        """
        return evidence.real.once((type(self), signature), compute)

    def signature(self, evidence: Evidence, *details: str) -> str:
        """Everything that the number depends on, in one line."""
        return "|".join([*details, evidence.signature, f"v:{self.version}"])


class FeatureMetric(Metric):
    """A metric of the features that its configuration names: an extractor that ships, or a file of the user's."""

    class Config(Strict):
        features: str = "classifier"

    @property
    def extractor(self) -> str:
        name: str = self.config.features
        return name

    def vectors(self, evidence: Evidence, samples: Samples) -> Tensor:
        """Those that it reads, [k, d] float32 with k ≤ `keeps`, on the device that scores."""
        return evidence.features(self.extractor, samples).some(self.keeps).vectors.to(evidence.device)


def likelihood_of(system: object) -> str:
    """The name of the likelihood p(x|z) that a system's nats are of, for signatures: its `likelihood`, else the name of
    the system, since nats of two likelihoods do not compare.
    """
    return str(getattr(system, "likelihood", None) or plugins.name_of(type(system)))


def device_of(system: Autoencoder) -> torch.device:
    """Where its weights are; the host for one without any."""
    import torch

    weights = system.parameters() if isinstance(system, torch.nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))


def check_autoencoded(dataset: Dataset, samples: int, what: str, *kinds: Modality) -> None:
    """The `check` of metrics of an encoder: raises `ValueError` for other kinds of samples, or too few of them."""
    if dataset.shape.modality not in kinds:
        raise ValueError(f"{what} is of {' or '.join(kinds)}, and dataset {dataset.name} holds {dataset.shape}")
    if samples < 100:
        raise ValueError(f"{what} needs at least 100 samples, not {samples}")


def autoencoded(evidence: Evidence, limit: int) -> tuple[Autoencoder, Samples, Samples]:
    """The system, and as many samples of the reference as of the train split, the first `limit` at most."""
    system, reference, train = evidence.system, evidence.real.reference, evidence.real.train
    assert isinstance(system, Autoencoder) and train is not None
    first = slice(0, min(limit, len(reference), len(train)))
    return system, reference.take(first), train.take(first)


def mean_interval(values: Tensor) -> tuple[float, float, float]:
    """The mean of float64 values [n], and its ends at ±1.96 standard errors."""
    mean, margin = values.mean().item(), Z95 * values.std().item() / math.sqrt(len(values))
    return mean, mean - margin, mean + margin


def frechet_score(metric: Metric, name: str, extractor: str, evidence: Evidence) -> Score:
    """FD_N of an extractor's features with ±1.96 standard errors, which covers E[FD_N] at this n."""
    from aigc_lab.frechet import distance, standard_error

    generated, reference = (
        evidence.features(extractor, samples) for samples in (evidence.generated, evidence.real.reference)
    )
    value = distance(generated.gaussian, reference.gaussian)
    margin = Z95 * standard_error(generated.gaussian, generated.vectors, reference.gaussian, reference.vectors)
    signature = metric.signature(
        evidence, evidence.identity(extractor), f"d:{generated.vectors.shape[1]}", "se:infinitesimal-jackknife"
    )

    def floor() -> float:
        floor, against = (
            evidence.features(extractor, samples) for samples in (evidence.real.floor, evidence.real.against)
        )
        return distance(floor.gaussian, against.gaussian)

    lowest = metric.of_real(evidence, signature, floor)
    return Score(name, value, max(value - margin, 0.0), value + margin, generated.count, lowest, signature, "lower")


def paired(evidence: Evidence, extractor: str, a: Samples, b: Samples, cap: int) -> tuple[Tensor, Tensor]:
    """Vectors of two sets, as many of each: what both have, `cap` at most; on the device that scores."""
    features = [evidence.features(extractor, samples) for samples in (a, b)]
    each = min(cap, *(len(some.vectors) for some in features))
    first, second = (some.some(each).vectors.to(evidence.device) for some in features)
    return first, second
