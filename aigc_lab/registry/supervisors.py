"""Writing who runs a sweep, and what somebody wants of that process."""

from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update

from aigc_lab.host.processes import Process
from aigc_lab.registry import statements
from aigc_lab.registry.database import Database, repeated
from aigc_lab.registry.tables import Supervisor


class SupervisorRecords(Database):
    """The part of `Registry` that records the process that runs a sweep, its supervisor: at most one a sweep."""

    def supervise(self, sweep: str, instead_of: Process | None = None) -> bool:
        """Records that this process runs the sweep from now on, `instead_of` one that is gone. False when another one
        was recorded meanwhile.
        """
        return self._supervise(sweep, instead_of, Process.this(), statements.now())

    @repeated
    def _supervise(self, sweep: str, instead_of: Process | None, process: Process, now: datetime) -> bool:
        with self.write() as connection:
            mine = (*_row_of(sweep, process), Supervisor.c.started_at == now)
            if connection.scalar(select(Supervisor.c.sweep_id).where(*mine)):
                return True  # the answer to its commit was lost
            if instead_of is not None:
                connection.execute(delete(Supervisor).where(*_row_of(sweep, instead_of)))
            return statements.insert_new(
                connection,
                Supervisor,
                sweep_id=sweep,
                host=process.host,
                boot=process.boot,
                pid=process.pid,
                process_started=process.started,
                started_at=now,
                heartbeat_at=now,
            )

    @repeated
    def watch(self, sweep: str) -> str | None:
        """Says that this process still runs the sweep, and returns what somebody wants of it (`Supervisor.wanted`)."""
        mine = _row_of(sweep, Process.this())
        with self.write() as connection:
            connection.execute(update(Supervisor).where(*mine).values(heartbeat_at=statements.now()))
        return self.wanted(sweep)

    @repeated
    def wanted(self, sweep: str) -> str | None:
        """What somebody wants of the process that runs the sweep: "checkpoint", "finish", or nothing."""
        with self.read() as connection:
            return connection.scalar(select(Supervisor.c.wanted).where(Supervisor.c.sweep_id == sweep))

    @repeated
    def want(self, sweep: str, what: str) -> bool:
        """Asks the process that runs the sweep to stop (`Supervisor.wanted`); False when none is recorded."""
        with self.write() as connection:
            asked = connection.execute(update(Supervisor).where(Supervisor.c.sweep_id == sweep).values(wanted=what))
        return bool(asked.rowcount)

    @repeated
    def release(self, sweep: str, process: Process | None = None) -> None:
        """Records that the process, this one unless another is given, runs the sweep no more. One that has taken over
        meanwhile stays.
        """
        with self.write() as connection:
            connection.execute(delete(Supervisor).where(*_row_of(sweep, process or Process.this())))


def _row_of(sweep: str, process: Process) -> list[ColumnElement[bool]]:
    """The condition of the row that says that this process runs the sweep."""
    facts = {
        Supervisor.c.sweep_id: sweep,
        Supervisor.c.host: process.host,
        Supervisor.c.boot: process.boot,
        Supervisor.c.pid: process.pid,
        Supervisor.c.process_started: process.started,
    }
    return [column == value for column, value in facts.items()]
