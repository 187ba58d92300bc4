"""What classifiers learn of generated samples: who learns what, the labels, and the intervals by enumeration."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_lab.data.digits import Digits
from aigc_lab.extractors.shared.small_classifier import fit
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.metrics import cas
from aigc_lab.metrics.base import Real, Score
from aigc_lab.metrics.cas import CAS, accuracy_interval, gain_interval
from aigc_lab.noise import Draw
from aigc_lab.samples import Images, Samples
from aigc_lab.scoring.evidence import score
from aigc_lab.scoring.feature_store import FeatureStore
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System

DATASET = Digits(Digits.Config(), Path())
TRAIN, REFERENCE, HOLDOUT = (DATASET.load(split).take(slice(0, 120)) for split in ("train", "reference", "holdout"))


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Samples, int, int]]:
    """What classifiers were trained on, for how many steps, with which seed. Each then names a digit rightly where its
    number is below the size of what it has learned, plus its seed.
    """
    asked: list[tuple[Samples, int, int]] = []

    class Knows(torch.nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.count = count

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            known = torch.arange(len(images)) < self.count // 4
            labels = truth[tuple(images.flatten().tolist())]
            return images, torch.nn.functional.one_hot(torch.where(known, labels, (labels + 1) % 10), 10)

    tested = (REFERENCE, HOLDOUT)
    truth = {tuple(each.values.flatten().tolist()): torch.as_tensor(each.labels) for each in tested}

    def train(samples: Samples, shape: Shape, steps: int, *, seed: int = 0) -> torch.nn.Module:
        asked.append((samples, steps, seed))
        return Knows(len(samples) + 8 * seed)

    monkeypatch.setattr(cas, "fit", train)
    return asked


REAL = Real(REFERENCE, HOLDOUT.take(slice(0, 80)), REFERENCE, TRAIN)


def scored(metric: CAS, generated: Samples, real: Real = REAL) -> dict[str, Score]:
    store = FeatureStore(DATASET, cache=Path(), weights=WeightsPolicy(), device="cpu")
    return {each.name: each for each in score([metric], generated, real, DATASET, store, "reference")}


def test_who_learns_what_and_is_tested_on_what(learned: list[tuple[Samples, int, int]]) -> None:
    metric = CAS(CAS.Config(steps=11, seeds=3))
    generated = DATASET.load("train").take(slice(200, 300))
    found = scored(metric, generated)
    assert [(len(samples), steps, seed) for samples, steps, seed in learned[::3]] == [
        (80, 11, 0),
        (120, 11, 0),
        (200, 11, 0),
        (100, 11, 0),
        (220, 11, 0),
    ]
    assert [seed for *_, seed in learned[:3]] == [0, 1, 2]
    both = learned[-1][0]
    assert torch.equal(both.values, torch.cat([TRAIN.values, generated.values]))
    # Of 120 digits: 25, 27 and 29 after 100 generated ones, 20 … 24 after 80 real, 25 more after both than after train.
    assert found["cas_accuracy"].value == pytest.approx(27 / 120)
    assert found["cas_accuracy"].floor == pytest.approx(22 / 120)
    assert found["augmentation_gain"].value == pytest.approx(25 / 120)
    assert found["augmentation_gain"].floor == pytest.approx(20 / 120)
    assert {each.n for each in found.values()} == {100}
    # What real samples teach is not asked again for the next run's samples; of other real samples it is.
    learned.clear()
    assert scored(metric, generated) == found and len(learned) == 6
    learning = metric.learning(DATASET)
    assert (learning.networks, learning.steps) == (len(learned), learned[-1][1])  # as the estimate of a sweep has it
    scored(metric, generated, Real(REFERENCE, HOLDOUT, REFERENCE, TRAIN))
    assert len(learned) == 6 + 15


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("generated", "cas needs labels, and the generated samples"),
        ("reference", "cas needs labels, and the reference samples"),
        ("train", "cas needs labels, and the train samples"),
        ("nothing", "cas needs what the generator was trained on"),
        ("ten", r"labels of 10 classes are 0 … 9, not 0 … 10"),
    ],
)
def test_labels_that_are_missing_or_wrong_are_refused(learned: list[Any], part: str, said: str) -> None:
    bare = Images(TRAIN.values)
    generated = {"generated": bare, "ten": Images(TRAIN.values, torch.arange(120) % 11)}.get(part, TRAIN)
    train = {"train": bare, "nothing": None}.get(part, TRAIN)
    reference = Images(REFERENCE.values) if part == "reference" else REFERENCE
    with pytest.raises(ValueError, match=said):
        scored(CAS(CAS.Config(steps=10)), generated, Real(reference, HOLDOUT, REFERENCE, train))


def at_least(hits: int, trials: int, chance: float) -> float:
    """P(X ≥ hits), summed."""
    return sum(math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(hits, trials + 1))


def test_an_accuracys_interval_holds_the_chance_of_samples_and_seeds() -> None:
    alike = torch.zeros(4, 200, dtype=torch.float64)
    alike[:, :150] = 1
    value, low, high = accuracy_interval(alike)
    assert value == 0.75
    assert at_least(150, 200, low) == pytest.approx(0.025) == 1 - at_least(151, 200, high)
    unlike = alike.clone()
    unlike[0, 150:170], unlike[1, 130:150] = 1, 0
    value, wider, higher = accuracy_interval(unlike)
    assert value == 0.75 and wider < low - 0.02 and higher > high + 0.02
    value, low, high = accuracy_interval(torch.ones(2, 200, dtype=torch.float64))
    assert value == high == 1 and low**200 == pytest.approx(0.025)


def test_a_gains_interval_covers_it() -> None:
    """Paired draws of a known gain: about 95 % of the intervals hold it, and no difference seen is not none proved."""
    source, truth, hits = torch.Generator().manual_seed(1), 0.04, 0
    for _ in range(400):
        chance = torch.rand(300, generator=source, dtype=torch.float64)
        # 7 % of the pictures are gained and 3 % lost, the same for each of the three seeds.
        difference = (chance < 0.07).double() - (chance > 0.97).double()
        _, low, high = gain_interval(difference.expand(3, -1))
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.985
    value, low, high = gain_interval(torch.zeros(2, 300, dtype=torch.float64))
    assert value == 0 and 0.004 < high == -low < 0.02


def test_another_seed_is_another_classifier_and_the_same_is_the_same() -> None:
    few = TRAIN.take(slice(0, 20))
    one, again, other = (fit(few, DATASET.shape, 10, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    # Further than ten steps lead: it began elsewhere.
    assert (one["head.weight"] - other["head.weight"]).abs().max() > 0.1


class Drawing(System):
    """Draws pictures; of the class that it is asked for, where it is conditional."""

    modality = Modality.IMAGES

    def __init__(self) -> None:
        super().__init__(None, DATASET.shape)
        self.net = torch.nn.Linear(1, 1)

    def phases(self, batch_size: int) -> list[Any]:
        return []

    def samplers(self) -> list[torch.nn.Module]:
        return [self.net]

    def latents(self, count: int) -> Draw:
        return Draw((count, 256))

    def sample(self, latents: Tensor, *, labels: Tensor | None = None) -> Images:
        return Images(latents.reshape(-1, 1, 16, 16).clamp(0, 1))


@pytest.mark.parametrize("conditional", [True, False])
def test_samples_of_a_conditional_system_come_with_their_classes(
    conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drawing, "conditional", conditional)
    made, asked = Drawing().generate(25, block=10), Drawing().generate(25, block=10, labels=torch.full((25,), 3))
    if conditional:
        assert made.labels is not None and asked.labels is not None
        assert made.labels.tolist() == [*range(10), *range(10), *range(5)] and asked.labels.tolist() == [3] * 25
    else:
        assert made.labels is None and asked.labels is None
