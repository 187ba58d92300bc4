"""Reading what every run of a sweep came to, all of it: what `verify` compares with the other stores."""

from dataclasses import dataclass, field

from sqlalchemy import select

from aigc_lab.registry.columns import OBJECTIVE_ON_REFERENCE
from aigc_lab.registry.database import repeated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Artifact, Attempt, Checkpoint, Run, Score, Sweep, Trial


@dataclass
class RecordedRun:
    """A run: how it ended and what is stored of it. `attempts` are states; `scored` are pairs of checkpoint and split;
    `files` are paths with their sha256, None where none is recorded; `value` is the objective of the last weights on
    the reference split.
    """

    run: str
    trial: int
    seed: int
    state: RunState
    mlflow_run_id: str | None
    value: float | None
    chain: int = 1
    attempts: list[RunState] = field(default_factory=list)
    scored: set[tuple[str, str]] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    files: dict[str, str | None] = field(default_factory=dict)


@repeated
def results(registry: Registry, sweep: str) -> list[RecordedRun]:
    """The runs of a sweep, by trial and seed."""
    columns = (Run.c.id, Run.c.trial, Run.c.seed, Run.c.state, Run.c.mlflow_run_id, Score.c.value)
    runs = (
        select(*columns)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .outerjoin(Score, OBJECTIVE_ON_REFERENCE)
        .where(Run.c.sweep_id == sweep)
        .order_by(Run.c.trial, Run.c.seed)
    )
    of_sweep = Run.c.sweep_id == sweep
    attempts = select(Attempt.c.run_id, Attempt.c.state, Attempt.c.chain).order_by(Attempt.c.run_id, Attempt.c.number)
    scored = select(Score.c.run_id, Score.c.checkpoint, Score.c.split).distinct()
    weights = select(Checkpoint.c.run_id, Checkpoint.c.kind, Checkpoint.c.path, Checkpoint.c.sha256)
    others = select(Artifact.c.run_id, Artifact.c.path)
    with registry.read() as connection:
        recorded = {row[0]: RecordedRun(*row[:3], RunState(row[3]), *row[4:]) for row in connection.execute(runs)}
        for run, state, chain in connection.execute(attempts.join(Run, Run.c.id == Attempt.c.run_id).where(of_sweep)):
            recorded[run].attempts.append(RunState(state))
            recorded[run].chain = chain or 1
        for run, kind, split in connection.execute(scored.join(Run, Run.c.id == Score.c.run_id).where(of_sweep)):
            recorded[run].scored.add((kind, split))
        for run, kind, path, digest in connection.execute(
            weights.join(Run, Run.c.id == Checkpoint.c.run_id).where(of_sweep)
        ):
            recorded[run].kinds.add(kind)
            recorded[run].files[registry.located(path)] = digest
        for run, path in connection.execute(others.join(Run, Run.c.id == Artifact.c.run_id).where(of_sweep)):
            recorded[run].files[registry.located(path)] = None
    return list(recorded.values())


@repeated
def trials(registry: Registry, sweep: str) -> dict[int, tuple[RunState, float | None]]:
    """Trial -> how it ended, and its value."""
    rows = select(Trial.c.number, Trial.c.state, Trial.c.value).where(Trial.c.sweep_id == sweep)
    with registry.read() as connection:
        return {number: (RunState(state), value) for number, state, value in connection.execute(rows)}
