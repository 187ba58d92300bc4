"""A against B, beside SciPy's exact test: `uv run python tests/benchmarks/bench_pairs.py [rows] [seeds]` (20 10).

CPU time of one process: the pairs of the first rows with their tests, intervals, Holm's correction and the number of
seeds that would tell, of a new ranking each time; and SciPy's Mann–Whitney tests of as many pairs alone. Of the
first ranking all intervals are computed, later ones are partly kept.
"""

import statistics
import sys
import time
from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from aigc_lab.registry.pairs import MOST, mark_leaders, pairs
from aigc_lab.registry.ranking import Comparison, rank
from aigc_lab.registry.standings import Configuration, SeedOutcome

ROUNDS = 30


def main() -> None:
    rows, seeds = (int(word) for word in (sys.argv[1:] + ["20", "10"][len(sys.argv) - 1 :]))
    draw = np.random.default_rng(0)
    rankings = [_ranking(draw.normal(size=(rows, seeds))) for _ in range(ROUNDS)]
    _theirs(rankings[0])  # the first call builds SciPy's table
    ours, theirs = [], []
    for of in rankings:
        ours.append(_milliseconds(_ours, of))
        theirs.append(_milliseconds(_theirs, of))
    again, scipys = statistics.median(ours), statistics.median(theirs)
    print(f"{rows} rows of {seeds} seeds: the first {MOST} in pairs, and the leaders marked")
    print(f"ours {ours[0]:.1f} ms the first time, then {again:.2f} ms")
    print(f"SciPy's tests alone {scipys:.2f} ms: {again / scipys:.2f} times")


def _ours(comparison: Comparison) -> None:
    mark_leaders(comparison)
    pairs(comparison)


def _theirs(comparison: Comparison) -> None:
    for each in combinations(comparison.values[:MOST], 2):
        mannwhitneyu(*each, method="exact")


def _ranking(values: NDArray[np.float64]) -> Comparison:
    return rank(
        Configuration(
            "s",
            trial,
            "gan",
            "FINISHED",
            [SeedOutcome.brief("search", "FINISHED", value, "x", "lower", "fd") for value in of_trial],
        )
        for trial, of_trial in enumerate(values.tolist())
    )


def _milliseconds(call: Callable[[Comparison], None], comparison: Comparison) -> float:
    started = time.process_time()
    call(comparison)
    return 1e3 * (time.process_time() - started)


if __name__ == "__main__":
    main()
