"""The collapse verdict: its numbers against sums by hand, and what changes nothing of it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from worlds import FOUND, NAMES, SPLITS, judged_of, missing, mixture, ring, world

from aigc_lab import noise
from aigc_lab.statistics import diversity
from aigc_lab.statistics.neighbours import assign
from aigc_lab.verdicts import collapse
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Judge
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict
from aigc_lab.verdicts.missing import decide


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def by_hand(judge: Judge, made: Tensor) -> dict[str, Any]:
    """Which samples look real and what is covered, by all distances, and the bounds that follow."""
    pool, made_ = judge.pool.numpy(), made.double().numpy()
    n, m = len(made_), len(pool)
    real = np.linalg.norm(pool[:, None] - pool[None], axis=2)
    away = np.linalg.norm(made_[:, None] - pool[None], axis=2)

    def split(number: int, count: int) -> tuple[Any, Any, Any]:
        order = torch.randperm(m, generator=noise.generator("null", count, number)).numpy()
        inside, outside = np.sort(order[:count]), np.sort(order[count:])
        radii = np.array([np.sort(np.delete(real[at, outside], place))[4] for place, at in enumerate(outside)])
        return inside, outside, radii

    precision, coverage = [], []
    for number in range(judge.splits):
        inside, outside, radii = split(number, n)
        between = real[np.ix_(inside, outside)]
        precision.append((between < radii).any(1).mean())
        coverage.append((between.min(0) < radii).mean())
    votes, covered = np.zeros(n), []
    for number in range(20):
        _, outside, radii = split(number, n)
        between = away[:, outside]
        votes += (between < radii).any(1)
        covered.append((between.min(0) < radii).mean())
    good = votes > 10
    whole = np.sort(real, 1)[:, 5]  # of all of the pool: itself is first

    def lower_median(values: list[float]) -> float:
        return sorted(values)[(len(values) - 1) // 2]

    return {
        "null": (lower_median(precision), lower_median(coverage), np.quantile(coverage, 0.005)),
        "precision": votes.mean() / 20 / lower_median(precision),
        "coverage": np.mean(covered) / lower_median(coverage),
        "good": good,
        "near": good | (away < 2 * whole).any(1),
    }


def small_ring(spread: float = 1.0) -> tuple[Judge, Tensor]:
    """Few enough for all distances. Of the eight modes two are gone, and one is thin."""
    samples, judge = ring()
    pool = judge.pool[torch.randperm(len(judge.pool), generator=noise.generator("small"))[:500]]
    centres = judge.bins.centres
    assert centres is not None
    modes = assign(samples, centres)
    chance = torch.rand(len(samples), generator=noise.generator("thin"))
    some = samples[(modes != 2) & (modes != 5) & ((modes != 0) | (chance < 0.2))][:230]
    made = centres[assign(some, centres)] + spread * (some - centres[assign(some, centres)])
    return Judge(pool, Bins.of_centres(pool, centres), "small", splits=12), made


@pytest.mark.parametrize("spread", [1.0, 2.0])
def test_precision_coverage_and_their_nulls_are_those_of_all_distances(spread: float) -> None:
    judge, made = small_ring(spread)
    found, expected = judge.judge(made), by_hand(judge, made)
    null = judge.null(230)
    assert (null.precision, null.coverage, null.coverage_low) == pytest.approx(expected["null"], abs=1e-9)
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.coverage == pytest.approx(expected["coverage"], rel=1e-9)
    assert judge.bins.centres is not None
    fidelity = judge._fidelity(*judge._accepted(made, None)[:2])
    good, near = int(fidelity.good.sum()), int(fidelity.near.sum())
    assert (good, near) == (expected["good"].sum(), expected["near"].sum()) and (near > good or spread == 1)
    kept = made[torch.from_numpy(expected["good"])]
    hits = torch.bincount(assign(kept, judge.bins.centres), minlength=8)
    assert [row["generated"] for row in found.bins] == pytest.approx((hits / len(kept)).tolist())
    assert [row["real"] for row in found.bins] == pytest.approx(judge.shares.tolist())


def test_what_is_on_the_rim_of_a_ball_is_outside() -> None:
    """Whole numbers: half of the distances are ties."""
    pool = torch.arange(60.0)[:, None]
    judge = Judge(pool, Bins.of_labels(torch.arange(60) // 20), "line", splits=12)
    made = 3 * torch.arange(24.0)[:, None] - 6
    found, expected = judge.judge(made), by_hand(judge, made)
    null = judge.null(24)
    assert (null.precision, null.coverage, null.coverage_low) == pytest.approx(expected["null"], abs=1e-9)
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    coverage = judge._fidelity(*judge._accepted(made, None)[:2]).coverage
    assert coverage / null.coverage == pytest.approx(expected["coverage"], rel=1e-9)


def holm(hits: list[int], n: int, thresholds: list[float]) -> list[tuple[float, float, str]]:
    """Bounds that hold together, and states by the words: the bin with the smallest tail first, until one is not
    decided.
    """
    tails = [
        min(
            stats.binomtest(hit, n, threshold, "less").pvalue,
            stats.binomtest(hit, n, threshold, "greater").pvalue,
        )
        for hit, threshold in zip(hits, thresholds, strict=True)
    ]
    found: dict[int, tuple[float, float, str]] = {}
    stopped = False

    def exact(hit: int, level: float) -> tuple[float, float]:
        interval = stats.binomtest(hit, n).proportion_ci(1 - level, "exact")
        return float(interval.low), float(interval.high)

    for place, at in enumerate(sorted(range(len(hits)), key=tails.__getitem__)):
        low, high = exact(hits[at], 0.04 / (len(hits) - place))
        if stopped or low <= thresholds[at] <= high:
            state, stopped = "undecided", True
        else:
            state = "missing" if high < thresholds[at] else "present"
        found[at] = (*exact(hits[at], 0.04 / len(hits)), state)
    return [found[at] for at in range(len(hits))]


@pytest.mark.parametrize("n", [60, 160, 500])
def test_bounds_are_exact_at_holms_levels(n: int) -> None:
    source = noise.generator("bounds", n)
    for _ in range(20):
        sizes = torch.rand(7, generator=source).add(0.05)
        shares: list[float] = (sizes / sizes.sum()).tolist()
        strays = (0.02 * torch.rand(7, generator=source)).tolist()
        factors = torch.tensor([0, 0.03, 0.2, 0.25, 0.5, 1, 1])[torch.randperm(7, generator=source)]
        chances = torch.tensor(shares) * factors
        drawn = torch.multinomial(chances, n, replacement=True, generator=source)
        hits = torch.bincount(drawn, minlength=7).tolist()
        thresholds = [share / 4 + stray for share, stray in zip(shares, strays, strict=True)]
        rows: list[dict[str, Any]] = [{"threshold": threshold} for threshold in thresholds]
        decide(rows, hits, n)
        expected = holm(hits, n, thresholds)
        assert [row["state"] for row in rows] == [state for _, _, state in expected]
        assert [each for row in rows for each in (row["low"], row["high"])] == pytest.approx(
            [each for low, high, _ in expected for each in (low, high)], abs=1e-12
        )


def test_bounds_in_a_verdict_are_those_of_the_samples_that_look_real() -> None:
    judge, made = small_ring()
    found, good = judge.judge(made), by_hand(judge, made)["good"]
    hits = [round(row["generated"] * good.sum()) for row in found.bins]
    expected = holm(hits, int(good.sum()), (judge.shares / 4).tolist())
    assert [(row["low"], row["high"]) for row in found.bins] == [
        pytest.approx((low, high), abs=1e-12) for low, high, _ in expected
    ]
    assert [row["state"] for row in found.bins] == [state for _, _, state in expected]
    states = {row["name"]: row["state"] for row in found.bins}
    assert (states["2"], states["5"]) == ("missing", "missing") and "undecided" in states.values()
    for field, allowed in (("missing_low", {"missing"}), ("missing_high", {"missing", "undecided"})):
        total = sum(row["real"] for row in found.bins if row["state"] in allowed)
        assert getattr(found, field) == pytest.approx(total)
    seen = sum(row["real"] for row in found.bins if row["generated"] < row["real"] / 4)
    assert found.missing_seen == pytest.approx(seen)
    assert found.missing_low <= found.missing_seen <= found.missing_high


def test_the_score_of_diversity_is_that_of_the_eigenvalues() -> None:
    members = torch.randn((3, 12, 4), generator=noise.generator("vendi"), dtype=torch.float64)
    members[2] = members[2, :1]  # twelve copies: one thing
    found = diversity.vendi(members, 2.5)
    for vectors, score in zip(members.numpy(), found.tolist(), strict=True):
        kernel = np.exp(-((vectors[:, None] - vectors[None]) ** 2).sum(2) / 2.5)
        values = np.linalg.eigvals(kernel / 12).real
        values = values[values > 1e-14]
        assert score == pytest.approx(float(np.exp(-(values * np.log(values)).sum())))
    assert found[2].item() == pytest.approx(1)
    pairs = [float(((x - y) ** 2).sum()) for x in members[0].numpy() for y in members[0].numpy()]
    assert diversity.scale_of(members[0]) == pytest.approx(np.mean(pairs) / 4)


@pytest.mark.parametrize(("count", "size", "parts"), [(10, 10, 1), (19, 14, 1), (95, 80, 1), (330, 80, 4)])
def test_diversity_is_a_ratio_to_as_many_real_members(count: int, size: int, parts: int) -> None:
    """Against 40 draws of the real members of a bin of 200, of which at most half are compared at a time."""
    pool, labels = world().labelled(1800, "diversity")
    judge = Judge(pool, Bins.of_labels(labels, NAMES), "diversity", splits=5)
    real = judge.pool[judge.bins.of == 1][:200]
    assert len(real) == 200
    made = world().draw(count, "diverse", of=(1,), spread=0.7).double()
    pairs = np.linalg.norm(real.numpy()[:, None] - real.numpy()[None], axis=2)
    scale = (pairs**2).mean() / 4

    def score(members: Tensor) -> float:
        away = np.linalg.norm(members.numpy()[:, None] - members.numpy()[None], axis=2)
        values = np.linalg.eigvalsh(np.exp(-(away**2) / scale) / len(members))
        values = values[values > 0]
        return float(-(values * np.log(values)).sum())

    source = noise.generator("diversity", "bee", size)
    null = [score(real[torch.randperm(200, generator=source)[:size]]) for _ in range(40)]
    order = torch.randperm(count, generator=noise.generator("part", count))
    logs = [score(made[order[size * part :][:size]]) - np.mean(null) for part in range(parts)]
    # Of 200 that are all a sample, and of which each draw takes a part.
    spread = np.std(null, ddof=1) / math.sqrt(1 - size / 200)
    error = (max(np.std(logs, ddof=1), spread) if parts > 1 else spread) / math.sqrt(parts)
    error = math.hypot(error, spread * math.sqrt(size / 200))
    margin, alone = (stats.norm.ppf(1 - level / 2) * error for level in (0.05 / 6, 0.05))
    expected = [np.exp(np.mean(logs) + each) for each in (0, -margin, margin, -alone)] + [np.exp(-np.mean(null))]
    assert judge.diversity("bee", made, real, 6) == pytest.approx(expected, rel=1e-6)
    assert judge.diversity("bee", made[:9], real, 6) is None  # too few to say


def test_an_empty_bin_is_missing_though_strays_fall_into_it() -> None:
    """Classes that overlap: the empty one gets what is taken for it, and no more than that."""
    centres = torch.zeros((4, 8))
    centres[1, 0], centres[2, 1], centres[3, 2] = 3.0, 9.0, 9.0
    pool, labels = mixture(centres, 2000, "overlap")
    judge = Judge(pool, Bins.of_labels(labels), "overlap", splits=SPLITS)
    assert judge.strays[0] > 0.01 and judge.strays[1] > 0.01 and judge.strays[2:].max() < 0.002
    found = judge.judge(mixture(centres, 900, "overlapping", of=(1, 2, 3))[0])
    assert missing(found) == {"0"} and found.bins[0]["generated"] > 0
    assert judge.judge(mixture(centres, 900, "overlapping")[0]).verdict not in FOUND


def test_copies_among_real_samples_are_no_fault_of_generated_ones() -> None:
    source = noise.generator("real copies")
    grid = torch.randint(8, (3000, 2), generator=source).float()
    judge = Judge(grid[:2000], Bins.of_clusters(grid[:2000], 1000), "dice", splits=10)
    assert judge.null(1000).duplicates > 0.9
    honest = judge.judge(grid[2000:])
    assert honest.verdict not in FOUND and honest.duplicates < 0.01 and honest.precision > 0.9
    # A third of the real samples is one and the same, and is there.
    same = torch.rand(3000, generator=source) < 0.3
    vectors, labels = world().labelled(3000, "and copies")
    vectors[same], labels[same] = vectors[0].clone(), 6
    judge = Judge(vectors[:2000], Bins.of_labels(labels[:2000]), "copies", splits=10)
    found = judge.judge(vectors[2000:])
    assert found.verdict not in FOUND and found.bins[-1]["state"] == "present", found.reason
    assert missing(judge.judge(vectors[2000:][~same[2000:]])) == {"6"}
    assert judge.judge(vectors[2000:2100].repeat(10, 1)).duplicates == pytest.approx(0.9, abs=0.05)


def test_half_noise_is_covered_as_so_many_real_samples_are() -> None:
    far = 60 * torch.rand((450, 8), generator=noise.generator("far among")) - 30
    found = judged_of(torch.cat([world().draw(300, "half"), far]))
    assert found.verdict == Collapse.NONE and "% of the samples do not look real" in found.reason, found.reason
    # Beside as many real ones as there are samples it would be below what these have at worst.
    assert found.coverage is not None and found.null is not None
    assert found.coverage < 0.9 * found.null["coverage_low"] / found.null["coverage"]


# ---- what changes nothing


def lacking() -> Tensor:
    return torch.cat([world().draw(350, "lacking", of=(0, 1, 2, 5)), world().draw(60, "blurred", spread=2.0)])


def test_the_order_of_the_samples_changes_nothing() -> None:
    made = lacking()
    shuffled = made[torch.randperm(len(made), generator=noise.generator("shuffled"))]
    assert judged_of(shuffled).as_dict() == judged_of(made).as_dict() == judged_of(made.flip(0)).as_dict()
    # Of too many the same are chosen, whatever their order.
    many = world().draw(1200, "many")
    assert judged_of(many).as_dict() == judged_of(many.flip(0)).as_dict()
    assert judged_of(many).n == 800


def test_the_order_of_the_pool_changes_nothing() -> None:
    judge, made = world().judge, lacking()
    order = torch.randperm(len(judge.pool), generator=noise.generator("pool order"))
    again = Judge(judge.pool[order], replace(judge.bins, of=judge.bins.of[order]), "world", SPLITS)
    assert again.judge(made).as_dict() == judge.judge(made).as_dict()
    assert again.nulls == {key: judge.nulls[key] for key in again.nulls}
    # Examples are places in the pool that was given.
    first = Judge(judge.pool, judge.bins, "world", SPLITS).examples("cat", 5)
    assert torch.equal(judge.pool[order][again.examples("cat", 5)], judge.pool[first])
    assert judge.bins.of[first].tolist() == [2] * 5
    # Copies among the real samples with different labels are no exception.
    pool, labels = torch.cat([judge.pool[:200], judge.pool[:50]]), torch.arange(250) % 3
    order = torch.randperm(250, generator=noise.generator("copies"))
    both = [Judge(pool[rows], Bins.of_labels(labels[rows]), "", 5) for rows in (torch.arange(250), order)]
    assert torch.equal(both[0].pool, both[1].pool) and torch.equal(both[0].bins.of, both[1].bins.of)
    assert both[0].judge(made[:100]).as_dict() == both[1].judge(made[:100]).as_dict()


@pytest.mark.parametrize("kind", ["classes", "neighbours", "clusters"])
def test_where_the_vectors_lie_changes_nothing(kind: str) -> None:
    """Far from the origin float32 is too coarse: what is rounded to 1/64 is exact in both places."""
    if kind == "classes":  # so few in each that means tell them
        centres = 0.4 * torch.randn((100, 256), generator=noise.generator("near centres"))
        pool, labels = mixture(centres, 1500, "far pool")
        bins, made = Bins.of_labels(labels), mixture(centres, 700, "far")[0]
    else:
        pool, bins, made = world().judge.pool, world().judge.bins, lacking()
    pool, made = (64 * pool).round() / 64, (64 * made.double()).round() / 64

    def said(offset: float) -> CollapseVerdict:
        near = bins if kind != "clusters" else Bins.of_clusters(pool + offset, len(made))
        judge = Judge(pool + offset, near, "far", splits=5)
        means = judge._predictions[1]
        assert (means is not None) == (kind == "classes") if kind != "clusters" else near.centres is not None
        return judge.judge(made + offset)

    here, far = said(0.0), said(2.0**15)
    assert (here.verdict, here.reason) == (far.verdict, far.reason)
    assert [row["generated"] for row in here.bins] == [row["generated"] for row in far.bins]
    assert (here.missing_low, here.missing_seen) == (far.missing_low, far.missing_seen)
    assert (kind == "classes") == (here.missing_seen < 0.1)


def test_the_number_of_threads_changes_nothing() -> None:
    made, pool, bins = lacking(), world().judge.pool, world().judge.bins
    said = []
    for count in (1, 2):
        with threads(count):
            said.append(Judge(pool, bins, "world", SPLITS).judge(made).as_dict())
    first, second = said
    assert (first["verdict"], first["bins"]) == (second["verdict"], second["bins"])
    assert first == second


def test_nulls_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, judge = lacking(), world().judge
    first = Judge(judge.pool, judge.bins, "world", SPLITS)
    said, known = first.judge(made), dict(first.nulls)
    assert any(key.startswith("manifold") for key in known) and any(key.startswith("diversity") for key in known)

    asked: list[tuple[int, ...]] = []
    masks, vendi = Judge._parts, diversity.vendi

    def parts(self: Judge, n: int, count: int) -> list[Tensor]:
        asked.append((count,))
        return masks(self, n, count)

    def scored(members: Tensor, scale: float) -> Tensor:
        asked.append(tuple(members.shape[:2]))
        return vendi(members, scale)

    monkeypatch.setattr(Judge, "_parts", parts)
    monkeypatch.setattr(collapse, "vendi", scored)
    second = Judge(judge.pool, judge.bins, "world", SPLITS, nulls=first.nulls)
    assert second.judge(made).as_dict() == said.as_dict()
    # The splits of the samples, and no more than ten parts of each bin: no 40 draws of a null.
    assert asked[0] == (20,) and all(len(each) == 2 and each[0] <= 10 for each in asked[1:])
    assert second.nulls == known


def test_the_signature_says_what_was_judged() -> None:
    found = judged_of(lacking())
    assert found.signature == f"world|n:410|pool:1600|bins:6|splits:{SPLITS}|v:7"
    assert found.as_dict()["verdict"] == str(found.verdict) and {*found.as_dict()} == {*vars(found)}


def test_what_depends_on_the_pool_alone_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every evaluation of a run judges as many samples; whatever was judged before, the verdict is the same."""
    of, reached, sorted_ = world(), [0], [0]
    pool, labels = of.labelled(800, "once")
    bins = Bins.of_labels(labels, NAMES)
    judge = Judge(pool, bins, "", splits=5)
    reach, bins_of = Judge._reach, Judge.bins_of

    def counted_reach(self: Judge, outside: Tensor) -> Tensor:
        reached[0] += 1
        return reach(self, outside)

    def counted_bins(self: Judge, vectors: Tensor) -> Tensor:
        sorted_[0] += 1
        return bins_of(self, vectors)

    monkeypatch.setattr(Judge, "_reach", counted_reach)
    monkeypatch.setattr(Judge, "bins_of", counted_bins)
    sets = [of.draw(200, "sets", 0), of.draw(200, "sets", 1, of=(0, 1, 2)), of.draw(240, "sets", 2), of.draw(200, "a")]
    said = [judge.judge(made).as_dict() for made in sets[:3]]
    before = reached[0]
    said.append(judge.judge(sets[3]).as_dict())
    assert reached[0] == before
    assert sorted_[0] == len(sets)  # once each, though the bins of missing ones are looked at again
    assert said == [Judge(pool, bins, "", splits=5).judge(made).as_dict() for made in sets]
    for n in range(20, 60):
        judge._balls(n)
    assert len(judge._balls_of) == collapse._KEPT
