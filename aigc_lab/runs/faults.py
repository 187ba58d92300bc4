"""Whose fault an error in a run is, and what is recorded of it."""

import torch

from aigc_lab import plugins
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import signals
from aigc_lab.systems.base import System


def own_fault(error: BaseException) -> bool:
    """Whether an error is the run's own fault, and not an interruption, a user's mistake or a failing store, which the
    next run would meet too. A system may raise anything, `SystemExit` and even `KeyboardInterrupt`.
    """
    if isinstance(error, KeyboardInterrupt):
        return not signals.stop_requested() and plugins.raised(error) is not None
    return not isinstance(error, UsageError | Failure | GeneratorExit)


def reason_of(error: BaseException) -> str:
    """The reason that is recorded for a run that failed by this error."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory: {str(error).strip().partition(chr(10))[0] or type(error).__name__}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def broken_weight(system: System) -> str | None:
    """The name of the first weight that sampling uses and that is not finite; None where all are finite."""
    sampling = {id(weight) for module in system.samplers() for weight in module.parameters()}
    weights = [each for each in system.named_parameters() if id(each[1]) in sampling]
    if not weights:
        return None
    finite = torch.stack([weight.detach().isfinite().all() for _, weight in weights]).tolist()
    return next((name for (name, _), whole in zip(weights, finite, strict=True) if not whole), None)
