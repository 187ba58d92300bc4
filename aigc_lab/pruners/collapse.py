"""The verdicts on a run: stops what has collapsed, and what has become much worse than it was."""

from collections.abc import Sequence

from aigc_lab.config import Better
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.verdicts.stability import first_alarm

# A generator that covers next to nothing (TOTAL) early in training may still learn: nothing is stopped for it before
# this share of the steps, nor for the samples of a single evaluation.
_GRACE = 0.25
_IN_A_ROW = 2
_GONE = "TOTAL"


class Collapse(Pruner):
    """A run stops on the stability verdict's online alarm, or when the samples of two evaluations in a row are judged
    TOTAL after a quarter of the training. It needs no other runs, and looks at no loss. SEVERE stops nothing: runs
    recover from it.
    """

    reason = "collapsed, or much worse than it has been"

    def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
        steps = sorted(run.values)
        latest = [step for step in steps if step >= _GRACE * self.steps][-_IN_A_ROW:]
        if len(latest) == _IN_A_ROW and all(run.verdicts.get(step) == _GONE for step in latest):
            return True
        errors = [run.errors.get(step) for step in steps] if run.errors else None
        return first_alarm(steps, [run.values[step] for step in steps], errors, better=better) is not None
