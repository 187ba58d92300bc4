"""What is known of the runs that each row of a comparison is of: verdicts, final scores and the score on the way."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, and_, or_, select, tuple_

from aigc_lab.registry.columns import BATCH, FinalCheckpoint, Json
from aigc_lab.registry.database import repeated
from aigc_lab.registry.ranking import Comparison
from aigc_lab.registry.standings import Member
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Run, Score, Sweep, Verdict
from aigc_lab.registry.verdicts import last_verdicts_where, verdicts_where


@dataclass
class RunEvidence:
    """A run that ended by itself: its collapse verdict, its last stability verdict with the evidence, its score by
    checkpoint with the signature (on the holdout, if it was scored there), and (step, value) of the score on the way.
    """

    collapse: str | None
    stability: Json | None
    signatures: dict[str, str] = field(default_factory=dict)
    final: dict[str, float | None] = field(default_factory=dict)
    history: list[tuple[int, float | None]] = field(default_factory=list)


@repeated
def evidence_of(
    registry: Registry, comparison: Comparison, score: str | None = None, checkpoint: FinalCheckpoint = "last"
) -> list[list[list[RunEvidence]]]:
    """For each row the runs of each of its trials that count and ended FINISHED or DIVERGED. `score` is that of the
    comparison (default: the objective of each sweep).
    """
    members = list(dict.fromkeys(member for of_row in comparison.members for member in of_row))
    known: dict[Member, list[RunEvidence]] = {}
    with registry.read() as connection:
        for at in range(0, len(members), BATCH):
            known |= _of_members(connection, members[at : at + BATCH], score, checkpoint)
    return [[known.get(member, []) for member in of_row] for of_row in comparison.members]


def _of_members(
    connection: Connection, members: Sequence[Member], score: str | None, checkpoint: FinalCheckpoint
) -> dict[Member, list[RunEvidence]]:
    trials = {(member.sweep, member.trial): member for member in members}
    owners: dict[str, Member] = {}
    for run, sweep, trial, role in connection.execute(
        select(Run.c.id, Run.c.sweep_id, Run.c.trial, Run.c.role)
        .where(tuple_(Run.c.sweep_id, Run.c.trial).in_(list(trials)))
        .where(Run.c.state.in_([RunState.FINISHED.value, RunState.DIVERGED.value]))
        .order_by(Run.c.sweep_id, Run.c.trial, Run.c.seed)
    ):
        member = trials[sweep, trial]
        if role == member.role:
            owners[run] = member
    known: dict[Member, list[RunEvidence]] = defaultdict(list)
    for runs in _parts(list(owners)):
        for run, evidence in _of_runs(connection, runs, score, checkpoint).items():
            known[owners[run]].append(evidence)
    return known


def _parts(runs: Sequence[str]) -> Iterator[Sequence[str]]:
    return (runs[at : at + BATCH] for at in range(0, len(runs), BATCH))


def _of_runs(
    connection: Connection, runs: Sequence[str], score: str | None, checkpoint: FinalCheckpoint
) -> dict[str, RunEvidence]:
    words = last_verdicts_where(connection, Run.c.id.in_(runs), checkpoint)
    stories = verdicts_where(connection, and_(Verdict.c.run_id.in_(runs), Verdict.c.kind == "stability"))
    last = {run: of_run[-1] for run, of_run in stories.items()}
    known = {run: RunEvidence(words.get(run, {}).get("collapse"), last.get(run)) for run in runs}
    name: ColumnElement[bool] = Score.c.name == (Sweep.c.objective if score is None else score)
    for run, kind, step, value, signature in connection.execute(
        select(Score.c.run_id, Score.c.checkpoint, Score.c.step, Score.c.value, Score.c.signature)
        .join(Run, Run.c.id == Score.c.run_id)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(Score.c.run_id.in_(runs), name, or_(Score.c.checkpoint != "progress", Score.c.split == "reference"))
        .order_by(Score.c.run_id, Score.c.split == "holdout", Score.c.step)  # the holdout's is kept of two
    ):
        if kind == "progress":
            known[run].history.append((step, value))
        else:
            known[run].final[kind], known[run].signatures[kind] = value, signature
    return known
