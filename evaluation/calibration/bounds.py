"""What is promised of how often a verdict is wrong, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """What is promised of a share, and what came of it."""

    what: str
    share: float
    least: float = 0.0
    most: float = 1.0

    @property
    def kept(self) -> bool:
        return self.least <= self.share <= self.most

    def __str__(self) -> str:
        promise = f"≥ {self.least:.0%}" if self.least else f"≤ {self.most:.0%}"
        return f"{self.what:66} {self.share:7.2%}  {promise:>6}{'' if self.kept else '   NOT KEPT'}"


def share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(len(flags), 1)
