"""Writing who runs a sweep, and what somebody wants of that process."""

from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update

from aigc_lab.host.processes import Process
from aigc_lab.registry import statements
from aigc_lab.registry.database import Database, repeated
from aigc_lab.registry.run_lifecycle import Outdated
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
                heartbeat_at=self.moment(connection),
            )

    @repeated
    def watch(self, sweep: str) -> str | None:
        """Says that this process still runs the sweep, and returns what somebody wants of it (`Supervisor.wanted`).
        Raises `Outdated` when this process was taken for lost.
        """
        mine = _row_of(sweep, Process.this())
        with self.write() as connection:
            beat = update(Supervisor).where(*mine).values(heartbeat_at=self.moment(connection))
            if not connection.execute(beat).rowcount:
                raise _outdated(sweep)
        return self.wanted(sweep)

    @repeated
    def wanted(self, sweep: str) -> str | None:
        """What somebody wants of this process, which runs the sweep: "checkpoint", "finish", or nothing. Raises
        `Outdated` when it was taken for lost.
        """
        with self.read() as connection:
            row = connection.execute(select(Supervisor.c.wanted).where(*_row_of(sweep, Process.this()))).first()
        if row is None:
            raise _outdated(sweep)
        return None if row.wanted is None else str(row.wanted)

    @repeated
    def replaced(self, sweep: str) -> bool:
        """Whether another process is recorded as the one that runs the sweep."""
        with self.read() as connection:
            row = connection.execute(select(Supervisor.c.sweep_id).where(Supervisor.c.sweep_id == sweep)).first()
            mine = connection.execute(select(Supervisor.c.sweep_id).where(*_row_of(sweep, Process.this()))).first()
        return row is not None and mine is None

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


def _outdated(sweep: str) -> Outdated:
    return Outdated(
        f"sweep {sweep}: this process was silent for too long and was taken for lost; another may run the sweep now, "
        f"and nothing of it is lost: aigc-lab status {sweep}"
    )


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
