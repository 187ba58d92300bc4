"""What a verdict on a collapse costs: `uv run python tests/benchmarks/bench_verdict.py`.

10,000 generated vectors beside a pool of 20,000 real ones, in 32 dimensions, ten classes, 200 splits: in an empty
cache, and once more with what rests on the real ones kept. The reference computes precision and coverage of each split
from all distances again, as one would write it at first; of two splits, scaled up to 200, and without all else.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from aigc_lab.scoring.null_cache import remembered
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import SPLITS, Judge, K
from aigc_lab.verdicts.conclusion import CollapseVerdict


def world(count: int, source: torch.Generator, centres: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.randint(len(centres), (count,), generator=source)
    return centres[labels] + torch.randn(count, centres.shape[1], generator=source), labels


def timed(pool: Tensor, labels: Tensor, made: Tensor, cache: Path) -> tuple[float, float, CollapseVerdict]:
    started, cpu = time.perf_counter(), time.process_time()
    with remembered(Judge(pool, Bins.of_labels(labels), "benchmark"), cache) as judge:
        said = judge.judge(made)
    return time.perf_counter() - started, time.process_time() - cpu, said


def plainly(pool: Tensor, n: int, source: torch.Generator) -> tuple[float, float]:
    """Precision and coverage of n real vectors against the rest of the pool."""
    order = torch.randperm(len(pool), generator=source)
    inside, outside = pool[order[:n]], pool[order[n:]]
    radii = torch.cdist(outside, outside).kthvalue(K + 1, dim=1).values
    between = torch.cdist(inside, outside)
    return (between < radii).any(1).double().mean().item(), (between.amin(0) < radii).double().mean().item()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--n", type=int, default=10_000)
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    source = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(10, 32, generator=source) / 8**0.5
    pool, labels = world(2 * options.n, source, centres)
    made, _ = world(options.n, source, centres)
    with tempfile.TemporaryDirectory() as folder:
        cold, cold_cpu, first = timed(pool, labels, made, Path(folder))
        warm, warm_cpu, second = timed(pool, labels, made, Path(folder))
    assert first.as_dict() == second.as_dict()
    started = time.perf_counter()
    for _ in range(2):
        plainly(pool, options.n, source)
    plain = (time.perf_counter() - started) / 2 * SPLITS
    print(f"{options.n:,} of {len(pool):,}: {first.verdict}, {first.reason}")
    print(f"cold {cold:.1f} s (CPU {cold_cpu:.1f}), cached {warm:.1f} s (CPU {warm_cpu:.1f})")
    print(
        f"{SPLITS} splits from all distances: {plain:.0f} s (two, scaled up), {plain / cold:.0f} times the cold verdict"
    )


if __name__ == "__main__":
    main()
