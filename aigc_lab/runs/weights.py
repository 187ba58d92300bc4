"""The weights of a run that outlive it, and those that it samples from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from aigc_lab.host.files import sha256
from aigc_lab.registry.records import StoredCheckpoint
from aigc_lab.runs.record import Record
from aigc_lab.systems.base import System
from aigc_lab.training import checkpoint


@dataclass
class Selected:
    """The weights of the best evaluation so far, its step, and the objective there."""

    step: int
    value: float
    weights: dict[str, Tensor]


def copied(system: System) -> dict[str, Tensor]:
    """The weights and buffers of a system, as copies."""
    return {key: tensor.detach().clone() for key, tensor in system.state_dict().items()}


@contextmanager
def sampling_from(system: System, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """Puts other weights into a system within, and its own back afterwards; None leaves it as it is."""
    if weights is None:
        yield
        return
    own = copied(system)
    system.load_state_dict(weights)
    try:
        yield
    finally:
        system.load_state_dict(own)  # an interruption may come here, and stores the state


def keep(
    record: Record, folder: Path, run: str, system: System, weights: dict[str, Tensor], kind: str, step: int
) -> None:
    """Writes the weights of a step as `<kind>.safetensors`, and records the file; equal ones share one."""
    path, checkpoints = folder / f"{kind}.safetensors", record.checkpoints
    facts, same = {"run": run, "step": step}, [Path(stored.path) for stored in checkpoints.values()]
    record.outbox.add(*checkpoint.save_weights(system, weights, path, facts, same))
    checkpoints[kind] = StoredCheckpoint(kind, step, str(path), sha256(path), path.stat().st_size)
