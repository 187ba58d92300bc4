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


# How torch and CUDA's libraries say it where they have no class for it.
_SAID = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory, of a GPU or of the host, was at its end."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


def reason_of(error: BaseException, batch_size: int | None = None) -> str:
    """The reason that is recorded for a run that failed by this error; memory that is at its end can be saved by a
    smaller batch than the run's `batch_size`.
    """
    if out_of_memory(error):
        said = str(error).strip().partition(chr(10))[0] or type(error).__name__
        remedy = f"; set training.batch_size to less than {batch_size}" if batch_size else ""
        return f"out of memory: {said}{remedy}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def broken_weight(system: System) -> str | None:
    """The name of the first weight that sampling uses and that is not finite; None where all are finite."""
    sampling = {id(weight) for module in system.samplers() for weight in module.parameters()}
    weights = [each for each in system.named_parameters() if id(each[1]) in sampling]
    if not weights:
        return None
    finite = torch.stack([weight.detach().isfinite().all() for _, weight in weights]).tolist()
    return next((name for (name, _), whole in zip(weights, finite, strict=True) if not whole), None)
