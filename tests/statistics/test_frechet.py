"""Fréchet distances against closed forms, float64 truth and pytorch-fid; what intervals cover in repeated draws."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy.stats import t as student
from torch import Tensor

from aigc_lab import noise
from aigc_lab.host import content
from aigc_lab.metrics import fd_debiased
from aigc_lab.statistics import frechet
from aigc_lab.statistics.frechet import Gaussian, Moments, debiased, distance, frechet_distance, standard_error

GOLDEN = json.loads((content.folder("evaluation") / "golden" / "frechet.json").read_text("utf-8"))["cases"]


def draws(rows: int, dimensions: int, seed: int, scale: float = 1.0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dimensions, generator=source, dtype=torch.float64) * scale


def mixed(rows: int, dimensions: int, seed: int) -> Tensor:
    """Correlated features of unequal scales around a mean that is not zero."""
    mixing = draws(dimensions, dimensions, 1000 + seed) / math.sqrt(dimensions)
    return draws(rows, dimensions, seed) @ mixing + draws(1, dimensions, 2000 + seed)


def flat(rows: int, seed: int) -> Tensor:
    """Sixteen features of rank five, the same five directions for every seed."""
    return draws(rows, 5, seed) @ draws(5, 16, 99)


def streamed(vectors: Tensor) -> Gaussian:
    moments = Moments()
    for block in vectors.tensor_split(7):
        moments.add(block)
    return moments.gaussian()


def truth(a: Tensor, b: Tensor) -> float:
    """By the singular values of X₁X₂ᵀ, centred: no covariance is formed, so that none of its digits is lost."""
    x, y = a.double().numpy(), b.double().numpy()
    first, second = x - x.mean(0), y - y.mean(0)
    first, second = first / math.sqrt(len(x) - 1), second / math.sqrt(len(y) - 1)
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(shift + (first**2).sum() + (second**2).sum() - 2 * shared)


def pytorch_fid(a: Tensor, b: Tensor) -> float:
    first, second = a.double().numpy(), b.double().numpy()
    return float(
        calculate_frechet_distance(
            first.mean(0), np.cov(first, rowvar=False), second.mean(0), np.cov(second, rowvar=False)
        )
    )


# ---- the distance


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"].replace(" ", "_"))
def test_closed_forms(case: dict[str, Any]) -> None:
    def gaussian(side: dict[str, list[Any]]) -> Gaussian:
        if "points" in side:
            return Gaussian.of(torch.tensor(side["points"], dtype=torch.float64))
        mean, covariance = (torch.tensor(side[name], dtype=torch.float64) for name in ("mean", "covariance"))
        return Gaussian(1000, mean, covariance)

    for first, second in (("a", "b"), ("b", "a")):
        ours = distance(gaussian(case[first]), gaussian(case[second]))
        assert ours == pytest.approx(case["distance"], rel=1e-12, abs=1e-12)


def const(vectors: Tensor) -> Tensor:
    """Features 3 and 7 never vary, and 0.1 is no binary number."""
    vectors = vectors.clone()
    vectors[:, 3], vectors[:, 7] = 0.1, -77.7
    return vectors


PAIRS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "regular": lambda: (mixed(60, 16, 1), mixed(50, 16, 2)),
    "few rows, one": lambda: (mixed(9, 16, 1), mixed(50, 16, 2)),
    "few rows, both": lambda: (mixed(9, 16, 1), mixed(12, 16, 2)),
    "as many rows as dimensions": lambda: (mixed(16, 16, 1), mixed(17, 16, 2)),
    "rank five, one": lambda: (flat(60, 1), mixed(50, 16, 2)),
    "rank five, both": lambda: (flat(60, 1), 1.1 * flat(50, 2)),
    "other ranks": lambda: (flat(60, 1), draws(50, 4, 2) @ draws(4, 16, 98)),
    "constant, one": lambda: (const(mixed(60, 16, 1)), mixed(50, 16, 2)),
    "constant, both": lambda: (const(mixed(60, 16, 1)), const(mixed(50, 16, 2))),
    "repeated features": lambda: (draws(60, 8, 1).repeat(1, 2), 1.1 * draws(50, 8, 2).repeat(1, 2)),
    "repeated rows": lambda: (draws(5, 16, 1).repeat(2, 1), mixed(50, 16, 2)),
    "scales from 1 to 1e-8": lambda: (
        draws(60, 16, 1) * torch.logspace(0, -8, 16, dtype=torch.float64),
        1.3 * draws(50, 16, 2) * torch.logspace(0, -8, 16, dtype=torch.float64),
    ),
    "far from the origin": lambda: (draws(60, 16, 1) + 1e4, draws(50, 16, 2) + 1e4),
    "one point": lambda: (torch.full((20, 16), 0.3, dtype=torch.float64), mixed(50, 16, 2)),
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_is_the_truth_to_nine_digits(pair: str, dtype: torch.dtype) -> None:
    a, b = (vectors.to(dtype) for vectors in PAIRS[pair]())
    expected = truth(a, b)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    known = Gaussian.of(b)
    _ = known.root
    assert distance(Gaussian.of(a), known) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_moments_alone_lose_nothing_where_the_rank_is_plain(pair: str) -> None:
    a, b = PAIRS[pair]()
    assert distance(streamed(a), streamed(b)) == pytest.approx(truth(a, b), rel=1e-9)
    assert distance(streamed(a), Gaussian.of(b)) == pytest.approx(truth(a, b), rel=1e-9)


def test_only_what_rounding_might_change_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact way costs five times the other at d = 2048."""
    calls: list[int] = []
    exact = torch.linalg.svdvals

    def counted(matrix: Tensor) -> Tensor:
        calls.append(1)
        values: Tensor = exact(matrix)
        return values

    monkeypatch.setattr(torch.linalg, "svdvals", counted)
    frechet_distance(mixed(60, 16, 1), mixed(50, 16, 2))
    frechet_distance(mixed(9, 16, 1), mixed(50, 16, 2))
    frechet_distance(mixed(9, 16, 1), mixed(12, 16, 2))
    assert calls == []
    frechet_distance(flat(60, 1), mixed(50, 16, 2))
    assert calls == [1]


def test_large_sets_are_what_small_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "_LARGE", 5)
    monkeypatch.setattr(frechet, "_MANY", 17)
    for columns in (11, 15, 17):
        rows, root, covariance = mixed(40, columns, 1), draws(columns, columns, 2).tril(), mixed(60, columns, 3).T.cov()
        torch.testing.assert_close(frechet.gram(rows), rows.T @ rows, rtol=1e-12, atol=1e-12)
        plain = root.T @ covariance @ root
        torch.testing.assert_close(frechet._carried(root, covariance).tril(), plain.tril(), rtol=1e-12, atol=1e-12)
    for pair in PAIRS.values():
        a, b = pair()
        assert frechet_distance(a, b) == pytest.approx(truth(a, b), rel=1e-9)


def test_it_is_pytorch_fids() -> None:
    a, b = mixed(400, 16, 1), mixed(300, 16, 2)
    assert frechet_distance(a, b) == pytest.approx(pytorch_fid(a, b), rel=1e-9)


@pytest.mark.parametrize(("first", "second"), [(20, 24), (20, 200), (200, 20)])
def test_with_fewer_rows_than_dimensions_it_is_still_pytorch_fids(first: int, second: int) -> None:
    a, b = mixed(first, 64, 1), mixed(second, 64, 2)
    # The reference takes the root of a singular product: its own error is about 1e-6 here.
    assert frechet_distance(a, b) == pytest.approx(pytorch_fid(a, b), rel=1e-5)


@pytest.mark.parametrize("rows", [2, 10, 16, 17, 200])
def test_a_set_is_at_no_distance_from_itself(rows: int) -> None:
    for a in (mixed(rows, 16, 1), flat(rows, 1), const(mixed(rows, 16, 1)), torch.ones(rows, 16)):
        shuffled = a[torch.randperm(rows, generator=torch.Generator().manual_seed(0))]
        for b in (a, shuffled):
            assert 0 <= frechet_distance(a, b) <= 1e-12 * float(a.var(0).sum())


def test_a_single_vector_is_a_gaussian_too() -> None:
    a, b = draws(1, 4, 1), draws(1, 4, 2)
    assert frechet_distance(a, b) == pytest.approx((a - b).square().sum().item())
    many = draws(50, 4, 3)
    assert frechet_distance(a, many) == pytest.approx(((a - many.mean(0)).square().sum() + many.var(0).sum()).item())


def test_moments_are_numpys() -> None:
    x = mixed(50, 6, 1)
    for gaussian in (Gaussian.of(x), streamed(x)):
        assert gaussian.count == 50 and gaussian.covariance is not None
        np.testing.assert_allclose(gaussian.mean, x.numpy().mean(0), rtol=1e-12)
        np.testing.assert_allclose(gaussian.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-12)
    few = Gaussian.of(x[:4])
    np.testing.assert_allclose(few.root @ few.root.T, np.cov(x[:4].numpy(), rowvar=False), rtol=1e-12, atol=1e-14)
    assert few.root.shape == (6, 3)


# ---- its standard error


def error(a: Tensor, b: Tensor) -> float:
    return standard_error(Gaussian.of(a), a, Gaussian.of(b), b)


def heavy(rows: int, dimensions: int, seed: int) -> Tensor:
    """Student's t with 8 degrees of freedom: the spread of a variance is twice a Gaussian's."""
    scale = draws(rows, 8, 5000 + seed).square().mean(1, keepdim=True).sqrt()
    return draws(rows, dimensions, seed) / scale


FALLING = torch.logspace(0, -1, 12, dtype=torch.float64)
RELATIONS: dict[str, Callable[[int, int], Tensor]] = {
    "the same": lambda rows, seed: draws(rows, 12, seed) * FALLING,
    "another": lambda rows, seed: (1.5 * draws(rows, 12, seed) + 0.5) * FALLING,
    "nearly collapsed": lambda rows, seed: 0.2 * draws(rows, 12, seed) * FALLING,
    "another, heavy tails": lambda rows, seed: (1.5 * heavy(rows, 12, seed) + 0.5) * FALLING,
}


@pytest.mark.parametrize(
    ("relation", "n", "m"),
    [
        *((relation, 100, m) for relation in ("the same", "another", "nearly collapsed") for m in (100, 600)),
        ("another, heavy tails", 400, 600),
    ],
)
def test_its_interval_covers_the_mean_distance_at_this_n(relation: str, n: int, m: int) -> None:
    """Of 200 draws 95 % ± 1.5 % where it is exact; it is 1.4 times too wide where the true distance is 0. Of 500, it
    covered 93 to 95 % elsewhere, and with heavy tails 92 % of n = 100 and 93 % of n = 400.
    """
    pairs = [(RELATIONS[relation](n, 2 * k), draws(m, 12, 2 * k + 1) * FALLING) for k in range(200)]
    values = torch.tensor([frechet_distance(x, y) for x, y in pairs], dtype=torch.float64)
    errors = torch.tensor([error(x, y) for x, y in pairs], dtype=torch.float64)
    covered = ((values - values.mean()).abs() <= 1.96 * errors).double().mean().item()
    assert covered >= 0.89
    assert 0.85 < errors.mean().item() / values.std().item() < (1.7 if relation == "the same" else 1.25)


@pytest.mark.slow
@pytest.mark.parametrize("relation", [1.0, 1.5, 0.2])
@pytest.mark.parametrize("n", [100, 200, 300])
def test_its_interval_covers_with_fewer_samples_than_dimensions_too(relation: float, n: int) -> None:
    """200 dimensions: n = d/2, d and 1.5 d, against 5 d."""
    falling = torch.logspace(0, -1.5, 200, dtype=torch.float64)
    pairs = [(relation * draws(n, 200, 2 * k) * falling, draws(1000, 200, 2 * k + 1) * falling) for k in range(100)]
    values = torch.tensor([frechet_distance(x, y) for x, y in pairs], dtype=torch.float64)
    errors = torch.tensor([error(x, y) for x, y in pairs], dtype=torch.float64)
    assert ((values - values.mean()).abs() <= 1.96 * errors).double().mean().item() >= 0.88
    assert 0.8 < errors.mean().item() / values.std().item() < 2


@pytest.mark.parametrize(("n", "m", "d"), [(9, 14, 20), (14, 9, 20), (30, 6, 20), (6, 30, 20), (40, 50, 6)])
def test_an_influence_is_the_slope_of_the_distance_in_a_vectors_weight(n: int, m: int, d: int) -> None:
    """Here by moving the weight a little, where n is less than d too."""
    x, y = mixed(n, d, 1), mixed(m, d, 2)

    def weighted(rows: Tensor, index: int, step: float) -> Gaussian:
        weights = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
        weights = weights * (1 - step)
        weights[index] += step
        mean = weights @ rows
        root = (weights * len(rows) / (len(rows) - 1)).sqrt().unsqueeze(1) * (rows - mean)
        gaussian = Gaussian(len(rows), mean, root.T @ root)
        gaussian.__dict__["root"] = root.T
        return gaussian

    def value(a: Gaussian, b: Gaussian) -> float:
        shared = torch.linalg.svdvals(a.root.T @ b.root).sum()
        return float((a.mean - b.mean).square().sum() + a.trace + b.trace - 2 * shared)

    step = 1e-5
    variance = 0.0
    for rows, other, swapped in ((x, y, False), (y, x, True)):
        fixed = weighted(other, 0, 0.0)
        slopes = []
        for index in range(len(rows)):
            ends = [weighted(rows, index, sign * step) for sign in (1, -1)]
            up, down = (value(fixed, end) if swapped else value(end, fixed) for end in ends)
            slopes.append((up - down) / (2 * step))
        variance += torch.tensor(slopes, dtype=torch.float64).var().item() / len(rows)
    assert error(x, y) == pytest.approx(math.sqrt(variance), rel=1e-5)


def test_a_choice_of_the_vectors_serves_as_well_as_all() -> None:
    x, y = mixed(4000, 6, 1), mixed(3000, 6, 2)
    whole = error(x, y)
    some = standard_error(Gaussian.of(x), x[:1000], Gaussian.of(y), y[:1000])
    assert some == pytest.approx(whole, rel=0.1)
    assert standard_error(streamed(x), x, streamed(y), y) == pytest.approx(whole, rel=1e-9)


def test_the_error_repeats_and_neither_an_offset_nor_a_rotation_changes_it() -> None:
    x, y = mixed(60, 5, 1), mixed(80, 5, 2)
    once = error(x, y)
    assert error(x, y) == once
    assert error(y, x) == pytest.approx(once, rel=1e-9)
    assert error(x + 1e7, y + 1e7) == pytest.approx(once, rel=1e-5)
    turn = torch.linalg.qr(draws(5, 5, 3))[0]
    assert error(x @ turn, y @ turn) == pytest.approx(once, rel=1e-9)


@pytest.mark.parametrize("pair", PAIRS)
def test_singular_sets_have_an_error_too(pair: str) -> None:
    a, b = PAIRS[pair]()
    assert 0 < error(a, b) < frechet_distance(a, b)
    assert error(a, a) < 1e-6 * float(a.var(0).sum()) + 1e-12
    # A feature that never varies says nothing.
    padded = [torch.cat([z, torch.full((len(z), 3), 0.7, dtype=torch.float64)], 1) for z in (a, b)]
    assert error(*padded) == pytest.approx(error(a, b), rel=1e-6)


# ---- its bias


def known(shape: Tensor, scale: float, shift: float) -> float:
    """Of N(shift, (scale · shape)²) from N(0, shape²)."""
    return float(len(shape) * shift**2 + ((scale - 1) * shape).square().sum())


def covered(n: int, m: int, dimensions: int, scale: float, shift: float, repeats: int) -> tuple[float, float, float]:
    """How often the interval covers, by how much the mean of the estimates misses, and FD_N."""
    shape = torch.logspace(0, -1, dimensions, dtype=torch.float64)
    aim, hits, total, plain = known(shape, scale, shift), 0, 0.0, 0.0
    for k in range(repeats):
        x, y = scale * draws(n, dimensions, 2 * k) * shape + shift, draws(m, dimensions, 2 * k + 1) * shape
        value, spread = debiased(x, y)
        hits += abs(value - aim) <= fd_debiased._T95 * spread
        total += value / repeats
        plain += frechet_distance(x, y) / repeats
    return hits / repeats, abs(total - aim), plain - aim


@pytest.mark.parametrize(("n", "m", "scale", "shift"), [(80, 80, 1.3, 0.2), (80, 200, 0.5, 0.0), (80, 80, 1.0, 0.0)])
def test_the_debiased_interval_covers_the_true_distance(n: int, m: int, scale: float, shift: float) -> None:
    """Of 60 draws 95 % ± 2.8 %; the bias of FD_N is taken away but for a quarter."""
    hits, miss, bias = covered(n, m, 8, scale, shift, 60)
    assert hits >= 0.85
    assert miss < 0.25 * bias


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(128, 128), (128, 1280), (320, 320)])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.3, 0.2), (0.3, 0.0)])
def test_the_debiased_interval_covers_from_four_samples_a_dimension_on(
    n: int, m: int, scale: float, shift: float
) -> None:
    hits, _, _ = covered(n, m, 32, scale, shift, 200)
    assert hits >= 0.9


def test_student_has_nineteen_degrees_of_freedom() -> None:
    assert pytest.approx(student.ppf(0.975, fd_debiased.GROUPS - 1)) == fd_debiased._T95


def test_a_group_is_deleted_by_subtraction() -> None:
    x = mixed(43, 5, 1)
    parts = list(frechet._without_each(x, 4))
    assert [part.count for part in parts] == [32, 32, 32, 33]
    means = torch.stack([part.mean * part.count for part in parts]).sum(0) / (3 * 43)
    torch.testing.assert_close(means, x.mean(0))
    order = torch.randperm(43, generator=noise.generator("jackknife", 43))
    for part, rows in zip(parts, order.tensor_split(4), strict=True):
        kept = x[[index for index in range(43) if index not in rows.tolist()]]
        torch.testing.assert_close(part.mean, kept.mean(0))
        torch.testing.assert_close(part.covariance, kept.T.cov())


def test_the_order_of_the_vectors_decides_nothing_but_the_groups() -> None:
    """Sorted by class, consecutive groups would each lose a class."""
    x = torch.cat([mixed(40, 4, 1), mixed(40, 4, 2) + 5])
    y = torch.cat([mixed(60, 4, 1), mixed(60, 4, 2) + 5])
    shuffled = x[torch.randperm(80, generator=torch.Generator().manual_seed(1))]
    sorted_error, shuffled_error = debiased(x, y)[1], debiased(shuffled, y)[1]
    assert 0.4 < sorted_error / shuffled_error < 2.5
