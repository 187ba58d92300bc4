"""What a finished run hands to the registry. Plain types, so that filling them needs no database."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Better = Literal["lower", "higher"]
# What the seed of a run is for: choosing the best configurations, choosing among these, or reporting the winner.
Role = Literal["search", "confirm", "report"]
Scored = Literal["last", "selected", "progress"]
# "collapse_raw" is of the last weights as they were trained, without the moving average.
Judged = Literal["collapse", "stability", "collapse_raw"]
# Beside the environment of an attempt: what MLflow is told of the run (`tracking.description.Described`).
DESCRIBED = "described"
# In the environment of an attempt: the runs of its sweep that it was trained with as one program, itself among them, as
# `trial.seed`. In other company its numbers are the same to rounding.
STACKED = "stacked"


def describing_scores(environment: dict[str, Any]) -> list[str]:
    """Names of an attempt's scores of which neither more nor less is better; empty for attempts of earlier versions."""
    described = environment.get(DESCRIBED)
    listed = described.get("describing") if isinstance(described, dict) else None
    return listed if isinstance(listed, list) else []


def described_params(environment: dict[str, Any]) -> dict[str, Any]:
    """The configuration of an attempt with all defaults; empty for attempts of earlier versions."""
    described = environment.get(DESCRIBED)
    params = described.get("params") if isinstance(described, dict) else None
    return params if isinstance(params, dict) else {}


@dataclass(frozen=True)
class StoredScore:
    """A score and how exactly it was computed.

    `checkpoint` is "last" or "selected" for the final scores and "progress" for those on the way.
    A value that is not finite is stored as NULL.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    floor: float | None
    signature: str
    better: Better
    checkpoint: Scored
    step: int
    split: str
    #: the standard deviation of one of the draws that the floor is a mean over, where there were several
    floor_sd: float | None = None
    #: the name of the class that a score of the worst class is of
    of_class: str | None = None

    def __post_init__(self) -> None:
        if not self.signature:
            raise ValueError(f"score '{self.name}' has no signature")

    @classmethod
    def of(cls, score: Any, checkpoint: Scored, step: int, split: str) -> "StoredScore":
        """The stored form of a `Score` of a checkpoint's samples at a step, against a split."""
        values = {name: getattr(score, name) for name in _OF_SCORE}
        return cls(**values, checkpoint=checkpoint, step=step, split=split)


_OF_SCORE = ("name", "value", "low", "high", "n", "floor", "signature", "better", "floor_sd", "of_class")


@dataclass(frozen=True)
class StoredVerdict:
    """What was judged of a run's samples at a step, or of its history up to it, why, and the numbers behind it."""

    kind: Judged
    step: int
    verdict: str
    reason: str
    evidence: dict[str, Any]
    signature: str

    @classmethod
    def of(cls, kind: Judged, step: int, verdict: dict[str, Any]) -> "StoredVerdict":
        """A verdict with `verdict`, `reason` and `signature`; whatever else it holds is its evidence."""
        evidence = {key: value for key, value in verdict.items() if key not in ("verdict", "reason", "signature")}
        return cls(kind, step, verdict["verdict"], verdict["reason"], evidence, verdict["signature"])


class ScalarLike(Protocol):
    """The last value and the range of a training scalar; `StoredScalar` is one."""

    @property
    def last(self) -> float | None: ...
    @property
    def minimum(self) -> float | None: ...
    @property
    def maximum(self) -> float | None: ...
    @property
    def step(self) -> int: ...


@dataclass(frozen=True)
class StoredScalar:
    """The last value of a training scalar, the step it was taken at, and its range over the run."""

    last: float | None
    minimum: float | None
    maximum: float | None
    step: int


@dataclass(frozen=True)
class StoredCheckpoint:
    kind: str
    step: int
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class StoredArtifact:
    name: str
    kind: str
    path: str


@dataclass(frozen=True)
class StoredPromotion:
    """A version of a promoted model; `aigc_lab.registry.tables.Promotion` says what the fields mean."""

    model: str
    version: int
    run_id: str
    checkpoint: str
    digest: str
    sha256: str
    path: str
    mlflow_uri: str
    mlflow_model_id: str
    reason: str | None = None
    selection: dict[str, Any] | None = None
