"""Writing the attempts of a run: how each begins and ends, what it came to, and which process works on it.

`run_lifecycle` says what may follow what. Every write is one transaction in which nobody else changes the run.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from aigc_lab.errors import Failure
from aigc_lab.host.processes import Process
from aigc_lab.registry import statements
from aigc_lab.registry.database import Database, repeated
from aigc_lab.registry.records import (
    DESCRIBED,
    STACKED,
    ScalarLike,
    StoredArtifact,
    StoredCheckpoint,
    StoredScore,
    StoredVerdict,
)
from aigc_lab.registry.run_lifecycle import RETRIES, Life, Outdated
from aigc_lab.registry.run_queue import check_claim, end_place
from aigc_lab.registry.states import RunState
from aigc_lab.registry.tables import Artifact, Attempt, Checkpoint, Run, ScalarSummary, Score, Trial, Verdict

# What the bits of a run depend on, of the environment that an attempt records.
_BITS = ("device", "threads", "versions", "git_commit", "git_dirty", STACKED)


class Lost(NamedTuple):
    """What became of a run whose process is gone: the number of its newest attempt (0 for none), its state, why."""

    attempt: int
    state: RunState
    reason: str

    @property
    def again(self) -> bool:
        """Whether the run is to be tried again: it has no result, and has not crashed too often."""
        return self.state in (RunState.KILLED, RunState.QUEUED)


class AttemptRecords(Database):
    """The part of `Registry` that records the attempts of runs. Attempts of a run are numbered from 1."""

    # ---- begin

    def begin(self, run: str, environment: Mapping[str, Any], *, resumes: bool = True, claim: int | None = None) -> int:
        """Starts the next attempt, by this process, and returns its number. One that never ended is closed as KILLED.
        `claim` is the number of the claim by which a worker holds the run.

        An attempt of a run that was KILLED is of the chain before; when the run had FAILED, a new chain begins, and so
        it does when the attempt `resumes` from nothing, in an environment where the bits of what it has shown may come
        out as others. Raises `Failure` when the run has a result, and `Outdated` when another claim is in force.
        """
        return self._begin(run, environment, resumes, claim, Process.this(), statements.now())

    @repeated
    def _begin(
        self,
        run: str,
        environment: Mapping[str, Any],
        resumes: bool,
        claim: int | None,
        process: Process,
        now: datetime,
    ) -> int:
        with self._locked_run(run) as locked:
            check_claim(locked.connection, run, claim)
            number = locked.before.newest + 1
            if locked.before.writable(locked.before.newest) and locked.is_of(process, now):
                return locked.before.newest  # the answer to its commit was lost
            chain = (locked.chain if locked.continues(environment, resumes) else None) or number
            locked.save(locked.before.begin(), reason=f"never ended; attempt {number} took over")
            locked.connection.execute(
                insert(Attempt).values(
                    run_id=run,
                    number=number,
                    state=RunState.RUNNING.value,
                    started_at=now,
                    environment=statements.plain(environment),
                    host=process.host,
                    boot=process.boot,
                    pid=process.pid,
                    process_started=process.started,
                    heartbeat_at=self.moment(locked.connection),
                    chain=chain,
                    from_step=0,
                )
            )
            locked.update_run(reason=None, seconds=None, finished_at=None)
            locked.start_trial()
        return number

    # ---- while it runs

    @repeated
    def beat(self, /, run: str, attempt: int, **facts: int) -> None:
        """Says that this attempt is alive; `facts` are columns that say how far it is (`step`, …). Raises
        `Outdated` when it may not write any more.
        """
        newest = select(func.max(Attempt.c.number)).where(Attempt.c.run_id == run).scalar_subquery()
        this = (Attempt.c.run_id == run, Attempt.c.number == attempt, Attempt.c.number == newest)
        with self.write() as connection:
            changed = connection.execute(
                update(Attempt)
                .where(*this, Attempt.c.state == RunState.RUNNING.value)
                .values(heartbeat_at=self.moment(connection), **facts)
            )
            if not changed.rowcount:
                raise Outdated(f"attempt {attempt} of run {run} was given up, or another has taken over")

    @repeated
    def describe(self, run: str, attempt: int, described: Mapping[str, Any]) -> None:
        """Stores what MLflow is told of the run beside the environment of an attempt."""
        this = (Attempt.c.run_id == run, Attempt.c.number == attempt)
        with self.write() as connection:
            facts = connection.scalar(select(Attempt.c.environment).where(*this)) or {}
            facts = facts | {DESCRIBED: statements.plain(described)}
            connection.execute(update(Attempt).where(*this).values(environment=facts))

    @repeated
    def chain(self, run: str) -> int:
        """The number of the attempt with which the newest attempt's chain began: together they are one MLflow run."""
        newest = select(Attempt.c.chain).where(Attempt.c.run_id == run).order_by(Attempt.c.number.desc()).limit(1)
        with self.read() as connection:
            return connection.scalar(newest) or 1

    @repeated
    def crashes(self, run: str) -> int:
        """How often the run's process has crashed since it last made progress, which is a checkpoint stored, or since
        it was begun anew.
        """
        with self.read() as connection:
            return _crashes(connection, run)

    # ---- end

    @repeated
    def finish(
        self,
        run: str,
        attempt: int,
        state: RunState,
        *,
        reason: str | None = None,
        seconds: float | None = None,
        scores: Iterable[StoredScore] = (),
        scalars: Mapping[str, ScalarLike] | None = None,
        checkpoints: Iterable[StoredCheckpoint] = (),
        artifacts: Iterable[StoredArtifact] = (),
        verdicts: Iterable[StoredVerdict] = (),
    ) -> None:
        """Ends an attempt and its run: whatever was stored for the run before is replaced by what is given here.

        Raises `Failure` when a newer attempt has begun, or when this one already ended in another state.
        """
        with self._locked_run(run) as locked:
            after = locked.before.end(attempt, RunState(state))
            if after == locked.before and state == RunState.KILLED:
                return  # the last words of a process that was given up, or a replay
            locked.save(after, reason=reason)
            ended_at = func.coalesce(Run.c.finished_at, statements.now())
            locked.update_run(reason=statements.text(reason), seconds=statements.finite(seconds), finished_at=ended_at)
            rows = {
                Score: [_score(score) for score in scores],
                ScalarSummary: [_scalar(name, scalar) for name, scalar in (scalars or {}).items()],
                Verdict: [_verdict(verdict) for verdict in verdicts],
                Checkpoint: [self._file(checkpoint) for checkpoint in checkpoints],
                Artifact: [self._file(artifact) for artifact in artifacts],
            }
            for table, of_table in rows.items():
                statements.replace_rows(locked.connection, table, run, of_table)

    @repeated
    def lose(self, run: str, reason: str, *, crashed: bool = False, claim: int | None = None) -> Lost:
        """Ends a run whose process is gone: KILLED, to be tried again; or FAILED once it has crashed more than
        `RETRIES` times without progress. A run whose result was written down keeps it.

        `crashed` says that the process died of itself: nobody ended it, and no power was cut. The place that it had in
        the queue by a `claim` ends at the same moment: one that is not dead after all can neither begin nor finish.
        """
        with self._locked_run(run) as locked:
            if claim is not None:
                end_place(locked.connection, run, claim)
            after = locked.before.lose()
            if crashed and locked.before.attempts[-1:] == (RunState.RUNNING,):
                newest = (Attempt.c.run_id == run, Attempt.c.number == after.newest)
                locked.connection.execute(update(Attempt).where(*newest).values(crashed=True))
            if after != locked.before:
                locked.save(after, reason=reason)
            if crashed and after.state == RunState.KILLED and _crashes(locked.connection, run) > RETRIES:
                after, reason = after.lose(RunState.FAILED), f"{reason}, {RETRIES + 1} times without progress"
                locked.update_run(state=after.state.value)
            if after != locked.before:
                locked.update_run(reason=statements.text(reason), finished_at=statements.now())
        return Lost(after.newest, after.state, reason)

    @repeated
    def rejudge(
        self, run: str, verdicts: Iterable[StoredVerdict], files: Mapping[str, StoredArtifact | None] | None = None
    ) -> None:
        """Puts verdicts in the place of those of the run, and `files` in the place of those of their names (None: there
        is none now). What it was trained to stays as it is.
        """
        rows = [self._file(file) | {"run_id": run} for file in (files or {}).values() if file]
        with self.write() as connection:
            count = connection.scalar(select(func.count()).select_from(Run).where(Run.c.id == run))
            statements.require(count, f"run {run}")
            statements.replace_rows(connection, Verdict, run, [_verdict(verdict) for verdict in verdicts])
            connection.execute(delete(Artifact).where(Artifact.c.run_id == run, Artifact.c.name.in_(files or ())))
            if rows:
                connection.execute(insert(Artifact), rows)

    # ---- pieces of a transaction

    @contextmanager
    def _locked_run(self, run: str) -> Iterator["_LockedRun"]:
        """A transaction about one run, which nobody else can change meanwhile."""
        with self.write() as connection:
            state = connection.scalar(select(Run.c.state).where(Run.c.id == run).with_for_update())
            if state is None:
                raise Failure(f"the registry has no run {run}")
            rows = connection.execute(
                select(Attempt.c.state, Attempt.c.chain).where(Attempt.c.run_id == run).order_by(Attempt.c.number)
            ).all()
            before = Life(RunState(state), tuple(RunState(row.state) for row in rows))
            try:
                yield _LockedRun(connection, run, before, rows[-1].chain if rows else None)
            except Failure as error:
                raise type(error)(f"run {run}: {error}") from None

    def _file(self, file: StoredCheckpoint | StoredArtifact) -> dict[str, Any]:
        return vars(file) | {"path": self.recorded(file.path)}


@dataclass(frozen=True)
class _LockedRun:
    """A run within a transaction that has locked its row: its life `before` the transaction, and the chain of its
    newest attempt.
    """

    connection: Connection
    run: str
    before: Life
    chain: int | None

    def is_of(self, process: Process, began: datetime) -> bool:
        """Whether the newest attempt is the one that this process began at this moment."""
        columns = (Attempt.c.host, Attempt.c.boot, Attempt.c.pid, Attempt.c.process_started, Attempt.c.started_at)
        newest = (Attempt.c.run_id == self.run, Attempt.c.number == self.before.newest)
        row = self.connection.execute(select(*columns).where(*newest)).one()
        return tuple(row) == (process.host, process.boot, process.pid, process.started, began)

    def continues(self, environment: Mapping[str, Any], resumes: bool) -> bool:
        """Whether an attempt that begins now is of the chain before: the run was interrupted, and the attempt resumes
        from a checkpoint or comes out with the same bits in this environment.
        """
        if self.before.state not in (RunState.KILLED, RunState.RUNNING):
            return False
        if resumes:
            return True
        first = (Attempt.c.run_id == self.run, Attempt.c.number == self.chain)
        earlier = self.connection.scalar(select(Attempt.c.environment).where(*first)) or {}
        return not earlier or all(earlier.get(fact) == environment.get(fact) for fact in _BITS)

    def save(self, after: Life, *, reason: str | None) -> None:
        """The states of the run and of the attempts that there were; those that have ended now, ended for `reason`."""
        pairs = zip(self.before.attempts, after.attempts, strict=False)
        for number, (old, new) in enumerate(pairs, start=1):
            if old != new:
                ended = {"state": new.value, "reason": statements.text(reason), "ended_at": statements.now()}
                this = (Attempt.c.run_id == self.run, Attempt.c.number == number)
                self.connection.execute(update(Attempt).where(*this).values(ended))
        self.update_run(state=after.state.value)

    def update_run(self, **values: Any) -> None:
        """Sets columns of the run's row."""
        self.connection.execute(update(Run).where(Run.c.id == self.run).values(values))

    def start_trial(self) -> None:
        """Marks the run's trial as RUNNING where it was QUEUED."""
        trial = select(Run.c.sweep_id, Run.c.trial).where(Run.c.id == self.run).subquery()
        self.connection.execute(
            update(Trial)
            .where(
                Trial.c.sweep_id == select(trial.c.sweep_id).scalar_subquery(),
                Trial.c.number == select(trial.c.trial).scalar_subquery(),
                Trial.c.state == RunState.QUEUED.value,
            )
            .values(state=RunState.RUNNING.value)
        )


# ---- rows


def _score(score: StoredScore) -> dict[str, Any]:
    numbers = {name: statements.finite(getattr(score, name)) for name in ("value", "low", "high", "floor", "floor_sd")}
    return vars(score) | numbers


def _verdict(verdict: StoredVerdict) -> dict[str, Any]:
    return vars(verdict) | {"evidence": statements.plain(verdict.evidence)}


def _scalar(name: str, scalar: ScalarLike) -> dict[str, Any]:
    return {
        "name": name,
        "last": statements.finite(scalar.last),
        "minimum": statements.finite(scalar.minimum),
        "maximum": statements.finite(scalar.maximum),
        "step": scalar.step,
    }


def _crashes(connection: Connection, run: str) -> int:
    columns = (Attempt.c.state, Attempt.c.crashed, Attempt.c.from_step, Attempt.c.stored_step, Attempt.c.chain)
    newest_first = select(*columns).where(Attempt.c.run_id == run).order_by(Attempt.c.number.desc())
    attempts = connection.execute(newest_first).all()
    count = 0
    for attempt in attempts:
        if attempt.state != RunState.KILLED or attempt.chain != attempts[0].chain:
            break
        count += bool(attempt.crashed)
        if (attempt.stored_step or 0) > (attempt.from_step or 0):
            break
    return count
