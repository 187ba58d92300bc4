"""The confirmation of a sweep, read from its trials and runs: who leads, who is out, and which runs are next."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select

from aigc_lab.registry.columns import BATCH, Json
from aigc_lab.registry.database import repeated
from aigc_lab.registry.find import sweep_id
from aigc_lab.registry.run_lifecycle import RESULTS
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_trials, run_outcomes
from aigc_lab.registry.tables import Sweep
from aigc_lab.statistics.race import Race, Standing

_Key = tuple[int, int]  # a trial and a seed


def candidates(registry: Registry, sweep: str, top: int, better: str) -> list[int]:
    """The best trials by what the search made of them on the reference split, the best first."""
    trials = list_trials(registry, sweep)
    finished = [row for row in trials if row["state"] == RunState.FINISHED and row["value"] is not None]
    finished.sort(key=lambda row: row["value"], reverse=better == "higher")
    return [row["trial"] for row in finished[:top]]


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
        candidates(registry, name, confirm["top"], better),
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
    """Sets `looks` of the rows that a race has confirmed: how often they may have been compared before now."""
    sweeps = {row["sweep"] for row in rows if row["confirmed"]}
    if not sweeps:
        return
    query = select(Sweep.c.id, Sweep.c.experiment)
    query = query.where(Sweep.c.id.in_(sweeps)) if len(sweeps) <= BATCH else query
    with registry.read() as connection:
        raced = [
            sweep for sweep, experiment in connection.execute(query) if (experiment.get("confirm") or {}).get("race")
        ]
    counts = {sweep: looks(registry, sweep) for sweep in raced}
    for row in rows:
        if row["confirmed"] and row["sweep"] in counts:
            row["looks"] = counts[row["sweep"]]


def standing_of(
    registry: Registry, sweep: str, race: Race, first_seed: int, *, settled: Collection[_Key] | None = None
) -> Standing:
    """The standing of a confirmation whose seeds begin at `first_seed`. Of failed runs only those that are `settled`
    count, if given: the others are run again.
    """
    ended = {}
    for row in run_outcomes(registry, sweep):
        key, state = (row["trial"], row["seed"]), RunState(row["state"])
        if state in RESULTS or (state == RunState.FAILED and (settled is None or key in settled)):
            ended[row["trial"], row["seed"] - first_seed] = _value(row, lower_is_better=race.lower_is_better)
    return race.replay(ended)


def _value(row: Mapping[str, Any], *, lower_is_better: bool) -> float | None:
    """What a run counts as: the worst value if it diverged or its value is not finite, None if it failed."""
    if row["state"] == RunState.FAILED:
        return None
    worst = math.inf if lower_is_better else -math.inf
    usable = row["state"] == RunState.FINISHED and row["value"] is not None
    return float(row["value"]) if usable else worst
