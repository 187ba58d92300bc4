"""What the race that confirms a sweep came to, in sentences."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aigc_lab.display.wording import titles
from aigc_lab.registry.marks import violate
from aigc_lab.registry.races import race_of
from aigc_lab.statistics.race import Dropped, Race, Standing

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison
    from aigc_lab.registry.store import Registry

Name = Callable[[int], str]

_NAMED = 4  # dropped candidates that are listed one by one


def race_sentences(registry: "Registry", comparison: "Comparison") -> list[str]:
    """The sentences on the race of the sweep whose rows are compared; nothing where there are several sweeps, or no
    race.
    """
    sweeps = {sweep for row in comparison.rows for sweep in row.get("sweeps", [row["sweep"]])}
    found = race_of(registry, sweeps.pop()) if len(sweeps) == 1 else None
    if found is None:
        return []
    systems = dict(zip((row["trial"] for row in comparison.rows), titles(comparison.rows), strict=True))

    def name(trial: int) -> str:
        return f"trial {trial} ({systems[trial]})" if trial in systems else f"trial {trial}"

    race, standing = found
    told = [race_text(race, standing, name)]
    if any(row["trial"] == standing.leader and violate(row["marks"]) for row in comparison.rows):
        leads = _capital(name(standing.leader or 0))
        told.append(
            f"{leads} violates a constraint of its sweep by its fresh seeds, and ranks after those that do not."
        )
    return told


def race_text(race: Race, standing: Standing, name: Name) -> str:
    """`Trial 3 won the race of 3: trial 4 was dropped after 5 seeds (p = 0.008 before
    correction). …`, and the runs that it saved. The levels of the race, which drop, correct for its looks.
    """
    dropped = _dropped(standing.dropped, name)
    field = f"the race of {len(race.candidates)}"
    spent = f"{standing.taken} of the {race.runs_of_fixed_seeds} runs that {race.seeds} seeds of each take"
    if not standing.over:
        left = _listed([name(each) for each in standing.contenders])
        return f"{_capital(field)} goes on between {left}{dropped}; so far it took {spent}."
    saved = f"It took {spent}; {race.runs_of_fixed_seeds - standing.taken} saved."
    if standing.leader is None:
        return f"{_capital(field)} has no winner, since all its runs failed. {saved}"
    if len(standing.contenders) == 1:
        return f"{_capital(name(standing.leader))} won {field}{dropped}. {saved}"
    others = _listed([name(each) for each in standing.contenders if each != standing.leader])
    undecided = f"{_capital(field)} ended undecided: {name(standing.leader)} leads, and {others} cannot be told from it"
    return f"{undecided} by {standing.seeds} seeds each{dropped}. It took {spent}."


def _dropped(dropped: list[Dropped], name: Name) -> str:
    if len(dropped) > _NAMED:
        after = sorted(each.seeds for each in dropped)
        return f"; {len(dropped)} were dropped after {after[0]} to {after[-1]} seeds"
    told = [
        f"{name(each.candidate)} was dropped after {each.seeds} seeds "
        f"({'all failed' if each.p is None else f'p = {each.p:.2g} before correction'})"
        for each in dropped
    ]
    return f": {_listed(told)}" if told else ""


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
