"""Record of a run as it goes: scores, verdicts, curves and files, for the registry and for a resumed attempt."""

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
from aigc_lab.host import shared_files
from aigc_lab.host.files import write_atomically
from aigc_lab.host.shared_files import Outbox
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
    """MIME type and suffix of a file."""

    mime: str
    suffix: str


PNG, TEXT = Kind("image/png", ".png"), Kind("text/plain", ".txt")


def step_name(family: str, step: int) -> str:
    """Name of the artifact that shows samples or a view at a step.

    >>> step_name("reconstructions", 250)
    'reconstructions/000250'
    """
    return f"{family}/{step:06d}"


class Curve(TypedDict):
    """A training scalar over the run; a value that was not finite is None."""

    step: list[int]
    value: list[float | None]


class SharedClock:
    """Clock of each of the runs that one process trains together, in seconds: the time between two events is divided by
    the number of runs that are not over.

    >>> clock = SharedClock(runs=24)
    >>> clock.leave()  # 23 share what comes now
    """

    def __init__(self, runs: int, now: Callable[[], float] = time.perf_counter) -> None:
        self._runs, self._now = runs, now
        self._seconds, self._read_at = 0.0, now()

    def read(self) -> float:
        """Seconds for each run since the clock was made."""
        now = self._now()
        self._seconds, self._read_at = self._seconds + (now - self._read_at) / max(self._runs, 1), now
        return self._seconds

    def leave(self) -> None:
        """Removes a run that is over: the others share the time from now on."""
        self.read()
        self._runs -= 1


@dataclass
class Record:
    """Everything that a run has produced so far. Entries have keys, so that the repeated steps of a resumed run replace
    their first results.

    Files are written to `folder` at once, and belong to the run however it ends: `curves.json` (name -> `Curve`),
    `samples/<step>.png`, and `samples.png` of the final model; the same of each view, such as `reconstructions`.
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
    outbox: Outbox = field(default_factory=Outbox)  # files that are to be published, in a home with a store
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock.read()

    @property
    def seconds(self) -> float:
        """Cost of the run in seconds: the time of its process, shared with the runs trained together with it. The
        seconds of all runs add up to the time of their processes.
        """
        return self.before + self.clock.read() - self.begun

    def scalar(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values of training scalars at a step to curves and summaries."""
        for name, number in values.items():
            value = float(number)  # a system may give NumPy's, or a tensor
            summary = self.scalars.get(name)
            low = value if summary is None or summary.minimum is None else min(summary.minimum, value)
            high = value if summary is None or summary.maximum is None else max(summary.maximum, value)
            self.scalars[name] = StoredScalar(value, low, high, step)
            curve = self.curves.setdefault(name, {"step": [], "value": []})
            curve["step"].append(step)
            # `curves.json` is JSON, which has no NaN.
            curve["value"].append(value if math.isfinite(value) else None)

    def score(self, scores: Sequence[Score], kind: Scored, step: int, split: str) -> None:
        """Adds scores of a split at a step."""
        for score in scores:
            self._store(StoredScore.of(score, kind, step, split))

    def _store(self, score: StoredScore) -> None:
        self.scores[score.checkpoint, score.step, score.split, score.name] = score

    def repeat(self, split: str, step: int) -> None:
        """Copies the scores of the evaluation at that step to the last weights."""
        for score in list(self.scores.values()):
            if (score.checkpoint, score.step, score.split) == ("progress", step, split):
                self._store(replace(score, checkpoint="last"))

    def floor_of(self, score: str) -> tuple[float | None, float | None]:
        """Floor of a score of the last weights on the holdout, and its standard deviation; None where there is none."""
        of = ((each.checkpoint, each.split, each.name) for each in self.scores.values())
        stored = dict(zip(of, self.scores.values(), strict=True)).get(("last", "holdout", score))
        return (None, None) if stored is None else (stored.floor, stored.floor_sd)

    def select(self) -> None:
        """Copies the scores of the last weights to the selected weights, which are the same."""
        for score in list(self.scores.values()):
            if score.checkpoint == "last":
                self._store(replace(score, checkpoint="selected"))

    def step_file(self, family: str, step: int, kind: Kind, content: bytes) -> None:
        """Stores samples or a view of a step."""
        self.file(step_name(family, step), *kind, content)

    def judge(self, kind: Judged, step: int, verdict: CollapseVerdict | StabilityVerdict | None) -> None:
        """Adds a verdict; None adds nothing."""
        if verdict is not None:
            self.verdicts[kind, step] = StoredVerdict.of(kind, step, verdict.as_dict())

    def sentences(self, family: str) -> str:
        """Sentences of all steps so far as CSV: step, number, sentence."""
        names = sorted(name for name in self.artifacts if name.startswith(f"{family}/"))
        paths = {int(name.partition("/")[2]): Path(self.artifacts[name].path) for name in names}
        texts = {step: shared_files.at_hand(path).read_text("utf-8") for step, path in paths.items()}
        return table_of_sentences(texts)

    def file(self, name: str, kind: str, suffix: str, content: bytes) -> None:
        """Writes a file, and adds it to the artifacts."""
        path = self.folder / f"{name}{suffix}"
        write_atomically(path, content)
        self.outbox.add(path)
        self.artifacts[name] = StoredArtifact(name, kind, str(path))

    def history(self, name: str) -> list[StoredScore]:
        """Scores of that name during training, by step."""
        on_the_way = [score for score in self.scores.values() if score.checkpoint == "progress" and score.name == name]
        return sorted(on_the_way, key=lambda score: score.step)

    def close(self) -> None:
        """Writes the curves, which are complete now. A full disk costs the curves, not the result."""
        if self.curves:
            with suppress(OSError):
                self.file("curves", "application/json", ".json", json.dumps(self.curves, allow_nan=False).encode())

    def result(self) -> dict[str, Any]:
        """Arguments for the registry's record of the result."""
        return {
            "scores": self.scores.values(),
            "verdicts": self.verdicts.values(),
            "scalars": self.scalars,
            "checkpoints": self.checkpoints.values(),
            "artifacts": self.artifacts.values(),
        }

    def dump(self) -> dict[str, Any]:
        """The record as JSON; files are relative paths, so that a home can be moved."""
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

    def load(self, dumped: Mapping[str, Any], older: Path, mine: Path) -> None:
        """Restores the output of `dump` from an earlier attempt. Its weights are taken from the folder `older` into
        `mine`.
        """
        for score in dumped["scores"]:
            self._store(StoredScore(**score))
        for verdict in dumped.get("verdicts", ()):
            self.verdicts[verdict["kind"], verdict["step"]] = StoredVerdict(**verdict)
        self.scalars = {name: StoredScalar(**scalar) for name, scalar in dumped["scalars"].items()}
        self.curves = dumped["curves"]
        for stored in dumped["kept"]:
            path = checkpoint.take(older / stored["path"], mine)
            self.outbox.add(*shared_files.files_below(mine))
            self.checkpoints[stored["kind"]] = StoredCheckpoint(**stored | {"path": str(path)})
        for stored in dumped["artifacts"]:
            artifact = self.folder / stored["path"]
            self.artifacts[stored["name"]] = StoredArtifact(**stored | {"path": str(artifact)})
            if artifact.is_file():  # written here, by an attempt that may not have published it
                self.outbox.add(artifact)
        self.training_seconds, self.evaluation_seconds = dumped["training_seconds"], dumped["evaluation_seconds"]
        self.before = dumped["seconds"]


def table_of_sentences(texts: Mapping[int, str]) -> str:
    """CSV (step, number, sentence) of texts by step, a sentence a line."""
    text_of_table = io.StringIO()
    table = csv.writer(text_of_table, lineterminator="\n")
    table.writerow(["step", "number", "sentence"])
    for step, text in texts.items():
        table.writerows((step, number, line) for number, line in enumerate(text.split("\n")[:-1]))
    return text_of_table.getvalue()


def unstable_curves(curves: Mapping[str, Curve]) -> tuple[stability.Finding, ...]:
    """Up to three gradient norms and critic scores whose peak exceeds three times their median: findings that may
    explain a verdict, largest first.
    """
    peaks = []
    for name, curve in curves.items():
        sizes = [(abs(value), step) for value, step in zip(curve["value"], curve["step"], strict=True) if value]
        if not name.startswith("dynamics/") or not sizes:
            continue
        peak, step = max(sizes)
        times = peak / sorted(sizes)[len(sizes) // 2][0]
        if times > _UNREST:
            peaks.append((times, stability.Finding(f"{name} at {times:.3g} × its median", step, peak)))
    return tuple(finding for _, finding in sorted(peaks, key=lambda each: -each[0])[:3])


def judge_history(
    history: Sequence[Mapping[str, Any]],
    curves: Mapping[str, Curve],
    *,
    baseline: float | None,
    better: Better,
    diverged_at: tuple[float, str] | None,
) -> StabilityVerdict:
    """Stability verdict on the objective's evaluations, each with `step`, `value`, `low`, `high` and `signature`.
    Unless it is STABLE, findings from the curves are added. Raises `ValueError` like `stability.judge`.
    """
    verdict = stability.judge(
        [each["step"] for each in history],
        [math.nan if each["value"] is None else each["value"] for each in history],
        [error_of(each["low"], each["high"]) for each in history],
        baseline=baseline,
        better=better,
        diverged_at=diverged_at,
    )
    verdict = replace(verdict, signature="|".join([*(each["signature"] for each in history[-1:]), verdict.signature]))
    if verdict.verdict == stability.Stability.STABLE:
        return verdict
    return replace(verdict, evidence=verdict.evidence + unstable_curves(curves))
