"""What a run has to show, as it goes: scores, verdicts, curves, files; for the registry, and for a run that goes on."""

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from aigc_lab.config import Better
from aigc_lab.host.files import write_atomically
from aigc_lab.metrics.base import Score
from aigc_lab.registry.records import (
    Judged,
    Scored,
    StoredArtifact,
    StoredCheckpoint,
    StoredScalar,
    StoredScore,
    StoredVerdict,
)
from aigc_lab.statistics.intervals import error_of
from aigc_lab.training import checkpoint
from aigc_lab.verdicts import stability
from aigc_lab.verdicts.conclusion import CollapseVerdict
from aigc_lab.verdicts.stability import StabilityVerdict

# A gradient or a score of the critic so many times its median is worth a word.
_UNREST = 3.0


class Kind(NamedTuple):
    """A kind of file."""

    mime: str
    suffix: str


PNG, TEXT = Kind("image/png", ".png"), Kind("text/plain", ".txt")


class Curve(TypedDict):
    """A training scalar over the run; a value that was not finite is None."""

    step: list[int]
    value: list[float | None]


class SharedClock:
    """Seconds that pass for each of the runs that one process does together: between two events, the time that went by
    divided by the number of runs that are not over.

    >>> clock = SharedClock(runs=24)
    >>> clock.leave()  # 23 share what comes now
    """

    def __init__(self, runs: int, now: Callable[[], float] = time.perf_counter) -> None:
        self._runs, self._now = runs, now
        self._read, self._at = 0.0, now()

    def read(self) -> float:
        """Seconds for each run since the clock was made."""
        now = self._now()
        self._read, self._at = self._read + (now - self._at) / max(self._runs, 1), now
        return self._read

    def leave(self) -> None:
        """One of the runs is over: the others share what comes."""
        self.read()
        self._runs -= 1


@dataclass
class Record:
    """What a run has to show so far. Files go to `folder` at once, and become the run's when it ends, however it ends:
    `curves.json` (name -> `Curve`), `samples/<step>.png`, and `samples.png` of the finished model. Everything has a
    key, so that what a resumed run does again is there once.
    """

    folder: Path
    scores: dict[tuple[str, int, str, str], StoredScore] = field(default_factory=dict)
    verdicts: dict[tuple[str, int], StoredVerdict] = field(default_factory=dict)
    scalars: dict[str, StoredScalar] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    checkpoints: dict[str, StoredCheckpoint] = field(default_factory=dict)
    artifacts: dict[str, StoredArtifact] = field(default_factory=dict)
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    before: float = 0.0  # seconds that the attempts took from which this one goes on
    clock: SharedClock = field(default_factory=lambda: SharedClock(1))
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock.read()

    @property
    def seconds(self) -> float:
        """What the run cost: the time of its process, shared with the runs that were done together with it. The runs'
        seconds add up to the time that their processes took.
        """
        return self.before + self.clock.read() - self.begun

    def scalar(self, step: int, values: Mapping[str, float]) -> None:
        for name, given in values.items():
            value = float(given)  # a system may give NumPy's, or a tensor
            before = self.scalars.get(name)
            low = value if before is None or before.minimum is None else min(before.minimum, value)
            high = value if before is None or before.maximum is None else max(before.maximum, value)
            self.scalars[name] = StoredScalar(value, low, high, step)
            curve = self.curves.setdefault(name, {"step": [], "value": []})
            curve["step"].append(step)
            curve["value"].append(value if math.isfinite(value) else None)

    def score(self, scores: Sequence[Score], kind: Scored, step: int, split: str) -> None:
        for score in scores:
            self._store(StoredScore.of(score, kind, step, split))

    def _store(self, score: StoredScore) -> None:
        self.scores[score.checkpoint, score.step, score.split, score.name] = score

    def repeat(self, split: str, step: int) -> None:
        """The last weights' scores on a split are those of the evaluation at that step."""
        for score in list(self.scores.values()):
            if (score.checkpoint, score.step, score.split) == ("progress", step, split):
                self._store(replace(score, checkpoint="last"))

    def select(self) -> None:
        """The selected weights are the last, and so are their scores."""
        for score in list(self.scores.values()):
            if score.checkpoint == "last":
                self._store(replace(score, checkpoint="selected"))

    def samples(self, content: bytes, step: int, kind: Kind) -> None:
        self.file(f"samples/{step:06d}", *kind, content)

    def judge(self, kind: Judged, step: int, said: CollapseVerdict | StabilityVerdict | None) -> None:
        """Keeps a verdict; None is none."""
        if said is not None:
            self.verdicts[kind, step] = StoredVerdict.of(kind, step, said.as_dict())

    def final_samples(self, content: bytes, kind: Kind) -> None:
        self.file("samples", *kind, content)

    def sentences(self) -> str:
        """Those of all steps so far as CSV: step, number, sentence."""
        names = sorted(name for name in self.artifacts if name.startswith("samples/"))
        texts = {int(name.partition("/")[2]): Path(self.artifacts[name].path).read_text("utf-8") for name in names}
        return table_of_sentences(texts)

    def file(self, name: str, kind: str, suffix: str, content: bytes) -> None:
        path = self.folder / f"{name}{suffix}"
        write_atomically(path, content)
        self.artifacts[name] = StoredArtifact(name, kind, str(path))

    def history(self, name: str) -> list[StoredScore]:
        """A score on the way, by step."""
        found = [score for score in self.scores.values() if score.checkpoint == "progress" and score.name == name]
        return sorted(found, key=lambda score: score.step)

    def close(self) -> None:
        """Writes what is only known when nothing more will come. A full disk takes the curves, not the result."""
        if self.curves:
            with suppress(OSError):
                self.file("curves", "application/json", ".json", json.dumps(self.curves, allow_nan=False).encode())

    def result(self) -> dict[str, Any]:
        return {
            "scores": self.scores.values(),
            "verdicts": self.verdicts.values(),
            "scalars": self.scalars,
            "checkpoints": self.checkpoints.values(),
            "artifacts": self.artifacts.values(),
        }

    def dump(self) -> dict[str, Any]:
        """All of it, as JSON; files by their place, so that a home can be moved."""
        pictures = {name: Path(stored.path).relative_to(self.folder) for name, stored in self.artifacts.items()}
        return {
            "scores": [vars(score) for score in self.scores.values()],
            "verdicts": [vars(verdict) for verdict in self.verdicts.values()],
            "scalars": {name: vars(scalar) for name, scalar in self.scalars.items()},
            "curves": self.curves,
            "kept": [vars(stored) | {"path": Path(stored.path).name} for stored in self.checkpoints.values()],
            "artifacts": [vars(stored) | {"path": str(pictures[stored.name])} for stored in self.artifacts.values()],
            "training_seconds": self.training_seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "seconds": self.seconds,
        }

    def load(self, told: Mapping[str, Any], older: Path, mine: Path) -> None:
        """What `dump` returned in an earlier attempt. The weights that it kept, in `older`, are taken into `mine`."""
        for score in told["scores"]:
            self._store(StoredScore(**score))
        for verdict in told.get("verdicts", ()):
            self.verdicts[verdict["kind"], verdict["step"]] = StoredVerdict(**verdict)
        self.scalars = {name: StoredScalar(**scalar) for name, scalar in told["scalars"].items()}
        self.curves = told["curves"]
        for stored in told["kept"]:
            path = checkpoint.take(older / stored["path"], mine)
            self.checkpoints[stored["kind"]] = StoredCheckpoint(**stored | {"path": str(path)})
        for stored in told["artifacts"]:
            self.artifacts[stored["name"]] = StoredArtifact(**stored | {"path": str(self.folder / stored["path"])})
        self.training_seconds, self.evaluation_seconds = told["training_seconds"], told["evaluation_seconds"]
        self.before = told["seconds"]


def table_of_sentences(texts: Mapping[int, str]) -> str:
    """Step -> its sentences, a line each, as CSV: step, number, sentence."""
    told = io.StringIO()
    table = csv.writer(told, lineterminator="\n")
    table.writerow(["step", "number", "sentence"])
    for step, text in texts.items():
        table.writerows((step, number, line) for number, line in enumerate(text.split("\n")[:-1]))
    return told.getvalue()


def unrest(curves: Mapping[str, Curve]) -> tuple[stability.Finding, ...]:
    """What training said of itself that may explain a verdict: the gradient norms and scores of the critic that went
    furthest from their median, and where.
    """
    found = []
    for name, curve in curves.items():
        sizes = [(abs(value), step) for value, step in zip(curve["value"], curve["step"], strict=True) if value]
        if not name.startswith("dynamics/") or not sizes:
            continue
        peak, step = max(sizes)
        times = peak / sorted(sizes)[len(sizes) // 2][0]
        if times > _UNREST:
            found.append((times, stability.Finding(f"{name} at {times:.3g} × its median", step, peak)))
    return tuple(told for _, told in sorted(found, key=lambda each: -each[0])[:3])


def of_history(
    history: Sequence[Mapping[str, Any]],
    curves: Mapping[str, Curve],
    *,
    baseline: float | None,
    better: Better,
    diverged_at: tuple[float, str] | None,
) -> StabilityVerdict:
    """The verdict on the objective's evaluations, each a `step`, `value`, `low`, `high` and `signature`; with what the
    curves show beside it, unless all is well. Raises `ValueError` like `stability.judge`.
    """
    said = stability.judge(
        [each["step"] for each in history],
        [math.nan if each["value"] is None else each["value"] for each in history],
        [error_of(each["low"], each["high"]) for each in history],
        baseline=baseline,
        better=better,
        diverged_at=diverged_at,
    )
    said = replace(said, signature="|".join([*(each["signature"] for each in history[-1:]), said.signature]))
    if said.verdict == stability.Stability.STABLE:
        return said
    return replace(said, evidence=said.evidence + unrest(curves))
