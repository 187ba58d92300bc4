"""Scores whose value is known in advance: perfect, collapsed, thinned and stray samplers; decided classes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import chi2
from torch import Tensor

from aigc_lab import noise
from aigc_lab.data.base import SPLITS, Modes
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.extractors.base import Features
from aigc_lab.extractors.random import Random
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics import stacked_modes
from aigc_lab.metrics.base import Evidence, Part, Real, Score
from aigc_lab.metrics.modes import ModeCount, assign, captured_modes
from aigc_lab.metrics.shared.information import exp_mutual_information
from aigc_lab.samples import Images, Points, Samples
from aigc_lab.statistics.frechet import frechet_distance
from aigc_lab.statistics.intervals import reverse_kl

N = 2500
RING = Ring(Ring.Config(), Path())


def no_features(extractor: str, samples: Samples | Part) -> Features:
    raise AssertionError("modes read points and no features")


def scored(points: Tensor) -> dict[str, Score]:
    reference, real = RING.load(SPLITS[1]), RING.load(SPLITS[2]).take(slice(0, len(points)))
    evidence = Evidence(Points(points), Real(reference, real, reference), RING, no_features, str, f"n:{len(points)}")
    return {score.name: score for score in ModeCount(ModeCount.Config()).scores(evidence)}


def drawn(counts: list[int]) -> Tensor:
    """So many points of each of the ring's Gaussians, of a stream of their own."""
    labels = torch.repeat_interleave(torch.arange(8), torch.tensor(counts))
    source = torch.Generator().manual_seed(1)
    return RING.modes.centres[labels] + torch.randn(len(labels), 2, generator=source) * RING.modes.sigma


def by_hand(points: Tensor) -> float:
    """KL(modes ‖ even) in nats, of the points within 3σ of a centre of the ring."""
    away = np.linalg.norm(points.double().numpy()[:, None] - RING.modes.centres.double().numpy(), axis=2)
    share = (away <= 3 * RING.modes.sigma).sum(0)
    share = share[share > 0] / share.sum()
    return float((share * np.log(8 * share)).sum())


def test_a_perfect_sampler() -> None:
    labels = torch.randint(8, (N,), generator=torch.Generator().manual_seed(2))
    scores = scored(drawn(torch.bincount(labels, minlength=8).tolist()))
    perfect = 1 - math.exp(-4.5)
    assert abs(scores["hq"].value - perfect) < 3.5 * math.sqrt(perfect * (1 - perfect) / N)
    assert scores["hq"].low < perfect < scores["hq"].high
    assert abs(scores["hq"].floor - perfect) < 3.5 * math.sqrt(perfect * (1 - perfect) / N)
    assert (scores["modes"].low, scores["modes"].value, scores["modes"].high, scores["modes"].floor) == (8, 8, 8, 8)
    # 2N·KL of even shares is χ² with 7 degrees of freedom.
    assert 0 <= scores["rkl"].value < chi2.ppf(0.999, 7) / (2 * N)
    assert 0 <= scores["rkl"].floor < chi2.ppf(0.999, 7) / (2 * N)


@pytest.mark.parametrize("kept", [1, 2, 4, 7])
def test_dropped_modes(kept: int) -> None:
    each = 2800 // kept
    scores = scored(drawn([each] * kept + [0] * (8 - kept)))
    assert (scores["modes"].low, scores["modes"].value, scores["modes"].high) == (kept, kept, kept)
    assert scores["rkl"].value == pytest.approx(by_hand(drawn([each] * kept + [0] * (8 - kept))), abs=1e-12)
    assert scores["rkl"].value == pytest.approx(math.log(8 / kept), abs=1e-3), "about 1.1 % of each lie in the tails"
    assert scores["rkl"].low <= scores["rkl"].value <= scores["rkl"].high


def test_a_single_point_in_a_mode_is_counted_and_the_lower_end_says_so() -> None:
    points = drawn([357] * 7 + [0])
    scores = scored(torch.cat([points, RING.modes.centres[7:]]))
    assert (scores["modes"].low, scores["modes"].value) == (7, 8)
    # Without it, nothing is there; and a point that lies between the modes is in none.
    scores = scored(torch.cat([points, torch.zeros(1, 2)]))
    assert (scores["modes"].low, scores["modes"].value, scores["modes"].high) == (7, 7, 7)


@pytest.mark.parametrize(("thin", "low"), [(31, 7), (250, 8)])
def test_a_thinned_mode_is_there_when_it_has_a_quarter_of_its_share(thin: int, low: int) -> None:
    rest = [(N - thin) // 7] * 7
    scores = scored(drawn([*rest, thin]))
    assert (scores["modes"].low, scores["modes"].value) == (low, 8)
    assert scores["rkl"].value == pytest.approx(by_hand(drawn([*rest, thin])), abs=1e-9)


def test_noise_has_no_quality() -> None:
    scores = scored(torch.rand(N, 2, generator=torch.Generator().manual_seed(3)) * 4 - 2)
    # Eight discs of 3σ in a square of 4 × 4.
    share = 8 * math.pi * 0.03**2 / 16
    assert abs(scores["hq"].value - share) < 4 * math.sqrt(share / N)


@pytest.mark.parametrize("sigma", [100.0, 1e6])
def test_noise_far_from_all_modes_is_worse_than_any_collapse(sigma: float) -> None:
    """Assigned to the nearest of eight centres it looks even (0.0006 nats, where real points have 0.0014)."""
    scores = scored(torch.randn(N, 2, generator=torch.Generator().manual_seed(4)) * sigma)
    one_mode = scored(drawn([N] + [0] * 7))
    assert (scores["hq"].value, scores["modes"].value) == (0, 0)
    assert scores["rkl"].value == pytest.approx(math.log(8) + 1, abs=1e-12)
    assert one_mode["rkl"].value == pytest.approx(math.log(8), abs=1e-12)
    assert one_mode["rkl"].high < scores["rkl"].low <= scores["rkl"].value <= scores["rkl"].high < math.inf


def test_the_reverse_kl_is_that_of_the_points_of_high_quality() -> None:
    """As in PacGAN's program: with strays added, however many modes they are near to, it stays as it is."""
    good = drawn([300] * 4 + [0] * 4)
    _, inside = assign(good, RING.modes)
    good = good[inside]
    strays = torch.randn(N - len(good), 2, generator=torch.Generator().manual_seed(5)) * 50
    assert scored(torch.cat([good, strays]))["rkl"].value == pytest.approx(scored(good)["rkl"].value, abs=1e-12)
    assert scored(good)["rkl"].value == pytest.approx(math.log(2), abs=0.01)


def test_too_few_good_points_say_nothing_of_the_modes_and_more_of_them_are_better() -> None:
    values = []
    for count in (0, 8, 80, 400, 640):
        points = torch.cat([drawn([count // 8] * 8), torch.full((N - count, 2), 30.0)])
        values.append(scored(points)["rkl"].value)
    assert values == sorted(values, reverse=True)
    assert min(values[:4]) > math.log(8) > 0.1 > values[4], "a fifth of what real points have is 494 of 2,500"


def test_quality_ends_at_three_sigma() -> None:
    modes = Modes(torch.tensor([[0.0, 0.0], [10.0, 0.0]]), 0.5)
    nearest, good = assign(torch.tensor([[1.49, 0.0], [1.51, 0.0], [9.0, 1.0], [4.9, 0.0], [5.1, 0.0]]), modes)
    assert nearest.tolist() == [0, 0, 1, 0, 1]
    assert good.tolist() == [True, False, True, False, False]


def test_what_the_neighbours_tails_explain_is_not_a_mode() -> None:
    """At a spacing of 7σ a Gaussian strays into its neighbour's 3σ with at most e⁻⁸: 0.8 of 2,500 points."""
    modes = Modes(torch.tensor([[0.0, 0.0], [7.0, 0.0]]), 1.0)
    assert captured_modes([2499, 1], 2500, modes) == 1
    assert captured_modes([2480, 20], 2500, modes) == 2
    assert captured_modes([2499, 1], 2500, Modes(modes.centres, 0.1)) == 2
    assert captured_modes([0, 0], 2500, modes) == 0


def test_the_reverse_kl_by_hand() -> None:
    assert reverse_kl(torch.tensor([0, 1, 2, 3]), 4) == 0
    assert reverse_kl(torch.tensor([2, 2, 2]), 4) == pytest.approx(math.log(4))
    assert reverse_kl(torch.tensor([0, 0, 0, 1]), 2) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


@pytest.mark.parametrize("classes", [2, 10])
def test_decided_and_even_classes_score_their_number(classes: int) -> None:
    logits = torch.eye(classes).repeat(30, 1) * 200
    assert exp_mutual_information(logits, 1)[0] == pytest.approx(classes)


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [9.0, -3.0, 0.0], [300.0, 0.0, 0.0]])
def test_samples_that_are_all_alike_score_one(row: list[float]) -> None:
    value, error = exp_mutual_information(torch.tensor(row).repeat(200, 1), 10)
    assert value == pytest.approx(1)
    assert error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "splits"), [(300, 10), (301, 30), (101, 10)])
def test_the_score_in_splits_is_numpys(n: int, splits: int) -> None:
    """Salimans et al.: exp of the mean KL in each of `splits` parts, cut as torch-fidelity cuts them."""
    logits = torch.randn(n, 5, generator=torch.Generator().manual_seed(0)) * 3
    order = torch.randperm(n, generator=noise.generator("splits"))
    p = softmax(logits[order].double().numpy(), 1)
    parts = [
        np.exp((part * np.log(part / part.mean(0))).sum(1).mean())
        for part in np.split(p, [split * n // splits for split in range(1, splits)])
    ]
    value, error = exp_mutual_information(logits, splits)
    assert value == pytest.approx(np.mean(parts), rel=1e-9)
    assert error == pytest.approx(np.std(parts, ddof=1) / math.sqrt(splits), rel=1e-9)


def test_stacked_modes_are_counted_above_the_misread_digits() -> None:
    """Two digits a channel, eight modes; the first channel's 0 is read as 1 in one of ten."""
    sure = torch.eye(2, dtype=torch.float64)
    errors = [torch.tensor([[0.9, 0.1], [0.0, 1.0]], dtype=torch.float64), sure, sure]
    one_mode = torch.tensor([900, 0, 0, 0, 100, 0, 0, 0])
    assert stacked_modes.captured_modes(one_mode, [sure, sure, sure]) == 2
    assert stacked_modes.captured_modes(one_mode, errors) == 1, "the hundred are misread ones of the nine hundred"
    assert stacked_modes.captured_modes(torch.tensor([700, 0, 0, 0, 300, 0, 0, 0]), errors) == 2
    assert stacked_modes.captured_modes(torch.full((8,), 125), errors) == 8


def test_a_confusion_is_a_table_of_shares() -> None:
    table = stacked_modes.confusion(torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1]), 3)
    assert table.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]


def test_random_features_tell_noise_and_dropped_modes_from_real(tmp_path: Path) -> None:
    digits = Digits(Digits.Config(), tmp_path)
    train, holdout = digits.load("train"), digits.load("holdout")
    assert train.labels is not None
    network, again = (Random.prepare(digits, cache=tmp_path, weights=PUBLISHED, device="cpu", say=print) for _ in "ab")
    assert network.identity == again.identity
    real = network.extract(holdout).vectors

    def fd(images: Images) -> float:
        return frechet_distance(network.extract(images).vectors, real)

    dropped = [fd(train.take((train.labels >= first).nonzero().flatten())) for first in (0, 3, 6, 9)]
    static = noise.draw(noise.Draw(tuple(train.values.shape)), "static")
    noisy = [fd(Images((train.unit() + strength * static).clamp(0, 1))) for strength in (0.0, 0.05, 0.1, 0.2, 0.4)]
    assert dropped == sorted(dropped) and dropped[1] > 2 * dropped[0]
    assert noisy == sorted(noisy) and noisy[-1] > dropped[-1]
