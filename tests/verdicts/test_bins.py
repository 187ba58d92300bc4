"""The bins that real mass is counted in: clusters, and classes as the vectors tell them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from worlds import FOUND, SPLITS, missing, mixture, ring, world

from aigc_lab import noise
from aigc_lab.statistics.neighbours import assign, k_means
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import Collapse, needed


def test_strays_are_what_the_others_would_give_an_empty_bin() -> None:
    """Two heaps far apart, and three of the first that lie in the second: they are taken for the second's."""
    first, second = torch.linspace(0, 1, 30), torch.linspace(100, 101, 27)
    pool = torch.cat([first, torch.tensor([100.2, 100.5, 100.8]), second])[:, None]
    labels = torch.tensor([0] * 33 + [1] * 27)
    judge = Judge(pool, Bins.of_labels(labels), "heaps", splits=5)
    assert judge.shares.tolist() == pytest.approx([33 / 60, 27 / 60])
    assert judge.strays.tolist() == pytest.approx([0, (3 / 60) / (33 / 60)])
    # Voted for: 30 and 30 of 60. A quarter of that, beyond what strays.
    assert judge.expected.tolist() == pytest.approx([0.5, 0.5])
    stray = (3 / 60) / (33 / 60)
    assert judge.thresholds.tolist() == pytest.approx([0.125, stray + (0.5 - stray) / 4])
    assert judge.clear.tolist() == [True, True]
    known = ring()[1]
    assert known.strays.tolist() == [0.0] * 8  # centres part the plane


def test_labels_that_the_vectors_know_nothing_of_decide_nothing() -> None:
    """Else each class would seem to get no more than what strays into it, and be missing."""
    pool = torch.randn((1200, 6), generator=noise.generator("any"))
    chance = torch.randint(3, (1200,), generator=noise.generator("labels"))
    judge = Judge(pool, Bins.of_labels(chance, ("ant", "bee", "cat")), "any", SPLITS)
    assert not judge.clear.any()
    found = judge.judge(torch.randn((500, 6), generator=noise.generator("made")))
    assert found.verdict == Collapse.INCONCLUSIVE and found.missing_low == 0 and found.missing_high == 1
    assert "by these features classes ant, bee, cat cannot be told from the others" in found.reason
    # One class of them that can be told is missed all the same.
    pool[chance == 1] += 20
    judge = Judge(pool, Bins.of_labels(chance, ("ant", "bee", "cat")), "any", SPLITS)
    assert judge.clear.tolist() == [False, True, False]
    lacking = judge.judge(torch.randn((500, 6), generator=noise.generator("made")))
    assert missing(lacking) == {"bee"} and lacking.verdict in (Collapse.PARTIAL, Collapse.SEVERE)
    assert world().judge.clear.all()


@pytest.mark.parametrize(
    ("shares", "apart"),
    [((0.9, 0.1), 1.5), ((0.7, 0.3), 1.0), ((0.92, 0.08), 0.0), ((0.1,) * 10, 0.4), ((0.5, 0.5), 3.0)],
)
def test_classes_that_overlap_are_not_said_to_be_missing(shares: tuple[float, ...], apart: float) -> None:
    """What is taken for a class's, rightly or not, is compared with what is of real samples."""
    source = noise.generator("overlapping", len(shares), str(apart))
    centres = torch.zeros((len(shares), 8))
    centres[1:] = apart * torch.nn.functional.normalize(torch.randn((len(shares) - 1, 8), generator=source), dim=1)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=source)
        return centres[labels] + torch.randn((n, 8), generator=source), labels

    pool, labels = draw(3000)
    judge = Judge(pool, Bins.of_labels(labels), "overlapping", splits=10)
    for _ in range(3):
        found = judge.judge(draw(1500)[0])
        assert found.verdict not in FOUND and found.missing_low == 0, found.reason
    if apart == 3.0:  # and can be missed nevertheless
        made, of = draw(3000)
        assert missing(judge.judge(made[of == 0][:1000])) == {"1"}


def test_a_class_of_one_is_told_by_no_mean() -> None:
    source = noise.generator("singles")
    labels = torch.cat([torch.arange(100), 100 + torch.arange(200) // 2])
    judge = Judge(torch.randn((300, 4), generator=source), Bins.of_labels(labels), "singles", splits=5)
    single = judge.shares == 1 / 300
    told = judge._predictions[0] == judge.bins.of
    assert single.sum() == 100 and not told[single[judge.bins.of]].any()


def test_ten_heaps_are_not_said_to_be_whole_by_few_clusters() -> None:
    """Of unlabelled samples, so few that they are parted into few clusters."""
    heaps = 8 * torch.randn((10, 4), generator=noise.generator("heaps"))
    pool, _ = mixture(heaps, 400, "heaps")
    lacking, _ = mixture(heaps, 200, "lacking", of=tuple(range(9)))
    found = Judge(pool, Bins.of_clusters(pool, 200), "heaps", splits=10).judge(lacking)
    assert found.verdict != Collapse.NONE


def test_the_number_that_decides() -> None:
    for count in (2, 6, 10, 100, 1000):
        assert needed(count) == math.ceil(8 * count * math.log(count / 0.05))
    # Points evenly over a circle: clusters of equal sizes, of which none is given up.
    angles = torch.arange(4000) * (2 * math.pi / 4000)
    pool = torch.stack([angles.cos(), angles.sin()], 1)
    for n in (20, 100, needed(7), needed(7) - 1):
        fitting = max([2] + [k for k in range(2, 101) if n >= needed(k)])
        assert len(Bins.of_clusters(pool, n).names) == fitting
    assert len(Bins.of_clusters(pool, 10**6).names) == 100
    apart = torch.randn((300, 2), generator=noise.generator("apart"))
    bins = Bins.of_clusters(pool, 100, apart)
    assert bins.centres is not None and torch.equal(bins.of, assign(pool, bins.centres))
    ordered = apart[torch.from_numpy(np.lexsort(apart.double().T.flip(0).numpy()))]
    assert torch.equal(bins.centres, k_means(ordered, len(bins.names)))
    for each in (pool, apart):  # in whichever order real samples come
        shuffled = each[torch.randperm(len(each), generator=noise.generator("shuffled"))]
        first, again = Bins.of_clusters(each, 200), Bins.of_clusters(shuffled, 200)
        assert first.centres is not None and again.centres is not None and torch.equal(first.centres, again.centres)


def test_a_cluster_too_small_to_decide_about_is_given_up() -> None:
    heap = torch.randn((2000, 3), generator=noise.generator("heap"))
    pool = torch.cat([heap, 100 + heap[:3]])  # three outliers are a cluster of their own
    pool = pool[torch.from_numpy(np.lexsort(pool.double().T.flip(0).numpy()))]
    first = k_means(pool, 12)
    assert torch.bincount(assign(pool, first)).min() == 3
    bins = Bins.of_clusters(pool, needed(12))
    assert bins.centres is not None
    sizes, kept = torch.bincount(bins.of), len(bins.names)
    assert 2 < kept < 12 and needed(12) * sizes.min() / len(pool) >= needed(kept) / kept / 2
    assert all(any(torch.equal(centre, each) for each in first) for centre in bins.centres)
    assert len(torch.unique(bins.of[pool[:, 0] > 50])) == 1 and sizes.sum() == len(pool)
