"""The queue of a sweep's runs: who asks for runs offers them, workers claim them, and each is done by one at a time.

`queue_entry` says what may follow what. Every write is one transaction, which may be replayed.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from aigc_lab.registry import statements
from aigc_lab.registry.database import Database, repeated
from aigc_lab.registry.queue_entry import QueueEntry, QueueState
from aigc_lab.registry.run_lifecycle import RESULTS, Outdated
from aigc_lab.registry.tables import Evaluation, Opening, QueuedRun, Run, Trial, Worker

Json = dict[str, Any]


@dataclass(frozen=True)
class Claimed:
    """A run that a worker may do: `values` fill the experiment's holes by name. `crowded` says that others share its
    GPU.
    """

    run: str
    trial: int
    seed: int
    role: str
    values: Json
    claim: int
    crowded: bool = False


class Waiting(NamedTuple):
    """A run that waits for a worker, and the `values` that fill the experiment's holes by name."""

    run: str
    values: Json


class Evaluated(NamedTuple):
    """What a run has reported at a step: the objective on the reference split, its standard error, and the collapse
    verdict on the same samples. NaN where a number is not finite.
    """

    run: str
    step: int
    value: float
    error: float
    collapse: str | None


class QueueNews(NamedTuple):
    """What has happened since: evaluations without an answer, by step; run -> (worker, claim) of those that are being
    done; and run -> newest claim of those whose place has ended.
    """

    evaluations: list[Evaluated]
    claimed: dict[str, tuple[str, int]]
    ended: dict[str, int]


class QueueRecords(Database):
    """The part of `Registry` that records the queue of a sweep."""

    # ---- who asks for runs

    @repeated
    def open_to_workers(self, sweep: str, content: Mapping[str, Any]) -> None:
        """Stores what workers need to do runs of the sweep, in the place of what was stored before."""
        with self.write() as connection:
            if not statements.insert_new(connection, Opening, sweep_id=sweep, content=statements.plain(content)):
                this = update(Opening).where(Opening.c.sweep_id == sweep)
                connection.execute(this.values(content=statements.plain(content)))

    @repeated
    def offer(self, run: str) -> None:
        """The run is to be done by whoever claims it. One that waits already, or that somebody does, stays as it is,
        and so does one that has its result.
        """
        with self.write() as connection:
            this = connection.execute(select(Run.c.sweep_id, Run.c.state).where(Run.c.id == run)).first()
            statements.require(this, f"run {run}")
            assert this is not None
            empty = QueueEntry()
            new = {"sweep_id": this.sweep_id, "position": 0, "state": empty.state.value, "claim": empty.claim}
            statements.insert_new(connection, QueuedRun, run_id=run, **new)
            before = _entry(connection, run)
            after = before if this.state in RESULTS else before.offer()
            if after != before:
                _save(connection, run, after, position=_next_position(connection, this.sweep_id))

    @repeated
    def withdraw(self, sweep: str) -> None:
        """No run that waits is to be done now. Those that somebody does go on."""
        with self.write() as connection:
            waiting = (QueuedRun.c.sweep_id == sweep, QueuedRun.c.state == QueueState.WAITING.value)
            # The rows of `withdrawn`, all at once.
            ended = {"state": QueueState.ENDED.value, "claim": QueuedRun.c.claim + 1}
            connection.execute(update(QueuedRun).where(*waiting).values(ended))

    @repeated
    def answer(self, run: str, step: int, *, stop: bool) -> None:
        """Answers an evaluation: whether the run is to be stopped as PRUNED."""
        with self.write() as connection:
            this = (Evaluation.c.run_id == run, Evaluation.c.step == step)
            connection.execute(update(Evaluation).where(*this).values(stop=stop))

    @repeated
    def news(self, sweep: str, runs: Collection[str]) -> QueueNews:
        """What has happened to these runs of the sweep."""
        asked = (Evaluation.c.sweep_id == sweep, Evaluation.c.stop.is_(None))
        columns = [Evaluation.c[name] for name in Evaluated._fields if name != "run"]
        evaluations = (
            select(Evaluation.c.run_id, *columns).where(*asked).order_by(Evaluation.c.run_id, Evaluation.c.step)
        )
        places = select(QueuedRun.c.run_id, QueuedRun.c.state, QueuedRun.c.worker_id, QueuedRun.c.claim)
        with self.read() as connection:
            # In one view: what a run has reported is known when its end is.
            reported = [
                Evaluated(run, step, _number(value), _number(error), collapse)
                for run, step, value, error, collapse in connection.execute(evaluations)
                if run in runs
            ]
            rows = connection.execute(places.where(QueuedRun.c.run_id.in_(list(runs)))).all() if runs else []
        claimed = {row.run_id: (row.worker_id, row.claim) for row in rows if row.state == QueueState.CLAIMED.value}
        ended = {row.run_id: row.claim for row in rows if row.state == QueueState.ENDED.value}
        return QueueNews(reported, claimed, ended)

    # ---- who does them

    @repeated
    def opening(self, sweep: str) -> Json | None:
        """What a worker needs to do runs of the sweep; None while nobody has opened it to workers."""
        with self.read() as connection:
            content = connection.scalar(select(Opening.c.content).where(Opening.c.sweep_id == sweep))
        return None if content is None else dict(content)

    @repeated
    def waiting(self, sweep: str) -> int:
        """How many runs of the sweep wait for a worker."""
        this = (QueuedRun.c.sweep_id == sweep, QueuedRun.c.state == QueueState.WAITING.value)
        with self.read() as connection:
            return connection.scalar(select(func.count()).select_from(QueuedRun).where(*this)) or 0

    @repeated
    def claims(self, sweep: str) -> int:
        """A number that grows whenever a worker claims a run of the sweep."""
        with self.read() as connection:
            every = select(func.sum(QueuedRun.c.claim)).where(QueuedRun.c.sweep_id == sweep)
            return int(connection.scalar(every) or 0)

    def claim(self, sweep: str, worker: str) -> Claimed | None:
        """The run that has waited longest, which this worker does now; None where none waits. Raises `Outdated` for a
        worker that is not one of the sweep any more.
        """
        # Most often none does; a look takes no lock.
        return self._claim(sweep, worker) if self.waiting(sweep) else None

    @repeated
    def _claim(self, sweep: str, worker: str) -> Claimed | None:
        with self.write() as connection:
            # The answer to the commit may have been lost.
            claimed = (QueuedRun.c.sweep_id == sweep, QueuedRun.c.state == QueueState.CLAIMED.value)
            mine = select(QueuedRun.c.run_id).where(*claimed, QueuedRun.c.worker_id == worker)
            held = connection.scalar(mine)
            run = held if held is not None else self._claim_next(connection, sweep, worker)
            if run is None:
                return None
            return _claimed(connection, run)

    def _claim_next(self, connection: Connection, sweep: str, worker: str) -> str | None:
        waits = (QueuedRun.c.sweep_id == sweep, QueuedRun.c.state == QueueState.WAITING.value)
        # On PostgreSQL each who asks takes a row that nobody else is about to take. SQLite has locked the whole file.
        first = select(QueuedRun.c.run_id, QueuedRun.c.claim).where(*waits).order_by(QueuedRun.c.position).limit(1)
        found = connection.execute(first.with_for_update(skip_locked=True)).first()
        if found is None:
            return None
        run, claim = found
        _save(connection, run, QueueEntry(QueueState.WAITING, claim).claimed(worker))
        changed = connection.execute(update(Worker).where(Worker.c.id == worker).values(run_id=run, progress=None))
        if not changed.rowcount:
            raise Outdated("this worker was taken for lost")
        return str(run)

    @repeated
    def waiting_runs(self, sweep: str, most: int) -> list[Waiting]:
        """The runs of the sweep that have waited longest, so many at most."""
        this = (QueuedRun.c.sweep_id == sweep, QueuedRun.c.state == QueueState.WAITING.value)
        runs = (
            select(QueuedRun.c.run_id, Trial.c.params)
            .join(Run, Run.c.id == QueuedRun.c.run_id)
            .join(Trial, (Trial.c.sweep_id == Run.c.sweep_id) & (Trial.c.number == Run.c.trial))
            .where(*this)
            .order_by(QueuedRun.c.position)
            .limit(most)
        )
        with self.read() as connection:
            return [Waiting(run, dict(params)) for run, params in connection.execute(runs)]

    @repeated
    def claim_also(self, worker: str, runs: Sequence[str]) -> list[Claimed]:
        """Those of these runs that wait, which the worker does from now on beside the run that it has claimed. Raises
        `Outdated` for a worker that is not one of the sweep any more.
        """
        claimed = []
        with self.write() as connection:
            if connection.scalar(select(Worker.c.id).where(Worker.c.id == worker)) is None:
                raise Outdated("this worker was taken for lost")
            for run in runs:
                before = _entry(connection, run)
                # The answer to the commit may have been lost.
                if before.state == QueueState.WAITING:
                    _save(connection, run, before.claimed(worker))
                if before.state == QueueState.WAITING or before.worker == worker:
                    claimed.append(_claimed(connection, run))
        return claimed

    @repeated
    def end_place(self, run: str, claim: int) -> None:
        """Whoever did the run by this claim is done with it. Nothing changes for an outdated claim."""
        with self.write() as connection:
            end_place(connection, run, claim)

    @repeated
    def evaluated(self, sweep: str, report: Evaluated) -> None:
        """Reports an evaluation. One that was reported before keeps its answer."""
        numbers = {name: statements.finite(getattr(report, name)) for name in ("value", "error")}
        with self.write() as connection:
            this = {"run_id": report.run, "step": report.step, "sweep_id": sweep, "collapse": report.collapse}
            statements.insert_new(connection, Evaluation, **this, **numbers)

    @repeated
    def answered(self, run: str, step: int) -> bool | None:
        """Whether the run is to be stopped at this step as PRUNED; None while nobody has said it."""
        with self.read() as connection:
            this = (Evaluation.c.run_id == run, Evaluation.c.step == step)
            return connection.scalar(select(Evaluation.c.stop).where(*this))


# ---- pieces of a transaction


def check_claim(connection: Connection, run: str, claim: int | None) -> None:
    """Raises `Outdated` for whoever may not begin the run: another claim of it is in force."""
    _entry(connection, run).check(claim)


def end_place(connection: Connection, run: str, claim: int) -> None:
    """Whoever held this claim is done with the run, or gone; what it has reported is forgotten. Nothing changes for an
    outdated claim.
    """
    before = _entry(connection, run)
    after = before.ended(claim)
    if after != before:
        _save(connection, run, after)
        connection.execute(delete(Evaluation).where(Evaluation.c.run_id == run))
        # Of several runs that a worker does together, another is named as its own then.
        others = select(func.min(QueuedRun.c.run_id)).where(
            QueuedRun.c.worker_id == before.worker, QueuedRun.c.state == QueueState.CLAIMED.value
        )
        other = connection.scalar(others)
        mine = (Worker.c.id == before.worker, Worker.c.run_id == run)
        told = {} if other is not None else {"progress": None}
        connection.execute(update(Worker).where(*mine).values(run_id=other, **told))


def _claimed(connection: Connection, run: str) -> Claimed:
    row = connection.execute(
        select(Run.c.trial, Run.c.seed, Run.c.role, Trial.c.params, QueuedRun.c.claim, Worker.c.shares)
        .join(Trial, (Trial.c.sweep_id == Run.c.sweep_id) & (Trial.c.number == Run.c.trial))
        .join(QueuedRun, QueuedRun.c.run_id == Run.c.id)
        .outerjoin(Worker, Worker.c.id == QueuedRun.c.worker_id)
        .where(Run.c.id == run)
    ).one()
    return Claimed(run, row.trial, row.seed, row.role, dict(row.params), row.claim, crowded=bool(row.shares))


def _entry(connection: Connection, run: str) -> QueueEntry:
    columns = (QueuedRun.c.state, QueuedRun.c.claim, QueuedRun.c.worker_id)
    row = connection.execute(select(*columns).where(QueuedRun.c.run_id == run).with_for_update()).first()
    return QueueEntry() if row is None else QueueEntry(QueueState(row.state), row.claim, row.worker_id)


def _save(connection: Connection, run: str, after: QueueEntry, **more: Any) -> None:
    values = {"state": after.state.value, "claim": after.claim, "worker_id": after.worker} | more
    connection.execute(update(QueuedRun).where(QueuedRun.c.run_id == run).values(values))


def _next_position(connection: Connection, sweep: str) -> int:
    """A place behind all that wait. Those that are done are not looked at: there may be a million."""
    waiting = (QueuedRun.c.sweep_id == sweep, QueuedRun.c.state == QueueState.WAITING.value)
    return (connection.scalar(select(func.max(QueuedRun.c.position)).where(*waiting)) or 0) + 1


def _number(value: float | None) -> float:
    return math.nan if value is None else value
