"""The confirmation of a sweep, read from its trials and runs: who leads, who is out, and which runs are next."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from aigc_lab.registry.columns import BATCH, Json
from aigc_lab.registry.database import repeated
from aigc_lab.registry.find import sweep_id
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.states import RunState, counted_state
from aigc_lab.registry.steering import Steering, feasible
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import run_outcomes
from aigc_lab.registry.tables import Sweep
from aigc_lab.statistics.race import Race, Standing

_Key = tuple[int, int]  # a trial and a seed


@repeated
def race_of(registry: Registry, sweep: str) -> tuple[Race, Standing] | None:
    """The race that confirms a sweep and how far it is; None where there is none, or where its first round is not
    over. Raises `UsageError` like `find_sweep`.
    """
    with registry.read() as connection:
        query = select(Sweep.c.id, Sweep.c.experiment, Sweep.c.better).where(Sweep.c.id == sweep_id(connection, sweep))
        name, experiment, better = connection.execute(query).one()
    confirm = experiment.get("confirm") or {}
    if not confirm.get("race"):
        return None
    race = Race(
        [row["trial"] for row in feasible(registry, name, Steering.of(experiment))[: confirm["top"]]],
        confirm["seeds"],
        better == "lower",
        budget=confirm.get("budget"),
    )
    standing = standing_of(registry, name, race, (experiment.get("search") or {}).get("seeds", 1))
    return (race, standing) if standing.taken and len(race.candidates) > 1 else None


def looks(registry: Registry, sweep: str) -> int:
    """How often the confirmed trials of a sweep may have been compared before now: a p-value of their seeds that is
    multiplied by this many holds in spite of it. 1 where they had no race.
    """
    found = race_of(registry, sweep)
    return 1 if found is None else found[0].looks


def mark_looks(registry: Registry, rows: Sequence[Json]) -> None:
    """Sets `looks` of the rows that a race has confirmed: how often they may have been compared before now. Of a row of
    several sweeps it is the most of these.
    """
    of_row = [row.get("sweeps", [row["sweep"]]) if row["confirmed"] else [] for row in rows]
    sweeps = {sweep for some in of_row for sweep in some}
    if not sweeps:
        return
    query = select(Sweep.c.id, Sweep.c.experiment)
    query = query.where(Sweep.c.id.in_(sweeps)) if len(sweeps) <= BATCH else query
    with registry.read() as connection:
        raced = [
            sweep for sweep, experiment in connection.execute(query) if (experiment.get("confirm") or {}).get("race")
        ]
    counts = {sweep: looks(registry, sweep) for sweep in raced}
    for row, some in zip(rows, of_row, strict=True):
        if taken := [counts[sweep] for sweep in some if sweep in counts]:
            row["looks"] = max(taken)


def standing_of(
    registry: Registry, sweep: str, race: Race, first_seed: int, *, settled: Collection[_Key] | None = None
) -> Standing:
    """The standing of a confirmation whose seeds begin at `first_seed`. Of failed runs only those that are `settled`
    count, if given: the others are run again.
    """
    ended = {}
    for row in run_outcomes(registry, sweep):
        key, state = (row["trial"], row["seed"]), row["state"]
        if state in RESULTS or (state == RunState.FAILED and (settled is None or key in settled)):
            ended[row["trial"], row["seed"] - first_seed] = _value(row, lower_is_better=race.lower_is_better)
    return race.replay(ended)


def _value(row: Mapping[str, Any], *, lower_is_better: bool) -> float | None:
    """What a run counts as: the worst value if it diverged, failed by NaN of its own or has a value that is not finite,
    None if it failed otherwise.
    """
    if counted_state(row["state"], row["reason"]) == RunState.FAILED:
        return None
    worst = math.inf if lower_is_better else -math.inf
    usable = row["state"] == RunState.FINISHED and row["value"] is not None
    return float(row["value"]) if usable else worst
