"""A against B: what is claimed where the truth is known, who leads within noise, and how many seeds are asked for."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from statsmodels.stats.multitest import multipletests

from aigc_lab.registry.pairs import Pair, mark_leaders, pairs
from aigc_lab.registry.ranking import Comparison, rank
from aigc_lab.registry.standings import Configuration, SeedOutcome
from aigc_lab.statistics.rank_test import LEVEL, smallest_p

Values = list[list[float]]


def ranked(values: Values, role: str = "search", better: str = "lower", sweep: str = "s") -> Comparison:
    """The ranking of trials whose seeds have these values; ±∞ is a seed that diverged."""
    return rank([configuration(trial, each, role, better, sweep) for trial, each in enumerate(values)])


def configuration(
    trial: int, values: list[float], role: str = "search", better: str = "lower", sweep: str = "s", signature: str = "x"
) -> Configuration:
    outcomes = [
        SeedOutcome.brief(role, "FINISHED", value, signature, better, "fd")
        if math.isfinite(value)
        else SeedOutcome.brief(role, "DIVERGED", None, None, None, "fd")
        for value in values
    ]
    return Configuration(sweep, trial, "gan", "FINISHED", outcomes)


def answers(found: list[Pair]) -> dict[tuple[int, int], str]:
    return {(pair.first["trial"], pair.second["trial"]): pair.answer for pair in found}


def apart(*starts: float, n: int = 5) -> Values:
    return [[start + seed for seed in range(n)] for start in starts]


# ---- error rates of simulated sweeps

_SPOILED: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "none": lambda draw, values: values,
    "a tenth four times worse": lambda draw, values: np.where(draw.random(values.shape) < 0.1, 4 * values, values),
    "a tenth diverged": lambda draw, values: np.where(draw.random(values.shape) < 0.1, np.inf, values),
}


def false_claims(means: Any, seeds: int, spoiled: str, draw: np.random.Generator, sweeps: int) -> float:
    """The share of sweeps in which anything wrong is claimed of systems with these means and a deviation of 1."""
    means, wrong = np.asarray(means, float), 0
    for _ in range(sweeps):
        values = _SPOILED[spoiled](draw, 10 + draw.normal(means[:, None], 1, (len(means), seeds)))
        for pair in pairs(ranked(values.tolist())):
            first, second = means[pair.first["trial"]], means[pair.second["trial"]]
            if pair.told and not (first < second if pair.answer == "better" else first > second):
                wrong += 1
                break
    return wrong / sweeps


@pytest.mark.parametrize("spoiled", _SPOILED)
def test_of_equal_systems_at_most_one_sweep_in_twenty_claims_anything(spoiled: str) -> None:
    """2,000 sweeps of 2 to 5 systems; the limit is that of a share of 5 %, three standard errors above it."""
    draw = np.random.default_rng(0)
    shares = [false_claims([0.0] * systems, seeds, spoiled, draw, 250) for systems in (2, 3, 4, 5) for seeds in (5, 6)]
    assert np.mean(shares) < 0.05
    assert max(shares) < 0.05 + 3 * (0.05 * 0.95 / 250) ** 0.5


@pytest.mark.parametrize("means", [[0.0] * 20, [0.0] + [0.75] * 19, [0.0, 0.0] + [1.0] * 18])
def test_the_first_of_many_trials_are_not_claimed_to_be_better_for_having_been_selected(means: list[float]) -> None:
    """By the very seeds that they are ranked by."""
    assert false_claims(means, 5, "a tenth four times worse", np.random.default_rng(1), 300) < 0.02


def test_a_gap_of_two_deviations_is_seen_with_five_seeds_each_and_one_of_half_a_deviation_is_not_claimed() -> None:
    draw, claims = np.random.default_rng(0), {2.0: 0, 0.5: 0}
    for gap in claims:
        for _ in range(1000):
            first, second = draw.normal(0, 1, 5).tolist(), draw.normal(gap, 1, 5).tolist()
            claims[gap] += any(pair.told for pair in pairs(ranked([first, second])))
    assert claims[2.0] / 1000 >= 0.64 and claims[0.5] / 1000 < 0.15


# ---- the answers


def test_holms_correction_is_over_all_pairs_of_the_first_four_rows() -> None:
    draw = np.random.default_rng(3)
    values = [draw.normal(gap, 1, 7).tolist() for gap in (0.0, 1.0, 2.0, 3.0, 3.5)]
    comparison = ranked(values)
    found = pairs(comparison)
    assert len(found) == 6 and len(pairs(comparison, most=5)) == 10 and len(pairs(comparison, most=2)) == 1
    ps = [mannwhitneyu(*(values[row["trial"]] for row in (pair.first, pair.second))).pvalue for pair in found]
    adjusted = multipletests(ps, method="holm")[1]
    assert [pair.p for pair in found] == pytest.approx(adjusted)
    assert [pair.told for pair in found] == [p <= LEVEL for p in adjusted]
    assert {pair.told for pair in found} == {True, False}


def test_a_pair_is_better_or_worse_by_the_direction_of_its_score() -> None:
    low, high = apart(0.0, 9.0)
    assert answers(pairs(ranked([low, high]))) == {(0, 1): "better"}
    assert answers(pairs(ranked([low, high], better="higher"))) == {(1, 0): "better"}
    # The reference split ranks, and the holdout may say the opposite.
    comparison = ranked([low, high])
    turned = replace(comparison, rows=comparison.rows[::-1], values=comparison.values[::-1])
    assert answers(pairs(turned)) == {(1, 0): "worse"}


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (3, 12)])
def test_of_two_or_three_seeds_nothing_is_claimed_whatever_p_is(sizes: tuple[int, int]) -> None:
    n, m = sizes
    (pair,) = pairs(ranked([list(map(float, range(n))), list(map(float, range(100, 100 + m)))]))
    assert pair.answer == "cannot tell" and pair.p is None and pair.more is not None
    assert pair.beside.p == smallest_p(n, m)
    assert smallest_p(n + pair.more, m + pair.more) <= LEVEL


def test_pairs_without_a_test_take_no_part_in_the_correction() -> None:
    found = pairs(ranked([*apart(0.0, 10.0, n=4), [20.0, 21.0]]))
    assert answers(found) == {(0, 1): "better", (0, 2): "cannot tell", (1, 2): "cannot tell"}
    assert {pair.comparisons for pair in found} == {1}


def test_common_seeds_are_never_paired() -> None:
    """Each seed of the one is a little better than the same seed of the other: paired, that would be p = 2⁻⁷."""
    first = [float(10 * seed) for seed in range(8)]
    (pair,) = pairs(ranked([first, [value + 1 for value in first]]))
    assert pair.answer == "cannot tell" and pair.p == pytest.approx(
        mannwhitneyu(first, [value + 1 for value in first], method="exact").pvalue
    )


def test_a_diverged_seed_is_the_worst_rank() -> None:
    fine, once = [1.0, 2.0, 3.0, 4.0, 5.0], [1.5, 2.5, 3.5, math.inf, math.inf]
    (pair,) = pairs(ranked([fine, once]))
    better = sum((x < y) + (x == y) / 2 for x in fine for y in once)
    assert pair.beside.probability == pytest.approx(better / 25) and pair.beside.m == 5


def test_looks_at_growing_samples_multiply_each_p_value() -> None:
    values = apart(0.0, 9.0)
    once, thrice, often = (pairs(ranked(values), looks=looks)[0] for looks in (1, 3, 10))
    assert once.p is not None
    assert thrice.p == pytest.approx(3 * once.p) and thrice.answer == "better"
    assert often.p == pytest.approx(10 * once.p) and often.answer == "cannot tell"
    assert often.hopeless and not once.hopeless
    comparison = ranked(values)
    comparison.rows[1]["looks"] = 10
    assert pairs(comparison)[0] == replace(often, first=comparison.rows[0], second=comparison.rows[1])


def test_confirmed_rows_and_rows_of_the_search_are_never_compared() -> None:
    values = apart(0.0, 9.0, 20.0)
    rows = [configuration(0, values[0], "confirm"), configuration(1, values[1], "confirm"), configuration(2, values[2])]
    assert answers(pairs(rank(rows))) == {(0, 1): "better"}
    assert pairs(rank([rows[0], rows[2]])) == []
    assert pairs(rank([configuration(0, values[0]), configuration(1, values[1], "confirm", sweep="t")])) == []


def test_rows_of_two_signatures_are_never_compared_and_corrected_apart() -> None:
    values = apart(0.0, 9.0)
    rows = [configuration(trial, values[trial % 2], signature="xy"[trial // 2]) for trial in range(4)]
    found = pairs(rank(rows))
    assert answers(found) == {(0, 1): "better", (2, 3): "better"}
    assert {pair.comparisons for pair in found} == {1}


def test_rows_of_trials_are_compared_among_themselves_unless_they_are_no_random_draw() -> None:
    comparison = ranked(apart(0.0, 9.0, 20.0))
    for row, unit in zip(comparison.rows, ("trial", "seed", "trial"), strict=True):
        row |= {"unit": unit, "by": "lr", "by_value": row["trial"], "adaptive": False}
    (pair,) = pairs(comparison)
    assert (pair.first["trial"], pair.second["trial"], pair.unit, pair.answer) == (0, 2, "trial", "better")
    assert pair.as_dict()["second"]["by_value"] == 2
    comparison.rows[2]["adaptive"] = True
    assert pairs(comparison) == []


def test_equal_configurations_ask_for_no_seeds() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    (pair,) = pairs(ranked([values, values]))
    assert pair.answer == "cannot tell" and pair.more is None and pair.beside.probability == 0.5


# ---- who leads


def leaders(comparison: Comparison) -> list[bool | None]:
    mark_leaders(comparison)
    return [row["leaders"] for row in comparison.rows]


def test_the_rows_that_are_not_told_from_the_first_are_one_group() -> None:
    assert leaders(ranked(apart(0.0, 0.5, 30.0, 31.0, 32.0))) == [True, True, False, False, None]
    assert leaders(ranked(apart(0.0, 30.0, 30.5))) == [False, False, False]


def test_where_no_test_was_made_nobody_is_said_to_lead() -> None:
    assert leaders(ranked(apart(0.0, 30.0, n=3))) == [None, None]
    assert leaders(ranked([[1.0], [2.0]])) == [None, None]
    assert leaders(rank([])) == []


def test_a_row_that_is_better_than_the_first_leads_with_it() -> None:
    comparison = ranked(apart(0.0, 9.0))
    turned = replace(comparison, rows=comparison.rows[::-1], values=comparison.values[::-1])
    assert leaders(turned) == [True, True]


def test_a_pair_is_plain_data() -> None:
    import json

    (pair,) = pairs(ranked(apart(0.0, 9.0)))
    told = json.loads(json.dumps(pair.as_dict()))
    assert told["first"] == {"rank": 1, "sweep": "s", "trial": 0, "system": "gan"}
    assert (told["first_is"], told["probability"], told["values"], told["comparisons"]) == ("better", 1.0, [5, 5], 1)
    assert told["p"] == told["p_adjusted"] == pytest.approx(2 / 252)


def test_rows_that_violate_a_constraint_lead_nothing() -> None:
    """Neither where they are confirmed and the others are not, nor as leaders; alone they are compared."""
    configurations = [configuration(trial, values) for trial, values in enumerate(apart(9.0, 9.5, 0.0))]
    configurations[2].violates = True
    comparison = rank(configurations)
    comparison.rows[2]["marks"].append("violates collapse: SEVERE")
    assert [(pair.first["trial"], pair.second["trial"]) for pair in pairs(comparison)] == [(0, 1)]
    assert leaders(comparison) == [True, True, None]
    for row in comparison.rows:
        row["marks"] = ["violates collapse: SEVERE"]
    assert len(pairs(comparison)) == 3
