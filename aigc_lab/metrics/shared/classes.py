"""Classes of labelled samples: how many there are of each, how many are needed, and scores within each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aigc_lab.data.shared.class_shares import apportioned
from aigc_lab.metrics import base
from aigc_lab.statistics.intervals import Z95

if TYPE_CHECKING:
    from torch import Tensor

    from aigc_lab.data.base import Dataset, Split
    from aigc_lab.samples import Samples

#: fewest samples of a class that anything is said of
FEWEST = 20
_REAL: tuple[Split, ...] = ("reference", "holdout")


@dataclass(frozen=True)
class Estimate:
    """Value of one class, and its standard error."""

    value: float
    error: float


def check(dataset: Dataset, samples: int, classes: int | None = None) -> None:
    """`check` of metrics of each class. Raises `ValueError` without classes, and for fewer than 20 samples of each of
    equal ones: of so many `classes`, by default all of the dataset's.
    """
    if dataset.shape.classes is None:
        raise ValueError(f"it needs samples with classes, and dataset {dataset.name} holds {dataset.shape} without")
    classes = classes or dataset.shape.classes
    if samples < FEWEST * classes:
        raise ValueError(
            f"{classes} classes need at least {FEWEST * classes:,} samples, {FEWEST} of each, not {samples}"
        )


def check_data(dataset: Dataset, samples: int, *, real: bool) -> None:
    """Raises `ValueError` for a class of a dataset with too few real samples in a split that is scored (if `real`), or
    of which too few of so many generated samples would be.
    """
    classes, train = dataset.shape.classes, dataset.load("train")
    assert classes is not None
    for split in _REAL if real else ():
        few = _fewest(sizes(dataset.load(split), classes))
        if few is not None:
            number, count = few
            raise ValueError(
                f"{named(dataset, number)} has {count} real samples in the {split} split, and {FEWEST} of each class "
                "are needed: give more of it, or leave the metric out"
            )
    learned = sizes(train, classes)
    few = _fewest(apportioned(learned, samples))
    if few is not None:
        number, count = few
        needed = -(-FEWEST * int(learned.sum()) // int(learned[number]))
        raise ValueError(
            f"{named(dataset, number)} is {int(learned[number])} of {int(learned.sum()):,} training samples, so that "
            f"{count} of {samples:,} generated ones are of it, and {FEWEST} are needed, which about {needed:,} samples "
            "would hold"
        )


def refuse_few(evidence: base.Evidence, *, real: bool) -> None:
    """Raises `ValueError` for a class with too few generated samples or, if `real`, too few real ones."""
    import torch

    count = _count(evidence)
    sets = {"generated": evidence.generated, **({"reference": evidence.real.reference} if real else {})}
    every = {name: sizes(samples, count) for name, samples in sets.items()}
    present = torch.stack([*every.values()]).sum(0) > 0
    for name, each in every.items():
        few = _fewest(each, present)
        if few is not None:
            raise ValueError(
                f"{named(evidence.dataset, few[0])} has {few[1]} {name} samples, and {FEWEST} of each class are needed"
            )


def number_asked(evidence: base.Evidence) -> int | None:
    """Number of classes that the generated samples were asked for; None where they have no labels."""
    import torch

    labels = evidence.generated.labels
    return None if labels is None else len(torch.unique(labels))


def labels_of(samples: Samples | base.Part) -> Tensor:
    """Labels of samples on the host, int64 [n]; pixels are not copied."""
    import torch

    parts = samples.each() if isinstance(samples, base.Part) else [(samples, slice(None))]
    labels = []
    for whole, rows in parts:
        assert whole.labels is not None
        labels.append(whole.labels.cpu()[rows])
    return torch.cat(labels)


def sizes(samples: Samples, classes: int) -> Tensor:
    """Number of samples of each class [classes]. Raises `ValueError` for labels that are no numbers of classes."""
    import torch

    labels = samples.labels
    assert labels is not None
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels of {classes} classes are 0 … {classes - 1}, not {int(labels.min())} … {int(labels.max())}"
        )
    return torch.bincount(labels.cpu(), minlength=classes)


def named(dataset: Dataset, number: int) -> str:
    """A class in a sentence, by its name if it has one."""
    return f"class {name_of(dataset, number)}"


def name_of(dataset: Dataset, number: int) -> str:
    """Name of a class, its number if it has none."""
    names = dataset.class_names
    return str(number) if names is None else names[number]


def _count(evidence: base.Evidence) -> int:
    classes = evidence.dataset.shape.classes
    assert classes is not None
    return classes


def _fewest(counts: Tensor, present: Tensor | None = None) -> tuple[int, int] | None:
    """Number and size of the smallest of the classes that are `present` (by default with any sample), None if it has
    enough.
    """
    numbers = (counts > 0 if present is None else present).nonzero().flatten()
    number = int(numbers[counts[numbers].argmin()])
    return (number, int(counts[number])) if counts[number] < FEWEST else None


def each_class(evidence: base.Evidence, samples: Samples | base.Part, extractor: str) -> dict[int, Tensor]:
    """Features of the samples of each class, float32 [k, d], by its number; of classes with at least two."""
    features = evidence.features(extractor, samples)
    labels = labels_of(samples)[features.rows]
    vectors = {number: features.vectors[labels == number] for number in range(_count(evidence))}
    return {number: each for number, each in vectors.items() if len(each) > 1}


class ByClass(base.FeatureMetric):
    """Base of metrics that compare the generated samples of each class with the real ones of that class: the mean over
    classes, and the worst class as `<name>_worst`, which says whose it is (`Score.of_class`).

    A subclass names its `score`, says whether more of it is `better`, and defines `of_class`, `value` and `interval`.
    The interval of the mean is ±1.96 standard errors; that of the worst class holds for all classes together
    (Bonferroni), so that it covers the worst of their true values whichever that is. The floor is the same of real
    samples: draws of as many as were generated, of each class as many as chance has it. Fewer than 20 samples of a
    class, generated or real, are refused.
    """

    needs = frozenset({"labels"})
    score: str
    direction: base.Better

    @property
    def gives(self) -> dict[str, base.Better]:
        return dict.fromkeys((self.named(self.score), self.named(f"{self.score}_worst")), self.direction)

    def check(self, dataset: Dataset, samples: int) -> None:
        check(dataset, samples)

    def check_given(self, evidence: base.Evidence, samples: int) -> None:
        check(evidence.dataset, samples, number_asked(evidence))

    def check_data(self, dataset: Dataset, samples: int) -> None:
        check_data(dataset, samples, real=True)

    def refuse_few(self, evidence: base.Evidence) -> None:
        refuse_few(evidence, real=True)

    @abstractmethod
    def of_class(self, generated: Tensor, real: Tensor) -> Estimate:
        """Score of one class from vectors [n, d] and [m, d], and its standard error."""

    @abstractmethod
    def value(self, generated: Tensor, real: Tensor) -> float:
        """Score of one class without its standard error."""

    @abstractmethod
    def interval(self, estimate: Estimate, deviations: float) -> tuple[float, float]:
        """Ends of an interval of so many standard errors."""

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        if not evidence.real.valued:  # of fewer samples, that are held against a floor, classes have what chance has
            self.refuse_few(evidence)
        both = [each_class(evidence, each, self.extractor) for each in (evidence.generated, evidence.real.reference)]
        estimates = {number: self.of_class(*pair) for number, pair in _pairs(*both).items()}
        signature = self.signature(
            evidence, evidence.identity(self.extractor), f"d:{_dimensions(both[0])}", *asked(evidence)
        )

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            pairs = _pairs(*(each_class(evidence, each, self.extractor) for each in (floor, against)))
            return self._summary([self.value(*pair) for pair in pairs.values()])

        floors = self.floors(evidence, signature, between)
        each_value = {number: each.value for number, each in estimates.items()}
        values = self._summary([*each_value.values()])
        ends = summarised([*estimates.values()], self.interval, self._worst)
        worst = name_of(evidence.dataset, self._worst(each_value, key=each_value.__getitem__))
        n = len(evidence.generated)
        return [
            base.Score(name, values[name], *interval, n, floors[name], signature, self.direction, of_class=whose)
            for name, interval, whose in zip(self.gives, ends, (None, worst), strict=True)
        ]

    @property
    def _worst(self) -> Callable[..., Any]:
        return max if self.direction == "lower" else min

    def _summary(self, values: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.gives, (sum(values) / len(values), self._worst(values)), strict=True))


def _pairs(generated: Mapping[int, Tensor], real: Mapping[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """Vectors of both sets of each class that both hold, by its number."""
    return {number: (generated[number], real[number]) for number in sorted(generated.keys() & real.keys())}


def _dimensions(vectors: Mapping[int, Tensor]) -> int:
    return next(iter(vectors.values())).shape[1]


def asked(evidence: base.Evidence) -> tuple[str, str]:
    """What signatures say of the classes that were asked for: their number, and the fewest and most samples of one."""
    counts = sizes(evidence.generated, _count(evidence))
    counts = counts[counts > 0]
    return f"classes:{len(counts)}", f"each:{int(counts.min())}-{int(counts.max())}"


def summarised(
    estimates: Sequence[Estimate],
    interval: Callable[[Estimate, float], tuple[float, float]],
    worst: Callable[[Sequence[float]], float],
) -> list[tuple[float, float]]:
    """Ends of the 95 % intervals of the mean of independent estimates and of the worst of them."""
    import torch

    count = len(estimates)
    mean = Estimate(
        sum(each.value for each in estimates) / count, sum(each.error**2 for each in estimates) ** 0.5 / count
    )
    together = float(torch.special.ndtri(torch.tensor(1 - 0.025 / count, dtype=torch.float64)))
    lows, highs = zip(*(interval(each, together) for each in estimates), strict=True)
    return [interval(mean, Z95), (worst(lows), worst(highs))]
