"""No run is stopped."""

from collections.abc import Sequence

from aigc_lab.config import Better
from aigc_lab.pruners.base import Curve, Pruner


class NoPruner(Pruner):
    """Every run of the search is trained to its end."""

    idle = True

    def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
        return False
