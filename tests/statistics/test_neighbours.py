"""Neighbours, manifolds and clusters against their definitions, sklearn, torch-fidelity and known layouts."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from aigc_lab.statistics import neighbours
from aigc_lab.statistics.intervals import clopper_pearson, groups
from aigc_lab.statistics.neighbours import assign, k_means, manifolds, nearest, nearest_others

GOLDEN = json.loads((Path(__file__).parents[2] / "evaluation" / "golden" / "prdc.json").read_text())


def drawn(n: int, d: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale


def by_definition(generated: Tensor, real: Tensor, k: int, closed: bool) -> list[float]:
    """Naeem et al. 2020 and Kynkäänniemi et al. 2019, pair by pair from float64 differences."""

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return (a.double()[:, None] - b.double()[None]).square().sum(2).sqrt()

    def radii(points: Tensor) -> Tensor:
        return distances(points, points).sort(1).values[:, k]

    def inside(away: Tensor, radius: Tensor) -> Tensor:
        return away <= radius if closed else away < radius

    away = distances(generated, real)
    balls = inside(away, radii(real))
    seen = inside(away, radii(generated)[:, None])
    shares = (balls.any(1), seen.any(0), balls.double().sum(1) / k, balls.any(0))
    return [float(share.double().mean()) for share in shares]


def values(generated: Tensor, real: Tensor, k: int, closed: bool = False) -> list[float]:
    return [part.value for part in manifolds(generated, real, k, closed=closed)]


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(60, 45, 3, 3), (40, 90, 40, 5), (25, 25, 1, 1), (70, 50, 2, 20)])
def test_manifolds_are_the_definitions(n: int, m: int, d: int, k: int, closed: bool, monkeypatch: Any) -> None:
    """In blocks of a few rows too; and of integers, whose distances are often equal."""
    for generated, real in ((drawn(n, d, 1, 1.2), drawn(m, d, 2)), (drawn(n, d, 3).round(), drawn(m, d, 4).round())):
        truth = by_definition(generated, real, k, closed)
        assert values(generated, real, k, closed) == pytest.approx(truth, abs=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr(neighbours, "_CELLS", 400)
            assert values(generated, real, k, closed) == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"].replace(" ", "_"))
def test_known_layouts(case: dict[str, Any]) -> None:
    if "circle" in case:
        angles = torch.arange(case["circle"], dtype=torch.float64) * 2 * math.pi / case["circle"]
        real = generated = torch.stack([angles.cos(), angles.sin()], 1)
    else:
        real, generated = (torch.tensor(case[name], dtype=torch.float64) for name in ("real", "generated"))
    found = manifolds(generated, real, case["k"], closed=case["closed"])
    for name in found._fields:
        assert getattr(found, name).value == pytest.approx(case[name], abs=1e-12), name


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_copies_are_ties_whatever_they_are_computed_with(offset: float) -> None:
    """A copy of the real set: open balls hold their centre and the k − 1 nearer ones, closed balls the k-th too."""
    real = drawn(300, 500, 1) + offset
    mixed = real[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    assert values(mixed, real, 5) == [1.0, 1.0, 1.0, 1.0]
    assert values(mixed, real, 5, closed=True) == pytest.approx([1.0, 1.0, 1.2, 1.0])


def test_improved_precision_and_recall_are_torch_fidelitys() -> None:
    generated, real = drawn(500, 24, 1, 1.1) + 0.2, drawn(400, 24, 2)
    truth = prc_features_to_metric(generated, real, prc_neighborhood=3, prc_batch_size=1000, verbose=False)
    found = manifolds(generated, real, 3, closed=True)
    assert 0.2 < truth["precision"] < 0.9 and 0.2 < truth["recall"] < 0.9
    assert found.precision.value == pytest.approx(truth["precision"], rel=1e-4)
    assert found.recall.value == pytest.approx(truth["recall"], rel=1e-4)


def test_the_interval_is_the_jackknife_of_both_sets() -> None:
    """Every replicate computed again from what is left of both sets, radii included."""
    generated, real, k = drawn(130, 3, 1, 1.3), drawn(90, 3, 2), 3
    one, two = groups(130), groups(90)
    replicates = torch.tensor(
        [by_definition(generated[one != left], real[two != left], k, False) for left in range(20)],
        dtype=torch.float64,
    )
    errors = (replicates - replicates.mean(0)).square().sum(0).mul(19 / 20).sqrt()
    found = manifolds(generated, real, k)
    assert found.density.value - found.density.low == pytest.approx(2.093024 * float(errors[2]), rel=1e-6)
    for part, error, trials in ((found.precision, errors[0], 130), (found.recall, errors[1], 90)):
        exact = clopper_pearson(round(part.value * trials), trials)
        assert part.low == pytest.approx(min(part.value - 2.093024 * float(error), exact[0]), rel=1e-6)
        assert part.high == pytest.approx(min(max(part.value + 2.093024 * float(error), exact[1]), 1.0), rel=1e-6)


def test_nothing_within_is_not_known_for_certain() -> None:
    found = manifolds(drawn(50, 2, 1) + 100, drawn(50, 2, 2), 3)
    assert (found.precision.value, found.precision.low) == (0, 0)
    assert found.precision.high == pytest.approx(clopper_pearson(0, 50)[1])
    assert found.density.high == pytest.approx(found.precision.high / 3)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "shift", "scale", "k", "closed"), [(16, 0.3, 1.0, 5, False), (2, 1.0, 0.7, 3, True)])
def test_intervals_cover_where_those_of_proportions_do_not(
    d: int, shift: float, scale: float, k: int, closed: bool
) -> None:
    source = torch.Generator().manual_seed(0)

    def one() -> Tensor:
        generated = torch.randn(300, d, generator=source) * scale + shift
        return torch.tensor(manifolds(generated, torch.randn(300, d, generator=source), k, closed=closed))

    found = torch.stack([one() for _ in range(150)]).double()  # [150, 4, (value, low, high)]
    truth = found[:, :, 0].mean(0)
    covered = ((found[:, :, 1] <= truth) & (truth <= found[:, :, 2])).double().mean(0)
    # 150 trials: 0.91 is two and a half standard errors below 0.95.
    assert covered.min() > 0.91, covered
    exact = torch.tensor(
        [[clopper_pearson(round(300 * value), 300) for value in row] for row in found[:, :2, 0].tolist()]
    )
    assert ((exact[..., 0] <= truth[:2]) & (truth[:2] <= exact[..., 1])).double().mean() < 0.9


@pytest.mark.parametrize("columns", [3, 20, 4096])
@pytest.mark.parametrize("k", [1, 4])
def test_neighbours_are_sklearns(k: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_COLUMNS", columns)  # in blocks that are smaller than k too
    monkeypatch.setattr(neighbours, "_CELLS", 7 * columns)
    x, y = drawn(70, 5, 1), drawn(50, 5, 2)
    distances, index = nearest(x, y, k)
    truth, truth_index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(y.double()).kneighbors(x.double())
    assert index.tolist() == truth_index.tolist()
    torch.testing.assert_close(distances, torch.from_numpy(truth))
    of = torch.tensor([3, 3, 49, 0])
    distances, index = nearest_others(y, of, k)
    truth, truth_index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(y.double()).kneighbors()
    assert index.tolist() == truth_index[of].tolist()
    torch.testing.assert_close(distances, torch.from_numpy(truth[of]))


def test_a_copy_is_no_distance_away_and_a_neighbour_of_its_original() -> None:
    y = torch.cat([drawn(30, 64, 1), drawn(30, 64, 1)]) + 50
    assert nearest(y[:5], y)[0].tolist() == [[0.0]] * 5
    distances, index = nearest_others(y, torch.arange(5))
    assert index.flatten().tolist() == [30, 31, 32, 33, 34] and distances.flatten().tolist() == [0.0] * 5


def test_clusters_are_as_tight_as_sklearns() -> None:
    """Lloyd's rounds end in some local minimum: near the best of ten of sklearn's, and where the clusters are clear,
    the same partition."""
    points = drawn(600, 4, 1)
    ours = k_means(points, 20)
    assert torch.equal(ours, k_means(points, 20))
    inertia = float(torch.cdist(points.double(), ours).min(1).values.square().sum())
    assert inertia < 1.1 * KMeans(20, n_init=10, random_state=0).fit(points.numpy()).inertia_
    # Every centre is the mean of its own.
    own = assign(points, ours)
    for centre in range(20):
        torch.testing.assert_close(points[own == centre].double().mean(0), ours[centre], rtol=0, atol=1e-5)
    # Far away it is the same: what is exact there is found.
    away = 30_000.0
    moved = (points * 64).round() / 64
    ours = k_means(moved, 20)
    assert torch.equal(k_means(moved + away, 20), ours + away)
    assert torch.equal(assign(moved + away, ours + away), assign(moved, ours))
    clear = torch.repeat_interleave(torch.arange(5), 30)
    far = torch.eye(5)[clear] * 100 + drawn(150, 5, 2)
    found = assign(far, k_means(far, 5))
    assert len({(int(kind), int(cluster)) for kind, cluster in zip(clear, found, strict=True)}) == 5
    assert len(set(found.tolist())) == 5


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 12 vectors in each set, not 11"):
        manifolds(drawn(11, 2, 1), drawn(30, 2, 2), 5)
    with pytest.raises(ValueError, match="5 clusters .* not 4"):
        k_means(drawn(4, 2, 1), 5)
    # One point alone has many centres in one place.
    assert torch.equal(k_means(torch.ones(9, 2), 3), torch.ones(3, 2).double())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_gives_the_same_values() -> None:
    generated, real = drawn(2000, 64, 1, 1.1), drawn(1500, 64, 2)
    here, there = manifolds(generated, real, 5), manifolds(generated.cuda(), real.cuda(), 5)
    torch.testing.assert_close(torch.tensor(here), torch.tensor(there), rtol=1e-9, atol=1e-9)
