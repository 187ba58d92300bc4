"""The maximum mean discrepancy (Gretton et al. 2012) of KID's kernel and its standard error: float64, by blocks."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Rows and columns of the kernel that are in memory at a time: three buffers of 32 MiB.
BLOCK = 2048


class Estimate(NamedTuple):
    value: float
    error: float


class _Sums(NamedTuple):
    """Of a kernel matrix: the sum of each row and of each column, and of all squares."""

    rows: Tensor
    columns: Tensor
    squares: float


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """(x·y/d + 1)³ of every pair of rows: the kernel of KID (Bińkowski et al. 2018)."""
    inner = torch.addmm(x.new_ones(()), x, y.T, alpha=1 / x.shape[1])
    return inner.square().mul_(inner)


def mmd(x: Tensor, y: Tensor, block: int = BLOCK) -> Estimate:
    """The unbiased MMD² between vectors [n, d] and [m, d], as the full two-sample U-statistic, and its standard error.

    Every pair is used, so that no noise of subsets is in it. The variance comes from the row sums that the value needs
    anyway: the jackknife over single rows of both sets counts the second-order part of a U-statistic twice (Efron &
    Stein 1981), so it is taken off once, measured by the sums of squares. What is left is at least that part itself,
    and for two sets of one distribution, where the first-order part is zero, no more.

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
        """The variance over leaving out each of `count` rows; what it does not change is left away."""
        left = (total - 2 * rows) / ((count - 1) * (count - 2)) - 2 * (cross_sum - towards) / ((count - 1) * others)
        return (left - left.mean()).square().sum() * (count - 1) / count

    def interaction(sums: _Sums, pairs: int) -> Tensor:
        """The variance of k(x, y) that neither x nor y alone explains."""
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
    """The mean of the unbiased MMD² over pairs of subsets, and how much of its error the choice of subsets makes."""
    values = torch.tensor([mmd(x[rows], y[columns]).value for rows, columns in picks], dtype=torch.float64)
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def customary_picks(n: int, m: int, subsets: int, size: int, seed: int = 2020) -> Iterator[tuple[Tensor, Tensor]]:
    """The subsets that torch-fidelity draws by default, each without replacement."""
    import numpy as np

    source = np.random.RandomState(seed)
    for _ in range(subsets):
        rows, columns = (source.choice(count, size, replace=False) for count in (n, m))
        yield torch.from_numpy(rows), torch.from_numpy(columns)


def _within(x: Tensor, block: int) -> _Sums:
    """Without the diagonal; the kernel is symmetric, so each pair of blocks is computed once."""
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
