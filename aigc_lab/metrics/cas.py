"""Classification accuracy score: train on generated samples, test on real ones (Ravuri & Vinyals 2019)."""

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from aigc_lab.config import Strict, Times
from aigc_lab.data.base import Dataset
from aigc_lab.extractors.shared.small_classifier import BATCH, VERSION, fit
from aigc_lab.metrics import base
from aigc_lab.metrics.shared.classes import number_asked
from aigc_lab.samples import Images, Samples
from aigc_lab.shape import Modality, Shape
from aigc_lab.statistics.intervals import Z95, clopper_pearson


class CAS(base.Metric):
    """`cas_accuracy`: accuracy on the real reference of a classifier trained on labelled generated samples only. Its
    floor is the accuracy after as many real samples of another split: a ceiling here, since higher is better.

    `augmentation_gain`: accuracy after training and generated samples together, minus the accuracy after the training
    samples alone. Its floor is the gain by as many more real samples.

    Network and recipe are those of the `classifier` features. Every classifier sees the same number of images, whatever
    the size of its set, so a gain is not one of longer training. Accuracies are means over seeds. Intervals add two
    errors in squares: that of the real images (Clopper–Pearson; of a difference, Agresti & Min 2005) and that of the
    seeds (Student's t). An evaluation costs 2 trainings a seed, and 3 more of real samples, once.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"labels", "train"})
    draws = 2  # a training of each classifier each

    class Config(Strict):
        steps: Times = Field(200, ge=10, description=f"training steps of each classifier, {BATCH} images each")
        seeds: Times = Field(2, ge=2, description="classifiers of each kind")

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"cas_accuracy": "higher", "augmentation_gain": "higher"}

    def check(self, dataset: Dataset, samples: int) -> None:
        self._check(dataset, samples)

    def check_given(self, evidence: base.Evidence, samples: int) -> None:
        self._check(evidence.dataset, samples, number_asked(evidence))

    def _check(self, dataset: Dataset, samples: int, asked: int | None = None) -> None:
        classes = asked or dataset.shape.classes
        if dataset.shape.modality != Modality.IMAGES or classes is None:
            raise ValueError(
                f"a classification accuracy score needs labelled images, and dataset {dataset.name} holds "
                f"{dataset.shape}, {classes or 'no'} classes"
            )
        if samples < 10 * classes:
            raise ValueError(f"{classes} classes need at least {10 * classes} samples to learn from, not {samples}")

    def learning(self, dataset: Dataset) -> base.Learning:
        train, shape = _labelled(dataset.load("train"), dataset.shape), dataset.shape
        return base.Learning(2 * self.config.seeds, self.config.steps, lambda steps: fit(train, shape, steps))

    def meaningless(self, evidence: base.Evidence) -> dict[str, str]:
        return {"augmentation_gain": base.SEEN} if base.seen(evidence) else {}

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        real, shape, n = evidence.real, evidence.dataset.shape, len(evidence.generated)
        train, generated = real.train, evidence.generated
        assert train is not None
        signature = self.signature(
            evidence, f"{VERSION}:steps{self.config.steps}", f"seeds:{self.config.seeds}", f"train:{len(train)}"
        )

        def alone() -> Tensor:
            return self.of_real(evidence, signature, lambda: self._correct(train, real.reference, shape))

        def between(floor: base.Part, against: base.Part) -> dict[str, float]:
            accuracy = self._correct(floor.samples, against.samples, shape).mean().item()
            gain = -alone() + self._correct(_both(train, floor.samples), real.reference, shape)
            return {"cas_accuracy": accuracy, "augmentation_gain": gain.mean().item()}

        floors = self.floors(evidence, signature, between, used=lambda n, m: n)
        accuracy = self._correct(generated, real.reference, shape)
        gain = self._correct(_both(train, generated), real.reference, shape) - alone()
        return [
            base.Score(name, *interval, n, floors[name], signature, "higher")
            for name, interval in (
                ("cas_accuracy", accuracy_interval(accuracy)),
                ("augmentation_gain", gain_interval(gain)),
            )
        ]

    def _correct(self, learned: Samples, tested: Samples, shape: Shape) -> Tensor:
        """Correctness of each tested sample, float64 [seeds, m] of 0 and 1, for the classifier of each seed."""
        learned, tested = _labelled(learned, shape), _labelled(tested, shape)
        rows = []
        for seed in range(self.config.seeds):
            network = fit(learned, shape, self.config.steps, seed=seed).eval()
            with torch.inference_mode():
                named = torch.cat([network(part)[1].argmax(1) for part in torch.split(tested.values, 500)])
            assert tested.labels is not None
            rows.append(named.eq(tested.labels))
        return torch.stack(rows).double()


def _labelled(samples: Samples, shape: Shape) -> Samples:
    images, classes = samples.canonical().to("cpu"), shape.classes
    assert images.labels is not None and classes is not None
    if not bool(((images.labels >= 0) & (images.labels < classes)).all()):
        least, most = images.labels.aminmax()
        raise ValueError(f"labels of {classes} classes are 0 … {classes - 1}, not {int(least)} … {int(most)}")
    return images


def _both(a: Samples, b: Samples) -> Images:
    a, b = a.canonical().to("cpu"), b.canonical().to("cpu")
    assert a.labels is not None and b.labels is not None
    return Images(torch.cat([a.values, b.values]), torch.cat([a.labels, b.labels]))


def accuracy_interval(correct: Tensor) -> tuple[float, float, float]:
    """Mean accuracy of correctness [seeds, m], and the ends of its 95 % interval: the error of the samples and that of
    the seeds.
    """
    value, m = correct.mean().item(), correct.shape[1]
    # The exact interval of one classifier: the mean of several is no less certain.
    low, high = clopper_pearson(round(value * m), m)
    seeds = _seeds_margin(correct)
    below, above = math.hypot(max(value - low, 0.0), seeds), math.hypot(max(high - value, 0.0), seeds)
    return value, max(value - below, 0.0), min(value + above, 1.0)


def gain_interval(differences: Tensor) -> tuple[float, float, float]:
    """Mean of paired differences [seeds, m] in [−1, 1], and the ends of its 95 % interval as in `accuracy_interval`:
    errors of the samples and of the seeds.
    """
    value, each = differences.mean().item(), differences.mean(0)
    # Half an observation in each cell of the paired table: no difference at all among m samples is no proof of none.
    m = len(each) + 2
    variance = (each.square().sum().item() + 1) / m - (each.sum().item() / m) ** 2
    margin = math.hypot(Z95 * math.sqrt(variance / m), _seeds_margin(differences))
    return value, value - margin, value + margin


def _seeds_margin(values: Tensor) -> float:
    from scipy.special import stdtrit  # scipy.stats says the same, and takes seconds to import

    seeds = len(values)
    return float(stdtrit(seeds - 1, 0.975)) * values.mean(1).std().item() / math.sqrt(seeds)
