"""Races of candidates of which the truth is known, and what they depend on."""

import json
import math
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest
from conftest import program
from scipy.stats import mannwhitneyu

from aigc_lab.statistics.race import Race, Standing, first_block, levels
from aigc_lab.statistics.rank_test import LEVEL

Values = dict[tuple[int, int], float | None]


def run(race: Race, draw: Callable[[int, int], float | None]) -> Standing:
    """The race, with values as they are asked for."""
    ended: Values = {}
    while not (standing := race.replay(ended)).over:
        ended |= {key: draw(*key) for key in standing.missing}
    return standing


def of_table(*rows: Sequence[float | None]) -> Callable[[int, int], float | None]:
    return lambda candidate, place: rows[candidate][place]


@pytest.mark.parametrize("candidates", [2, 3, 5, 12])
@pytest.mark.parametrize("seeds", [4, 5, 8, 12, 40])
def test_the_levels_of_all_looks_and_rivals_share_the_error(candidates: int, seeds: int) -> None:
    spent = levels(candidates, seeds)
    assert sum(spent.values()) * (candidates - 1) <= LEVEL * (1 + 1e-12)
    for n, level in spent.items():
        lowest = mannwhitneyu(range(n), range(n, 2 * n), alternative="less", method="exact").pvalue
        assert lowest <= level, "a look at which nobody can be dropped spends nothing"
    if seeds > first_block(candidates):
        assert min(spent) == first_block(candidates)
        assert sum(spent.values()) * (candidates - 1) == pytest.approx(LEVEL), "nothing is left unspent"


# Laws of the seeds: the best candidate's is drawn with gap 0, those of the others are so many deviations worse.
def normal(draw: random.Random, gap: float) -> float:
    return draw.gauss(gap, 1)


def with_failures(draw: random.Random, gap: float) -> float:
    """A tenth of the seeds are four times worse, as of a system that sometimes collapses."""
    return math.exp(draw.gauss(gap, 1) / 4) * (4 if draw.random() < 0.1 else 1)


def diverging(draw: random.Random, gap: float) -> float:
    return math.inf if draw.random() < 0.2 else draw.gauss(gap, 1)


@pytest.mark.parametrize("law", [normal, with_failures, diverging])
@pytest.mark.parametrize("candidates", [3, 5])
def test_of_equal_candidates_a_given_one_is_dropped_in_no_more_than_one_race_of_twenty(
    law: Callable[[random.Random, float], float], candidates: int
) -> None:
    """The hardest case for the best: to be better by next to nothing."""
    races, lost = 300, 0
    for number in range(races):
        draw = random.Random(number)
        standing = run(Race(range(candidates), 10, lower_is_better=True), lambda *_, draw=draw: law(draw, 0.0))
        lost += 0 not in standing.contenders
    assert lost / races <= LEVEL


@pytest.mark.parametrize("gap", [1.0, 2.0, 3.0])
def test_the_best_is_kept_and_the_clearer_it_is_the_fewer_runs_are_taken(gap: float) -> None:
    races, kept, taken = 200, 0, []
    for number in range(races):
        draw = random.Random(number)
        race = Race(range(4), 12, lower_is_better=True)
        standing = run(race, lambda candidate, _, draw=draw: normal(draw, gap * (candidate > 0)))  # type: ignore[misc]
        kept += 0 in standing.contenders
        taken.append(standing.taken / race.runs_of_fixed_seeds)
    assert kept >= 0.95 * races
    # What 600 races take that are written with numpy and critical values of U.
    assert sum(taken) / races == pytest.approx({1.0: 0.932, 2.0: 0.659, 3.0: 0.472}[gap], abs=0.025)


def test_who_is_worse_by_the_test_is_dropped_and_the_others_go_on() -> None:
    far, near, best = [9.0 + place for place in range(9)], [2.0, 0.0] * 5, [0.5, 1.5] * 5
    standing = run(Race((2, 0, 1), 9, lower_is_better=True), of_table(far, near, best))
    assert [(each.candidate, each.seeds) for each in standing.dropped] == [(0, 5)]
    assert standing.dropped[0].p == pytest.approx(mannwhitneyu(far[:5], best[:5], method="exact").pvalue)
    assert (standing.contenders, standing.seeds, standing.taken) == ([2, 1], 9, 5 + 9 + 9)
    higher = run(Race((2, 0, 1), 9, lower_is_better=False), of_table(far, near, best))
    assert (higher.leader, higher.contenders, higher.taken) == (0, [0], 15)


def test_nobody_is_dropped_at_a_look_that_cannot_tell() -> None:
    """Of three, four seeds each that do not overlap have p = 0.029, which is no more than 5 % once."""
    race = Race(range(3), 9, lower_is_better=True)
    assert race.replay({}).missing == [(each, place) for each in range(3) for place in range(5)]
    assert run(Race(range(2), 9, lower_is_better=True), lambda each, _: float(each)).taken == 8


def test_a_budget_ends_the_race_and_what_the_dropped_leave_goes_to_the_others() -> None:
    far, near, best = [9.0] * 30, [2.0, 0.0] * 15, [0.5, 1.5] * 15
    race = Race(range(3), 30, lower_is_better=True, budget=24)
    standing = run(race, of_table(far, near, best))
    assert (standing.taken, standing.seeds, len(standing.contenders)) == (23, 9, 2), (
        "a round of two does not fit in one"
    )
    assert race.looks == 9 - 5 + 1
    assert race.most_runs == 24


def test_what_comes_next_depends_on_the_values_of_earlier_rounds_alone() -> None:
    """Any order of a round, and runs of later rounds that are known already, change nothing."""
    table = [[random.Random(f"{each}/{place}").gauss(each / 2, 1) for place in range(12)] for each in range(4)]
    race = Race(range(4), 12, lower_is_better=True)
    whole = run(race, of_table(*table))
    ended: Values = {}
    asked: list[tuple[int, int]] = []
    while not (standing := race.replay(ended)).over:
        key = random.Random(len(asked)).choice(standing.missing)  # one by one, in an order of its own
        asked.append(key)
        ended[key] = table[key[0]][key[1]]
    assert standing == whole and len(asked) == whole.taken
    everything = {(each, place): table[each][place] for each in range(4) for place in range(12)}
    assert race.replay(everything) == whole


def test_failed_runs_neither_hang_the_race_nor_count() -> None:
    failing: list[float | None] = [None] * 9
    some: list[float | None] = [1.0, None, 1.1, 0.9, 1.2, None, 0.8, 1.1, 1.0]
    standing = run(Race(range(3), 9, lower_is_better=True), of_table(failing, some, [1.05] * 9))
    assert [(each.candidate, each.p) for each in standing.dropped] == [(0, None)]
    assert standing.contenders == [1, 2]
    nothing = run(Race(range(3), 9, lower_is_better=True), lambda *_: None)
    assert (nothing.leader, nothing.taken) == (None, 15)


def test_a_diverged_run_is_the_worst_value() -> None:
    table = [[math.inf] * 9, [1.0 + place / 10 for place in range(9)]]
    standing = run(Race(range(2), 9, lower_is_better=True), of_table(*table))
    assert (standing.leader, standing.contenders, standing.taken) == (1, [1], 8)


def test_fixed_seeds_are_one_round_without_a_test() -> None:
    race = Race((5, 3), 4, lower_is_better=True, racing=False)
    assert race.replay({}).missing == [(5, 0), (5, 1), (5, 2), (5, 3), (3, 0), (3, 1), (3, 2), (3, 3)]
    standing = run(race, lambda candidate, _: float(candidate))
    assert (standing.leader, standing.contenders, standing.taken, race.looks) == (3, [5, 3], 8, 1)
    assert run(Race((), 4, lower_is_better=True, racing=False), lambda *_: 0.0).leader is None


def test_ties_go_to_the_better_of_the_search() -> None:
    assert run(Race((7, 2), 5, lower_is_better=True), lambda *_: 1.0).leader == 7


def test_the_first_round_grows_with_the_candidates() -> None:
    blocks = [first_block(candidates) for candidates in range(2, 40)]
    assert all(before <= after for before, after in pairwise(blocks)) and blocks[0] == 4


# Twelve random configurations of a small GAN on the ring, eight seeds each, as `evaluation/race.py --write` keeps them.
RECORDED = Path(__file__).parents[1] / "fixtures" / "recorded_race.json"


@pytest.mark.parametrize("top", [8, 12])
def test_on_recorded_runs_half_of_the_runs_choose_as_fixed_seeds_do(top: int) -> None:
    """Two configurations are close, and the others far behind: the race spends its seeds on the two."""
    race = program("race")
    laws, best, lower = race.laws_of(json.loads(RECORDED.read_text()))
    assert (len(laws), lower) == (12, True)
    told = race.histories(laws, best, race.Design(top, 20), 60, lower=lower)
    assert mean(each.kept for each in told) >= 0.95
    assert mean(each.runs for each in told) <= 0.5 * top * 20
    assert mean(each.chosen for each in told) >= mean(each.chosen_by_fixed for each in told)
    assert mean(each.chosen for each in told) > mean(each.chosen_by_as_many for each in told)


def test_the_program_prints_a_line_for_each_design(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = tmp_path / "again.json"
    assert program("race").main([str(RECORDED), "--n", "3", "--write", str(kept)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["runs", "kept", "chosen", "fixed", "as", "many"]
    assert len(lines) == 4 * 2 * 2 and lines[0].startswith("recorded-6293cf04: top 3, seeds 12 ")
    assert json.loads(kept.read_text()) == json.loads(RECORDED.read_text())
