"""Metrics, which turn evidence into scores; `Score`, `Floor`, `Part`, `Pool` and `Real` are exported for users' files.

Nothing heavy is imported here: metrics of words are computed without torch, and an experiment is read without numpy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from aigc_lab import plugins
from aigc_lab.config import Better as Better  # metrics of users' import it from here
from aigc_lab.config import Strict
from aigc_lab.data.shared.real_samples import Part as Part
from aigc_lab.data.shared.real_samples import Pool as Pool
from aigc_lab.data.shared.real_samples import Real as Real
from aigc_lab.shape import Modality
from aigc_lab.statistics.intervals import Z95
from aigc_lab.statistics.score import Floor as Floor
from aigc_lab.statistics.score import Score as Score
from aigc_lab.text.likelihood import Likelihood, is_conditional

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from aigc_lab.data.base import Dataset
    from aigc_lab.extractors.base import Features
    from aigc_lab.samples import Samples

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
# Up to this dimension a Fréchet distance takes milliseconds.
_SMALL = 128
Need = Literal["train", "labels", "encoder", "codes", "reconstructions", "game", "likelihood"]
Fault = Literal["noise", "collapse", "copies"]


@runtime_checkable
class Coder(Protocol):
    """System that encodes samples and decodes their codes. The result for a sample does not depend on the others in the
    batch. Instead of images it may take and return sentences, as word numbers [N, L] of `Text`.

    A conditional one (`conditional`) takes the classes of the samples as `labels`, int64 [N], in each method. An
    attribute `reconstructs` of False says that a code leaves out a part of what a picture is made of, as InfoGAN's do.
    An attribute `one_hot_sizes` may give the number of classes of each categorical code, whose probabilities then come
    first in the mean, one code after the other.
    """

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x), each [N, latents], for float images in [0, 1]; log variance −∞ of a code
        that is not drawn.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Mean of p(x|z), float images in [0, 1], for latents [N, D]."""


@runtime_checkable
class Autoencoder(Coder, Protocol):
    """System with an encoder q(z|x) (diagonal Gaussian), the prior N(0, I) and a likelihood p(x|z).

    An attribute `likelihood` may name p(x|z): scores in nats are comparable within one name.
    """

    def log_likelihood(self, images: Tensor, latents: Tensor) -> Tensor:
        """Log p(x|z) [N] in nats a sample, of N float images in [0, 1] with N latents."""


@runtime_checkable
class OwnPrior(Protocol):
    """Autoencoder whose prior is not N(0, I), or whose posterior is no diagonal Gaussian."""

    def draw_posterior(self, images: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [N, D] drawn from q(z|x) by standard normal numbers [N, D], and log p(z) − log q(z|x) [N] there."""


@runtime_checkable
class Game(Protocol):
    """Two-player game with one number for each player and its equilibrium at (0, 0)."""

    def position(self) -> Tensor:
        """Parameters of both players, float64 [2]."""


@dataclass(frozen=True)
class Evidence:
    """Input of a metric.

    `features(extractor, samples)` and `identity(extractor)` are lazy, so a metric pays only for what it uses. `system`
    generated the samples, and is given if it has an encoder, a likelihood of sentences, or is a game. Features lie on
    the host; long computations run on `device`. Raises `ValueError` if the generated samples differ from the dataset's
    in modality or size.
    """

    generated: Samples
    real: Real
    dataset: Dataset
    features: Callable[[str, Samples | Part], Features]
    identity: Callable[[str], str]
    signature: str
    system: Coder | Game | Likelihood | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        shape, samples = self.dataset.shape, self.generated
        if samples.modality == shape.modality and not samples.fixed_size:
            return
        if samples.modality != shape.modality or tuple(samples.values.shape[1:]) != shape.size:
            form = f"{samples.modality} {'×'.join(map(str, samples.values.shape[1:]))}"
            raise ValueError(f"dataset {self.dataset.name} holds {shape}, and the samples to score are {form}")

    @property
    def train(self) -> Samples:
        """Samples that systems trained on. Raises `ValueError` if they are not known."""
        if self.real.train is None:
            raise ValueError("it needs the samples of the train split, and only real samples to compare with are given")
        return self.real.train


class Learning(NamedTuple):
    """Networks that a metric trains for the scores of one set of samples, the steps of each, and how to train one of
    them for so many steps.
    """

    networks: int
    steps: int
    train: Callable[[int], object]


class Metric(ABC):
    """Base class of metrics: pure functions of evidence, which know neither training nor storage. `version` is raised
    when the numbers change.

    A metric of one's own is a file with one subclass, named in a protocol as `metrics: [./brightness.py]`. It has to
    say `scores` alone; a score that is a mean over samples needs no more than this:

        \"\"\"How bright pictures are on the mean.\"\"\"

        from aigc_lab.metrics.base import Metric
        from aigc_lab.shape import Modality

        class Brightness(Metric):
            modality = Modality.IMAGES

            def scores(self, evidence):
                return self.mean_scores(evidence, lambda images: images.unit().flatten(1).mean(1))

    Other scores come with an interval of their own, and a floor by `floors_alone` (the mean score of real samples, over
    draws as large as the generated set) or `floors` (of scores measured between two sets).
    """

    #: its knobs; none unless a subclass has some
    Config: ClassVar[type[Strict]] = Strict
    version: ClassVar[int] = 1
    #: direction that is better of the only score of a metric that does not define `gives`; None for one that describes
    better: ClassVar[Better | None] = None
    #: modality of the samples that `check` accepts; None for all
    modality: ClassVar[Modality | None] = None
    #: smallest number of samples that `check` accepts
    fewest: ClassVar[int] = 20
    #: largest number of samples whose features are kept one by one; moments are those of all samples
    keeps: ClassVar[int] = 50_000
    #: inputs besides generated and reference samples
    needs: ClassVar[frozenset[Need]] = frozenset()
    #: scores that describe a system, of which neither more nor less is better: no objective of a sweep
    describes: ClassVar[frozenset[str]] = frozenset()
    #: fault that must score worse than real samples: a measure of diversity may prefer noise, one of copying a collapse
    tells: ClassVar[Fault] = "noise"
    #: number of draws of real samples that a floor is averaged over; fewer for scores that take long
    draws: ClassVar[int] = 10

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def gives(self) -> dict[str, Better]:
        """Names of the scores, each with the direction that is better. By default one, named as the metric's file."""
        return {plugins.name_of(type(self)): self.better or "higher"}

    def describing(self) -> frozenset[str]:
        """Names of the scores that are no objective of a sweep: `describes`, and a default score without `better`."""
        undirected = type(self).gives is Metric.gives and self.better is None
        return self.describes.union(self.gives if undirected else ())

    @property
    def extractor(self) -> str | None:
        """Name of the feature extractor, or None."""
        return None

    def check(self, dataset: Dataset, samples: int) -> None:
        """Raises `ValueError` if the dataset or the number of samples cannot support the metric: by default, samples of
        another `modality`, or fewer than `fewest`. Loads nothing.
        """
        if self.modality not in (None, dataset.shape.modality):
            raise ValueError(f"it is of {self.modality}, and dataset {dataset.name} holds {dataset.shape}")
        if samples < self.fewest:
            raise ValueError(f"{samples} samples say little: it needs at least {self.fewest}")

    def check_given(self, evidence: Evidence, samples: int) -> None:
        """`check` of so many samples for given evidence, whose generated samples may be of some classes alone."""
        self.check(evidence.dataset, samples)

    def check_data(self, dataset: Dataset, samples: int) -> None:  # noqa: B027 -- most ask nothing of the data
        """Raises `ValueError` if the samples of a dataset, which it loads, cannot support the metric for so many
        generated ones: what `check` cannot know, such as a class with too few of them. By default nothing is asked.
        """

    def learning(self, dataset: Dataset) -> Learning | None:
        """Training that each scoring costs, for the estimate of a sweep; None, by default, for none worth a word."""
        return None

    def refuse_few(self, evidence: Evidence) -> None:
        """Raises `ValueError` if the reference set, or the train set of a metric that `needs` it, has fewer samples
        than `check_given` asks of the generated ones.
        """
        sets = {"reference": evidence.real.reference}
        if "train" in self.needs and evidence.real.train is not None:
            sets["train"] = evidence.real.train
        for name, samples in sets.items():
            try:
                self.check_given(evidence, len(samples))
            except ValueError as error:
                raise ValueError(f"{name} set: {error}") from None

    def refuse_lacking(self, evidence: Evidence) -> None:
        """Raises `ValueError` if the evidence lacks something that the metric `needs`, naming both."""
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
        if "codes" in self.needs and not isinstance(evidence.system, Coder):
            raise ValueError(f"{metric} needs the system that made the samples, and one that encodes (encode, decode)")
        if "encoder" in self.needs and not isinstance(evidence.system, Autoencoder):
            raise ValueError(
                f"{metric} needs the system that made the samples, and one with an encoder "
                "(encode, decode, log_likelihood)"
            )
        if "reconstructions" in self.needs and not reconstructs(evidence.system):
            raise ValueError(f"{metric} needs a system that copies what it encodes: {NO_COPY}")
        sets: dict[str, Samples | None] = {}
        if "labels" in self.needs or (
            self.needs & {"codes", "encoder", "likelihood"} and is_conditional(evidence.system)
        ):
            sets = {"reference": real.reference, "train": real.train}
        if "labels" in self.needs:
            others: dict[str, Samples | None] = {"second real": real.floor, "held against": real.against}
            sets = {"generated": evidence.generated} | sets | others
        lacking = [name for name, samples in sets.items() if samples is not None and samples.labels is None]
        if lacking:
            raise ValueError(
                f"{metric} needs labels, and the {lacking[0]} samples come without their classes "
                "(class folders, or an array 'labels' in the .npz file)"
            )

    def meaningless(self, evidence: Evidence) -> dict[str, str]:
        """Scores that are not informative for this evidence, whatever their value, each with the reason."""
        return {}

    @abstractmethod
    def scores(self, evidence: Evidence) -> list[Score]:
        """Scores named in `gives`. Raises `ValueError` for samples that it cannot score (NaN, wrong shapes)."""

    def mean_scores(self, evidence: Evidence, values: Callable[[Any], Tensor]) -> list[Score]:
        """The only score in `gives`, as the mean of `values` over the generated samples, ±1.96 standard errors; its
        floor is the mean over as many real samples. `values` maps samples in canonical form to numbers [n]. Raises
        `ValueError` for numbers of another shape, and where several scores are declared.
        """
        (name, better), *others = self.gives.items()
        if others:
            raise ValueError(f"mean_scores gives one score, and {sorted(self.gives)} are declared")

        def of(samples: Samples) -> Tensor:
            numbers = values(samples.canonical()).double()
            if tuple(numbers.shape) != (len(samples),):
                raise ValueError(f"{name} is a mean of a number a sample, [{len(samples)}], not {list(numbers.shape)}")
            return numbers

        signature, n = self.signature(evidence), len(evidence.generated)
        interval = mean_interval(of(evidence.generated))
        floor = self.floors_alone(evidence, signature, lambda part: {name: of(part.samples).mean().item()})[name]
        return [Score(name, *interval, n, floor, signature, better)]

    def of_real(self, evidence: Evidence, signature: str, compute: Callable[[], T]) -> T:
        """Result of `compute` on the real samples alone, computed once for each metric and signature.

        Call it once for each signature: a second call returns the first result, whatever its `compute`.
        """
        return evidence.real.once((type(self), signature), compute)

    def floors(
        self,
        evidence: Evidence,
        signature: str,
        compute: Callable[[Part, Part], Mapping[K, float]],
        used: Callable[[int, int], object] = lambda n, m: (n, m),
        times: int = 1,
    ) -> dict[K, Floor]:
        """Floors of scores that compare two sets: means of `compute` over draws of as many real samples as were
        generated, each against other real samples.

        `times` multiplies the number of draws for scores that are cheap. `used(n, m)` returns what a score depends on
        of the sizes of its two sets, by default both: draws of other sizes are marked (`Floor.n`) only if that differs.
        """
        real, n = evidence.real, len(evidence.generated)
        if real.valued:
            return _NoFloors()

        def averaged() -> dict[K, Floor]:
            count = self.drawn(real)
            sets = list(real.draws(count * times if count > 1 else 1, n))
            few = tuple(map(len, sets[0]))
            same = real.pool is None or used(*few) == used(n, len(real.reference))
            overlap = few[0] / real.pool.total if real.pool is not None and real.pool.against is not None else 0.0
            return _averaged([compute(*both) for both in sets], None if same else few[0], overlap)

        return real.once((type(self), signature, "floor"), averaged)

    def floors_alone(
        self, evidence: Evidence, signature: str, compute: Callable[[Part], Mapping[K, float]]
    ) -> dict[K, Floor]:
        """Floors of scores of one set: means of `compute` over draws of as many real samples as were generated."""
        real, n = evidence.real, len(evidence.generated)
        if real.valued:
            return _NoFloors()

        def averaged() -> dict[K, Floor]:
            sets = list(real.alone(self.drawn(real), n))
            first = len(sets[0])
            overlap = 0.0 if real.pool is None else first / real.pool.total
            values = [compute(each) for each in sets]
            return _averaged(values, None if first == n or real.pool is None else first, overlap)

        return real.once((type(self), signature, "floor alone"), averaged)

    def drawn(self, real: Real) -> int:
        """Number of draws for a floor.

        It is 1 if the metric's extractor keeps the features of only some samples of a set: each draw would be another
        pass through the network, and such large draws hardly differ.
        """
        many = real.pool is not None and max(map(len, real.pool.wholes)) > self.keeps
        return 1 if many and self.extractor is not None else self.draws

    def signature(self, evidence: Evidence, *details: str) -> str:
        """Line of text with everything that the score depends on."""
        return "|".join([*details, evidence.signature, f"v:{self.version}"])


class FeatureMetric(Metric):
    """Metric of the features that the configuration names: a shipped extractor, or a user's file."""

    class Config(Strict):
        features: str = "classifier"

    @property
    def extractor(self) -> str:
        name: str = self.config.features
        return name

    def named(self, score: str) -> str:
        """Name of a score of these features: `score` for Inception's, as in published tables, and `<score>_<features>`
        for others.
        """
        from aigc_lab.extractors.shared import lookup

        name = self.extractor
        return score if name == "inception" else f"{score}_{lookup.find_extractor(name).short}"

    def describing(self) -> frozenset[str]:
        return frozenset(map(self.named, self.describes))

    def vectors(self, evidence: Evidence, samples: Samples | Part) -> Tensor:
        """Features that the metric reads, float32 [k, d] with k ≤ `keeps`, on the device of the scoring."""
        return evidence.features(self.extractor, samples).some(self.keeps).vectors.to(evidence.device)


class _NoFloors(dict[K, Floor]):
    """Floors of a scoring that asks for values only: NaN under every name."""

    def __missing__(self, name: K) -> Floor:
        return Floor.of([math.nan])


def _averaged(draws: list[Mapping[K, float]], n: int | None, overlap: float) -> dict[K, Floor]:
    return {name: Floor.of([float(draw[name]) for draw in draws], n, overlap) for name in draws[0]}


def scored(metric: Metric, evidence: Evidence, leave: Callable[[str, str], None]) -> list[Score]:
    """Scores of a metric that are informative for this evidence, each with `at_floor` where its floor is of fewer
    samples.

    `leave(name, why)` is called for each score that is left out.
    """
    without = metric.meaningless(evidence)
    for name, why in without.items():
        leave(name, why)
    if without.keys() >= metric.gives.keys():
        return []
    scores = [score for score in metric.scores(evidence) if score.name not in without]
    at_floor = {n: _at_floor(metric, evidence, n) for n in {score.floor_n for score in scores} if n is not None}
    return [
        score if score.floor_n is None else replace(score, at_floor=at_floor[score.floor_n][score.name])
        for score in scores
    ]


def _at_floor(metric: Metric, evidence: Evidence, n: int) -> dict[str, float]:
    """Scores of n generated samples against the same real samples as the floor: means over draws."""
    import numpy as np

    real, generated = evidence.real, evidence.generated
    values: dict[str, list[float]] = {}
    for number, (_, against) in enumerate(real.draws(metric.drawn(real), len(generated))):
        rows = np.random.default_rng((len(generated), number)).permutation(len(generated))[:n]
        part = Part((generated,), rows)
        few, reference = part.samples, against.samples
        parts: dict[int, Part] = {id(few): part, id(reference): against}

        def features(extractor: str, samples: Samples | Part, parts: dict[int, Part] = parts) -> Features:
            return evidence.features(extractor, parts.get(id(samples), samples))

        alone = Real(reference, reference, reference, real.train, valued=True)
        fewer = replace(evidence, generated=few, real=alone, features=features)
        for score in metric.scores(fewer):
            values.setdefault(score.name, []).append(score.value)
    return {name: sum(draws) / len(draws) for name, draws in values.items()}


def seen(evidence: Evidence) -> bool:
    """Whether the reference is the set that the system trained on, so that nothing in it is unseen."""
    train, reference = evidence.real.train, evidence.real.reference
    if train is None or len(train) != len(reference):
        return False
    return train is reference or train.digest() == reference.digest()


SEEN = "the reference is what the generator was trained on, and nothing of it is unseen"


NO_COPY = "codes of the system leave out what else its pictures are made of, so that they bring back no picture"


def reconstructs(system: object) -> bool:
    """Whether decoding the code of a sample is meant to bring back that sample."""
    return bool(getattr(system, "reconstructs", True))


def likelihood_of(system: object) -> str:
    """Name of the likelihood p(x|z) of a system, for signatures: its attribute `likelihood`, else the system's name,
    because nats of two likelihoods are not comparable.
    """
    return str(getattr(system, "likelihood", None) or plugins.name_of(type(system)))


def device_of(system: Coder) -> torch.device:
    """Device of the system's weights; the host if it has none."""
    import torch

    weights = system.parameters() if isinstance(system, torch.nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))


def check_autoencoded(dataset: Dataset, samples: int, what: str, *kinds: Modality) -> None:
    """`check` of metrics of an encoder. Raises `ValueError` for another modality than `kinds`, and for fewer than 100
    samples.
    """
    if dataset.shape.modality not in kinds:
        raise ValueError(f"{what} is of {' or '.join(kinds)}, and dataset {dataset.name} holds {dataset.shape}")
    if samples < 100:
        raise ValueError(f"{what} needs at least 100 samples, not {samples}")


def autoencoded(evidence: Evidence, limit: int) -> tuple[Coder, Samples, Samples]:
    """System, and equally many samples of the reference and of the train split: seeded choices of at most `limit`."""
    from aigc_lab.extractors.base import choice

    system, reference, train = evidence.system, evidence.real.reference, evidence.real.train
    assert isinstance(system, Coder) and train is not None
    count = min(limit, len(reference), len(train))
    return system, reference.take(choice(len(reference), count)), train.take(choice(len(train), count))


def mean_interval(values: Tensor) -> tuple[float, float, float]:
    """Mean of float64 values [n] and the ends of its 95 % interval, ±1.96 standard errors.

    >>> import torch
    >>> value, low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    >>> value, low < value < high
    (2.5, True)
    """
    mean, margin = values.mean().item(), Z95 * values.std().item() / math.sqrt(len(values))
    return mean, mean - margin, mean + margin


def frechet_score(metric: Metric, name: str, extractor: str, evidence: Evidence) -> Score:
    """Fréchet distance FD_N of an extractor's features, with ±1.96 standard errors, which covers E[FD_N] at this n."""
    from aigc_lab.statistics.frechet import distance, standard_error

    generated, reference = (
        evidence.features(extractor, samples) for samples in (evidence.generated, evidence.real.reference)
    )
    value = distance(generated.gaussian, reference.gaussian)
    margin = Z95 * standard_error(generated.gaussian, generated.vectors, reference.gaussian, reference.vectors)
    signature = metric.signature(
        evidence, evidence.identity(extractor), f"d:{generated.vectors.shape[1]}", "se:infinitesimal-jackknife"
    )

    def between(floor: Part, against: Part) -> dict[str, float]:
        sets = (evidence.features(extractor, each).gaussian for each in (floor, against))
        return {name: distance(*sets)}

    # One draw's distance goes far from another's where samples are few, and costs nothing where features are small.
    times = 6 if generated.vectors.shape[1] <= _SMALL else 1
    floor = metric.floors(evidence, signature, between, times=times)[name]
    return Score(name, value, max(value - margin, 0.0), value + margin, generated.count, floor, signature, "lower")


def paired(evidence: Evidence, extractor: str, a: Samples | Part, b: Samples | Part, cap: int) -> tuple[Tensor, Tensor]:
    """Feature vectors of two sets, equally many of each (at most `cap`), on the device of the scoring."""
    features = [evidence.features(extractor, samples) for samples in (a, b)]
    each = min(cap, *(len(some.vectors) for some in features))
    first, second = (some.some(each).vectors.to(evidence.device) for some in features)
    return first, second
