"""Base of metrics of sentences: reading of corpora, and intervals of means and ratios. Without torch."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from aigc_lab.metrics import base
from aigc_lab.shape import Modality
from aigc_lab.statistics.intervals import GROUPS, T95_OF_GROUPS, Z95, clopper_pearson, jackknife_error
from aigc_lab.text.corpus import Corpus, Ints
from aigc_lab.text.tokenizer import named

Floats = npt.NDArray[np.float64]
# Repeats below which a group jackknife is unreliable.
_FEW = 10
# Value, and the ends of its 95 % interval.
Interval = tuple[float, float, float]


def corpus_of(samples: Any) -> Corpus:
    """Corpus of `Text`, of a `Part` of it, or of a corpus, which is returned as it is."""
    samples = samples.samples if isinstance(samples, base.Part) else samples
    return samples if isinstance(samples, Corpus) else samples.corpus


class TextMetric(base.Metric):
    """Metric of sentences. `least` is the smallest number of generated sentences that it can be computed of; a protocol
    has `fewest`.

    A metric that is `paired` compares line i with the reference's line i: blank lines keep their place, and both sides
    need equally many lines.
    """

    modality = Modality.TEXT
    least: ClassVar[int] = 1
    paired: ClassVar[bool] = False

    def signature(self, evidence: base.Evidence, *details: str) -> str:
        tokenizer = corpus_of(evidence.real.reference).tokenizer
        return super().signature(evidence, *details, f"tok:{named(tokenizer)}")

    def score(
        self, name: str, of: Interval, n: int, floor: float, signature: str, within: tuple[float, float] = (0.0, 1.0)
    ) -> base.Score:
        """Score with its interval clipped to the range `within` of its values."""
        value, low, high = of
        return base.Score(name, value, max(low, within[0]), min(high, within[1]), n, floor, signature, self.gives[name])


def mean_of(values: Floats) -> Interval:
    """Mean of values [N] with ±1.96 standard errors; an infinite interval for one value."""
    mean = float(values.mean())
    margin = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return mean, mean - margin, mean + margin


def ratio_of(sums: Floats, counts: Ints | Floats) -> Interval:
    """Ratio Σ sums / Σ counts over sentences [N], with ±1.96 standard errors of the linearised ratio."""
    value = float(sums.sum() / counts.sum())
    residual = (sums - value * counts) / counts.mean()
    margin = Z95 * float(residual.std(ddof=1)) / math.sqrt(len(sums)) if len(sums) > 1 else math.inf
    return value, value - margin, value + margin


def groups_of(count: int) -> Ints:
    """Group of each of `count` sentences [count], a seeded choice: 20 groups whose sizes differ by at most one, or
    `count` groups if that is less.
    """
    return np.random.default_rng(0).permutation(count) % min(GROUPS, count)


def jackknifed(value: float, without: Floats | None) -> Interval:
    """Value of a corpus with the 95 % interval of a delete-group jackknife.

    `without` [G] are the values without each group of `groups_of`; None gives an infinite interval.
    """
    if without is None:
        return value, -math.inf, math.inf
    margin = _quantile(len(without)) * jackknife_error(without)
    return value, value - margin, value + margin


def share_jackknifed(different: int, total: int, without: Floats | None) -> Interval:
    """Share different / total with the interval of `jackknifed`.

    If fewer than 10 items repeat another, the groups say too little (coverage is 25 % at 0.3 repeats): the interval is
    then no narrower than Clopper and Pearson's.
    """
    value, low, high = jackknifed(different / total, without)
    if total - different >= _FEW:
        return value, low, high
    least, most = clopper_pearson(different, total)
    return value, min(low, least), max(high, most)


def _quantile(groups: int) -> float:
    """97.5 % quantile of Student's t with `groups` − 1 degrees of freedom."""
    if groups == GROUPS:
        return T95_OF_GROUPS
    from scipy.special import stdtrit

    return float(stdtrit(groups - 1, 0.975))
