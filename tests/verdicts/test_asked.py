"""What a conditional system draws for each class that it is asked for, said beside the verdict on collapse."""

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import Judged
from scipy import stats
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.config import Strict
from aigc_lab.data.base import Dataset, Split
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.class_shares import apportioned, generate_like, labels_for, labels_like
from aigc_lab.evaluate import judge
from aigc_lab.experiment.protocol import Protocol
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics.fd import FD
from aigc_lab.metrics.modes import ModeCount
from aigc_lab.noise import Draw
from aigc_lab.samples import Images, Points, Samples
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.verdicts import wording
from aigc_lab.verdicts.asked_words import sentence
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict


@pytest.fixture
def evaluator(judged: Judged) -> Evaluator:
    store = FeatureStore(judged.dataset, cache=judged.cache, weights=WeightsPolicy(), device="cpu")
    protocol = Protocol(name="asked", samples=400, metrics=["any"])
    return Evaluator(protocol, [FD(FD.Config())], judged.dataset, store)


@pytest.fixture
def real(judged: Judged) -> Images:
    return judged.dataset.load("train").take(slice(0, 400))


def said(evaluator: Evaluator, samples: Samples) -> CollapseVerdict:
    verdict = evaluator.judge(samples)
    assert verdict is not None
    return verdict


def relabelled(samples: Images, to: dict[int, int]) -> Images:
    labels = cast(Tensor, samples.labels).clone()
    for before, after in to.items():
        labels[samples.labels == before] = after
    return replace(samples, labels=labels)


def test_an_honest_system_draws_what_it_is_asked_for(evaluator: Evaluator, real: Images) -> None:
    verdict = said(evaluator, real)
    assert verdict.verdict == Collapse.NONE
    told = (
        r"; every class that is asked for is drawn, in (\d+)% of its samples or more, as varied as real samples of it$"
    )
    found = re.search(told, verdict.reason)
    assert found is not None
    assert verdict.asked is not None and [row["name"] for row in verdict.asked] == list("0123456789")
    assert 0 <= min(row["drawn"] for row in verdict.asked) - int(found[1]) / 100 < 0.01
    sizes = torch.bincount(cast(Tensor, real.labels)).tolist()
    assert [row["n"] for row in verdict.asked] == sizes
    for row in verdict.asked:
        exact = stats.binomtest(round(row["drawn"] * row["n"]), row["n"]).proportion_ci(0.995, method="exact")
        assert (row["low"], row["high"]) == pytest.approx((exact.low, exact.high), abs=1e-9)
        assert row["drawn"] > 0.85 and row["real"] > 0.9 and row["mostly"] == row["name"]


def test_samples_without_labels_are_judged_as_before(evaluator: Evaluator, real: Images) -> None:
    labelled, bare = said(evaluator, real), said(evaluator, replace(real, labels=None))
    assert bare.asked is None and "asked" not in bare.reason
    assert labelled.reason.startswith(bare.reason)
    assert replace(labelled, asked=None, reason=bare.reason) == bare


def test_an_eight_for_a_three_is_said(evaluator: Evaluator, real: Images) -> None:
    """The samples of all classes together are the same."""
    verdict = said(evaluator, relabelled(real, {3: 8, 8: 3}))
    assert verdict.verdict == Collapse.NONE and verdict.asked is not None
    assert "asked for 3 it draws 8 (" in verdict.reason and "asked for 8 it draws 3 (" in verdict.reason
    assert [row["name"] for row in verdict.asked if row["state"] == "another"] == ["3", "8"]
    text = wording.of_collapse(verdict.as_dict())
    assert "  3: another, 0% [0%, " in text and ", 100% into 8, diversity" in text


def test_a_class_of_one_picture_is_said_by_name(evaluator: Evaluator, real: Images) -> None:
    fives, rows = (cast(Tensor, real.labels) == 5).nonzero().flatten(), torch.arange(400)
    rows[fives] = fives[0]
    verdict = said(evaluator, real.take(rows))
    assert verdict.verdict == Collapse.PARTIAL and "class 5 varies at most" in verdict.reason
    assert verdict.reason.endswith("asked for 5 it draws one thing over and over")
    assert verdict.asked is not None
    assert {row["name"]: row["variety"] for row in verdict.asked if row["variety"] != "varied"} == {"5": "one thing"}
    # Asked for as an 8 it is another class and one picture.
    both = said(evaluator, relabelled(real.take(rows), {5: 8, 8: 5}))
    assert "asked for 8 it draws 5 (100% of 35)" in both.reason and both.reason.endswith(
        "asked for 8 it draws one thing over and over"
    )


def test_few_samples_of_a_class_say_what_more_would_tell(evaluator: Evaluator, real: Images) -> None:
    verdict = said(evaluator, real.take(slice(0, 60)))
    assert "cannot be told (424 samples would tell more, and these are 60)" in verdict.reason


def test_noise_is_unmeasurable_whatever_it_was_asked_for(evaluator: Evaluator, real: Images) -> None:
    static = Images(noise.draw(Draw((400, 1, 16, 16)), "static").sigmoid(), real.labels)
    verdict = said(evaluator, static)
    assert verdict.verdict == Collapse.UNMEASURABLE and "asked" not in verdict.reason and verdict.asked is not None


def test_given_samples_are_asked_too(judged: Judged, real: Images) -> None:
    options: dict[str, Any] = {"cache": judged.cache, "device": "cpu", "features": "classifier"}
    verdict = judge(relabelled(real, {3: 8, 8: 3}), "digits", **options)
    assert "asked for 3 it draws 8 (" in verdict.reason
    assert judge(replace(real, labels=None), "digits", **options).asked is None


def test_modes_are_classes_where_labels_say_so(tmp_path: Path) -> None:
    ring = Ring(Ring.Config(points=4000), tmp_path)
    store = FeatureStore(ring, cache=tmp_path, weights=WeightsPolicy(), device="cpu")
    protocol = Protocol(name="asked", samples=800, metrics=["any"])
    evaluator = Evaluator(protocol, [ModeCount(ModeCount.Config())], ring, store)
    points = ring.load("train").take(slice(0, 800))
    assert "every class that is asked for is drawn" in said(evaluator, points).reason
    turned = replace(points, labels=(cast(Tensor, points.labels) + 1) % 8)
    assert "asked for 1 it draws 0 (100% of " in said(evaluator, turned).reason


def test_what_is_listed_is_no_longer_than_can_be_read() -> None:
    row = {"n": 40, "state": "another", "variety": "varied", "mostly": "0", "mostly_share": 0.3}
    text = sentence([row | {"name": str(number)} for number in range(1, 10)])
    assert text.endswith("and for 5 more classes others") and text.count("it draws") == 4
    assert text.startswith("asked for 1 it draws many others (0 most often, 30% of 40); ")
    # A class that is drawn too seldom may still be drawn more often than any other.
    assert sentence([row | {"name": "0"}]) == "asked for 0 it draws many others, and 0 in 30% of 40"


# ---- data of unequal classes


def test_samples_are_shared_out_by_largest_remainders() -> None:
    for counts, n, seats in (
        ([47_000, 16_000, 15_900, 12_000, 6_000, 3_100], 10, [5, 2, 1, 1, 1, 0]),  # Hamilton's method by hand
        ([1, 1, 1], 4, [2, 1, 1]),
        ([5, 0, 5], 3, [2, 0, 1]),
    ):
        assert apportioned(torch.tensor(counts), n).tolist() == seats
    for n in (1, 7, 400, 999):
        many = torch.randint(1, 1000, (13,), generator=torch.Generator().manual_seed(n))
        shared = apportioned(many, n)
        assert int(shared.sum()) == n and ((shared - many.double() * n / many.sum()).abs() < 1).all()


def test_equal_classes_are_asked_for_in_turn() -> None:
    equal = Points(torch.zeros(30, 2), torch.arange(30) % 3)
    assert torch.equal(labels_like(equal, 3, 7), torch.tensor([0, 1, 2, 0, 1, 2, 0]))
    unequal = Points(torch.zeros(10, 2), torch.tensor([0] * 5 + [1] * 3 + [2] * 2))
    labels = labels_like(unequal, 3, 1000)
    assert torch.bincount(labels).tolist() == [500, 300, 200] and torch.equal(labels, labels_like(unequal, 3, 1000))
    assert torch.bincount(labels[:500]).tolist() != [500]  # in no order that latents could follow


class Blobs(Dataset):
    """Ten Gaussians on a circle, of which the first holds six of ten points."""

    name = "blobs"

    @property
    def shape(self) -> Shape:
        return Shape(Modality.POINTS, (2,), classes=10)

    @lru_cache(maxsize=3)  # noqa: B019
    def load(self, split: Split) -> Points:
        count = 4000 if split == "train" else 1500
        source = noise.generator("blobs", split)
        chances = torch.tensor([0.6] + [0.4 / 9] * 9)
        labels = torch.multinomial(chances, count, replacement=True, generator=source)
        return Points(blobs(labels, torch.randn(count, 2, generator=source)), labels)


def blobs(labels: Tensor, normal: Tensor) -> Tensor:
    angles = labels * (2 * torch.pi / 10)
    return 8 * torch.stack([angles.cos(), angles.sin()], 1) + normal * torch.tensor([1.0, 0.3])


class Honest(System):
    """The law of the blobs, given the class."""

    modality = Modality.POINTS
    conditional = True

    class Config(Strict):
        pass

    def __init__(self, config: Any, shape: Shape) -> None:
        super().__init__(config, shape)
        self.unused = nn.Parameter(torch.zeros(1))

    def phases(self, batch_size: int) -> list[Any]:
        return []

    def samplers(self) -> list[nn.Module]:
        return []

    def latents(self, count: int) -> Draw:
        return Draw((count, 2))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Points:
        assert labels is not None
        return Points(blobs(labels, latents))


def test_an_honest_system_has_not_collapsed_beside_unequal_classes(tmp_path: Path) -> None:
    dataset, system = Blobs(Blobs.Config(), tmp_path), Honest(Honest.Config(), Shape(Modality.POINTS, (2,), classes=10))
    store = FeatureStore(dataset, cache=tmp_path, weights=WeightsPolicy(), device="cpu")
    protocol = Protocol(name="blobs", samples=1000, metrics=["any"])
    evaluator = Evaluator(protocol, [ModeCount(ModeCount.Config())], dataset, store)
    samples = evaluator.generate(system, 0, "evaluation", "reference")
    shares = torch.bincount(cast(Tensor, samples.labels)) / 1000
    assert shares[0] == pytest.approx(0.6, abs=0.03) and len(samples) == 1000
    assert said(evaluator, samples).verdict == Collapse.NONE
    # In turn, a tenth of them are of the class that holds six tenths: by its quarter that is missing.
    assert said(evaluator, system.generate(1000, 0, "evaluation", "reference")).verdict == Collapse.SEVERE


def test_unknown_shares_are_asked_for_in_turn() -> None:
    system = Honest(Honest.Config(), Shape(Modality.POINTS, (2,), classes=10))
    assert labels_for(system, None, 30) is None
    samples = generate_like(system, None, 30, 1)
    assert torch.equal(samples.values, system.generate(30, 1).values)
    assert torch.equal(cast(Tensor, samples.labels), torch.arange(30) % 10)
    system.conditional = False
    assert labels_for(system, Blobs(Blobs.Config(), Path()), 30) is None
