"""Whether sweeps that are named to be compared have a signature in common."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, select

from aigc_lab.errors import UsageError
from aigc_lab.registry.ranking import Group, differences
from aigc_lab.registry.tables import Run, Score


def require_common(connection: Connection, sweeps: Sequence[str], groups: Sequence[Group], checkpoint: str) -> None:
    """Raises `UsageError` where several of the sweeps have scores, and no two of them of one signature."""
    scored = {sweep for group in groups for sweep in group.sweeps}
    if len(scored) < 2 or any(len(group.sweeps) > 1 for group in groups):
        return
    of_sweep = {sweep: group for group in reversed(groups) for sweep in group.sweeps}
    ordered = [sweep for sweep in sweeps if sweep in scored]
    differing = differences((of_sweep[sweep].name, of_sweep[sweep].signature) for sweep in ordered)
    other = _in_common(connection, ordered, checkpoint)
    names = " and ".join([", ".join(ordered[:-1]), ordered[-1]])
    remedy = (
        f"{other} is computed alike in {'both' if len(ordered) == 2 else 'some'}: --score {other} compares them"
        if other
        else "compare each by itself, or sweep them again with the same data and the same evaluation"
    )
    raise UsageError(
        f"{names} have no signature in common, so their scores do not compare: they differ in {differing}; {remedy}"
    )


def _in_common(connection: Connection, sweeps: Sequence[str], checkpoint: str) -> str | None:
    """The name of a score that most of the sweeps, and two at least, have with one signature."""
    owners: dict[tuple[str, str], set[str]] = defaultdict(set)
    rows = connection.execute(
        select(Run.c.sweep_id, Score.c.name, Score.c.signature)
        .distinct()
        .join(Score, Score.c.run_id == Run.c.id)
        .where(Run.c.sweep_id.in_(sweeps), Score.c.checkpoint == checkpoint, Score.c.split == "holdout")
    )
    for sweep, name, signature in rows:
        owners[name, signature].add(sweep)
    shared = [(-len(of), name) for (name, _), of in owners.items() if len(of) > 1]
    return min(shared)[1] if shared else None
