"""What is measured: a metric turns evidence into scores, and a score says how it was computed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset
from aigc_lab.extractors.base import Features
from aigc_lab.samples import Samples
from aigc_lab.statistics import Z95, frechet_distance, frechet_standard_error

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Score:
    """A claim: the value, its 95 % sampling interval, what real samples get at the same n, and how it was computed.

    Scores of different signatures are never ranked together.
    """

    name: str
    value: float
    low: float
    high: float
    n: int
    floor: float
    signature: str
    better: Better


@dataclass(frozen=True)
class Evidence:
    """What a metric may look at. `real` is a second set of real samples, as many as were generated: the floor.

    `features(extractor, samples)` and `identity(extractor)` are lazy: a metric pays for what it uses.
    """

    generated: Samples
    reference: Samples
    real: Samples
    dataset: Dataset
    features: Callable[[str, Samples], Features]
    identity: Callable[[str], str]
    signature: str

    def __post_init__(self) -> None:
        shape, got = self.dataset.shape, self.generated
        if got.modality != shape.modality or tuple(got.values.shape[1:]) != shape.size:
            made = f"{got.modality} {'×'.join(map(str, got.values.shape[1:]))}"
            raise ValueError(f"dataset {self.dataset.name} holds {shape}, and the samples to score are {made}")


class Metric(ABC):
    """A metric is pure: it knows neither training nor storage. `version` changes when its numbers would."""

    Config: ClassVar[type[Strict]]
    version: ClassVar[int] = 1

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

    @abstractmethod
    def scores(self, evidence: Evidence) -> list[Score]:
        """The scores that it `gives`. Raises `ValueError` for samples that it must not see (NaN, wrong shapes)."""

    def signature(self, evidence: Evidence, *details: str) -> str:
        """Everything that the number depends on, in one line."""
        return "|".join([*details, evidence.signature, f"v:{self.version}"])


def frechet_score(metric: Metric, name: str, extractor: str, replicates: int, evidence: Evidence) -> Score:
    """FD_N of an extractor's features with ±1.96 bootstrap standard errors, which covers E[FD_N] at this n."""
    generated, reference, real = (
        evidence.features(extractor, samples).vectors
        for samples in (evidence.generated, evidence.reference, evidence.real)
    )
    value = frechet_distance(generated, reference)
    margin = Z95 * frechet_standard_error(generated, reference, replicates=replicates)
    signature = metric.signature(
        evidence, evidence.identity(extractor), f"d:{generated.shape[1]}", f"bootstrap:{replicates}"
    )
    floor = frechet_distance(real, reference)
    return Score(name, value, max(value - margin, 0.0), value + margin, len(generated), floor, signature, "lower")
