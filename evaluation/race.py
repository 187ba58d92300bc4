"""How many runs a race saves, and how often it loses the best candidate.

    python evaluation/race.py                                       # simulated candidates: two minutes
    python evaluation/race.py recorded --home .aigc-lab             # seeds drawn from the runs of a sweep
    python evaluation/race.py recorded --home .aigc-lab --write runs.json
    python evaluation/race.py runs.json                             # the same from the file

Each line is a design of `confirm` over many histories. The candidates are the best by one seed of a search; their seeds
are drawn from a law whose best is known, or with replacement from what the runs of each configuration of a sweep came
to, of which the best has the best median. `kept`: the best candidate was not dropped. `chosen`: it came out first of
the race, of fixed seeds (`fixed`), and of fixed seeds for as many runs as the race took (`as many`). Exits with 1 when
it is kept in less than 95 %.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.states import RunState
from aigc_lab.registry.sweeps import run_outcomes, show_sweep
from aigc_lab.statistics.race import Race

#: a configuration's value for another seed
Law = Callable[[random.Random], float]


class Design(NamedTuple):
    """A race of the best `top`; `budget` is a share of the runs of fixed seeds."""

    top: int
    seeds: int
    budget: float | None = None

    def race(self, candidates: Sequence[int], *, lower: bool) -> Race:
        most = None if self.budget is None else round(self.budget * len(candidates) * self.seeds)
        return Race(candidates, self.seeds, lower, budget=most)


@dataclass(frozen=True)
class History:
    """One race, and fixed seeds, over the same values."""

    runs: int
    fixed_runs: int
    kept: bool
    chosen: bool
    chosen_by_fixed: bool
    chosen_by_as_many: bool


def history(laws: Sequence[Law], best: int, design: Design, draw: random.Random, *, lower: bool) -> History:
    """A search of one seed each, and the confirmation of the best; in one where `best` is no candidate it cannot be
    lost: there the best of the candidates counts.
    """
    sign = 1 if lower else -1
    found = [sign * law(draw) for law in laws]
    candidates = sorted(range(len(laws)), key=lambda each: found[each])[: design.top]
    first = best if best in candidates else min(candidates, key=lambda each: _rank(laws[each], sign))
    table = {each: [laws[each](draw) for _ in range(design.seeds)] for each in candidates}
    race = design.race(candidates, lower=lower)
    standing = race.replay({(each, place): table[each][place] for each in candidates for place in range(design.seeds)})

    def leader(seeds: int) -> int:
        return min(candidates, key=lambda each: sign * median(table[each][:seeds]))

    return History(
        standing.taken,
        race.runs_of_fixed_seeds,
        first in standing.contenders,
        standing.leader == first,
        leader(design.seeds) == first,
        leader(max(1, standing.taken // len(candidates))) == first,
    )


def _rank(law: Law, sign: int) -> float:
    """Where the median of a law lies."""
    draw = random.Random(0)  # noqa: S311 -- a simulation
    return sign * median(law(draw) for _ in range(2000))


def summary(name: str, histories: Sequence[History]) -> str:
    """One line of the table."""
    took, fixed = mean(each.runs for each in histories), histories[0].fixed_runs
    shares = [mean(getattr(each, key) for each in histories) for key in _SHARES]
    return f"{name:<50}{took:7.1f} of {fixed:<4}{took / fixed:6.0%}" + "".join(f"{share:10.1%}" for share in shares)


_SHARES = ("kept", "chosen", "chosen_by_fixed", "chosen_by_as_many")
_HEAD = f"{'':<50}{'runs':>14}{'':>7}{'kept':>10}{'chosen':>10}{'fixed':>10}{'as many':>10}"


# ---- laws


def simulated(gap: float, kind: str, count: int) -> list[Law]:
    """Candidate 0 is the best; each other one is `gap` deviations worse."""

    def law(shift: float) -> Law:
        if kind == "failing":  # a tenth of the seeds is four times worse
            return lambda draw: math.exp(draw.gauss(shift, 1) / 4) * (4 if draw.random() < 0.1 else 1)
        return lambda draw: draw.gauss(shift, 1)

    return [law(gap * (each > 0)) for each in range(count)]


def recorded(values: Mapping[str, Sequence[float]], *, lower: bool) -> tuple[list[Law], int]:
    """What the runs of each configuration came to, drawn with replacement; and which configuration is the best."""
    pools = list(values.values())
    laws: list[Law] = [lambda draw, pool=pool: draw.choice(pool) for pool in pools]  # type: ignore[misc]
    best = min(range(len(pools)), key=lambda each: median(pools[each]) * (1 if lower else -1))
    return laws, best


def read_sweep(name: str, home: Path | None) -> dict[str, object]:
    """The objective on the reference split of every run that ended, by trial; a run that diverged has none."""
    with open_registry(Settings.load(home)) as registry:
        sweep = show_sweep(registry, name)
        values: dict[str, list[float | None]] = {}
        for row in run_outcomes(registry, sweep["id"]):
            if row["state"] in (RunState.FINISHED, RunState.DIVERGED):
                values.setdefault(str(row["trial"]), []).append(row["value"])
    return {"sweep": sweep["id"], "objective": sweep["objective"], "better": sweep["better"], "values": values}


def laws_of(stored: Mapping[str, object]) -> tuple[list[Law], int, bool]:
    """Laws, the best of them and whether lower is better, of a stored sweep."""
    lower = stored["better"] == "lower"
    values = stored["values"]
    assert isinstance(values, dict)
    worst = math.inf if lower else -math.inf
    whole = {trial: [worst if each is None else each for each in of] for trial, of in values.items()}
    return *recorded(whole, lower=lower), lower


def histories(laws: Sequence[Law], best: int, design: Design, count: int, *, lower: bool = True) -> list[History]:
    return [history(laws, best, design, random.Random(number), lower=lower) for number in range(count)]  # noqa: S311


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", nargs="?", help="a sweep's id or name, or a file that --write made")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--n", type=int, default=1000, help="histories of each design")
    parser.add_argument("--write", type=Path, help="where to keep what the runs came to")
    given = parser.parse_args(arguments)
    print(_HEAD)
    kept = []
    for name, laws, best, design, lower in _cases(given):
        told = histories(laws, best, design, given.n, lower=lower)
        kept.append(mean(each.kept for each in told))
        print(summary(name, told), flush=True)
    return 0 if min(kept) >= 0.95 else 1


def _cases(given: argparse.Namespace) -> list[tuple[str, list[Law], int, Design, bool]]:
    if given.sweep is None:
        designs = [Design(3, 9), Design(4, 12), Design(4, 12, 0.5), Design(5, 16, 0.5)]
        return [
            (
                f"{kind}, {gap:g} sd apart: top {design.top}, seeds {design.seeds}{_budget(design)}",
                simulated(gap, kind, design.top),
                0,
                design,
                True,
            )
            for kind in ("normal", "failing")
            for gap in (0.0, 1.0, 2.0, 3.0)
            for design in designs
        ]
    file = Path(given.sweep)
    stored = json.loads(file.read_text()) if file.suffix == ".json" else read_sweep(given.sweep, given.home)
    if given.write is not None:
        given.write.write_text(json.dumps(stored, indent=1) + "\n")
    laws, best, lower = laws_of(stored)
    tops = dict.fromkeys(min(top, len(laws)) for top in (3, 5, 8, 12))
    designs = [Design(top, seeds, budget) for top in tops for seeds in (12, 20) for budget in (None, 0.5)]
    name = str(stored["sweep"])
    return [
        (f"{name}: top {design.top}, seeds {design.seeds}{_budget(design)}", laws, best, design, lower)
        for design in designs
    ]


def _budget(design: Design) -> str:
    return "" if design.budget is None else f", budget {design.budget:.0%}"


if __name__ == "__main__":
    sys.exit(main())
