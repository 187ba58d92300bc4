"""What a metric of one's own need not say: knobs, names of scores, which samples it accepts, a mean's interval."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab import plugins
from aigc_lab.config import Strict
from aigc_lab.contracts.metrics import Case
from aigc_lab.data.digits import Digits
from aigc_lab.data.ring import Ring
from aigc_lab.errors import UsageError
from aigc_lab.host.weights import PUBLISHED
from aigc_lab.metrics.base import Metric
from aigc_lab.scoring.feature_store import FeatureStore

SHORT = """
from aigc_lab.metrics.base import Metric
from aigc_lab.samples import Modality

class Ink(Metric):
    def scores(self, evidence):
        return self.mean_scores(evidence, lambda images: images.unit().flatten(1).mean(1))
"""
DIGITS, RING = Digits(Digits.Config(), Path()), Ring(Ring.Config(points=300), Path())


def metric(folder: Path, *lines: str) -> Metric:
    path = folder / "ink.py"
    path.write_text(SHORT.replace("    def scores", "".join(f"    {line}\n" for line in lines) + "    def scores"))
    kind = plugins.find(Metric, str(path))  # type: ignore[type-abstract]
    return kind(kind.Config())


def case(of: Metric, folder: Path) -> Case:
    store = FeatureStore(DIGITS, cache=folder, weights=PUBLISHED, device="cpu", say=lambda text: None)
    return Case.of(of, DIGITS, store, 100)


def test_scores_alone_make_a_metric(tmp_path: Path) -> None:
    short = metric(tmp_path)
    assert type(short).Config is Strict
    assert short.gives == {"ink": "higher"}
    assert short.describing() == {"ink"}
    for dataset in (DIGITS, RING):
        short.check(dataset, 20)
        with pytest.raises(ValueError, match="^19 samples say little: it needs at least 20$"):
            short.check(dataset, 19)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_direction_makes_an_objective(tmp_path: Path, better: str) -> None:
    directed = metric(tmp_path, f'better = "{better}"')
    assert directed.gives == {"ink": better}
    assert directed.describing() == frozenset()
    assert case(directed, tmp_path).of_real["ink"].better == better


def test_what_it_says_itself_counts(tmp_path: Path) -> None:
    said = metric(tmp_path, 'gives = {"a": "lower", "b": "higher"}', 'describes = frozenset({"b"})', "fewest = 50")
    assert said.describing() == {"b"}
    with pytest.raises(ValueError, match="at least 50"):
        said.check(DIGITS, 49)
    with pytest.raises(ValueError, match=r"gives one score, and \['a', 'b'\] are declared"):
        _ = case(said, tmp_path).of_real
    of_images = metric(tmp_path, "modality = Modality.IMAGES")
    of_images.check(DIGITS, 20)
    with pytest.raises(ValueError, match="^it is of images, and dataset ring holds points"):
        of_images.check(RING, 20)


def test_a_mean_has_the_interval_of_a_mean_and_the_floor_of_real_samples(tmp_path: Path) -> None:
    score = case(metric(tmp_path), tmp_path).of_real["ink"]
    values = DIGITS.load("train").values[:100].double().flatten(1).mean(1) / 255
    margin = 1.959964 * values.std().item() / math.sqrt(100)
    assert score.value == pytest.approx(values.mean().item(), rel=1e-6)
    assert (score.low, score.high) == pytest.approx((score.value - margin, score.value + margin), rel=1e-5)
    every: Any = torch.cat([DIGITS.load("reference").values, DIGITS.load("holdout").values]).double()
    assert score.floor == pytest.approx(every.mean().item() / 255, rel=0.05)
    assert score.n == 100


def test_a_metric_without_scores_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text(SHORT.replace("def scores", "def score"))
    with pytest.raises(UsageError, match=r"Ink lacks scores\(self, evidence\); see aigc_lab.metrics.base.Metric"):
        plugins.find(Metric, str(path))  # type: ignore[type-abstract]
