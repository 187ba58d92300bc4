"""Samples that were asked for some of the classes: these are judged, and real samples of these are their floor."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import Judged
from scipy import stats
from torch import Tensor

from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.evaluate import evaluate
from aigc_lab.host.weights import WeightsPolicy
from aigc_lab.samples import Points, Samples
from aigc_lab.scoring.feature_store import FeatureStore

ASKED = [2, 7]


def of_classes(samples: Samples, *numbers: int) -> Samples:
    labels = cast(Tensor, samples.labels)
    return samples.take(torch.isin(labels, torch.tensor(numbers)).nonzero().flatten())


def is_right(judged: Judged, samples: Samples) -> Tensor:
    """Whether the stored classifier sorts each sample into its class."""
    store = FeatureStore(judged.dataset, cache=judged.cache, weights=WeightsPolicy(), device="cpu")
    logits = store.extractor("classifier").extract(samples).logits
    assert logits is not None
    return logits.argmax(1) == cast(Tensor, samples.labels)


def scored(judged: Judged, made: Samples, *metrics: str, say: Any = lambda text: None) -> dict[str, Any]:
    scores = evaluate(
        made,
        (judged.dataset, "holdout"),
        metrics=metrics,
        features="classifier",
        device="cpu",
        cache=judged.cache,
        say=say,
    )
    return {score.name: score for score in scores}


def test_classes_that_were_asked_for_are_judged_beside_real_ones_of_them(judged: Judged) -> None:
    real = of_classes(judged.dataset.load("train"), *ASKED)
    right = real.take(is_right(judged, real).nonzero().flatten()[:60])
    labels = cast(Tensor, right.labels).clone()
    labels[(labels == 7).nonzero().flatten()[:3]] = 2
    said: list[str] = []
    scores = scored(judged, replace(right, labels=labels), "label_accuracy", "vendi", say=said.append)
    accuracy, worst = scores["label_accuracy"], scores["label_accuracy_worst"]
    exact = stats.binomtest(57, 60).proportion_ci(method="exact")
    assert (accuracy.value, accuracy.n) == (57 / 60, 60)
    assert (accuracy.low, accuracy.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    twos = int((labels == 2).sum())
    assert worst.value == pytest.approx((twos - 3) / twos) and worst.of_class == "2"
    # Of draws of 60 of these two classes the accuracy is that of all of them, but for chance.
    own = of_classes(judged.dataset.load("reference"), *ASKED), of_classes(judged.dataset.load("holdout"), *ASKED)
    share = torch.cat([is_right(judged, each) for each in own]).double().mean().item()
    assert accuracy.floor == pytest.approx(share, abs=0.03)
    assert f"|ref:holdout:{len(own[1])}|" in accuracy.signature and "|asked:2,7|" in accuracy.signature
    # What reads no labels is compared with all real samples, as ever.
    assert "|ref:holdout:400|" in scores["vendi_clf"].signature and "asked" not in scores["vendi_clf"].signature
    assert [text for text in said if "asked" in text] == [
        "label_accuracy: of 2 of 10 classes, those that were asked for (2, 7), beside real samples of these; "
        "left out: 0, 1, 3, 4, 5, 6, 8, 9"
    ]


def test_a_floor_is_of_the_same_classes(judged: Judged) -> None:
    """Of the class that the classifier gets wrong most often in real samples, and of the one it does best."""
    real = judged.dataset.load("holdout")
    right, labels = is_right(judged, real).double(), cast(Tensor, real.labels)
    shares = [right[labels == number].mean().item() for number in range(10)]
    hard, easy = min(range(10), key=shares.__getitem__), max(range(10), key=shares.__getitem__)
    assert shares[hard] < shares[easy]
    floors = [
        scored(judged, of_classes(judged.dataset.load("train"), number), "label_accuracy")["label_accuracy"].floor
        for number in (hard, easy)
    ]
    assert floors[0] < floors[1]


def test_scores_within_classes_are_of_those_alone(judged: Judged) -> None:
    real = of_classes(judged.dataset.load("train"), *ASKED).take(slice(0, 80))
    scores = scored(judged, real, "class_fd", "class_diversity")
    assert scores["class_fd_clf"].value < 2 * scores["class_fd_clf"].floor
    assert scores["class_fd_worst_clf"].of_class in ("2", "7")
    assert scores["class_diversity_clf"].value == pytest.approx(1, abs=0.35)
    assert all("|asked:2,7" in score.signature for score in scores.values())


def test_a_classifier_of_two_classes_is_tested_on_these(judged: Judged, tmp_path: Path) -> None:
    """Of all ten it could name a fifth at most."""
    protocol = tmp_path / "few.yaml"
    protocol.write_text("{samples: 40, metrics: [{cas: {steps: 20}}]}")
    real = of_classes(judged.dataset.load("train"), *ASKED).take(slice(0, 40))
    scores = evaluate(real, (judged.dataset, "holdout"), protocol=str(protocol), device="cpu", cache=judged.cache)
    accuracy = next(score for score in scores if score.name == "cas_accuracy")
    assert accuracy.low > 0.4 and accuracy.floor > 0.4 and "|asked:2,7" in accuracy.signature


def test_too_few_of_the_classes_that_were_asked_for_are_refused(judged: Judged) -> None:
    few = of_classes(judged.dataset.load("train"), *ASKED).take(slice(0, 39))
    with pytest.raises(UsageError, match="2 classes need at least 40 samples, 20 of each, not 39"):
        scored(judged, few, "label_accuracy")
    all_asked = judged.dataset.load("train").take(slice(0, 150))
    with pytest.raises(UsageError, match="10 classes need at least 200 samples"):
        scored(judged, all_asked, "label_accuracy")


def test_where_all_classes_were_asked_for_nothing_is_left_out(judged: Judged) -> None:
    said: list[str] = []
    made = judged.dataset.load("train").take(slice(0, 400))
    scores = scored(judged, made, "label_accuracy", say=said.append)
    assert "asked" not in scores["label_accuracy"].signature + "".join(said)


def test_points_of_two_modes(tmp_path: Path) -> None:
    ring = Ring(Ring.Config(points=2000), tmp_path)
    labels = torch.arange(60) % 2 + 3
    labels[0] = 5  # asked for as another, and in the third mode
    points = Points(ring.modes.centres[torch.arange(60) % 2 + 3], labels)
    scores = evaluate(points.take(slice(1, 60)), (ring, "holdout"), metrics=["mode_accuracy"], cache=tmp_path)
    assert {(score.value, score.n, score.floor) for score in scores} == {(1.0, 59, 1.0)}
    with pytest.raises(UsageError, match="3 classes need at least 60 samples"):
        evaluate(points.take(slice(0, 50)), (ring, "holdout"), metrics=["mode_accuracy"], cache=tmp_path)
