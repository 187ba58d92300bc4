"""The maximum mean discrepancy (Gretton et al. 2012) of KID's kernel and its standard error: float64, by blocks."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Rows and columns of the kernel that are in memory at a time: three buffers of 32 MiB.
BLOCK = 2048


class Estimate(NamedTuple):
    """Estimate and its standard error."""

    value: float
    error: float


class _Sums(NamedTuple):
    """Sums of a kernel matrix [n, m]: of each row [n], of each column [m], and of all squares."""

    rows: Tensor
    columns: Tensor
    squares: float


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """Kernel (x·y/d + 1)³ [n, m] of every pair of rows [n, d] and [m, d], that of KID (Bińkowski et al. 2018)."""
    inner = torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1])
    return inner.square().mul_(inner)


def mmd(x: Tensor, y: Tensor, block: int = BLOCK) -> Estimate:
    """Unbiased MMD² between vectors [n, d] and [m, d], the full two-sample U-statistic, and its standard error.

    Every pair is used, so there is no noise of subsets. The variance comes from the row sums that the value needs
    anyway. A jackknife over single rows of both sets counts the second-order part of a U-statistic twice (Efron & Stein
    1981), so that part, measured by the sums of squares, is subtracted once. The variance is at least the second-order
    part itself, and no more for two sets of one distribution, where the first-order part is zero.

    >>> zeros, twos = torch.zeros(3, 1), torch.full((3, 1), 2.0)
    >>> mmd(zeros, twos)  # 1³ + 5³ − 2·1³
    Estimate(value=124.0, error=0.0)
    """
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    own, other, cross = _within(x, block), _within(y, block), _between(x, y, block)
    own_sum, other_sum, cross_sum = own.rows.sum(), other.rows.sum(), cross.rows.sum()
    value = own_sum / (n * (n - 1)) + other_sum / (m * (m - 1)) - 2 * cross_sum / (n * m)

    def jackknife(total: Tensor, rows: Tensor, towards: Tensor, count: int, others: int) -> Tensor:
        """Jackknife variance over leaving out each of `count` rows; terms that are constant are omitted."""
        without = (total - 2 * rows) / ((count - 1) * (count - 2)) - 2 * (cross_sum - towards) / ((count - 1) * others)
        return (without - without.mean()).square().sum() * (count - 1) / count

    def interaction(sums: _Sums, pairs: int) -> Tensor:
        """Variance of k(x, y) that neither x nor y alone explains."""
        rows, columns = (part * len(part) / pairs for part in (sums.rows, sums.columns))
        return (sums.squares / pairs - rows.square().mean() - columns.square().mean() + rows.mean() ** 2).clamp_min(0)

    twice = jackknife(own_sum, own.rows, cross.rows, n, m) + jackknife(other_sum, other.rows, cross.columns, m, n)
    second = (
        2 * interaction(own, n * (n - 1)) / (n * (n - 1))
        + 2 * interaction(other, m * (m - 1)) / (m * (m - 1))
        + 4 * interaction(cross, n * m) / (n * m)
    )
    return Estimate(float(value), math.sqrt(float(torch.maximum(twice - second, second))))


def mmd_of_subsets(x: Tensor, y: Tensor, picks: Iterable[tuple[Tensor, Tensor]]) -> Estimate:
    """Mean of the unbiased MMD² over pairs of subsets, and the standard error due to the choice of subsets."""
    values = torch.tensor([mmd(x[rows], y[columns]).value for rows, columns in picks], dtype=torch.float64)
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def customary_picks(n: int, m: int, subsets: int, size: int, seed: int = 2020) -> Iterator[tuple[Tensor, Tensor]]:
    """Row indices [size] of pairs of subsets as torch-fidelity draws them by default, each without replacement."""
    import numpy as np

    source = np.random.RandomState(seed)
    for _ in range(subsets):
        rows, columns = (source.choice(count, size, replace=False) for count in (n, m))
        yield torch.from_numpy(rows), torch.from_numpy(columns)


def _within(x: Tensor, block: int) -> _Sums:
    """Sums over pairs of different rows; the kernel is symmetric, so each pair of blocks is computed once."""
    rows, squares = x.new_zeros(len(x)), x.new_zeros(())
    for first in range(0, len(x), block):
        one = slice(first, first + block)
        for second in range(first, len(x), block):
            two = slice(second, second + block)
            kernel = cubic(x[one], x[two])
            if first == second:
                kernel.fill_diagonal_(0)
            else:
                rows[two] += kernel.sum(0)
            rows[one] += kernel.sum(1)
            squares += kernel.square_().sum() * (1 if first == second else 2)
    return _Sums(rows, rows, float(squares))


def _between(x: Tensor, y: Tensor, block: int) -> _Sums:
    rows, columns, squares = x.new_zeros(len(x)), x.new_zeros(len(y)), x.new_zeros(())
    for first in range(0, len(x), block):
        one = slice(first, first + block)
        for second in range(0, len(y), block):
            two = slice(second, second + block)
            kernel = cubic(x[one], y[two])
            rows[one] += kernel.sum(1)
            columns[two] += kernel.sum(0)
            squares += kernel.square_().sum()
    return _Sums(rows, columns, float(squares))
