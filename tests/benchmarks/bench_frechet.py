"""What a Fréchet distance costs at d = 2048, and how exact it is: `uv run python tests/benchmarks/bench_frechet.py`.

From the vectors of n generated samples to the distance, against a reference of 5,000 whose mean, covariance and root
are known, as they are from the cache. pytorch-fid is given the reference's mean and covariance, and takes numpy's of
the vectors, in the same process. Variances fall as i^-1.2, along axes of no feature; the truth is the
singular values of X₁X₂ᵀ in float64, without any covariance. Times are seconds of processor time on one thread, so that
a busy machine says the same; of ours, the least of three. With `--threads 2` both have so many, and times are wall.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from threadpoolctl import threadpool_limits
from torch import Tensor

from aigc_lab.benchmarks.frechet import vectors
from aigc_lab.statistics.frechet import Gaussian, distance, standard_error

D, REFERENCE = 2048, 5_000


def timed(call: Callable[[], float], times: int) -> tuple[float, float]:
    least = math.inf
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(times):
        started = clock()
        value = call()
        least = min(least, clock() - started)
    return value, least


def theirs(made: Tensor, mean: np.ndarray, covariance: np.ndarray) -> float:
    rows = made.double().numpy()
    return float(calculate_frechet_distance(rows.mean(0), np.cov(rows, rowvar=False), mean, covariance))


def measured(made: Tensor, known: Gaussian) -> float:
    return distance(Gaussian.of(made), known)


def truth(made: Tensor, reference: Tensor) -> float:
    """With the smaller triangle of each QR in place of the rows: the singular values are the same."""
    x, y = (rows.double() - rows.double().mean(0) for rows in (made, reference))
    x, y = x / math.sqrt(len(x) - 1), y / math.sqrt(len(y) - 1)
    shift = (made.double().mean(0) - reference.double().mean(0)).square().sum()
    small = [torch.linalg.qr(rows, mode="r")[1] if len(rows) > D else rows for rows in (x, y)]
    shared = torch.linalg.svdvals(small[0] @ small[1].T).sum()
    return float(shift + x.square().sum() + y.square().sum() - 2 * shared)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--threads", type=int, default=1)
    threads = arguments.parse_args().threads
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    reference = vectors(REFERENCE, D, 1, 1.0)
    of_all = Gaussian.of(reference)
    known = Gaussian(of_all.count, of_all.mean, of_all.covariance)
    known.__dict__["root"] = of_all.root
    assert known.covariance is not None
    mean, covariance = known.mean.numpy(), known.covariance.numpy()
    print(f"d = {D}, a reference of {REFERENCE:,}")
    print("     n       FD  ours, s   theirs   ratio  our error   theirs   SE, s", flush=True)
    for n in (256, 1000, 5000):
        made = vectors(n, D, 2, 1.1)
        gaussian = Gaussian.of(made)
        ours, seconds = timed(partial(measured, made, known), 3)
        other, their_seconds = timed(partial(theirs, made, mean, covariance), 1)
        _, with_error = timed(partial(standard_error, gaussian, made, known, reference), 1)
        exact = truth(made, reference)
        print(
            f"{n:6} {ours:8.3f} {seconds:8.3f} {their_seconds:8.2f} {their_seconds / seconds:7.1f} "
            f"{abs(ours / exact - 1):10.1e} {abs(other / exact - 1):8.1e} {with_error:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
