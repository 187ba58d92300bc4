"""What is measured: a metric turns evidence into scores, and a score says how it was computed.

Nothing heavy is imported here: metrics of words are computed without torch, and an experiment is read without numpy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

from aigc_lab import plugins
from aigc_lab.config import Better as Better  # metrics of users' import it from here
from aigc_lab.config import Strict
from aigc_lab.shape import Modality
from aigc_lab.statistics.intervals import Z95
from aigc_lab.text.likelihood import Likelihood

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from aigc_lab.data.base import Dataset
    from aigc_lab.extractors.base import Features
    from aigc_lab.samples import Samples

    Rows = npt.NDArray[np.int64]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
# Of so many dimensions a Fréchet distance takes milliseconds.
_SMALL = 128
Need = Literal["train", "labels", "encoder", "game", "likelihood"]
Fault = Literal["noise", "collapse", "copies"]


@dataclass(frozen=True)
class Score:
    """A claim: the value, its 95 % sampling interval, what real samples get at the same n, and how it was computed.

    `floor` is a mean over draws of real samples, and `floor_sd` the standard deviation of one of them, None where only
    one could be drawn. Where real samples are too few for both sides, a floor is of fewer than were scored: of
    `floor_n` against the rest, and `at_floor` is what as many generated ones score against as many real ones. That one
    is to be held beside the floor, and not the `value`; both are None where the sizes are the same.

    Scores of different signatures are never ranked together. A metric may give NumPy's numbers: they are Python's from
    here on, for a score is sent and stored as JSON and in databases, which know no others.

    >>> score = Score("fd", 8.2, 7.9, 8.5, 400, Floor.of([0.9, 1.0, 1.1]), "fd|n:400", "lower")
    >>> score.floor, round(score.floor_sd, 9)
    (1.0, 0.1)
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    floor: float
    signature: str
    better: Better
    floor_sd: float | None = None
    floor_n: int | None = None
    at_floor: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.floor, Floor):
            object.__setattr__(self, "floor_sd", self.floor.sd)
            object.__setattr__(self, "floor_n", self.floor.n)
        for field_name, kind in (("value", float), ("low", float), ("high", float), ("floor", float), ("n", int)):
            given = getattr(self, field_name)
            try:
                object.__setattr__(self, field_name, kind(given))
            except (TypeError, ValueError):
                raise ValueError(f"score {self.name}: {field_name} should be a number, not {given!r}") from None
        for field_name, kind in (("floor_sd", float), ("floor_n", int), ("at_floor", float)):
            given = getattr(self, field_name)
            object.__setattr__(self, field_name, None if given is None else kind(given))


class Floor(float):
    """What real samples score: the mean over draws of them, with the standard deviation of one draw (None of a single
    one), and of how many samples a draw is where these are fewer than were scored.
    """

    sd: float | None
    n: int | None

    @classmethod
    def of(cls, values: Sequence[float], n: int | None = None, overlap: float = 0.0) -> Self:
        """The mean of the draws' values; NaN where one of them is. Draws of a share `overlap` of a set go less far from
        each other than new samples would, by the root of what they leave.
        """
        import numpy as np

        found = cls(sum(values) / len(values))
        spread = float(np.std(values, ddof=1)) / math.sqrt(1 - overlap) if len(values) > 1 else math.nan
        found.sd, found.n = spread if math.isfinite(spread) else None, n
        return found

    @classmethod
    def measured(cls, values: Tensor) -> Self:
        """The mean of what was measured of each of n samples [n], which goes as far as its standard error."""
        return cls.known(values.mean().item(), values.std().item() / math.sqrt(len(values)))

    @classmethod
    def known(cls, value: float, error: float) -> Self:
        """A value with its standard error."""
        found = cls(value)
        found.sd, found.n = error, None
        return found


@dataclass(frozen=True)
class Part:
    """Samples that are the `rows` of one set, or of several sets one after the other; all of them without `rows`. They
    are not there before `samples` asks for them: features of a part are rows of the features of the whole.
    """

    wholes: tuple[Samples, ...]
    rows: Rows | None = None

    def __len__(self) -> int:
        return sum(map(len, self.wholes)) if self.rows is None else len(self.rows)

    @property
    def samples(self) -> Samples:
        """The samples themselves, made anew each time where they are not a whole set."""
        if self.rows is None and len(self.wholes) == 1:
            return self.wholes[0]
        taken = [whole.take(rows) for whole, rows in self.each()]  # type: ignore[arg-type]
        if len(taken) == 1:
            return taken[0]
        import torch

        labels = [each.labels for each in taken]
        known = None if any(each is None for each in labels) else torch.cat(labels)  # type: ignore[arg-type]
        return replace(taken[0], values=torch.cat([each.values for each in taken]), labels=known)

    def each(self) -> Iterator[tuple[Samples, Rows]]:
        """Each of the sets with those of its own rows that are meant."""
        import numpy as np

        rows = np.arange(len(self)) if self.rows is None else self.rows
        first = 0
        for whole in self.wholes:
            inside = rows[(rows >= first) & (rows < first + len(whole))]
            yield whole, inside - first
            first += len(whole)


@dataclass(frozen=True)
class Pool:
    """Real samples from which floors are drawn by key: `most` of those of all `wholes` at the most, held against the
    set `against`, or without one against `rest` of those that are left, or all of these.
    """

    wholes: tuple[Samples, ...]
    most: int
    rest: int | None = None
    against: Samples | None = None

    def draw(self, number: int, n: int) -> tuple[Part, Part]:
        """The floor of n samples with this number, and what it is held against."""
        order, count = self._order(number), self.drawn(n)
        held = Part(self.wholes, order[count:][: self.rest])
        return Part(self.wholes, order[:count]), held if self.against is None else Part((self.against,))

    def alone(self, number: int, n: int) -> Part:
        """N samples, or all: for what is measured of one set and not between two."""
        return Part(self.wholes, self._order(number)[:n])

    def drawn(self, n: int) -> int:
        """How many samples a floor of n has."""
        return min(n, self.most)

    @property
    def total(self) -> int:
        return sum(map(len, self.wholes))

    def _order(self, number: int) -> Rows:
        import numpy as np

        return np.random.default_rng((self.total, number)).permutation(self.total)


@dataclass(frozen=True)
class Real:
    """The real samples of a scoring: the `reference` that is compared with; the floor, which is a second set `floor` of
    real samples, as many as were generated where there are as many, and what it is compared `against`: the reference
    too, or a part of it that shares nothing with the floor; and the samples that systems trained on, where they are
    known. Where there is a `pool`, floor and `against` are the first of many draws from it.
    """

    reference: Samples
    floor: Samples
    against: Samples
    train: Samples | None = None
    pool: Pool | None = None
    #: whether only values are asked for: then no floor is computed
    valued: bool = False
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def drawn(cls, reference: Samples, pool: Pool, n: int, train: Samples | None = None) -> Self:
        """With a floor of n samples that is the first draw of a pool."""
        floor, against = pool.draw(0, n)
        return cls(reference, floor.samples, against.samples, train, pool)

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """What depends on these samples alone, under a name that says all else that it depends on: computed the first
        time that it is asked for, and not for each of a sweep's runs.
        """
        if what not in self._known:
            self._known[what] = compute()
        found: T = self._known[what]
        return found

    def draws(self, count: int, n: int) -> Iterator[tuple[Part, Part]]:
        """So many floors of n samples and what each is held against; one where there is nothing to draw from."""
        if self.pool is None:
            yield Part((self.floor,)), Part((self.against,))
            return
        one = self.pool.against is not None and self.pool.drawn(n) == self.pool.total
        for number in range(1 if one else count):
            yield self.pool.draw(number, n)

    def alone(self, count: int, n: int) -> Iterator[Part]:
        """So many real sets of n samples each, where there are as many."""
        if self.pool is None:
            yield Part((self.floor,))
            return
        for number in range(1 if n >= self.pool.total else count):
            yield self.pool.alone(number, n)


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
    features: Callable[[str, Samples | Part], Features]
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
    """A metric is pure: it knows neither training nor storage. `version` changes when its numbers would.

    One's own is a file with one subclass, named in a protocol as `metrics: [./brightness.py]`. `floors_alone` tells
    what real samples score, of draws as large as what was generated; `floors` does so for what is measured between two
    sets:

        \"\"\"How bright pictures are on the mean.\"\"\"

        from aigc_lab.config import Strict
        from aigc_lab.metrics.base import Metric, Score, mean_interval

        class Brightness(Metric):
            describes = frozenset({"brightness"})  # neither more nor less is better: no objective

            class Config(Strict):
                pass

            @property
            def gives(self):
                return {"brightness": "higher"}

            def check(self, dataset, samples):
                if samples < 20:
                    raise ValueError(f"a mean brightness needs at least 20 samples, not {samples}")

            def scores(self, evidence):
                def means(samples):  # [n]
                    return samples.canonical().unit().double().flatten(1).mean(1)

                signature, n = self.signature(evidence), len(evidence.generated)
                of_one = lambda part: {"brightness": means(part.samples).mean().item()}
                floor = self.floors_alone(evidence, signature, of_one)["brightness"]
                ends = mean_interval(means(evidence.generated))  # value, low, high
                return [Score("brightness", *ends, n, floor, signature, "higher")]
    """

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
    #: over how many draws of real samples its floor is averaged, where these can be drawn; fewer for what takes long
    draws: ClassVar[int] = 10

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    @abstractmethod
    def gives(self) -> dict[str, Better]:
        """The names of the scores it gives, and which way each is better."""

    def describing(self) -> frozenset[str]:
        """The names of those of its scores that are no objective."""
        return self.describes

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

    def meaningless(self, evidence: Evidence) -> dict[str, str]:
        """The scores that say nothing of this evidence, whatever their value, each with the reason."""
        return {}

    @abstractmethod
    def scores(self, evidence: Evidence) -> list[Score]:
        """The scores that it `gives`. Raises `ValueError` for samples that it must not see (NaN, wrong shapes)."""

    def of_real(self, evidence: Evidence, signature: str, compute: Callable[[], T]) -> T:
        """What it computes of the real samples alone, once for all that it scores under this signature. All of it: a
        second call under the same signature is answered with what the first one computed.
        """
        return evidence.real.once((type(self), signature), compute)

    def floors(
        self,
        evidence: Evidence,
        signature: str,
        compute: Callable[[Part, Part], Mapping[K, float]],
        used: Callable[[int, int], object] = lambda made, real: (made, real),
        times: int = 1,
    ) -> dict[K, Floor]:
        """What real samples score in the place of generated ones: `compute` of each draw of as many, held against other
        real ones, and the mean over the draws: `times` as many as usual of what is cheap. `used` says what of the sizes
        of two sets the score depends on, where that is not simply both.
        """
        real, n = evidence.real, len(evidence.generated)
        if real.valued:
            return _Untold()

        def found() -> dict[K, Floor]:
            count = self.drawn(real)
            sets = list(real.draws(count * times if count > 1 else 1, n))
            few = tuple(map(len, sets[0]))
            same = real.pool is None or used(*few) == used(n, len(real.reference))
            overlap = few[0] / real.pool.total if real.pool is not None and real.pool.against is not None else 0.0
            return _averaged([compute(*both) for both in sets], None if same else few[0], overlap)

        return real.once((type(self), signature, "floor"), found)

    def floors_alone(
        self, evidence: Evidence, signature: str, compute: Callable[[Part], Mapping[K, float]]
    ) -> dict[K, Floor]:
        """The same for what is measured of one set and not between two."""
        real, n = evidence.real, len(evidence.generated)
        if real.valued:
            return _Untold()

        def found() -> dict[K, Floor]:
            sets = list(real.alone(self.drawn(real), n))
            first = len(sets[0])
            overlap = 0.0 if real.pool is None else first / real.pool.total
            values = [compute(each) for each in sets]
            return _averaged(values, None if first == n or real.pool is None else first, overlap)

        return real.once((type(self), signature, "floor alone"), found)

    def drawn(self, real: Real) -> int:
        """Of sets whose features are not all kept each draw would be a pass through the network: one is made of them,
        and so many samples hardly differ from draw to draw.
        """
        many = real.pool is not None and max(map(len, real.pool.wholes)) > self.keeps
        return 1 if many and self.extractor is not None else self.draws

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

    def named(self, score: str) -> str:
        """The name of a score of these features: its own for Inception's, which tables mean where they say nothing,
        `<score>_<features>` for all others.
        """
        from aigc_lab.extractors.shared import lookup

        name = self.extractor
        return score if name == "inception" else f"{score}_{lookup.find_extractor(name).short}"

    def describing(self) -> frozenset[str]:
        return frozenset(map(self.named, self.describes))

    def vectors(self, evidence: Evidence, samples: Samples | Part) -> Tensor:
        """Those that it reads, [k, d] float32 with k ≤ `keeps`, on the device that scores."""
        return evidence.features(self.extractor, samples).some(self.keeps).vectors.to(evidence.device)


class _Untold(dict[K, Floor]):
    """No floor, whatever is asked for."""

    def __missing__(self, name: K) -> Floor:
        return Floor.of([math.nan])


def _averaged(draws: list[Mapping[K, float]], n: int | None, overlap: float) -> dict[K, Floor]:
    return {name: Floor.of([float(draw[name]) for draw in draws], n, overlap) for name in draws[0]}


def scored(metric: Metric, evidence: Evidence, leave: Callable[[str, str], None]) -> list[Score]:
    """The scores that say something of this evidence, each with the value that its floor is to be held against; `leave`
    is told of each that does not, and why.
    """
    without = metric.meaningless(evidence)
    for name, why in without.items():
        leave(name, why)
    if without.keys() >= metric.gives.keys():
        return []
    found = [score for score in metric.scores(evidence) if score.name not in without]
    few = {n: _at_floor(metric, evidence, n) for n in {score.floor_n for score in found} if n is not None}
    return [
        score if score.floor_n is None else replace(score, at_floor=few[score.floor_n][score.name]) for score in found
    ]


def _at_floor(metric: Metric, evidence: Evidence, n: int) -> dict[str, float]:
    """The scores of the n generated samples that the floor is of, held against what it is: means over draws."""
    import numpy as np

    real, generated = evidence.real, evidence.generated
    values: dict[str, list[float]] = {}
    for number, (_, against) in enumerate(real.draws(metric.drawn(real), len(generated))):
        rows = np.random.default_rng((len(generated), number)).permutation(len(generated))[:n]
        made = Part((generated,), rows)
        few, held = made.samples, against.samples
        parts: dict[int, Part] = {id(few): made, id(held): against}

        def features(extractor: str, samples: Samples | Part, parts: dict[int, Part] = parts) -> Features:
            return evidence.features(extractor, parts.get(id(samples), samples))

        alone = Real(held, held, held, real.train, valued=True)
        fewer = replace(evidence, generated=few, real=alone, features=features)
        for score in metric.scores(fewer):
            values.setdefault(score.name, []).append(score.value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def seen(evidence: Evidence) -> bool:
    """Whether the reference is what the system trained on: then nothing of it is unseen."""
    train, reference = evidence.real.train, evidence.real.reference
    if train is None or len(train) != len(reference):
        return False
    return train is reference or train.digest() == reference.digest()


SEEN = "the reference is what the generator was trained on, and nothing of it is unseen"


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
    """The system, and as many samples of the reference as of the train split, a seeded choice of `limit` at most."""
    from aigc_lab.extractors.base import choice

    system, reference, train = evidence.system, evidence.real.reference, evidence.real.train
    assert isinstance(system, Autoencoder) and train is not None
    count = min(limit, len(reference), len(train))
    return system, reference.take(choice(len(reference), count)), train.take(choice(len(train), count))


def mean_interval(values: Tensor) -> tuple[float, float, float]:
    """The mean of float64 values [n], and its ends at ±1.96 standard errors.

    >>> import torch
    >>> value, low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    >>> value, low < value < high
    (2.5, True)
    """
    mean, margin = values.mean().item(), Z95 * values.std().item() / math.sqrt(len(values))
    return mean, mean - margin, mean + margin


def frechet_score(metric: Metric, name: str, extractor: str, evidence: Evidence) -> Score:
    """FD_N of an extractor's features with ±1.96 standard errors, which covers E[FD_N] at this n."""
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
    """Vectors of two sets, as many of each: what both have, `cap` at most; on the device that scores."""
    features = [evidence.features(extractor, samples) for samples in (a, b)]
    each = min(cap, *(len(some.vectors) for some in features))
    first, second = (some.some(each).vectors.to(evidence.device) for some in features)
    return first, second
