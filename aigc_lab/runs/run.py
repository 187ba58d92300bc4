"""The execution of runs: build, train, sample, evaluate, record.

Each step may be repeated after a crash: the attempt's row, the MLflow run, training from the last checkpoint, the whole
result in one transaction, the end of the MLflow run. MLflow gets curves and pictures on the way.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from aigc_lab.data.shared.batches import Batches
from aigc_lab.errors import Failure, NotFinite, UsageError
from aigc_lab.host import environment, outage, run_folders, signals
from aigc_lab.host.files import refused
from aigc_lab.nets.precision import products
from aigc_lab.registry.records import STACKED
from aigc_lab.registry.run_lifecycle import RESULTS, Outdated
from aigc_lab.registry.states import RunState as RunState
from aigc_lab.runs.company import Company
from aigc_lab.runs.faults import broken_weight, out_of_memory, own_fault, reason_of
from aigc_lab.runs.heartbeat import Heartbeat
from aigc_lab.runs.job import Crowded, Forewarned, Job, RunOutcome, TooMany, Watcher
from aigc_lab.runs.record import Record
from aigc_lab.runs.resources import Resources
from aigc_lab.runs.restore import restored
from aigc_lab.runs.rounds import rounds
from aigc_lab.runs.scores import RunScores
from aigc_lab.runs.showcase import Showcase
from aigc_lab.runs.tracked import describe, open_run, replay, track_weights
from aigc_lab.runs.weights import Selected, copied, keep, sampling_from
from aigc_lab.scoring.evaluator import SCORING_SPLITS
from aigc_lab.statistics.intervals import error_of
from aigc_lab.tracking.base import RunTracker
from aigc_lab.tracking.ending import Ending
from aigc_lab.training import checkpoint
from aigc_lab.training.checkpoint import Checkpointer
from aigc_lab.training.recorder import Diverged
from aigc_lab.training.state import Progress, Replica

# Evaluations deliver the curves; between two that lie far apart, a delivery this often keeps MLflow's pages alive.
_DELIVERY_SECONDS = 15.0


class _Pruned(Exception):
    pass


def execute(
    jobs: Sequence[Job],
    resources: Resources,
    watchers: Sequence[Watcher],
    *,
    stacked: bool | None = None,
    ended: Callable[[Job, RunOutcome], None] = lambda job, outcome: None,
) -> list[RunOutcome]:
    """Trains the jobs together, `stacked` as one program (by default as `training.stacked` says), and records the
    outcome of each; a run that fails has one too, and `ended` is called with it as soon as it has a result or failed.

    An interruption, a user's mistake (`UsageError`) and a failing store (`Failure`) are raised after the state of the
    runs is stored, since the next run would meet them too. Raises `TooMany` where memory ends with several runs as one
    program: their attempts have ended, and their last checkpoints hold.
    """
    training = jobs[0].configuration.training
    stacked = (training.stacked if stacked is None else stacked) and len(jobs) > 1
    resources.settle(training)
    with signals.deferred(), products("highest"), Heartbeat(resources.registry) as heartbeat:
        company = Company([f"{job.trial}.{job.seed}" for job in jobs], training.checkpoint_seconds, stacked=stacked)
        runs = [
            _Run(job, resources, watcher, heartbeat, company, ended)
            for job, watcher in zip(jobs, watchers, strict=True)
        ]
        try:
            for run in runs:
                with run.recorded():
                    run.begin()
            of = {id(run.replica): run for run in runs if run.goes_on}
            replicas = [run.replica for run in of.values()]
            for reached in rounds(replicas, training, resources.device, stacked=stacked):
                # All are evaluated before any is asked about: the answers come meanwhile.
                for replica, end in reached:
                    with of[id(replica)].recorded():
                        of[id(replica)].reach(end)
                for replica, _ in reached:
                    if of[id(replica)].goes_on:
                        with of[id(replica)].recorded():
                            of[id(replica)].settle()
                    if stacked and of[id(replica)].rests and not signals.stop_requested():
                        with of[id(replica)].recorded():
                            of[id(replica)].conclude()  # the others go on for long, perhaps
            signals.raise_if_interrupted()
            for run in of.values():
                if run.goes_on:
                    with run.recorded():
                        run.conclude()
        except BaseException as error:
            if out_of_memory(error) and company.several:
                left = frozenset(run.job.run for run in runs if run.outcome is None)
                for run in runs:
                    run.put_back(reason_of(error))
                raise TooMany(reason_of(error), left) from error
            if resources.crowded and out_of_memory(error):
                for run in runs:
                    run.give_up()
                raise Crowded(reason_of(error)) from error
            for run in runs:
                run.stop(error)
            if not own_fault(error):
                raise
            if signals.stop_requested():
                raise KeyboardInterrupt from None
    return [run.outcome for run in runs if run.outcome is not None]


class _Run:
    """One run under way: its training state, its record, and how much of them is stored."""

    replica: Replica
    tracked: RunTracker

    def __init__(
        self,
        job: Job,
        resources: Resources,
        watcher: Watcher,
        heartbeat: Heartbeat,
        company: Company,
        ended: Callable[[Job, RunOutcome], None],
    ) -> None:
        self.outcome: RunOutcome | None = None
        self.job = self._job = job
        self._resources, self._watcher, self._ended = resources, watcher, ended
        self._heartbeat, self._company = heartbeat, company
        self._training = job.configuration.training
        self._folder = run_folders.folder(resources.settings, job.sweep, job.trial, job.seed)
        self._record = Record(
            run_folders.artifacts(resources.settings, job.sweep, job.trial, job.seed), clock=company.clock
        )
        self._attempt = 0
        self._begun = False
        self._asking: dict[str, Any] | None = None  # what the watcher is to be told of an evaluation
        self._scoring = False  # the training is done, up to here: what fails now must cost none of it
        self._best: Selected | None = None
        self._value = math.nan  # of the objective at the newest evaluation, which was at this step
        self._evaluated = 0
        self._delivered = self._saved = time.monotonic()

    @property
    def goes_on(self) -> bool:
        return self._begun and self.outcome is None

    @property
    def rests(self) -> bool:
        """Whether its training has ended before the last step, and its result is to be recorded."""
        return self.goes_on and not self.replica.live

    # ---- its steps

    def begin(self) -> None:
        """Begins an attempt, from the newest checkpoint of its chain if there is one."""
        job, registry = self._job, self._resources.registry
        older = checkpoint.checkpoints(self._folder)
        stored = next(older, None)
        if stored is not None:
            environment.settle(stored.history["threads"])  # another number of threads would give other bits
        now = environment.describe(self._resources.device)
        if self._company.stacked:
            now[STACKED] = self._company.names
        self._attempt = registry.begin(job.run, now, resumes=stored is not None, claim=job.claim)
        chain = registry.chain(job.run)
        self._mine = self._folder / str(self._attempt)
        self._checkpoints = Checkpointer(self._mine, self._stored, self._record.outbox)
        with signals.at_once():
            samples = self._company.samples(job, self._resources.device)
            described = describe(job, self._resources.evaluator.metrics)
            # A run whose scoring failed goes on after its training, though for MLflow it is another.
            scoring = stored is not None and stored.history.get("scoring", False)
            follows = stored is not None and (chain != self._attempt or scoring)
            records = itertools.chain([stored], older) if stored is not None and follows else ()
            state, restored_from = restored(job, self._resources.device, records)
            if restored_from is not None:
                self._recall(restored_from)
        self.replica = Replica(state, Batches(samples, self._training.batch_size, job.seed), job.seed)
        self._scores = RunScores(job, self.replica, self._record, self._resources.evaluator)
        self._from = state.step
        if restored_from is not None:
            registry.beat(job.run, self._attempt, from_step=state.step, step=state.step)
        self._heartbeat.add(job.run, self._attempt, lambda: state.step)
        registry.describe(job.run, self._attempt, described.dump())
        self.tracked = open_run(self._resources.tracker, job, described, now, attempt=self._attempt, chain=chain)
        self._showcase = Showcase(job, self.replica, self._record, self.tracked, self._resources.evaluator)
        self._begun = True
        if follows and chain == self._attempt:
            self._scoring = True
            replay(self._record, self.tracked)
            self._showcase.show_again()
        if restored_from is None:
            # MLflow's slider begins at step 0: without a picture there, people see an empty tile first.
            self._showcase.show(0)
        elif state.step and self._due(state.step) and self._evaluated != state.step:
            self._evaluate()
        self.settle()

    def reach(self, end: Progress | Diverged) -> None:
        """Records the scalars of an interval that has ended, and evaluates where this is due. Raises `Diverged`."""
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

    def settle(self) -> None:
        """Follows an interval: if the run was evaluated, asks whether it is to be stopped; stores weights and a
        checkpoint where these are due. Raises `_Pruned`.
        """
        step, every = self.replica.state.step, self._training.keep_every
        if self._asking is not None:
            told, self._asking = self._asking, None
            stop = self._watcher.scored(step, **told)
            self._evaluated = step  # not before: an interruption may come instead of the answer, which is asked again
            self._scoring = False
            if stop and step != self._training.steps:
                raise _Pruned
        self._rest()
        self._scoring = False
        if step == self._from:
            return
        if every and step % every == 0:
            self._scores.fit_sampler()
            self._keep(f"step-{step:06d}", step, copied(self.replica.state.average))
        if self._company.due(step) if self._company.stacked else self._overdue:
            self._save()

    @property
    def _overdue(self) -> bool:
        return time.monotonic() - self._saved >= self._training.checkpoint_seconds

    def _due(self, step: int) -> bool:
        return step % self._training.evaluate_every == 0 or step == self._training.steps

    def _evaluate(self) -> None:
        begun, step = time.perf_counter(), self.replica.state.step
        if (broken := broken_weight(self.replica.state.average)) is not None:
            raise Diverged(step, broken)  # the step after would tell, and there may be none
        self._scoring = True
        self._scores.fit_sampler()
        scores, collapse = self._scores.examine("reference", judged=True)
        self._record.score(scores, "progress", step, "reference")
        self._record.judge("collapse", step, collapse)
        if collapse is not None:
            seen = {"missing": collapse.missing_seen, "diversity": collapse.diversity}
            seen |= {"coverage": collapse.coverage, "precision": collapse.precision}
            self.tracked.scalars(step, {f"verdict/{key}": value for key, value in seen.items() if value is not None})
        self.tracked.scores(step, {score.name: score.value for score in scores})
        self._showcase.show(step)
        self._deliver()
        self._record.evaluation_seconds += time.perf_counter() - begun
        objective = next(score for score in scores if score.name == self._job.objective.score)
        value, error = objective.value, error_of(objective.low, objective.high)
        sign = 1 if self._job.objective.better == "lower" else -1
        # What is not finite is worse than any score.
        first = self._best is None or (math.isfinite(value) and not math.isfinite(self._best.value))
        if self._best is None or first or sign * value < sign * self._best.value:
            self._best = Selected(step, value, copied(self.replica.state.average))
        self._value = value
        verdict = None if collapse is None else str(collapse.verdict)
        self._asking = {"value": value, "error": error, "collapse": verdict}
        if self._company.several and isinstance(self._watcher, Forewarned):
            self._watcher.evaluated(step, **self._asking)

    def _rest(self) -> None:
        """Ends the training when the objective has not improved for `training.patience` evaluations."""
        patience, best = self._training.patience, self._best
        if patience is None or best is None:
            return
        if (self.replica.state.step - best.step) // self._training.evaluate_every >= patience:
            self.replica.live = False

    def conclude(self) -> None:
        """Scores the result and the selected weights on both splits, and keeps weights and samples as files.

        The result is recorded as the last weights and is what is ranked, told to the search and promoted. It is the
        last step, or in a run with patience the selected weights.
        """
        assert self._best is not None, "the last step is always evaluated"
        begun, best = time.perf_counter(), self._best
        step = self._result_step
        self._scoring = True
        self._record.repeat("reference", step)
        with self._sampling(best if step == best.step else None):
            holdout, _ = self._scores.examine("holdout")
            self._record.score(holdout, "last", step, "holdout")
            self.tracked.scores(step, {f"{score.name}_holdout": score.value for score in holdout})
            self._showcase.keep_final(step)
            self._showcase.draw_temperatures(step)
            self._showcase.draw_missing(step)
            last = copied(self.replica.state.average)
        if self._training.ema and step == self.replica.state.step:  # of earlier weights only the average is kept
            self._scores.judge_raw()
        self._heartbeat.check(self._job.run, self._attempt)
        self._keep("last", step, last)
        if best.step == step:
            self._record.select()
        else:
            with self._sampling(best):
                for split in SCORING_SPLITS:
                    self._record.score(self._scores.examine(split)[0], "selected", best.step, split)
        self._keep("selected", best.step, best.weights)
        track_weights(self._record, self.tracked)
        self._record.evaluation_seconds += time.perf_counter() - begun
        shares = {
            "time/training_seconds": self._record.training_seconds,
            "time/evaluation_seconds": self._record.evaluation_seconds,
        }
        state = self.replica.state
        numbers = shares | dict(state.system.summary())
        # An attempt that was killed right here has shown its times already: registry and MLflow say the same.
        self._record.scalar(state.step, self.tracked.scalars(state.step, numbers))
        self._end(RunState.FINISHED, None, best.value if step == best.step else self._value)

    @property
    def _result_step(self) -> int:
        """The step that the result is of: the last, or with patience that of the best evaluation."""
        patient = self._training.patience is not None and self._best is not None
        return self._best.step if patient and self._best is not None else self.replica.state.step

    def _sampling(self, selected: Selected | None) -> AbstractContextManager[None]:
        """Samples come from the selected weights within; from the last ones for None."""
        state = self.replica.state
        other = selected is not None and selected.step != state.step
        return sampling_from(state.average, selected.weights if selected is not None and other else None)

    # ---- how it ends

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Records an exception raised within as the end of the run. Raises it again if the next run would meet it."""
        try:
            yield
        except _Pruned:
            self._end(RunState.PRUNED, self._job.configuration.pruned)
        except Diverged as error:
            self._end(RunState.DIVERGED, str(error))
        except NotFinite as error:
            self._end(RunState.DIVERGED, f"{error} at step {self.replica.state.step}")
        except Outdated:
            several = self._company.several
            self._disown()
            if not several:
                raise
        except (UsageError, Failure) as error:
            self.stop(error)
            raise
        except BaseException as error:
            shared = self._resources.crowded or self._company.several
            if not own_fault(error) or (shared and out_of_memory(error)):
                raise
            if isinstance(error, OSError) and (reason := refused(error)):
                failure = Failure(reason)
                self.stop(failure)
                raise failure from error
            self.stop(error)
            if signals.stop_requested():
                raise KeyboardInterrupt from None
            if self.outcome is None:  # there is no attempt that could have failed
                raise Failure(f"run {self._job.run} could not begin: {reason_of(error)}") from error

    def give_up(self) -> None:
        """Leaves the attempt as a process leaves it that dies: its checkpoints are whole, its end is for others to
        record. The state is not stored, for it may be in the middle of a step.
        """
        if self._begun:
            with suppress(Exception):
                self._checkpoints.finish()
        self._disown()

    def put_back(self, reason: str) -> None:
        """Ends the attempt of a run that is to be done again, from its last checkpoint: its state may be in the middle
        of a step.
        """
        if self.outcome is None:
            self._end(RunState.KILLED, reason)

    def _disown(self) -> None:
        """The run is another's now: nothing of it may be written."""
        if self._begun:
            self.replica.live = False
            self._heartbeat.remove(self._job.run, self._attempt)
            self._company.leave()
        self._begun, self._attempt = False, 0

    def stop(self, error: BaseException) -> None:
        """Ends the run, unless it has ended, by an error in this run or in another that is trained with it. A run that
        is not to blame is stored as it is and resumed later.
        """
        if self.outcome is not None:
            return
        # A signal may break anything, an import above all: what goes wrong after one is not the run's fault.
        if own_fault(error) and not signals.stop_requested():
            broken = self._broken_weight()
            if broken is not None:  # whatever the error says, it is a consequence
                self._end(RunState.DIVERGED, f"{broken} is not finite at step {self.replica.state.step}")
                return
            if self._begun and self._scoring:
                self._rescue()
            self._end(RunState.FAILED, reason_of(error, self._training.batch_size))
            return
        with suppress(Failure):  # the error that is being handled says more
            at = f"at step {self.replica.state.step}" if self._begun else "before its first step"
            if self._begun and (self.replica.live or self._scoring):
                self._save(wait=True)
        with suppress(Failure):  # where the files cannot be shared, the registry may be there all the same
            reason = f": {error}" if isinstance(error, UsageError | Failure) else ""
            self._end(RunState.KILLED, f"interrupted {at}{reason}")

    def _broken_weight(self) -> str | None:
        try:
            return broken_weight(self.replica.state.average) if self._begun else None
        except RuntimeError:  # it may be the device that failed
            return None

    def _rescue(self) -> None:
        """Keeps what a run has trained whose scoring fails: weights, the scores of the metrics that do not fail, and a
        checkpoint to resume from.
        """
        state, best = self.replica.state, self._best
        with suppress(OSError):  # of a disk that is full the reason tells
            self._keep("last", state.step, copied(state.average))
            if best is not None:
                self._keep("selected", best.step, best.weights)
            self._save(wait=True)
        with suppress(Exception):
            for split in SCORING_SPLITS:
                self._record.score(self._scores.computable(split), "last", state.step, split)
        with suppress(Exception):  # MLflow may be what refuses
            track_weights(self._record, self.tracked)
            last = [score for score in self._record.scores.values() if score.checkpoint == "last"]
            values = {score.name: score.value for score in last if score.split == "holdout" and score.value is not None}
            self.tracked.scores(state.step, {f"{name}_holdout": value for name, value in values.items()})

    def _end(self, state: RunState, reason: str | None, value: float | None = None) -> None:
        """Records how the run ended, in the registry before MLflow, which only shows it and may be down."""
        if not self._attempt:
            return  # there is no attempt of ours to end
        if self._begun:
            self._scores.judge_history(state, reason)
            with suppress(Failure):
                self._checkpoints.finish()
            if state in RESULTS and self._deliver():
                # Nobody does a run again that has a result: what it has to show would be missing for ever.
                raise Failure(f"run {self._job.run}: its log cannot be written: {self.tracked.reason}")
            if state != RunState.KILLED:
                self._record.close()
                self._record.outbox.deliver()  # before the registry says so: other homes look for the files then
        seconds = self._record.seconds
        self._resources.registry.finish(
            self._job.run, self._attempt, state, reason=reason, seconds=seconds, **self._record.result()
        )
        self.outcome = RunOutcome(state, value, reason, seconds)
        self._company.leave()
        self._heartbeat.remove(self._job.run, self._attempt)
        if self._begun:
            self.replica.live = False
        last = self._record.checkpoints.get("last")
        said = [(kind, step, verdict.verdict) for (kind, step), verdict in self._record.verdicts.items()]
        floor = self._record.floor_of(self._job.objective.score)
        ending = Ending(state, reason, said, None if last is None else last.step, floor)
        job, tell = self._job, self.tracked.end if self._begun else None
        ending.complete(self._resources.settings, (job.sweep, job.trial, job.seed), self._attempt, tell)
        if state != RunState.KILLED:
            self._ended(job, self.outcome)

    # ---- what is stored on the way

    def _save(self, *, wait: bool = False) -> None:
        """Stores a checkpoint; without `wait`, only if the one before has been written. The records for MLflow up to
        here are on the disk first, because a resumed run does not write them again.
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
            self._best = Selected(history["best"]["step"], history["best"]["value"], stored.selected)
        self._record.load(history["record"], stored.state.parent, self._mine)

    def _keep(self, kind: str, step: int, values: dict[str, Tensor]) -> None:
        """Keeps weights beyond the run."""
        average = self.replica.state.average
        keep(self._record, self._mine, self._job.run, average, values, kind, step)

    def _deliver(self) -> int:
        self._delivered = time.monotonic()
        return self.tracked.flush()
