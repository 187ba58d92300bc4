"""Vendi, bins, signs of memorisation and MS-SSIM against their definitions written out, scipy and torchmetrics."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as theirs

from aigc_lab.extractors.base import Features, choice
from aigc_lab.metrics.memorisation import authentic, closeness, gap_and_error, look_alikes
from aigc_lab.metrics.ms_ssim import MSSSIM, SMALLEST, ms_ssim
from aigc_lab.metrics.ndb import different_bins, divergence
from aigc_lab.metrics.vendi import entropy
from aigc_lab.pictures.drawing import grid
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.statistics.frechet import Gaussian, frechet_distance


def drawn(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# ---- Vendi


@pytest.mark.parametrize(("n", "d"), [(30, 7), (30, 30), (20, 90)])
def test_the_entropy_is_that_of_the_cosines(n: int, d: int) -> None:
    rows = drawn(n, d).double() + 0.5
    unit = rows / rows.norm(dim=1, keepdim=True)
    values = np.linalg.eigvalsh((unit @ unit.T).numpy() / n)
    values = values[values > 1e-12]
    assert entropy(rows).nats == pytest.approx(-(values * np.log(values)).sum(), rel=1e-10)


def test_so_many_different_samples() -> None:
    """K groups of copies that are orthogonal to each other score K; lengths do not matter, and zero is a kind."""
    kinds = torch.eye(6).repeat(5, 1) * torch.arange(1, 31)[:, None]
    assert math.exp(entropy(kinds).nats) == pytest.approx(6)
    assert math.exp(entropy(kinds[:4]).nats) == pytest.approx(4)
    assert math.exp(entropy(torch.ones(9, 3)).nats) == pytest.approx(1)
    assert math.exp(entropy(torch.cat([torch.zeros(5, 2), torch.eye(2)[:1].repeat(5, 1)])).nats) == pytest.approx(2)


@pytest.mark.parametrize(("n", "d"), [(200, 6), (60, 100)])
def test_the_error_of_the_entropy_is_its_spread(n: int, d: int) -> None:
    scale = torch.linspace(0.2, 2, d)
    found = torch.tensor([entropy(drawn(n, d, seed) * scale + 0.3) for seed in range(200)], dtype=torch.float64)
    assert 0.8 < found[:, 1].mean() / found[:, 0].std() < 1.3
    assert ((found[:, 0] - found[:, 0].mean()).abs() < 1.96 * found[:, 1]).double().mean() > 0.9


# ---- bins


def test_bins_are_tested_as_proportions() -> None:
    a, b = torch.tensor([40, 30, 30, 0, 0]), torch.tensor([150, 300, 400, 150, 0])
    expected = 0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        pooled = (x + y) / 1100
        error = math.sqrt(pooled * (1 - pooled) * (1 / 100 + 1 / 1000))
        expected += error > 0 and 2 * norm.sf(abs(x / 100 - y / 1000) / error) < 0.05
    assert expected == 2, "neither 30 of 30 % nor 30 of 40 % nor the empty one"
    assert different_bins(a, b) == expected
    assert divergence(a, b) == pytest.approx(jensenshannon(a.double(), b.double()) ** 2, rel=1e-12)
    assert different_bins(b, b) == 0 and divergence(b, b) == 0
    assert divergence(torch.tensor([5, 0]), torch.tensor([0, 9])) == pytest.approx(math.log(2))


def test_of_equal_shares_five_in_a_hundred_differ_by_chance() -> None:
    source = torch.Generator().manual_seed(0)
    pairs = [
        [torch.bincount(torch.randint(100, (n,), generator=source), minlength=100) for n in (4000, 9000)]
        for _ in range(100)
    ]
    counts = different_bins(*(torch.stack(column) for column in zip(*pairs, strict=True)))
    assert abs(counts.mean() - 5) < 4 * 2.2 / 10


# ---- signs of memorisation


def test_authenticity_is_that_of_the_definition() -> None:
    """Alaa et al. 2022: real and generated samples compared with the nearest training sample, in a loop."""
    train, made = drawn(60, 3, 1).double(), torch.cat([drawn(30, 3, 2), drawn(60, 3, 1)[:10] + 0.01]).double()
    truth = []
    for sample in made:
        away = (train - sample).norm(dim=1)
        own = int(away.argmin())
        others = (train - train[own]).norm(dim=1)
        others[own] = math.inf
        truth.append(bool(others.min() < away[own]))
    assert authentic(made, train).tolist() == truth
    assert 0 < sum(truth) < 40 and not any(truth[30:])
    assert closeness(train[:7], train).tolist() == [0.0] * 7
    twice = torch.cat([train, train])
    assert not authentic(train, twice).any(), "of a training sample that is there twice, too"


def test_the_gap_is_the_difference_of_the_distances_and_its_error_its_spread() -> None:
    made, train, unseen = drawn(200, 4, 1) * 1.2, drawn(150, 4, 2), drawn(150, 4, 3)
    gap, _ = gap_and_error(made, train, unseen)
    assert gap == pytest.approx(frechet_distance(made, train) - frechet_distance(made, unseen), rel=1e-9)
    found = torch.tensor(
        [
            gap_and_error(drawn(200, 4, 3 * seed), drawn(200, 4, 3 * seed + 1), drawn(200, 4, 3 * seed + 2))
            for seed in range(60)
        ],
        dtype=torch.float64,
    )
    assert ((found[:, 0]).abs() < 1.96 * found[:, 1]).double().mean() > 0.9
    assert found[:, 1].mean() < 1.8 * found[:, 0].std()
    train, unseen = drawn(400, 16, 2), drawn(400, 16, 3)
    copied, error = gap_and_error(train, train, unseen)
    assert copied < -1.96 * error


def test_copies_come_first_in_the_picture_beside_what_they_copy() -> None:
    """The features of only some training images were kept: their places are still those of the images."""
    train = Images(torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).expand(-1, 1, 4, 4).contiguous())
    vectors = drawn(40, 5, 1)
    rows = choice(40, 30)
    known = Features(vectors[rows], whole=Gaussian.of(vectors))
    copied = int(rows[7])
    made = torch.cat([drawn(5, 5, 2) + 3, vectors[copied : copied + 1], drawn(2, 5, 3) + 3])
    generated = Images(torch.arange(200, 208, dtype=torch.uint8).reshape(8, 1, 1, 1).expand(-1, 1, 4, 4))
    tiles = look_alikes(generated, train, Features(made), known, rows=3, columns=2)
    shown = tiles.values[:, 0, 0, 0].reshape(3, 3)
    assert shown[0, :2].tolist() == [205, copied]
    for made_row, *beside in shown.tolist():
        away = (vectors[rows].double() - made[made_row - 200].double()).norm(dim=1)
        assert beside == rows[away.argsort()[:2]].tolist()
    assert grid(tiles, columns=3).shape == (3 * 50 + 2, 3 * 50 + 2, 3)


def test_a_choice_does_not_depend_on_what_else_was_kept() -> None:
    vectors = drawn(100, 2)
    whole = Features(vectors)
    part = replace(Features(vectors[choice(100, 60)]), whole=Gaussian.of(vectors))
    assert torch.equal(part.some(25).vectors, whole.some(25).vectors)
    assert torch.equal(part.vectors, vectors[part.rows]) and whole.rows.tolist() == list(range(100))


# ---- MS-SSIM


@pytest.mark.parametrize(("size", "channels"), [((176, 176), 1), ((193, 180), 3)])
def test_ms_ssim_is_torchmetrics(size: tuple[int, int], channels: int) -> None:
    source = torch.Generator().manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(3, channels, 12, 12, generator=source), size, mode="bilinear")
    b = (a + 0.3 * torch.rand(a.shape, generator=source) * torch.tensor([0.1, 1, 3]).reshape(3, 1, 1, 1)).clamp(0, 1)
    truth: Any = theirs(a, b, data_range=1.0, reduction="none")
    assert truth.min() < 0.8 < truth.max()
    torch.testing.assert_close(ms_ssim(a, b), truth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        ms_ssim(a.double(), b.double()), theirs(a.double(), b.double(), data_range=1.0, reduction="none")
    )


def test_equal_images_are_one_and_opposite_ones_nothing() -> None:
    image = torch.rand(2, 1, SMALLEST, SMALLEST, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ms_ssim(image, image), torch.ones(2))
    assert ms_ssim(image, 1 - image).tolist() == [0.0, 0.0]


def test_small_images_are_refused_with_the_reason() -> None:
    class Set:
        name = "set"

        def __init__(self, *size: int) -> None:
            self.shape = Shape(Modality.IMAGES if len(size) == 3 else Modality.POINTS, size)

    metric = MSSSIM(MSSSIM.Config())
    with pytest.raises(ValueError, match=r"at least 161 pixels a side, not 160: .* window of 11 pixels"):
        metric.check(Set(3, 200, 160), 1000)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compares images"):
        metric.check(Set(2), 1000)  # type: ignore[arg-type]
    metric.check(Set(3, 161, 161), 1000)  # type: ignore[arg-type]
