"""Writing and reading which processes do runs of a sweep: its workers."""

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import delete, select, update

from aigc_lab.host.processes import Process
from aigc_lab.registry import statements
from aigc_lab.registry.database import Database, repeated
from aigc_lab.registry.run_queue import end_place
from aigc_lab.registry.tables import QueuedRun, Worker

Json = dict[str, Any]


class WorkerRecords(Database):
    """The part of `Registry` that records the workers of sweeps."""

    def join(self, sweep: str, device: str, *, child: bool = False, shares: bool = False) -> str:
        """Records this process as a worker of the sweep, and returns the worker's id. A `child` ends with the process
        that runs the sweep; one that `shares` is not alone on its GPU.
        """
        worker = secrets.token_hex(8)
        self._join(worker, sweep, device, child, shares, Process.this())
        return worker

    @repeated
    def _join(self, worker: str, sweep: str, device: str, child: bool, shares: bool, process: Process) -> None:
        with self.write() as connection:
            moment = self.moment(connection)
            statements.insert_new(
                connection,
                Worker,
                id=worker,
                sweep_id=sweep,
                host=process.host,
                boot=process.boot,
                pid=process.pid,
                process_started=process.started,
                device=device,
                joined=not child,
                shares=shares,
                started_at=moment,
                heartbeat_at=moment,
                ready=False,
            )

    @repeated
    def ready(self, worker: str) -> None:
        """The worker can do runs from now on."""
        with self.write() as connection:
            connection.execute(update(Worker).where(Worker.c.id == worker).values(ready=True))

    @repeated
    def beat_worker(self, worker: str, progress: Mapping[str, Any] | None = None) -> str | None:
        """Says that the worker is alive, and how far its run is. Returns what somebody wants of it: "stop", also where
        it was taken for lost; or "leave".
        """
        told = {} if progress is None else {"progress": statements.plain(progress)}
        with self.write() as connection:
            this = Worker.c.id == worker
            beat = update(Worker).where(this).values(heartbeat_at=self.moment(connection), **told)
            if not connection.execute(beat).rowcount:
                return "stop"
            return connection.scalar(select(Worker.c.wanted).where(this))

    @repeated
    def want_of_workers(self, sweep: str, what: str) -> None:
        """Asks all workers of the sweep for something: "stop", that they store their runs and end."""
        with self.write() as connection:
            connection.execute(update(Worker).where(Worker.c.sweep_id == sweep).values(wanted=what))

    @repeated
    def part(self, leaving: Collection[str], alone: Collection[str]) -> None:
        """Asks workers to leave after their runs; the others that are named have their GPU for themselves then."""
        with self.write() as connection:
            connection.execute(update(Worker).where(Worker.c.id.in_(list(leaving))).values(wanted="leave"))
            connection.execute(update(Worker).where(Worker.c.id.in_(list(alone))).values(shares=False))

    @repeated
    def drop_worker(self, worker: str) -> None:
        """The worker is gone, and nobody follows the run that it held: its place in the queue ends."""
        with self.write() as connection:
            held = select(QueuedRun.c.run_id, QueuedRun.c.claim).where(QueuedRun.c.worker_id == worker)
            for run, claim in connection.execute(held).all():
                end_place(connection, run, claim)
            connection.execute(delete(Worker).where(Worker.c.id == worker))

    @repeated
    def leave(self, worker: str, error: Mapping[str, str] | None = None) -> None:
        """The worker ends, in order, or by an `error` that its next run would meet too (`kind` and `text`)."""
        with self.write() as connection:
            this = Worker.c.id == worker
            if error is None:
                connection.execute(delete(Worker).where(this))
            else:
                connection.execute(update(Worker).where(this).values(error=dict(error), run_id=None))
