"""Writing to the registry.

Every write is one transaction and may be replayed: what a worker did before a crash it may do again. The primary keys
make that safe, and the number of the attempt keeps a worker that was given up for dead from overwriting its successor.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from sqlalchemy import func, select, update

from aigc_lab.errors import Failure
from aigc_lab.registry import statements
from aigc_lab.registry.attempts import AttemptRecords
from aigc_lab.registry.database import repeated
from aigc_lab.registry.engine import CONNECTIONS, folder_of, open_engine
from aigc_lab.registry.promotions import PromotionRecords
from aigc_lab.registry.records import Better, Role
from aigc_lab.registry.run_queue import QueueRecords
from aigc_lab.registry.states import RunState
from aigc_lab.registry.supervisors import SupervisorRecords
from aigc_lab.registry.tables import Artifact, Checkpoint, Promotion, Run, Sweep, Trial
from aigc_lab.registry.workers import WorkerRecords


class Registry(AttemptRecords, PromotionRecords, QueueRecords, SupervisorRecords, WorkerRecords):
    """The registry, open: sweeps, trials and runs are recorded here, their attempts, promotions, queue, supervisors
    and workers in the modules of these names. `Registry.open` opens one.
    """

    @classmethod
    def open(
        cls,
        url: str,
        *,
        home: Path | None = None,
        create: bool = True,
        connected: bool = False,
        patient: bool = False,
        connections: int = CONNECTIONS,
    ) -> Self:
        """The registry at `url`, created or migrated where that is needed.

        Files inside `home` (unless given, the folder of a SQLite registry) are recorded by their place in it and read
        back by where it lies now, so that a home can be moved. One that stays `connected` keeps a SQLite file open
        between transactions until it is closed, which halves what a transaction costs. A `patient` one waits for a
        server that is away now: another process has found the registry there. All threads share at most so many
        `connections` to a server.

        Raises `UsageError` when there is nothing at `url` and `create` is false, when what is there is not a registry
        that this version can read (it is left as it was), and when it cannot be reached or written.
        """
        engine = open_engine(url, create=create, connected=connected, patient=patient, connections=connections)
        return cls(url, engine, home or folder_of(url))

    @repeated
    def relocate(self, old: Path) -> None:
        """Files recorded as lying in `old`, where the home was before, become files of the home."""
        with self.write() as connection:
            for table in (Checkpoint, Artifact, Promotion):
                inside = table.c.path.startswith(f"{old}/", autoescape=True)
                shorter = func.substr(table.c.path, len(str(old)) + 2)
                connection.execute(update(table).where(inside).values(path=shorter))

    # ---- a sweep, its trials and its runs

    @repeated
    def sweep(
        self,
        name: str,
        digest: str,
        experiment: Mapping[str, Any],
        objective: str,
        better: Better,
        *,
        source: str | None = None,
        command: Literal["sweep", "train"] = "sweep",
    ) -> str:
        """The id of the sweep of this experiment file, recorded now unless it was before. What may change without
        making it another sweep, such as the number of trials, is that of the last call.
        """
        sweep = f"{name}-{digest[:8]}"
        with self.write() as connection:
            statements.insert_new(
                connection,
                Sweep,
                id=sweep,
                name=name,
                digest=digest,
                experiment=statements.plain(experiment),
                objective=objective,
                better=better,
                created_at=statements.now(),
            )
            if connection.scalar(select(Sweep.c.digest).where(Sweep.c.id == sweep)) != digest:
                raise Failure(f"two experiments share the id {sweep}; rename one of them")
            # A sweep stays one, even if single runs of it are trained besides.
            was = connection.scalar(select(Sweep.c.command).where(Sweep.c.id == sweep))
            latest = {"source": source, "command": was if was == "sweep" else command}
            if was != "sweep" or command == "sweep":
                latest["experiment"] = statements.plain(experiment)
            connection.execute(update(Sweep).where(Sweep.c.id == sweep).values(latest))
        return sweep

    @repeated
    def set_mlflow_experiment(self, sweep: str, mlflow_experiment_id: str) -> None:
        with self.write() as connection:
            changed = connection.execute(
                update(Sweep).where(Sweep.c.id == sweep).values(mlflow_experiment_id=mlflow_experiment_id)
            )
            statements.require(changed.rowcount, f"sweep {sweep}")

    @repeated
    def trial(self, sweep: str, number: int, system: str, config: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        """Records a configuration. Raises `Failure` when this number already stands for another one."""
        recorded = (system, statements.plain(config), statements.plain(params))
        with self.write() as connection:
            statements.insert_new(
                connection,
                Trial,
                sweep_id=sweep,
                number=number,
                system=system,
                config=recorded[1],
                params=recorded[2],
                state=RunState.QUEUED.value,
            )
            stored = connection.execute(
                select(Trial.c.system, Trial.c.config, Trial.c.params).where(
                    Trial.c.sweep_id == sweep, Trial.c.number == number
                )
            ).one()
            if tuple(stored) != recorded:
                raise Failure(f"trial {number} of sweep {sweep} is already recorded with another configuration")

    @repeated
    def finish_trial(self, sweep: str, number: int, state: RunState, value: float | None) -> None:
        """What the search made of the trial. A value that is not finite is stored as none."""
        with self.write() as connection:
            changed = connection.execute(
                update(Trial)
                .where(Trial.c.sweep_id == sweep, Trial.c.number == number)
                .values(state=RunState(state).value, value=statements.finite(value))
            )
            statements.require(changed.rowcount, f"trial {number} of sweep {sweep}")

    @repeated
    def run(self, sweep: str, trial: int, seed: int, role: Role) -> str:
        """The id of the run of this trial and seed, queued now unless it was recorded before."""
        run = f"{sweep}.{trial}.{seed}"
        with self.write() as connection:
            statements.insert_new(
                connection,
                Run,
                id=run,
                sweep_id=sweep,
                trial=trial,
                seed=seed,
                role=role,
                state=RunState.QUEUED.value,
                created_at=statements.now(),
            )
            stored = connection.scalar(select(Run.c.role).where(Run.c.id == run))
            if stored != role:
                raise Failure(f"run {run} is already recorded as {stored}; a {role} run needs a seed of its own")
        return run

    @repeated
    def set_mlflow_run(self, run: str, mlflow_run_id: str) -> None:
        with self.write() as connection:
            changed = connection.execute(update(Run).where(Run.c.id == run).values(mlflow_run_id=mlflow_run_id))
            statements.require(changed.rowcount, f"run {run}")
