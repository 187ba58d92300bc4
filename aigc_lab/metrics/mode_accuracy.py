"""Label accuracy of points on known modes: the share whose nearest mode is the one that was asked for."""

from typing import ClassVar

from aigc_lab.data.base import Dataset
from aigc_lab.metrics import base
from aigc_lab.metrics.shared import classes
from aigc_lab.metrics.shared.accuracy import Sorted, accuracy_scores
from aigc_lab.samples import Samples
from aigc_lab.statistics.neighbours import assign


class ModeAccuracy(base.Metric):
    """`mode_accuracy`: share of generated points whose nearest mode has the number of the class that they were asked
    for as, with its exact interval; no classifier is needed. Its floor is that of as many real points: a ceiling here,
    since higher is better.

    `mode_accuracy_worst` is that of the least accurate class, among those with at least 20 points. Its interval holds
    for all classes together.
    """

    needs: ClassVar[frozenset[base.Need]] = frozenset({"labels"})

    @property
    def gives(self) -> dict[str, base.Better]:
        return {"mode_accuracy": "higher", "mode_accuracy_worst": "higher"}

    def check(self, dataset: Dataset, samples: int) -> None:
        self._check(dataset, samples)

    def check_given(self, evidence: base.Evidence, samples: int) -> None:
        self._check(evidence.dataset, samples, classes.number_asked(evidence))

    def _check(self, dataset: Dataset, samples: int, asked: int | None = None) -> None:
        if dataset.modes is None:
            raise ValueError(f"it needs known modes, and dataset {dataset.name} has none")
        if dataset.shape.classes != len(dataset.modes.centres):
            raise ValueError(f"dataset {dataset.name} has no class for each of its {len(dataset.modes.centres)} modes")
        classes.check(dataset, samples, asked)

    def scores(self, evidence: base.Evidence) -> list[base.Score]:
        modes = evidence.dataset.modes
        assert modes is not None

        def sort(samples: Samples | base.Part) -> Sorted:
            whole = samples.samples if isinstance(samples, base.Part) else samples
            points = whole.canonical()
            assert points.labels is not None
            return assign(points.values.cpu().double(), modes.centres.double()), points.labels.cpu()

        details = *classes.asked(evidence), f"worst-of:{classes.FEWEST}"
        return accuracy_scores(self, evidence, self.signature(evidence, *details), sort)
