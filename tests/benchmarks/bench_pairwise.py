"""Pairwise scores beside torch-fidelity's: `uv run python tests/benchmarks/bench_pairwise.py [n] [d]` (5000 2048).

The same features in one process; seconds of processor time, the two in turns, and their ratio. torch-fidelity's KID is
100 subsets of 1,000 in float32; ours is every pair in float64, with its standard error. Its precision and recall are
float32 without intervals; ours are float64 with the jackknife's.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from aigc_lab.metrics.vendi import entropy
from aigc_lab.statistics.mmd import mmd
from aigc_lab.statistics.neighbours import manifolds

ROUNDS = 1


def main() -> None:
    n, d = (int(word) for word in (sys.argv[1:] + ["5000", "2048"][len(sys.argv) - 1 :]))
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=source).abs() * 1.01, torch.randn(n, d, generator=source).abs()
    size = min(1000, n)
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
        "kid": (
            lambda: mmd(x, y),
            lambda: kid_features_to_metric(x, y, kid_subsets=100, kid_subset_size=size, verbose=False),
        ),
        "improved precision, recall": (
            lambda: manifolds(x, y, 3, closed=True),
            lambda: prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=10000, verbose=False),
        ),
        "vendi": (lambda: entropy(x), None),
    }
    print(f"n = {n}, d = {d}\n{'':28} {'ours, s':>8} {'theirs, s':>10} {'ratio':>6}")
    for name, calls in pairs.items():
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for call, taken in zip(calls, times, strict=True):
                started = time.process_time()
                if call is not None:
                    call()
                taken.append(time.process_time() - started)
        ours, theirs = map(statistics.median, times)
        beside = f"{theirs:10.2f} {theirs / ours:6.2f}" if calls[1] else ""
        print(f"{name:28} {ours:8.2f} {beside}", flush=True)


if __name__ == "__main__":
    main()
