"""The stability verdict's alarm: stops what has become much worse than it was."""

from collections.abc import Sequence

from aigc_lab.config import Better
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.verdicts.stability import first_alarm


class Alarm(Pruner):
    """It needs no other runs. It goes by the values alone, without their standard errors: not before six evaluations.
    `collapse` takes what is known of these.
    """

    reason = "much worse than it has been"

    def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
        steps = sorted(run.values)
        return first_alarm(steps, [run.values[step] for step in steps], better=better) is not None
