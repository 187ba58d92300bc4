"""Nearest neighbours, the manifolds that their balls make, and k-means: float64, exact up to ties, by blocks."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.statistics.intervals import T95_OF_GROUPS, clopper_pearson, groups, jackknife_error

# How many distances are in memory at a time: 32 MiB.
_CELLS = 2**22
# Columns of distances that are computed at a time.
_COLUMNS = 4096
# Two distances are equal when they differ by less than this part of the vectors' squared lengths: more than rounding
# makes of them at d = 2048, and less than float32 features can tell apart. Copies are then ties, whichever block they
# are computed in.
_TIE = 1e-12


class Interval(NamedTuple):
    """Value with its 95 % interval."""

    value: float
    low: float
    high: float


class Manifolds(NamedTuple):
    """Precision, recall, density and coverage, each with its 95 % interval."""

    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval


def enough_neighbours(k: int, samples: int) -> None:
    """Raises `ValueError` for fewer than 20k samples: balls to the k-th neighbour then hold too much of the set to be
    informative.
    """
    if samples < 20 * k:
        raise ValueError(f"neighbours of rank {k} need at least {20 * k} samples, not {samples}")


def _rows(count: int, columns: int) -> Iterator[slice]:
    block = max(1, _CELLS // max(1, columns))
    return (slice(first, min(first + block, count)) for first in range(0, count, block))


def _squared(x: Tensor, y: Tensor, slack: float = 0.0) -> Tensor:
    """Squared distances [n, m] of float64 rows, plus `slack` times the squared lengths of both."""
    lengths = [each.square().sum(1) * (1 + slack) for each in (x, y)]
    return torch.addmm(lengths[1], x, y.T, alpha=-2).add_(lengths[0][:, None])


def _centred(*sets: Tensor) -> list[Tensor]:
    """Sets in float64, centred at the last one's mean: distances stay, and rounding is smaller for shorter vectors."""
    centre = sets[-1].double().mean(0)
    return [points.double() - centre for points in sets]


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of squared distances from x [n, d] to y [m, d]: the rows of x as a slice, and the distances [rows, m].
    Rounding leaves a copy at up to ±1e-12.
    """
    x, y = _centred(x, y)
    for rows in _rows(len(x), len(y)):
        yield rows, _squared(x[rows], y)


def nearest(x: Tensor, y: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Distances [n, k] and indices [n, k] of the k rows of y nearest to each row of x, nearest first.

    >>> distances, indices = nearest(torch.zeros(1, 2), torch.tensor([[6.0, 8.0], [3.0, 4.0]]), k=2)
    >>> distances.tolist(), indices.tolist()
    ([[5.0, 10.0]], [[1, 0]])
    """
    return _nearest(x, y, k, None)


def nearest_others(points: Tensor, of: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Distances [n, k] and indices [n, k] of the k points nearest to each of the rows `of` [n], itself excluded."""
    return _nearest(points, points, k, of)


def _nearest(x: Tensor, y: Tensor, k: int, of: Tensor | None) -> tuple[Tensor, Tensor]:
    """Distances and indices of the k rows of y nearest to each row of x; or, if x is y, to each row `of` x other than
    itself.

    Only a block of each set is in float64 at a time: a copy of a large y would dominate the memory of a scoring.
    """
    # Centring shortens the vectors and so reduces rounding. A float32 mean is good enough; float64 would need a copy.
    centre = y.mean(0).double()
    blocks = [slice(first, first + _COLUMNS) for first in range(0, len(y), _COLUMNS)]

    def centred(columns: slice) -> Tensor:
        return y[columns].double() - centre

    once = [centred(columns) for columns in blocks] if len(blocks) <= 2 else None
    distances, indices = [], []
    for rows in _rows(len(x) if of is None else len(of), min(len(y), _COLUMNS)):
        these = x[rows] if of is None else x[of[rows]]
        some = these.double() - centre
        least, index = some.new_empty(len(some), 0), torch.empty(len(some), 0, dtype=torch.int64, device=some.device)
        for number, columns in enumerate(blocks):
            others = centred(columns) if once is None else once[number]
            squared = _squared(some, others)
            if of is not None:
                mine = of[rows] - columns.start
                here = torch.nonzero((mine >= 0) & (mine < len(others))).flatten()
                squared[here, mine[here]] = torch.inf
            block_least, places = torch.topk(squared, min(k, len(others)), largest=False)
            least, picked = torch.topk(
                torch.cat([least, block_least], 1), min(k, least.shape[1] + len(others)), largest=False
            )
            index = torch.cat([index, places + columns.start], 1).gather(1, picked)
        indices.append(index)
        distances.append(apart(these, y, index))
    return torch.cat(distances), torch.cat(indices)


def apart(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Distances [n, k] of rows [n, d] to the rows of y with indices [n, k], from differences: exactly 0 for copies."""
    each = max(1, _CELLS // max(1, index.shape[1] * x.shape[1]))
    parts = zip(torch.split(x, each), torch.split(index, each), strict=True)
    return torch.cat([(some[:, None].double() - y[listed].double()).norm(dim=2) for some, listed in parts])


def manifolds(generated: Tensor, real: Tensor, k: int, *, closed: bool = False) -> Manifolds:
    """Precision, recall, density and coverage of generated vectors [n, d] and real ones [m, d], by balls to the k-th
    neighbour.

    Precision is the share of generated vectors in some real ball, recall that of real ones in some generated ball.
    Density is the mean number of real balls around a generated vector over k, and coverage the share of real balls with
    a generated vector inside. A `closed` ball includes its boundary. A vector is not its own neighbour, but a copy of
    it is.

    The radii are as random as their contents, so intervals of proportions are too narrow. These are ±2.09 standard
    errors (Student's t) of a jackknife that leaves 20 groups out of both sets and recomputes the radii; they cover the
    expectation at this n. The interval of a share is never narrower than Clopper and Pearson's, because at 0 and 1 all
    groups agree. Raises `ValueError` for fewer than 2k + 2 vectors in a set.
    """
    generated, real = _centred(generated, real)
    n, m, device = len(generated), len(real), real.device
    if min(n, m) < 2 * k + 2:
        raise ValueError(f"neighbours of rank {k} need at least {2 * k + 2} vectors in each set, not {min(n, m)}")
    group, group_real = groups(n).to(device), groups(m).to(device)
    count = int(max(group.max(), group_real.max())) + 1
    radii, radii_real = _radii(generated, k, group, count), _radii(real, k, group_real, count)
    widest, widest_real = radii.amax(0), radii_real.amax(0)
    balls, visitors, seen = (torch.zeros(count + 1, size, dtype=torch.int64, device=device) for size in (n, m, m))
    for rows in _rows(n, m):
        squared = _squared(generated[rows], real, -_TIE if closed else _TIE)
        # Few pairs are within any radius: those alone are looked at again for every group.
        row, column = torch.nonzero(_within(squared, widest_real, closed), as_tuple=True)
        away, row_of = squared[row, column], row + rows.start
        for omitted, hit in _hits(away, radii_real[:, column], group[row_of], group_real[column], closed):
            balls[omitted] += torch.bincount(row_of[hit], minlength=n)
            visitors[omitted] += torch.bincount(column[hit], minlength=m)
        row, column = torch.nonzero(_within(squared, widest[rows, None], closed), as_tuple=True)
        away, row_of = squared[row, column], row + rows.start
        for omitted, hit in _hits(away, radii[:, row_of], group[row_of], group_real[column], closed):
            seen[omitted] += torch.bincount(column[hit], minlength=m)

    def over(hits: Tensor, group: Tensor) -> Tensor:
        """Means over all, and over all but each group: [count + 1]."""
        mask = group != torch.arange(-1, count, device=device)[:, None]
        return ((hits.double() * mask).sum(1) / mask.sum(1)).cpu()

    shares = [over(hits > 0, of) for hits, of in ((balls, group), (seen, group_real), (visitors, group_real))]
    precision, recall, coverage = (_of_share(share, size) for share, size in zip(shares, (n, m, m), strict=True))
    density = _interval(over(balls, group) / k)
    # A vector that is in a ball at all is in one of k.
    density = density._replace(high=max(density.high, precision.high / k))
    return Manifolds(precision, recall, density, coverage)


def _radii(points: Tensor, k: int, group: Tensor, count: int) -> Tensor:
    """Squared distances to the k-th other vector [count + 1, n]: among all, then among all but each group."""
    n = len(points)
    # A list that is twice as long holds k others after any group has gone.
    distances, index = nearest_others(points, torch.arange(n, device=points.device), min(2 * k + 10, n - 1))
    squared, listed = distances.square(), group[index]
    radii = [squared[:, k - 1]]
    for omitted in range(count):
        rank = (listed != omitted).cumsum(1)
        last = (rank < k).sum(1, keepdim=True).clamp_max(index.shape[1] - 1)
        radii.append(squared.gather(1, last).squeeze(1))
    return torch.stack(radii)


def _within(squared: Tensor, radii: Tensor, closed: bool) -> Tensor:
    return squared <= radii if closed else squared < radii


def _hits(away: Tensor, radii: Tensor, group: Tensor, group_real: Tensor, closed: bool) -> Iterator[tuple[int, Tensor]]:
    """Mask of the pairs that lie within the radius [p]: among all (0), then without each group (1 …)."""
    for omitted, reach in enumerate(radii):
        yield omitted, _within(away, reach, closed) & (group != omitted - 1) & (group_real != omitted - 1)


def _interval(values: Tensor) -> Interval:
    """Interval of a value and its jackknife replicates."""
    value, margin = float(values[0]), T95_OF_GROUPS * jackknife_error(values[1:])
    return Interval(value, max(value - margin, 0.0), value + margin)


def _of_share(values: Tensor, trials: int) -> Interval:
    value, low, high = _interval(values)
    exact = clopper_pearson(round(value * trials), trials)
    return Interval(value, min(low, exact[0]), min(max(high, exact[1]), 1.0))


def k_means(points: Tensor, count: int, rounds: int = 50) -> Tensor:
    """K-means centres [count, d] in float64: Lloyd's iterations from a seeded k-means++ start (Arthur & Vassilvitskii
    2007), until nothing changes or for `rounds`.

    A centre that loses all its points stays where it is. Iterations run in float32 around the points' mean, which is
    exact enough. Raises `ValueError` for fewer points than centres.
    """
    if len(points) < count:
        raise ValueError(f"{count} clusters need at least as many vectors, not {len(points)}")
    middle = points.double().mean(0)
    points = (points.double() - middle).float()
    source = noise.generator("k-means", count)
    draws = torch.rand(count, generator=source, dtype=torch.float64).tolist()
    centres = points.new_empty(count, points.shape[1])
    away = points.new_ones(len(points), dtype=torch.float64)
    for place, draw in enumerate(draws):
        # If every point is a centre already, any point will do.
        total = (away if away.sum() > 0 else torch.ones_like(away)).cumsum(0)
        pick = int(torch.searchsorted(total, total[-1] * draw, right=True).clamp_max(len(points) - 1))
        centres[place] = points[pick]
        away = torch.minimum(away if place else away * torch.inf, (points - points[pick]).double().square().sum(1))
    before = None
    for _ in range(rounds):
        own = _assign(points, centres)
        if before is not None and torch.equal(own, before):
            break
        before = own
        sums = torch.zeros_like(centres, dtype=torch.float64).index_add_(0, own, points.double())
        sizes = torch.bincount(own, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres.double()).float()
    return centres.double() + middle


def assign(points: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre of each point [N]. Distances are taken around the centres' mean, so that rounding
    does not depend on where both lie.
    """
    middle = centres.double().mean(0)
    return _assign(points.double() - middle, (centres.double() - middle).float())


def _assign(points: Tensor, centres: Tensor) -> Tensor:
    blocks = _rows(len(points), len(centres))
    return torch.cat([torch.cdist(points[rows].float(), centres).argmin(1) for rows in blocks])
