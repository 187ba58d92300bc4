"""Pruners, one file each: rules that stop the hopeless runs of a search. An experiment names one as
`search: {pruner: median}`, or a file: `search: {pruner: ./mine.py}`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from aigc_lab import plugins
from aigc_lab.config import Better

#: a key that names a pruner: one that ships or is installed, or a file that ends in .py
Name = Annotated[str, plugins.Named("pruners"), AfterValidator(plugins.Named("pruners").check)]


@dataclass(frozen=True)
class Curve:
    """The objective of a trial by training step, up to now. `finished` is False for a trial that was pruned, has failed
    or still trains. `errors` are standard errors of the values, where they are known. `verdicts` are the collapse
    verdicts on the samples that were scored (`verdicts.conclusion.Collapse`), where they were judged. `number` is that
    of the trial in its sweep.
    """

    values: Mapping[int, float]
    finished: bool = False
    errors: Mapping[int, float] = field(default_factory=dict)
    verdicts: Mapping[int, str] = field(default_factory=dict)
    number: int = 0


class Pruner(ABC):
    """Says after each evaluation whether a run is to stop. Its answer is a function of what it is given: a resumed
    sweep must stop the runs that an uninterrupted one would have stopped.

    >>> class Hopeless(Pruner):
    ...     reason = "worse than 100"
    ...
    ...     def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
    ...         return better == "lower" and min(run.values.values()) > 100
    >>> Hopeless(steps=1000).stops(Curve({50: 120.0}), [], "lower")
    True
    """

    #: what is said of a run that it stopped
    reason: ClassVar[str] = "stopped by the pruner"
    #: whether it stops nothing at all, so that nothing need be read for it
    idle: ClassVar[bool] = False

    def __init__(self, steps: int) -> None:
        #: the training steps of a whole run
        self.steps = steps

    @abstractmethod
    def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
        """Whether the run is to stop after its last value. `others` are the other trials of its system, in order;
        across systems one would stop whatever learns more slowly.
        """
