"""The median rule (Golovin et al. 2017): stops what is worse than most runs of its system at this step."""

import math
from collections.abc import Sequence

import numpy as np

from aigc_lab.config import Better
from aigc_lab.pruners.base import Curve, Pruner

_FINISHED = 2


class Median(Pruner):
    """A run stops whose best value so far is worse than the median, at its last step, of the finished runs of its
    system; not before a quarter of the training, nor before two of them. The rule of Optuna's `MedianPruner`.
    """

    reason = "worse than the median of its system at this step"

    def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
        finished = [other.values for other in others if other.finished]
        step = max(run.values, default=-1)
        if len(finished) < _FINISHED or step < 0 or step < self.steps // 4:
            return False
        values = np.array(list(run.values.values()), dtype=float)
        best = float(np.nanmin(values) if better == "lower" else np.nanmax(values))
        if math.isnan(best):
            return True
        theirs = np.array([values[step] for values in finished if step in values], dtype=float)
        median = float(np.nanpercentile(theirs, 50)) if len(theirs) else math.nan
        # False where the median is NaN, as it is of nothing.
        return best > median if better == "lower" else best < median
