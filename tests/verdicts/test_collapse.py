"""The collapse verdict: what it says of samples of which the truth is known."""

import math
from collections import Counter
from typing import NamedTuple

import pytest
import torch
from conftest import Judged
from torch import Tensor
from worlds import FOUND, NAMES, SPLITS, judged_of, made_world, missing, ring, world

from aigc_lab import noise
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Images
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.statistics.neighbours import assign
from aigc_lab.verdicts.bins import Bins
from aigc_lab.verdicts.collapse import Beside, Judge, K, _Counted
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict, needed

# ---- what is said


def test_honest_sets_are_not_said_to_lack_anything() -> None:
    said = Counter(judged_of(world().draw(400, "honest", number)).verdict for number in range(30))
    samples, judge = ring()
    said += Counter(judge.judge(samples[400 * number :][:400]).verdict for number in range(30))
    assert not FOUND & {*said} and said[Collapse.NONE] >= 50, said


@pytest.mark.parametrize(
    ("gone", "expected"), [((2,), Collapse.PARTIAL), ((1, 4), Collapse.SEVERE), ((0, 1, 3, 5), Collapse.SEVERE)]
)
def test_dropped_classes_are_named(gone: tuple[int, ...], expected: Collapse) -> None:
    rest = tuple(each for each in range(6) if each not in gone)
    for number in range(3):
        found = judged_of(world().draw(400, "dropped", number, of=rest))
        names = {NAMES[each] for each in gone}
        assert found.verdict == expected, found.reason
        assert missing(found) == names and all(name in found.reason for name in names)
        share = sum(row["real"] for row in found.bins if row["name"] in names)
        assert found.missing_low == found.missing_seen == pytest.approx(share)
        assert found.missing_high == pytest.approx(share)
    samples, judge = ring()
    modes = assign(samples, judge.bins.centres) if judge.bins.centres is not None else samples
    found = judge.judge(samples[~torch.isin(modes, torch.tensor(gone))][:400])
    assert missing(found) == {str(each) for each in gone}
    # Of eight equal modes two are about a quarter, which is not more than a quarter for certain.
    assert found.verdict in ({Collapse.PARTIAL} if len(gone) == 1 else {Collapse.PARTIAL, Collapse.SEVERE})


def test_one_class_left_is_severe_or_total() -> None:
    found = judged_of(world().draw(400, "one class", of=(3,)))
    assert found.verdict in {Collapse.SEVERE, Collapse.TOTAL}
    assert missing(found) == {*NAMES} - {"dog"}
    many = made_world(16, 8, 3000)
    found = many.judge.judge(many.draw(600, "one class", of=(3,)))
    assert found.verdict == Collapse.TOTAL and found.missing_low > 0.9


@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_one_sample_over_and_over_is_total(jitter: float) -> None:
    one = world().draw(1, "the one").expand(400, -1)
    found = judged_of(one + jitter * torch.randn(one.shape, generator=noise.generator("jitter")))
    assert found.verdict == Collapse.TOTAL and "over and over" in found.reason
    assert found.duplicates == (0.0 if jitter else pytest.approx(399 / 400))


@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_one_sample_a_class_is_total(jitter: float) -> None:
    """Every bin is there, and in none of them anything varies."""
    each = world().draw(600, "one each", spread=0.0)
    samples = each + 0.3 * torch.randn(8, generator=noise.generator("aside"))
    found = judged_of(samples + jitter * torch.randn(samples.shape, generator=noise.generator("jitter")))
    assert found.verdict == Collapse.TOTAL, found.reason


def test_where_classes_are_gone_nobody_is_told_that_every_bin_is_there() -> None:
    made = world().draw(600, "two gone, one each", of=(0, 1, 2, 3), spread=1e-4)
    found = judged_of(made)
    assert found.verdict == Collapse.TOTAL and found.missing_low > 0.25
    assert "classes eel, fox" in found.reason and found.reason.endswith("one thing over and over in the others")
    assert "every bin" not in found.reason


def test_one_point_a_mode_is_total_in_the_plane_too() -> None:
    """Where real points of a mode score about 10, a tenth of it is hardly seen: what is above 1 counts."""
    samples, judge = ring()
    centres = judge.bins.centres
    assert centres is not None
    points = centres[assign(samples[:250], centres)] + torch.tensor([0.004, -0.003])
    found = judge.judge(points + 1e-5 * torch.randn((250, 2), generator=noise.generator("jitter")))
    assert found.verdict == Collapse.TOTAL and "in every bin" in found.reason
    for row in found.bins:
        assert row["diversity"] == pytest.approx(row["diversity_least"], rel=0.01) and row["diversity_least"] > 0.09
    # Half as wide as real ones is not one thing over and over.
    narrow = centres[assign(samples[:250], centres)] + 0.4 * (samples[:250] - centres[assign(samples[:250], centres)])
    assert judge.judge(narrow).verdict != Collapse.TOTAL


def test_near_copies_of_a_few_a_class_are_partial_by_their_diversity() -> None:
    samples, labels = world().labelled(4000, "few")
    few = torch.cat([samples[labels == label][:6] for label in range(6)])
    picks = torch.randint(len(few), (500,), generator=noise.generator("picks"))
    made = few[picks] + 1e-3 * torch.randn((500, 8), generator=noise.generator("near"))
    found = judged_of(made)
    assert found.verdict == Collapse.PARTIAL and not missing(found)
    assert found.diversity is not None and found.diversity < 0.5 and found.duplicates == 0
    assert "times as much as real samples" in found.reason
    assert all(row["diversity_low"] < row["diversity"] < row["diversity_high"] for row in found.bins)


def test_one_narrow_class_among_honest_ones_is_named() -> None:
    samples, labels = world().labelled(600, "narrow")
    first = samples[labels == 1][0]
    jitter = 1e-2 * torch.randn(samples.shape, generator=noise.generator("narrow"))
    found = judged_of(torch.where((labels == 1)[:, None], first + jitter, samples))
    assert found.verdict == Collapse.PARTIAL and "class bee" in found.reason
    assert [row["name"] for row in found.bins if (row["diversity_high"] or 1) < 0.5] == ["bee"]


def test_noise_cannot_be_measured() -> None:
    for number in range(5):
        made = 60 * torch.rand((400, 8), generator=noise.generator("uniform", number)) - 30
        found = judged_of(made)
        assert found.verdict == Collapse.UNMEASURABLE and found.precision < 0.2 and not found.bins
        assert (found.missing_low, found.missing_high) == (0.0, 1.0)
    # Noise may lie closer together than real samples do, and is one thing only where it is copied.
    far = 40 + 0.5 * torch.randn((400, 8), generator=noise.generator("far"))
    assert judged_of(far).verdict == Collapse.UNMEASURABLE
    copied = far[:1] + 1e-3 * torch.randn((400, 8), generator=noise.generator("copied"))
    assert judged_of(copied).verdict == Collapse.TOTAL


@pytest.mark.parametrize("spread", [1.2, 1.4, 1.7, 2.0, 3.0])
def test_blur_is_no_collapse(spread: float) -> None:
    """Everything is there, only less sharp: coverage falls, and says nothing of what is missing."""
    for number in range(6):
        found = judged_of(world().draw(400, "blurred", number, spread=spread))
        assert found.verdict not in FOUND, found.reason
    samples, judge = ring()
    wider = 0.01 * math.sqrt(spread**2 - 1)
    blurred = samples + wider * torch.randn(samples.shape, generator=noise.generator("wider"))
    for number in range(6):
        assert judge.judge(blurred[400 * number :][:400]).verdict not in FOUND


def test_blur_of_one_class_is_not_its_absence() -> None:
    samples, labels = world().labelled(500, "one blurred")
    more = 1.2 * torch.randn(samples.shape, generator=noise.generator("more"))
    found = judged_of(torch.where((labels == 2)[:, None], samples + more, samples))
    assert found.verdict not in FOUND, found.reason


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.95])
def test_what_does_not_look_real_is_not_counted(share: float) -> None:
    """Honest samples among noise lack nothing, and those that lack two classes do whatever noise is with them."""
    kept = round(400 * (1 - share))
    far = 60 * torch.rand((400 - kept, 8), generator=noise.generator("among")) - 30
    honest = judged_of(torch.cat([world().draw(kept, "mixed"), far]))
    lacking = judged_of(torch.cat([world().draw(kept, "mixed", of=(0, 1, 2, 3)), far]))
    if share == 0.95:
        assert honest.verdict == lacking.verdict == Collapse.UNMEASURABLE
        return
    assert honest.verdict not in FOUND and honest.precision == pytest.approx(1 - share, abs=0.1)
    if kept > needed(6):
        assert lacking.verdict == Collapse.SEVERE and missing(lacking) == {"eel", "fox"}


def test_what_is_strange_does_not_look_real_whatever_its_vector() -> None:
    """By other evidence: honest vectors, of which those of two classes are strange."""
    made, labels = world().labelled(600, "strange")
    unlike = torch.isin(labels, torch.tensor([1, 4]))

    def said(strangeness: float) -> CollapseVerdict:
        strange = torch.where(unlike, strangeness, 0.5)
        return world().judge.judge(made, Beside(torch.arange(600), strange))

    usual, honest = said(0.9), judged_of(made)
    assert usual.verdict == honest.verdict == Collapse.NONE
    # Of real samples 2.5 % are stranger than 1: as many as that are expected to look real.
    assert usual.precision == pytest.approx(honest.precision / 0.975)
    odd = said(1.5)
    assert odd.precision == pytest.approx(usual.precision * float((~unlike).double().mean()), rel=0.02)
    # What is nearly real stands in the way of calling its bin missing, and what is not does not.
    assert not missing(odd) and odd.verdict == Collapse.INCONCLUSIVE
    assert missing(said(2.5)) == {"bee", "eel"} and said(2.5).verdict == Collapse.SEVERE
    everything = world().judge.judge(made, Beside(torch.arange(600), torch.full((600,), 3.0)))
    assert everything.verdict == Collapse.UNMEASURABLE and everything.precision == 0
    # Near copies of one, of which most are strange, may be anything; where few are, they are one thing, wherever it is.
    one = world().centres[0] + 1e-3 * torch.randn((600, 8), generator=noise.generator("jitter"))
    part = torch.arange(600) < 360
    most, few = (Beside(torch.arange(600), torch.where(which, 1.5, 0.0)) for which in (part, ~part))
    unsure = world().judge.judge(one, most)
    assert unsure.precision > 0.2 and "one thing over and over: " not in unsure.reason
    assert "one thing over and over: " in world().judge.judge(one, few).reason
    aside = world().judge.judge(one + 100, few)
    assert aside.precision == 0 and aside.verdict == Collapse.TOTAL
    # Which samples are equal is told too: vectors of unequal ones may be.
    assert world().judge.judge(made, Beside(torch.zeros(600), torch.zeros(600))).verdict == Collapse.TOTAL


def test_labels_that_share_a_name_share_no_null() -> None:
    pool, labels = world().labelled(800, "names")
    first, again = (Judge(pool, Bins.of_labels(labels, names), "", 5) for names in ("abcdef", "bcdefg"))
    assert first.digest != again.digest
    assert first.digest == Judge(pool, Bins.of_labels(labels, "abcdef"), "", 5).digest


def test_lists_that_begin_inside_the_judged_part_are_read_to_their_end() -> None:
    """The first 24 neighbours of a vector may all be judged ones."""
    pool = torch.cat([torch.arange(40.0), 100 + torch.arange(40.0)])[:, None]
    judge = Judge(pool, Bins.of_labels(torch.arange(80) // 40), "line", splits=2)
    outside = torch.ones(80, dtype=torch.bool)
    outside[1:37] = False
    real = (judge.pool[:, None, 0] - judge.pool[None, outside, 0]).abs()
    wanted = real.sort(1).values[:, K]  # itself is first
    assert judge._reach(outside)[outside].tolist() == wanted[outside].tolist()


def test_copies_are_told_of_beside_what_is_missing() -> None:
    some = world().draw(300, "some", of=(0, 1, 2, 3))
    found = judged_of(torch.cat([some, some[:150]]))
    assert found.verdict == Collapse.SEVERE and "33% of the samples are copies of others" in found.reason
    few = judged_of(torch.cat([world().draw(80, "ten times")] * 10))
    assert few.verdict == Collapse.PARTIAL and "90% of the samples are copies of others" in few.reason


def test_of_too_many_samples_it_is_told_how_many_are_judged() -> None:
    found = judged_of(world().draw(1200, "many"))
    assert found.reason.endswith("800 of 1,200 samples are judged, half as many as there are real ones")
    assert "are judged" not in judged_of(world().draw(800, "many")).reason


def test_copies_withhold_none() -> None:
    half = world().draw(200, "copied")
    found = judged_of(torch.cat([half, half]))
    assert (found.verdict, found.duplicates) == (Collapse.INCONCLUSIVE, 0.5)
    assert "copies" in found.reason


def test_too_few_samples_are_told_how_many_would_decide() -> None:
    many = made_world(16, 8, 3000)
    found = many.judge.judge(many.draw(120, "few"))
    assert found.verdict == Collapse.INCONCLUSIVE
    open_ = [row["real"] for row in found.bins if row["state"] != "present"]
    assert f"{needed(16, min(open_)):,} samples that look real would decide" in found.reason
    assert found.missing_low == 0 and found.missing_high > 0.02
    enough = many.judge.judge(many.draw(needed(16) + 200, "enough"))
    assert "would decide" not in enough.reason and enough.missing_high <= 0.02


def test_thinned_classes_are_found_or_left_open() -> None:
    """A class with a tenth of its share is missing by the definition, and with a half of it is not."""
    samples, labels = world().labelled(4000, "thin")
    chance = torch.rand(4000, generator=noise.generator("chance"))
    found = judged_of(samples[(labels != 2) | (chance < 0.05)][:700])
    assert found.verdict == Collapse.PARTIAL and missing(found) == {"cat"}
    half = judged_of(samples[(labels != 2) | (chance < 0.6)][:700])
    assert half.verdict not in FOUND


class Digits(NamedTuple):
    """The digits as their classifier sees them."""

    judge: Judge
    features: FeatureStore
    train: Images
    vectors: Tensor
    labels: Tensor


@pytest.fixture(scope="module")
def digits(judged: Judged) -> Digits:
    data = judged.dataset
    features = FeatureStore(data, cache=judged.cache, weights=WeightsPolicy(), device="cpu", say=lambda text: None)
    train, reference, holdout = data.load("train"), data.load("reference"), data.load("holdout")
    assert train.labels is not None and reference.labels is not None and holdout.labels is not None
    pool = torch.cat([features.real("classifier", split).vectors for split in (reference, holdout)])
    judge = Judge(pool, Bins.of_labels(torch.cat([reference.labels, holdout.labels])), "digits", splits=SPLITS)
    return Digits(judge, features, train, features.real("classifier", train).vectors, train.labels)


def test_a_real_classifier_sees_what_is_dropped(digits: Digits) -> None:
    order = torch.randperm(len(digits.vectors), generator=noise.generator("digits"))
    made, labels = digits.vectors[order], digits.labels[order]
    assert digits.judge.judge(made[:400]).verdict not in FOUND
    lacking = digits.judge.judge(made[(labels != 3) & (labels != 8)][:400])
    assert {"3", "8"} >= missing(lacking) and lacking.verdict in FOUND


def test_noisy_pictures_are_blurred_and_lack_nothing(digits: Digits) -> None:
    """To the classifier noisy fours are no fours: what is empty in its features may be there all the same."""
    pixels = digits.train.unit()
    said = []
    for draw in range(4):
        noisy = pixels + 0.2 * torch.randn(pixels.shape, generator=noise.generator("pixels", draw))
        made = digits.features.made("classifier", Images(noisy.clamp(0, 1))).vectors
        order = torch.randperm(len(made), generator=noise.generator("noisy", draw))
        said += [digits.judge.judge(made[order[first:][:400]]) for first in (0, 400)]
    assert not FOUND & {each.verdict for each in said}


def test_an_empty_bin_with_samples_near_it_is_not_missing() -> None:
    judge, kept = world().judge, world().draw(400, "sharp", of=(0, 1, 2, 3, 4)).double()
    near = torch.cat([kept, world().draw(60, "near", of=(5,)).double()])
    for around, state in ((kept, "missing"), (near, "undecided")):
        hits, around_it = (torch.bincount(judge.bins_of(each), minlength=6).tolist() for each in (kept, around))
        rows, _ = judge._rows(_Counted(len(kept), hits, around_it, [None] * 6))
        assert [row["state"] for row in rows] == ["present"] * 5 + [state]


# ---- what cannot be judged


def test_what_cannot_be_judged_is_refused() -> None:
    good = world().draw(100, "good")
    bad = good.clone()
    bad[3, 2], bad[7, 0], bad[7, 1] = math.nan, math.inf, math.nan
    for made, words in (
        (good[:19], "19 samples say nothing of a collapse: give at least 20"),
        (bad, "2 of 100 samples hold NaN or infinity"),
        (good[:, :5], r"generated vectors are \[100, 5\], and real ones \[m, 8\]"),
        (good[0], r"generated vectors are \[8\]"),
        (good[:0], "0 samples say nothing"),
    ):
        with pytest.raises(ValueError, match=words):
            judged_of(made)
    with pytest.raises(ValueError, match="a pool of 39 real samples is too small: at least 40 are needed"):
        Judge(good[:39], Bins.of_labels(torch.arange(39) % 2), "tiny")
    with pytest.raises(ValueError, match="2 of 100 real samples hold NaN or infinity"):
        Judge(bad, Bins.of_labels(torch.arange(100) % 2), "bad")
    with pytest.raises(ValueError, match="the bins of 99 real samples are given, and there are 100"):
        Judge(good, Bins.of_labels(torch.arange(99) % 2), "short")
    small = Judge(good[:40], Bins.of_labels(torch.arange(40) % 2), "small", splits=5)
    assert small.judge(good[40:]).n == 20  # half of the pool
