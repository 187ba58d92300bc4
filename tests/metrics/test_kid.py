"""KID against its definition written out, torch-fidelity's subsets, and the spread of repeated draws."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_kid import kid_features_to_metric

from aigc_lab.statistics.mmd import Estimate, customary_picks, mmd, mmd_of_subsets


def drawn(n: int, d: int, source: torch.Generator, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=source) * scale


def by_definition(x: Tensor, y: Tensor) -> float:
    """Bińkowski et al. 2018, equation 4, pair by pair."""
    a, b = x.double().numpy(), y.double().numpy()
    n, m, d = len(a), len(b), a.shape[1]

    def k(u: Any, v: Any) -> float:
        return float((np.dot(u, v) / d + 1) ** 3)

    own = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j)
    other = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j)
    cross = sum(k(u, v) for u in a for v in b)
    return own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * cross / (n * m)


@pytest.mark.parametrize("block", [3, 7, 2048])
@pytest.mark.parametrize(("n", "m", "d"), [(20, 33, 5), (24, 21, 1), (14, 7, 40)])
def test_every_pair_is_counted_once(n: int, m: int, d: int, block: int) -> None:
    source = torch.Generator().manual_seed(n)
    x, y = drawn(n, d, source, 1.5), drawn(m, d, source) + 0.3
    assert mmd(x, y, block).value == pytest.approx(by_definition(x, y), rel=1e-10)
    assert mmd(x, y, block).error == pytest.approx(mmd(x, y).error, rel=1e-9)


def test_the_customary_subsets_are_torch_fidelitys() -> None:
    source = torch.Generator().manual_seed(0)
    x, y = drawn(400, 64, source, 1.05), drawn(350, 64, source).abs()
    truth = kid_features_to_metric(x, y, kid_subsets=12, kid_subset_size=150, verbose=False)
    found = mmd_of_subsets(x, y, customary_picks(400, 350, 12, 150))
    assert found.value == pytest.approx(truth["kernel_inception_distance_mean"], rel=1e-4)
    spread = truth["kernel_inception_distance_std"] / math.sqrt(11)  # theirs divides by n
    assert found.error == pytest.approx(spread, rel=1e-4)
    # One subset of everything is the full statistic.
    assert mmd_of_subsets(x, y, customary_picks(400, 350, 2, 350)).value != mmd(x, y).value
    everything = mmd_of_subsets(x, y, [(torch.randperm(400), torch.randperm(350))] * 2)
    assert everything.value == pytest.approx(mmd(x, y).value, rel=1e-10)


def repeated(n: int, m: int, d: int, shift: float, scale: float, repeats: int) -> tuple[Tensor, Tensor]:
    """Values and standard errors of many draws."""
    source = torch.Generator().manual_seed(1)
    found = [mmd(drawn(n, d, source, scale) + shift, drawn(m, d, source)) for _ in range(repeats)]
    made = torch.tensor(found, dtype=torch.float64)
    return made[:, 0], made[:, 1]


@pytest.mark.parametrize(
    ("n", "m", "d", "shift", "scale"), [(100, 160, 8, 0.0, 1.0), (80, 120, 8, 0.3, 1.0), (120, 80, 4, 0.0, 1.3)]
)
def test_the_standard_error_is_the_spread_and_intervals_cover(
    n: int, m: int, d: int, shift: float, scale: float
) -> None:
    """Of equal distributions, where the U-statistic is degenerate, and of different ones."""
    values, errors = repeated(n, m, d, shift, scale, 400)
    if shift == 0 and scale == 1:
        assert abs(values.mean()) < 4 * values.std() / 20, "unbiased"
    truth = values.mean() if shift or scale != 1 else 0.0
    covered = ((values - truth).abs() <= 1.96 * errors).double().mean()
    assert covered > 0.91
    assert 0.85 < errors.mean() / values.std() < 1.25, "nor are they wide"


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.0, 0.7)])
def test_intervals_cover_from_ten_samples_on(shift: float, scale: float) -> None:
    """What `kid` asks for at the least; the truth is that of many samples."""
    source = torch.Generator().manual_seed(5)
    equal = not shift and scale == 1
    truth = 0.0 if equal else mmd(drawn(6000, 8, source, scale) + shift, drawn(6000, 8, source)).value
    values, errors = repeated(10, 10, 8, shift, scale, 400)
    covered = ((values - truth).abs() <= 1.96 * errors).double().mean()
    assert covered > 0.84


def test_far_from_the_origin_no_digits_are_lost() -> None:
    """Features of a mean length of 40: single kernels of 10⁵, and a distance of 1."""
    source = torch.Generator().manual_seed(3)
    x, y = drawn(30, 9, source) + 40, drawn(30, 9, source) + 40
    assert mmd(x, y, 8).value == pytest.approx(by_definition(x, y), rel=1e-7)


def test_one_point_against_another() -> None:
    """Kernels of constants: (a·a + 1)³ + (b·b + 1)³ − 2 (ab + 1)³, in one dimension, without any error."""
    found = mmd(torch.full((5, 1), 2.0), torch.full((7, 1), 1.0))
    assert found == Estimate(pytest.approx(125 + 8 - 2 * 27), pytest.approx(0, abs=1e-5))  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_gives_the_same_values() -> None:
    source = torch.Generator().manual_seed(0)
    x, y = drawn(3000, 256, source, 1.05), drawn(2500, 256, source)
    assert tuple(mmd(x.cuda(), y.cuda())) == pytest.approx(tuple(mmd(x, y)), rel=1e-8)
