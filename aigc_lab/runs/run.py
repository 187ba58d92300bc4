"""Runs, from their first step to their result: build, train, sample, evaluate, record.

Each step of a run's life may be done again after a crash: attempt row, MLflow run, training from the last checkpoint,
the whole result in one transaction, the end of the MLflow run. MLflow gets curves and pictures on the way.
"""

import itertools
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_lab import plugins
from aigc_lab.data.shared.batches import Batches
from aigc_lab.errors import Failure, NotFinite, UsageError
from aigc_lab.experiment.sections import Training
from aigc_lab.host import environment, outage, run_folders, signals
from aigc_lab.host.files import refused, sha256
from aigc_lab.metrics.base import Score
from aigc_lab.pictures import drawing
from aigc_lab.registry.records import StoredCheckpoint
from aigc_lab.registry.run_lifecycle import RESULTS, Outdated
from aigc_lab.registry.states import RunState as RunState
from aigc_lab.runs.heartbeat import Heartbeat
from aigc_lab.runs.job import Job, RunOutcome, Watcher
from aigc_lab.runs.record import PNG, TEXT, Kind, Record, SharedClock, judge_history
from aigc_lab.runs.resources import Resources
from aigc_lab.samples import Text
from aigc_lab.scoring import temperature_curve
from aigc_lab.scoring.evaluator import SCORING_SPLITS, ScoringSplit
from aigc_lab.shape import Modality
from aigc_lab.systems.base import System
from aigc_lab.systems.shared.language import LanguageSystem
from aigc_lab.tracking import final
from aigc_lab.tracking.base import DatasetInfo, RunTracker, run_key, status_of
from aigc_lab.tracking.description import RunDescription, beginning, ending
from aigc_lab.training import checkpoint
from aigc_lab.training.checkpoint import Checkpointer
from aigc_lab.training.loop import train
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.stacked import Stacked
from aigc_lab.training.state import Progress, Replica, Round, TrainingState
from aigc_lab.verdicts.conclusion import CollapseVerdict

_LOG = logging.getLogger(__name__)

_GRID = 64
_SENTENCES = 20
_POINTS = 2000
# Evaluations deliver the curves; between two that lie far apart, a delivery this often keeps MLflow's pages alive.
_DELIVERY_SECONDS = 15.0


class _Pruned(Exception):
    pass


def execute(jobs: Sequence[Job], resources: Resources, watchers: Sequence[Watcher]) -> list[RunOutcome]:
    """Does the runs, trained together, and records each, whatever happens. An interruption stores where they are; it, a
    user's mistake and a store that fails leave as exceptions: the next run would meet them too.
    """
    training = jobs[0].configuration.training
    resources.settle(training)
    with signals.deferred(), Heartbeat(resources.registry) as heartbeat:
        clock = SharedClock(len(jobs))
        runs = [_Run(job, resources, watcher, heartbeat, clock) for job, watcher in zip(jobs, watchers, strict=True)]
        try:
            for run in runs:
                with run.recorded():
                    run.begin()
            of = {id(run.replica): run for run in runs if run.goes_on}
            for reached in _rounds([run.replica for run in of.values()], training):
                for replica, end in reached:
                    with of[id(replica)].recorded():
                        of[id(replica)].reach(end)
            signals.raise_if_interrupted()
            for run in of.values():
                if run.goes_on:
                    with run.recorded():
                        run.conclude()
        except BaseException as error:
            for run in runs:
                run.stop(error)
            if not _own_fault(error):
                raise
            if signals.stop_requested():
                raise KeyboardInterrupt from None
    return [run.outcome for run in runs if run.outcome is not None]


def _rounds(replicas: Sequence[Replica], training: Training) -> Iterator[Round]:
    """The training of all. Stacked, those that were stored at one step are one program, and go after one another."""
    options: dict[str, Any] = {
        "steps": training.steps,
        "every": training.log_every,
        "decay": training.ema,
        "precision": training.precision,
        "interrupted": signals.stop_requested,
    }
    if not training.stacked:
        yield from train(replicas, **options)
        return
    at = itertools.groupby(sorted(replicas, key=lambda each: each.state.step), lambda each: each.state.step)
    for group in [list(members) for _, members in at]:
        yield from train(group, course=Stacked, **options)


class _Run:
    """One run under way: its state, what it has to show, and what of that is already stored."""

    replica: Replica
    tracked: RunTracker

    def __init__(
        self, job: Job, resources: Resources, watcher: Watcher, heartbeat: Heartbeat, clock: SharedClock
    ) -> None:
        self.outcome: RunOutcome | None = None
        self._job, self._resources, self._watcher, self._heartbeat, self._clock = (
            job,
            resources,
            watcher,
            heartbeat,
            clock,
        )
        self._training = job.configuration.training
        self._folder = run_folders.folder(resources.settings, job.sweep, job.trial, job.seed)
        self._record = Record(run_folders.artifacts(resources.settings, job.sweep, job.trial, job.seed), clock=clock)
        self._attempt = 0
        self._begun = False
        self._scoring = False  # the training is done, up to here: what fails now must cost none of it
        self._rescued = False
        self._best: _Selected | None = None
        self._value = math.nan  # of the objective at the newest evaluation, which was at this step
        self._evaluated = 0
        self._shown = -1, b""  # the newest samples as a file, and the step that they are of
        self._delivered = self._saved = time.monotonic()

    @property
    def goes_on(self) -> bool:
        return self._begun and self.outcome is None

    # ---- its steps

    def begin(self) -> None:
        """An attempt, from the newest checkpoint of its chain where there is one."""
        job, registry = self._job, self._resources.registry
        older = checkpoint.checkpoints(self._folder)
        stored = next(older, None)
        if stored is not None:
            environment.settle(stored.history["threads"])  # another number of threads would give other bits
        now = environment.describe(self._resources.device)
        self._attempt = registry.begin(job.run, now, resumes=stored is not None)
        chain = registry.chain(job.run)
        self._mine = self._folder / str(self._attempt)
        self._checkpoints = Checkpointer(self._mine, self._stored)
        with signals.at_once():
            samples = job.configuration.dataset.load("train").to(self._resources.device)
            described = _describe(job)
            # A run whose scoring failed goes on after its training, though for MLflow it is another.
            scoring = stored is not None and stored.history.get("scoring", False)
            follows = stored is not None and (chain != self._attempt or scoring)
            state, history = self._state(itertools.chain([stored], older) if follows else ())
        self.replica = Replica(state, Batches(samples, self._training.batch_size, job.seed), job.seed)
        self._from = state.step
        if history is not None:
            registry.beat(job.run, self._attempt, from_step=state.step, step=state.step)
        self._heartbeat.add(job.run, self._attempt, lambda: state.step)
        registry.describe(job.run, self._attempt, described.dump())
        self.tracked = self._open_tracker(described, now, chain)
        self._begun = True
        if follows and chain == self._attempt:
            self._scoring = True
            self._tell_again()
        if history is None:
            # MLflow's slider begins at step 0: without a picture there, people see an empty tile first.
            self._show(0)
        elif state.step and self._due(state.step) and self._evaluated != state.step:
            self._evaluate()
        self._rest()
        self._scoring = False

    def _open_tracker(self, described: RunDescription, environment: Mapping[str, Any], chain: int) -> RunTracker:
        job = self._job
        name, params, tags, dataset = beginning(
            described,
            environment,
            sweep=job.sweep,
            trial=job.trial,
            seed=job.seed,
            role=job.role,
            system=job.configuration.system,
            attempt=self._attempt,
        )
        return self._resources.tracker.start(
            job.sweep, name=name, key=run_key(job.run, chain), params=params, tags=tags, dataset=dataset
        )

    def _state(self, stored: Iterable[checkpoint.Stored | None]) -> tuple[TrainingState, dict[str, Any] | None]:
        """The state to go on from, and the history up to there: None where the run begins."""
        plan = self._job.configuration
        for each in itertools.chain(stored, [None]):
            state = TrainingState.fresh(
                plan.system_class,
                plan.system_config,
                plan.dataset.shape,
                seed=self._job.seed,
                batch_size=self._training.batch_size,
                device=self._resources.device,
                channels_last=self._training.channels_last,
            )
            if each is None:
                break
            try:
                checkpoint.restore_state(state, each.state)
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                _LOG.warning("%s: of another version of the system, so it is not used: %s", each.state, error)
                continue
            self._recall(each)
            return state, each.history
        return state, None

    def reach(self, end: Progress | Diverged) -> None:
        """An interval has ended: its scalars, an evaluation, a checkpoint, each where it is due."""
        self._heartbeat.check(self._job.run, self._attempt)
        self._scoring = False
        if isinstance(end, Diverged):
            raise end
        self.tracked.scalars(end.step, dict(end.scalars) | {"dynamics/samples_per_second": end.samples_per_second})
        self._record.scalar(end.step, end.scalars)
        self._record.training_seconds += end.seconds
        self._watcher.progress(end)
        if self._due(end.step):
            self._evaluate()
        elif time.monotonic() - self._delivered > _DELIVERY_SECONDS:
            self._deliver()
        every = self._training.keep_every
        if every and end.step % every == 0:
            self._keep(f"step-{end.step:06d}", end.step, _weights(self.replica.state.average))
        if time.monotonic() - self._saved >= self._training.checkpoint_seconds:
            self._save()

    def _due(self, step: int) -> bool:
        return step % self._training.evaluate_every == 0 or step == self._training.steps

    def _evaluate(self) -> None:
        begun, step = time.perf_counter(), self.replica.state.step
        if (broken := _broken(self.replica.state.average)) is not None:
            raise Diverged(step, broken)  # the step after would tell, and there may be none
        self._scoring = True
        scores, collapse = self._scored("reference", judged=True)
        self._record.score(scores, "progress", step, "reference")
        self._record.judge("collapse", step, collapse)
        if collapse is not None:
            seen = {"missing": collapse.missing_seen, "diversity": collapse.diversity}
            seen |= {"coverage": collapse.coverage, "precision": collapse.precision}
            self.tracked.scalars(step, {f"verdict/{key}": value for key, value in seen.items() if value is not None})
        self.tracked.scores(step, {score.name: score.value for score in scores})
        self._show(step)
        self._deliver()
        self._record.evaluation_seconds += time.perf_counter() - begun
        value = next(score.value for score in scores if score.name == self._job.objective.score)
        sign = 1 if self._job.objective.better == "lower" else -1
        # What is not finite is worse than any score.
        first = self._best is None or (math.isfinite(value) and not math.isfinite(self._best.value))
        if self._best is None or first or sign * value < sign * self._best.value:
            self._best = _Selected(step, value, _weights(self.replica.state.average))
        self._value = value
        stop = self._watcher.scored(step, value)
        self._evaluated = step  # not before: an interruption may come instead of the answer, and it is asked for again
        self._scoring = False
        if stop and step != self._training.steps:
            raise _Pruned
        self._rest()

    def _rest(self) -> None:
        """Trains no further where the objective has not been better for as many evaluations as the run is patient."""
        patience, best = self._training.patience, self._best
        if patience is None or best is None:
            return
        if (self.replica.state.step - best.step) // self._training.evaluate_every >= patience:
            self.replica.live = False

    def conclude(self) -> None:
        """Final scores of the result and of the selected weights, on both splits; weights and the picture as files. The
        result, which is recorded as the last weights, is what the last step came to; of a run with patience it is what
        it was patient for, the selected weights: they are ranked, told to the search, promoted and sampled from.
        """
        assert self._best is not None, "the last step is always evaluated"
        begun, best = time.perf_counter(), self._best
        step = self._result_step
        self._scoring = True
        self._record.repeat("reference", step)
        with self._sampling(best if step == best.step else None):
            holdout, _ = self._scored("holdout")
            self._record.score(holdout, "last", step, "holdout")
            self.tracked.scores(step, {f"{score.name}_holdout": score.value for score in holdout})
            shown, content = self._shown
            self._record.final_samples(content if shown == step else self._samples()[0], self._kind)
            self._draw_curve()
            self._draw_missing(step)
            last = _weights(self.replica.state.average)
        self._judge_raw()
        self._heartbeat.check(self._job.run, self._attempt)
        self._keep("last", step, last)
        if best.step == step:
            self._record.select()
        else:
            with self._sampling(best):
                for split in SCORING_SPLITS:
                    self._record.score(self._scored(split)[0], "selected", best.step, split)
        self._keep("selected", best.step, best.weights)
        self._track_weights()
        self._record.evaluation_seconds += time.perf_counter() - begun
        shares = {
            "time/training_seconds": self._record.training_seconds,
            "time/evaluation_seconds": self._record.evaluation_seconds,
        }
        state = self.replica.state
        known = shares | dict(state.system.summary())
        # An attempt that was killed right here has shown its times already: registry and MLflow say the same.
        self._record.scalar(state.step, self.tracked.scalars(state.step, known))
        self._end(RunState.FINISHED, None, best.value if step == best.step else self._value)

    @property
    def _result_step(self) -> int:
        """The step that the result is of: the last, or with patience that of the best evaluation."""
        patient = self._training.patience is not None and self._best is not None
        return self._best.step if patient and self._best is not None else self.replica.state.step

    @contextmanager
    def _sampling(self, selected: "_Selected | None") -> Iterator[None]:
        """Samples come from the selected weights within; from the last ones for None."""
        average = self.replica.state.average
        if selected is None or selected.step == self.replica.state.step:
            yield
            return
        last = _weights(average)
        average.load_state_dict(selected.weights)
        try:
            yield
        finally:
            average.load_state_dict(last)  # an interruption may come here, and stores the state

    # ---- how it ends

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """What is raised within is how the run ended. What the next run would meet too is raised again."""
        try:
            yield
        except _Pruned:
            self._end(RunState.PRUNED, self._job.configuration.pruned)
        except Diverged as error:
            self._end(RunState.DIVERGED, str(error))
        except NotFinite as error:
            self._end(RunState.DIVERGED, f"{error} at step {self.replica.state.step}")
        except Outdated:
            self._begun, self._attempt = False, 0  # the run is another's now: nothing of it may be written
            raise
        except (UsageError, Failure) as error:
            self.stop(error)
            raise
        except BaseException as error:
            if not _own_fault(error):
                raise
            if isinstance(error, OSError) and (told := refused(error)):
                failure = Failure(told)
                self.stop(failure)
                raise failure from error
            self.stop(error)
            if signals.stop_requested():
                raise KeyboardInterrupt from None
            if self.outcome is None:  # there is no attempt that could have failed
                raise Failure(f"run {self._job.run} could not begin: {_reason(error)}") from error

    def stop(self, error: BaseException) -> None:
        """Ends the run, unless it has ended, because of what happened to all: it is stored, and goes on another time;
        or the training itself failed.
        """
        if self.outcome is not None:
            return
        # A signal may break anything, an import above all: what goes wrong after one is not the run's fault.
        if _own_fault(error) and not signals.stop_requested():
            broken = self._broken_weight()
            if broken is not None:  # whatever the error says, it is a consequence
                self._end(RunState.DIVERGED, f"{broken} is not finite at step {self.replica.state.step}")
                return
            if self._begun and self._scoring:
                self._rescue()
            self._end(RunState.FAILED, _reason(error))
            return
        with suppress(Failure):  # the error that is being handled says more
            at = f"at step {self.replica.state.step}" if self._begun else "before its first step"
            if self._begun and (self.replica.live or self._scoring):
                self._save(wait=True)
            told = f": {error}" if isinstance(error, UsageError | Failure) else ""
            self._end(RunState.KILLED, f"interrupted {at}{told}")

    def _broken_weight(self) -> str | None:
        try:
            return _broken(self.replica.state.average) if self._begun else None
        except RuntimeError:  # it may be the device that failed
            return None

    def _rescue(self) -> None:
        """Keeps what was trained of a run whose scoring fails: its weights, the scores that can be computed, and the
        state to go on from when it is done again.
        """
        state, best = self.replica.state, self._best
        with suppress(OSError):  # of a disk that is full the reason tells
            self._keep("last", state.step, _weights(state.average))
            if best is not None:
                self._keep("selected", best.step, best.weights)
            self._save(wait=True)
            self._rescued = True
        with suppress(Exception):
            for split in SCORING_SPLITS:
                self._record.score(self._computable(split), "last", state.step, split)
        with suppress(Exception):  # MLflow may be what refuses
            self._track_weights()
            last = [score for score in self._record.scores.values() if score.checkpoint == "last"]
            values = {score.name: score.value for score in last if score.split == "holdout" and score.value is not None}
            self.tracked.scores(state.step, {f"{name}_holdout": value for name, value in values.items()})

    def _end(self, state: RunState, reason: str | None, value: float | None = None) -> None:
        """The truth first: MLflow is a projection of it and may be down."""
        if not self._attempt:
            return  # there is no attempt of ours to end
        if self._begun:
            self._judge_history(state, reason)
            with suppress(Failure):
                self._checkpoints.finish()
            if state in RESULTS and self._deliver():
                # Nobody does a run again that has a result: what it has to show would be missing for ever.
                raise Failure(f"run {self._job.run}: its log cannot be written: {self.tracked.reason}")
            if state != RunState.KILLED:
                self._record.close()
        self._resources.registry.finish(
            self._job.run, self._attempt, state, reason=reason, seconds=self._record.seconds, **self._record.result()
        )
        self.outcome = RunOutcome(state, value, reason)
        self._clock.leave()
        self._heartbeat.remove(self._job.run, self._attempt)
        if self._begun:
            self.replica.live = False
            said = [(kind, step, verdict.verdict) for (kind, step), verdict in self._record.verdicts.items()]
            self.tracked.end(status_of(state), ending(state, reason, said, self._result_step))
        if state != RunState.KILLED:
            job = self._job
            run_folders.collect(
                self._resources.settings, job.sweep, job.trial, job.seed, keep=self._attempt, states=not self._rescued
            )

    def _judge_history(self, state: RunState, reason: str | None) -> None:
        """Whether the objective was stable, of a run that has a result or diverged."""
        if state not in RESULTS:
            return
        objective, step = self._job.objective, self.replica.state.step
        history = self._record.history(objective.score)
        if not history and state != RunState.DIVERGED:
            return
        with suppress(ValueError):  # a history that cannot be judged is no reason to lose a result
            said = judge_history(
                [vars(score) for score in history],
                self._record.curves,
                baseline=self._resources.evaluator.baseline(objective.score),
                better=objective.better,
                diverged_at=(step, reason or "diverged") if state == RunState.DIVERGED else None,
            )
            self._record.judge("stability", step, said)

    # ---- what is stored on the way

    def _save(self, *, wait: bool = False) -> None:
        """A checkpoint; without `wait`, only if the one before has been written. What MLflow is to be shown up to here
        must be on the disk first: a resumed run does not show it again.
        """
        self._saved = time.monotonic()
        if self._deliver():
            return
        history = {
            "threads": torch.get_num_threads(),
            "value": self._value,
            "evaluated": self._evaluated,
            "scoring": self._scoring,
            "best": None if self._best is None else {"step": self._best.step, "value": self._best.value},
            "record": self._record.dump(),
        }
        selected = None if self._best is None else self._best.weights
        self._checkpoints.save(self.replica.state, history, selected, wait=wait)

    def _stored(self, step: int) -> None:
        # A registry that fails for a while, or has given this attempt up, is asked again by others.
        with suppress(Failure), outage.tries_once():
            self._resources.registry.beat(self._job.run, self._attempt, step=step, stored_step=step)

    def _recall(self, stored: checkpoint.Stored) -> None:
        history = stored.history
        self._value, self._evaluated = history["value"], history["evaluated"]
        if history["best"] is not None:
            self._best = _Selected(history["best"]["step"], history["best"]["value"], stored.selected)
        self._record.load(history["record"], stored.state.parent, self._mine)

    def _tell_again(self) -> None:
        """A new run of MLflow has the curves, scores and pictures of the attempt that this one goes on from."""
        told: dict[int, dict[str, float]] = {}
        for name, curve in self._record.curves.items():
            for step, value in zip(curve["step"], curve["value"], strict=True):
                told.setdefault(step, {})[name] = math.nan if value is None else value
        for step, values in sorted(told.items()):
            self.tracked.scalars(step, values)
        for (kind, step, _, name), score in sorted(self._record.scores.items()):
            if kind == "progress":
                self.tracked.scores(step, {name: math.nan if score.value is None else score.value})
        for name, artifact in sorted(self._record.artifacts.items()):
            if name.startswith("samples/"):
                self._track_samples(int(name.removeprefix("samples/")), Path(artifact.path))

    def _keep(self, kind: str, step: int, weights: dict[str, Tensor]) -> None:
        """Weights that outlive the run; equal ones are one file."""
        path, kept = self._mine / f"{kind}.safetensors", self._record.checkpoints
        facts, same = {"run": self._job.run, "step": step}, [Path(stored.path) for stored in kept.values()]
        checkpoint.save_weights(self.replica.state.average, weights, path, facts, same)
        kept[kind] = StoredCheckpoint(kind, step, str(path), sha256(path), path.stat().st_size)

    def _track_weights(self) -> None:
        """MLflow gets the final weights, equal ones once; tags say where each are."""
        kept = self._record.checkpoints.values()
        weights = final.weights((stored.kind, Path(stored.path), stored.sha256) for stored in kept)
        for file in final.files(weights):
            self.tracked.artifact(file, final.FOLDER)
        self.tracked.tags(final.tags(weights))

    def _deliver(self) -> int:
        self._delivered = time.monotonic()
        return self.tracked.flush()

    # ---- samples

    def _scored(self, split: ScoringSplit, *, judged: bool = False) -> tuple[list[Score], CollapseVerdict | None]:
        # It may take minutes, and nothing of it is half done.
        with signals.at_once():
            samples = self._job.configuration.protocol.samples
            generated = self.replica.state.average.generate(samples, self._job.seed, "evaluation", split)
            return self._resources.evaluator.examine(generated, split, self.replica.state.average, judged=judged)

    def _computable(self, split: ScoringSplit) -> list[Score]:
        with signals.at_once():
            samples = self._job.configuration.protocol.samples
            generated = self.replica.state.average.generate(samples, self._job.seed, "evaluation", split)
            return self._resources.evaluator.computable(generated, split, self.replica.state.average)

    @property
    def _kind(self) -> Kind:
        """What shows the samples: sentences are a text, all else a picture."""
        return TEXT if self._job.configuration.dataset.shape.modality == Modality.TEXT else PNG

    def _show(self, step: int) -> None:
        content, pixels = self._samples()
        self._shown = step, content
        self._record.samples(content, step, self._kind)
        self._track_samples(step, Path(self._record.artifacts[f"samples/{step:06d}"].path), pixels)

    def _track_samples(self, step: int, file: Path, pixels: drawing.Pixels | None = None) -> None:
        if self._kind is PNG:
            self.tracked.image("samples/grid", drawing.pixels(file) if pixels is None else pixels, step, png=file)
            return
        self.tracked.text(f"samples/{step:06d}.txt", file.read_text("utf-8"))
        # MLflow's page shows a file of this kind as a table: a column of sentences, one line for each step.
        self.tracked.text("samples.csv", self._record.sentences())

    def _samples(self) -> tuple[bytes, drawing.Pixels | None]:
        """The file that shows the samples of now, and the picture that it holds, where it is one."""
        if self._kind is TEXT:
            with signals.at_once():
                made = self.replica.state.average.generate(_SENTENCES, "picture")
            assert isinstance(made, Text)
            return "".join(f"{line}\n" for line in made.sentences()).encode(), None
        pixels = self._picture()
        return drawing.png(pixels), pixels

    def _draw_curve(self) -> None:
        """The finished language model at other temperatures, where the protocol names some."""
        system, temperatures = self.replica.state.average, self._job.configuration.protocol.temperatures
        if not temperatures or not isinstance(system, LanguageSystem):
            return
        with signals.at_once():
            found = self._resources.evaluator.temperature_curve(system, temperatures, self._job.seed)
        told = json.dumps(found, allow_nan=False)
        self._record.file("temperature", "application/json", ".json", told.encode())
        picture = drawing.png(temperature_curve.picture(found))
        self._record.file("quality-diversity", "image/png", ".png", picture)
        self.tracked.text("temperature.json", told)
        self.tracked.artifact(Path(self._record.artifacts["quality-diversity"].path), "")

    def _judge_raw(self) -> None:
        """Whether the generator itself has collapsed: an average over steps may hide that it goes from mode to mode."""
        if not self._training.ema or self._result_step != self.replica.state.step:
            return  # of earlier weights only the average is kept
        system, samples = self.replica.state.system, self._job.configuration.protocol.samples
        with signals.at_once():
            system.eval()
            try:
                with torch.no_grad():
                    made = system.generate(samples, self._job.seed, "evaluation", "reference")
            finally:
                system.train()
            with suppress(ValueError):  # samples that cannot be judged are no reason to lose a result
                self._record.judge("collapse_raw", self.replica.state.step, self._resources.evaluator.judge(made))

    def _draw_missing(self, until: int) -> None:
        """Real pictures of what the last samples up to a step lack: as the record has it, for a resumed run may not
        judge again.
        """
        steps = [step for kind, step in self._record.verdicts if kind == "collapse" and step <= until]
        last = self._record.verdicts["collapse", max(steps)].evidence["bins"] if steps else []
        picture = self._resources.evaluator.missing(last)
        if picture is not None:
            self._record.file("missing", "image/png", ".png", picture)
            self.tracked.artifact(Path(self._record.artifacts["missing"].path), "")

    def _picture(self) -> drawing.Pixels:
        drawn: drawing.Pixels | None = self.replica.state.average.portrait()
        if drawn is not None:
            return drawn
        dataset = self._job.configuration.dataset
        count = _POINTS if dataset.modes is not None else _GRID
        with signals.at_once():
            # Keyed by nothing but this word: all runs and all steps start from the same latents, and can be looked at
            # together.
            return drawing.picture(self.replica.state.average.generate(count, "picture"), dataset.modes)


def _own_fault(error: BaseException) -> bool:
    """Whether it is the run's own, and no interruption, mistake or store that the next run would meet too. A system may
    raise whatever it likes, `SystemExit` and even `KeyboardInterrupt`.
    """
    if isinstance(error, KeyboardInterrupt):
        return not signals.stop_requested() and plugins.raised(error) is not None
    return not isinstance(error, UsageError | Failure | GeneratorExit)


def _reason(error: BaseException) -> str:
    """What is recorded of an error. The same configuration would meet it again."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _broken(system: System) -> str | None:
    """The first weight that samples are made with and that is not finite; None where all are."""
    sampling = {id(weight) for module in system.samplers() for weight in module.parameters()}
    weights = [each for each in system.named_parameters() if id(each[1]) in sampling]
    if not weights:
        return None
    finite = torch.stack([weight.detach().isfinite().all() for _, weight in weights]).tolist()
    return next((name for (name, _), whole in zip(weights, finite, strict=True) if not whole), None)


def _weights(system: System) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in system.state_dict().items()}


@dataclass
class _Selected:
    """The weights of the best evaluation so far."""

    step: int
    value: float
    weights: dict[str, Tensor]


def _describe(job: Job) -> RunDescription:
    """What MLflow is told of a run's configuration and data."""
    plan = job.configuration
    train_size = len(plan.dataset.load("train"))
    shape = f"{plan.dataset.shape}, {train_size} samples"
    dataset = DatasetInfo(plan.dataset.name, plan.dataset.digest, plan.dataset.source, shape)
    return RunDescription(plan.parameters, plan.protocol.name, dataset)
