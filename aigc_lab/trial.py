"""One run: build, train, sample, evaluate, record. The registry gets the whole result at the end, in one transaction;
MLflow gets curves and pictures on the way.
"""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from aigc_lab import checkpoint, environment, pictures
from aigc_lab.batches import Batches
from aigc_lab.errors import Failure, UsageError
from aigc_lab.evaluate import SCORING_SPLITS, ScoringSplit
from aigc_lab.files import sha256, write_atomically
from aigc_lab.job import Job, Outcome, Watcher
from aigc_lab.lab import Lab
from aigc_lab.metrics.base import Score
from aigc_lab.registry.records import Scored, StoredArtifact, StoredCheckpoint, StoredScalar, StoredScore
from aigc_lab.registry.states import State as RunState
from aigc_lab.systems.base import System
from aigc_lab.tracking.base import DatasetInfo, RunTracker, Status
from aigc_lab.trainer import Diverged, State, train

_GRID = 64
_POINTS = 2000
# Evaluations deliver the curves; between two that lie far apart, a delivery this often keeps MLflow's pages alive.
_DELIVERY_SECONDS = 15.0


class _Pruned(Exception):
    pass


def execute(job: Job, lab: Lab, watcher: Watcher) -> Outcome:
    """Does the run and records it, whatever happens. An interruption, a user's mistake and a store that fails
    leave as exceptions: the next run would meet them too.
    """
    record = _Record(lab.settings.artifacts / job.sweep / f"{job.trial}.{job.seed}")
    facts, started = environment.describe(lab.device), time.perf_counter()
    state, reason, value = RunState.KILLED, "interrupted", None  # type: RunState, str | None, float | None
    attempt = lab.registry.begin(job.run, facts)
    try:
        value = _train_and_score(job, lab, watcher, attempt, record)
        state, reason = RunState.FINISHED, None
    except _Pruned:
        state, reason = RunState.PRUNED, "worse than the median of its system at this step"
    except Diverged as error:
        state, reason = RunState.DIVERGED, str(error)
    except (UsageError, Failure) as error:
        state, reason = RunState.FAILED, str(error)
        raise
    except Exception as error:  # noqa: BLE001 -- the one place where a run is recorded as failed
        state, reason = RunState.FAILED, f"{type(error).__name__}: {error}"
    finally:
        try:
            record.close()
            # The truth first: MLflow is a projection of it and may be down.
            seconds = time.perf_counter() - started
            lab.registry.finish(job.run, attempt, state, reason=reason, seconds=seconds, **record.result())
        finally:
            if record.tracked is not None:
                status: Status = "FINISHED"
                if state in (RunState.FAILED, RunState.KILLED):
                    status = "FAILED" if state == RunState.FAILED else "KILLED"
                record.tracked.end(status, {"state": state} | ({"reason": reason} if reason else {}))
    return Outcome(state, value, reason)


class Curve(TypedDict):
    """A training scalar over the run; a value that was not finite is None."""

    step: list[int]
    value: list[float | None]


@dataclass
class _Record:
    """What a run has to show so far. Files go to `folder` at once, and become the run's when it ends, however it ends:
    `curves.json` (name -> `Curve`), `samples/<step>.png`, and `samples.png` of the finished model.
    """

    folder: Path
    tracked: RunTracker | None = None
    scores: list[StoredScore] = field(default_factory=list)
    scalars: dict[str, StoredScalar] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    checkpoints: list[StoredCheckpoint] = field(default_factory=list)
    artifacts: list[StoredArtifact] = field(default_factory=list)

    def scalar(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            before = self.scalars.get(name)
            low = value if before is None or before.minimum is None else min(before.minimum, value)
            high = value if before is None or before.maximum is None else max(before.maximum, value)
            self.scalars[name] = StoredScalar(value, low, high, step)
            curve = self.curves.setdefault(name, {"step": [], "value": []})
            curve["step"].append(step)
            curve["value"].append(value if math.isfinite(value) else None)

    def score(self, scores: list[Score], kind: Scored, step: int, split: str) -> None:
        self.scores += [StoredScore(**vars(score), checkpoint=kind, step=step, split=split) for score in scores]

    def picture(self, pixels: pictures.Pixels, step: int) -> None:
        self._file(f"samples/{step:06d}", "image/png", ".png", pictures.png(pixels))

    def final_picture(self, pixels: pictures.Pixels) -> None:
        self._file("samples", "image/png", ".png", pictures.png(pixels))

    def _file(self, name: str, kind: str, suffix: str, content: bytes) -> None:
        path = self.folder / f"{name}{suffix}"
        write_atomically(path, content)
        self.artifacts.append(StoredArtifact(name, kind, str(path)))

    def close(self) -> None:
        """Writes what is only known when nothing more will come. A full disk takes the curves, not the result."""
        if self.curves:
            with suppress(OSError):
                self._file("curves", "application/json", ".json", json.dumps(self.curves, allow_nan=False).encode())

    def result(self) -> dict[str, Any]:
        return {
            "scores": self.scores,
            "scalars": self.scalars,
            "checkpoints": self.checkpoints,
            "artifacts": self.artifacts,
        }


@dataclass
class _Selected:
    """The weights of the best evaluation so far, kept in memory until the run ends."""

    step: int
    value: float
    weights: dict[str, Tensor]


def _train_and_score(job: Job, lab: Lab, watcher: Watcher, attempt: int, record: _Record) -> float:
    plan, training = job.configuration, job.configuration.training
    lab.settle(training)
    samples = plan.dataset.load("train")
    state = State.fresh(
        plan.system_class,
        plan.system_config,
        plan.dataset.shape,
        seed=job.seed,
        batch_size=training.batch_size,
        device=lab.device,
    )
    batches = Batches(samples.to(lab.device), training.batch_size, job.seed)
    record.tracked = tracked = _open_tracker(job, lab, attempt)
    # MLflow's slider begins at step 0: without a picture there, people see an empty tile first.
    _show(state.average, job, record, 0)

    sign = 1 if job.objective.better == "lower" else -1
    best: _Selected | None = None
    value, delivered = math.nan, time.monotonic()
    training_seconds = evaluation_seconds = 0.0
    for now in train(
        state,
        batches,
        seed=job.seed,
        steps=training.steps,
        every=training.log_every,
        decay=training.ema,
        precision=training.precision,
    ):
        tracked.scalars(now.step, dict(now.scalars) | {"dynamics/samples_per_second": now.samples_per_second})
        record.scalar(now.step, now.scalars)
        watcher.progress(now)
        training_seconds += now.seconds
        if now.step % training.evaluate_every and now.step != training.steps:
            if time.monotonic() - delivered > _DELIVERY_SECONDS:
                tracked.flush()
                delivered = time.monotonic()
            continue
        begun = time.perf_counter()
        scores = _scored(state.average, job, lab, "reference")
        record.score(scores, "progress", now.step, "reference")
        tracked.scores(now.step, {score.name: score.value for score in scores})
        _show(state.average, job, record, now.step)
        tracked.flush()
        delivered = time.monotonic()
        evaluation_seconds += time.perf_counter() - begun
        value = next(score.value for score in scores if score.name == job.objective.score)
        if best is None or sign * value < sign * best.value:
            weights = {key: tensor.detach().clone() for key, tensor in state.average.state_dict().items()}
            best = _Selected(now.step, value, weights)
        if watcher.scored(now.step, value) and now.step != training.steps:
            raise _Pruned

    assert best is not None
    begun = time.perf_counter()
    _finish(job, lab, state, best, scores, record, tracked)
    evaluation_seconds += time.perf_counter() - begun
    shares = {"time/training_seconds": training_seconds, "time/evaluation_seconds": evaluation_seconds}
    record.scalar(state.step, shares)
    tracked.scalars(state.step, shares)
    return value


def _finish(
    job: Job, lab: Lab, state: State, best: _Selected, scores: list[Score], record: _Record, tracked: RunTracker
) -> None:
    """Final scores of the last and of the selected weights, on both splits; weights and the picture as files.

    `scores` are those of the last weights on the reference split, which the last evaluation has just computed.
    """
    final: dict[ScoringSplit, list[Score]] = {
        "reference": scores,
        "holdout": _scored(state.average, job, lab, "holdout"),
    }
    tracked.scores(state.step, {f"{score.name}_holdout": score.value for score in final["holdout"]})
    record.final_picture(_picture(state.average, job))

    last = {key: tensor.detach().clone() for key, tensor in state.average.state_dict().items()}
    kinds: tuple[tuple[Scored, int, dict[str, Tensor]], ...] = (
        ("last", state.step, last),
        ("selected", best.step, best.weights),
    )
    for kind, step, weights in kinds:
        if step != state.step:
            state.average.load_state_dict(weights)
            final = {split: _scored(state.average, job, lab, split) for split in SCORING_SPLITS}
        for split, found in final.items():
            record.score(found, kind, step, split)
        path = lab.settings.checkpoints / job.sweep / f"{job.trial}.{job.seed}" / f"{kind}.safetensors"
        files = checkpoint.save_weights(state.average, weights, path, {"run": job.run, "step": step})
        record.checkpoints.append(StoredCheckpoint(kind, step, str(path), sha256(path), path.stat().st_size))
        for file in files:
            tracked.artifact(file, "model")


def _scored(system: System, job: Job, lab: Lab, split: ScoringSplit) -> list[Score]:
    generated = system.generate(job.configuration.protocol.samples, job.seed, "evaluation", split)
    return lab.evaluator.evaluate(generated, split)


def _show(system: System, job: Job, record: _Record, step: int) -> None:
    pixels = _picture(system, job)
    record.picture(pixels, step)
    assert record.tracked is not None
    record.tracked.image("samples/grid", pixels, step)


def _picture(system: System, job: Job) -> pictures.Pixels:
    dataset = job.configuration.dataset
    count = _POINTS if dataset.modes is not None else _GRID
    # Keyed by nothing but this word: all runs and all steps start from the same latents, and can be looked at together.
    return pictures.picture(system.generate(count, "picture"), dataset.modes)


def _open_tracker(job: Job, lab: Lab, attempt: int) -> RunTracker:
    plan = job.configuration
    facts = environment.describe(lab.device)
    tags = {
        "sweep": job.sweep,
        "trial": str(job.trial),
        "seed": str(job.seed),
        "attempt": str(attempt),
        "role": job.role,
        "system": plan.system,
        "data_digest": plan.dataset.digest,
        "protocol": plan.protocol.name,
        "device": facts["device"],
        "threads": str(facts["threads"]),
        **{f"version.{name}": number for name, number in facts["versions"].items()},
        **{name: str(value) for name, value in environment.code().items()},
    }
    params = {"system": plan.system, "seed": job.seed, "data": plan.dataset.name}
    params |= {f"data.{key}": value for key, value in plan.dataset.config.model_dump(mode="json").items()}
    params |= plan.system_config.model_dump(mode="json")
    params |= {f"training.{key}": value for key, value in plan.training.model_dump(mode="json").items()}
    for older in range(1, attempt):
        lab.tracker.abandon(job.sweep, f"{job.run}.{older}")
    train_size = len(plan.dataset.load("train"))
    return lab.tracker.start(
        job.sweep,
        name=f"{plan.system} {job.trial}.{job.seed}",
        key=f"{job.run}.{attempt}",
        params=params,
        tags=tags,
        dataset=DatasetInfo(
            plan.dataset.name, plan.dataset.digest, plan.dataset.source, f"{plan.dataset.shape}, {train_size} samples"
        ),
    )
