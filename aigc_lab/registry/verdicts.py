"""Reading what runs were judged to be: collapsed or not, stable or not."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select

from aigc_lab.registry.columns import VERDICT_UP_TO_CHECKPOINT, FinalCheckpoint, Json, checkpoint_of_verdict
from aigc_lab.registry.database import repeated
from aigc_lab.registry.marks import DOUBTFUL, UNSOUND
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Checkpoint, Run, Verdict


@repeated
def last_verdicts(registry: Registry, sweep: str) -> dict[str, dict[str, str]]:
    """Run -> kind -> its verdict, for every run of a sweep: on the samples of its result, and on its whole history."""
    with registry.read() as connection:
        return last_verdicts_where(connection, Run.c.sweep_id == sweep)


def last_verdicts_where(
    connection: Connection, condition: ColumnElement[bool], checkpoint: FinalCheckpoint = "last"
) -> dict[str, dict[str, str]]:
    """Run -> kind -> verdict, for the runs of the condition: on the samples of a checkpoint, and on the whole
    history.
    """
    verdicts: dict[str, dict[str, str]] = defaultdict(dict)
    for run, kind, verdict in connection.execute(
        select(Verdict.c.run_id, Verdict.c.kind, Verdict.c.verdict)
        .join(Run, Run.c.id == Verdict.c.run_id)
        .outerjoin(Checkpoint, checkpoint_of_verdict(checkpoint))
        .where(condition, VERDICT_UP_TO_CHECKPOINT)
        .order_by(Verdict.c.step)
    ):
        verdicts[run][kind] = verdict
    return verdicts


@repeated
def verdicts_by_run(registry: Registry, sweep: str) -> dict[str, list[Json]]:
    """Run -> all its verdicts with their evidence, for every run of a sweep."""
    with registry.read() as connection:
        return verdicts_where(connection, Verdict.c.run_id.in_(select(Run.c.id).where(Run.c.sweep_id == sweep)))


def verdicts_where(connection: Connection, condition: ColumnElement[bool]) -> dict[str, list[Json]]:
    """Run -> the verdicts of the condition with their evidence, by kind and step."""
    verdicts: dict[str, list[Json]] = defaultdict(list)
    rows = connection.execute(
        select(Verdict).where(condition).order_by(Verdict.c.run_id, Verdict.c.kind, Verdict.c.step)
    )
    for row in rows.mappings():
        verdicts[row["run_id"]].append({key: value for key, value in row.items() if key != "run_id"})
    return verdicts


@repeated
def missing_bins(
    registry: Registry, rows: Iterable[Mapping[str, Any]], checkpoint: FinalCheckpoint = "last"
) -> dict[tuple[str, int], list[str]]:
    """Trial (sweep, number) -> the names of the classes, modes or clusters that a SEVERE or TOTAL collapse verdict says
    are missing, of some run that the trial's score is of. `rows` are those of a comparison.
    """
    missing = {}
    with registry.read() as connection:
        for row in rows:
            if not {"SEVERE", "TOTAL"} & row["verdicts"].get("collapse", {}).keys():
                continue
            bins = [
                each["name"]
                for verdict, _, found in _last_of_row(connection, row, checkpoint)
                if verdict in ("SEVERE", "TOTAL")
                for each in found.get("bins") or []
                if each["state"] == "missing"
            ]
            missing[row["sweep"], row["trial"]] = list(dict.fromkeys(bins))
    return missing


@repeated
def partial_reasons(
    registry: Registry, rows: Iterable[Mapping[str, Any]], checkpoint: FinalCheckpoint = "last"
) -> dict[tuple[str, int], str]:
    """Trial (sweep, number) -> the reason of a PARTIAL collapse verdict, of the first run with one among those that the
    trial's score is of. `rows` are those of a comparison.
    """
    reasons = {}
    with registry.read() as connection:
        for row in rows:
            told = [why for verdict, why, _ in _last_of_row(connection, row, checkpoint) if verdict == "PARTIAL"]
            if told:
                reasons[row["sweep"], row["trial"]] = told[0]
    return reasons


@repeated
def asked_of_trials(
    registry: Registry, rows: Iterable[Mapping[str, Any]], checkpoint: FinalCheckpoint = "last"
) -> dict[tuple[str, int], list[tuple[str, list[Json]]]]:
    """Trial (sweep, number) -> the collapse verdict of each of its conditional runs, with what the run drew for each
    class that it was asked for (`verdicts.asked`). `rows` are those of a comparison.
    """
    found = {}
    with registry.read() as connection:
        for row in rows:
            last = _last_of_row(connection, row, checkpoint)
            found[row["sweep"], row["trial"]] = [(verdict, of["asked"]) for verdict, _, of in last if of.get("asked")]
    return found


def _last_of_row(
    connection: Connection, row: Mapping[str, Any], checkpoint: FinalCheckpoint
) -> list[tuple[str, str, Json]]:
    """Verdict, reason and evidence of the last collapse verdict of each run that a row's score is of, by seed."""
    of_trial = and_(Run.c.sweep_id == row["sweep"], Run.c.trial == row["trial"], Run.c.role == row["role"])
    last: dict[str, tuple[str, str, Json]] = {}
    for run, verdict, reason, found in connection.execute(
        select(Verdict.c.run_id, Verdict.c.verdict, Verdict.c.reason, Verdict.c.evidence)
        .join(Run, Run.c.id == Verdict.c.run_id)
        .outerjoin(Checkpoint, checkpoint_of_verdict(checkpoint))
        .where(of_trial, Verdict.c.kind == "collapse", VERDICT_UP_TO_CHECKPOINT)
        .order_by(Run.c.seed, Verdict.c.step)
    ):
        last[run] = verdict, reason, found
    return list(last.values())


@repeated
def collapse_doubt(registry: Registry, run: str, checkpoint: FinalCheckpoint = "last") -> str | None:
    """The collapse verdict on a checkpoint's samples with its reason, where it is UNMEASURABLE, SEVERE or TOTAL: a
    score says little of such samples. None where all is well, or nothing was judged.
    """
    with registry.read() as connection:
        newest = connection.execute(
            select(Verdict.c.verdict, Verdict.c.reason)
            .outerjoin(Checkpoint, checkpoint_of_verdict(checkpoint))
            .where(Verdict.c.run_id == run, Verdict.c.kind == "collapse", VERDICT_UP_TO_CHECKPOINT)
            .order_by(Verdict.c.step.desc())
            .limit(1)
        ).first()
    return f"{newest[0]}: {newest[1]}" if newest is not None and newest[0] in DOUBTFUL else None


@repeated
def objections(registry: Registry, run: str, checkpoint: FinalCheckpoint = "last") -> list[str]:
    """What speaks against the weights of a run, as `objections_where`."""
    with registry.read() as connection:
        return objections_where(connection, Run.c.id == run, checkpoint).get(run, [])


def objections_where(
    connection: Connection, condition: ColumnElement[bool], checkpoint: FinalCheckpoint = "last"
) -> dict[str, list[str]]:
    """Run -> verdicts that speak against its weights, each with its reason: `collapse SEVERE: …`, `stability
    REGRESSED: …`. Runs of the condition that nothing speaks against are left out.

    REGRESSED says that the last evaluations are worse than the best one. It does not count against weights that were
    stored before them, as the selected ones are, or with patience the last.
    """
    last: dict[str, dict[str, Sequence[Any]]] = defaultdict(dict)
    for run, kind, *verdict in connection.execute(
        select(Verdict.c.run_id, Verdict.c.kind, Verdict.c.verdict, Verdict.c.reason, Verdict.c.step, Checkpoint.c.step)
        .join(Run, Run.c.id == Verdict.c.run_id)
        .outerjoin(Checkpoint, checkpoint_of_verdict(checkpoint))
        .where(condition, Verdict.c.kind.in_(list(UNSOUND)), VERDICT_UP_TO_CHECKPOINT)
        .order_by(Verdict.c.step)
    ):
        last[run][kind] = verdict
    found: dict[str, list[str]] = defaultdict(list)
    for run, by_kind in last.items():
        for kind, unsound in UNSOUND.items():
            verdict, reason, judged_at, stored_at = by_kind.get(kind, (None,) * 4)
            earlier = stored_at is not None and stored_at < judged_at
            if verdict in unsound and not (verdict == "REGRESSED" and earlier):
                found[run].append(f"{kind} {verdict}: {reason}" if reason else f"{kind} {verdict}")
    return found
