"""A system under test with real samples of its shape, and the variants of its options that are tested."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic.fields import FieldInfo
from torch import Tensor, nn

from aigc_lab import noise, plugins
from aigc_lab.data.shared.batches import Batches
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape
from aigc_lab.systems.base import Loss, Phase, System
from aigc_lab.training.captured import as_ever
from aigc_lab.training.loop import train_one
from aigc_lab.training.state import Progress, TrainingState

BATCH = 12


@dataclass(frozen=True)
class Case:
    """A system with some of its options, and real samples to train it on for a few steps."""

    kind: type[System]
    shape: Shape
    samples: Samples
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> Any:
        return self.kind.Config(**self.options)

    def fresh(self, *, seed: int = 0, **options: Any) -> TrainingState:
        config = self.kind.Config(**(dict(self.options) | options)) if options else self.config
        return TrainingState.fresh(self.kind, config, self.shape, seed=seed, batch_size=BATCH, device="cpu")

    def batches(self, seed: int = 0) -> Batches:
        return Batches(self.samples, BATCH, seed)

    def run(
        self, state: TrainingState, steps: int, *, seed: int = 0, every: int = 1, decay: float = 0.9, **options: Any
    ) -> Iterator[Progress]:
        """A training of so few steps that to record them as programs would take most of its time: `programs` asks."""
        ever = nullcontext if options.pop("programs", False) else as_ever
        options |= {"steps": steps, "every": every, "decay": decay, "precision": "fp32"}
        course = train_one(state, self.batches(seed), seed=seed, **options)
        while True:
            with ever():
                progress = next(course, None)
            if progress is None:
                return
            yield progress

    def finished(self, state: TrainingState, steps: int, **options: Any) -> TrainingState:
        for _ in self.run(state, steps, **options):
            pass
        return state

    def loss(self, phase: Phase, number: int, step: int = 0) -> Loss:
        """The phase's loss on one batch, with noise of its own."""
        return phase.loss(self.batches()[number], drawn(phase, number), step)


def variants(kind: type[System], shape: Shape) -> Iterator[dict[str, Any]]:
    """The options that a system's Config offers for a shape: its defaults, each other value of each choice and switch,
    two critic steps, two samples packed.
    """
    yield {}
    fields = getattr(kind.Config, "model_fields", {})
    choices = {name: _choices(info) for name, info in fields.items()}
    choices |= {name: (2,) for name in ("n_critic", "packing") if name in fields}
    for name, values in choices.items():
        for value in values:
            if value != fields[name].default and _possible(kind, shape, {name: value}):
                yield {name: value}


def _choices(info: FieldInfo) -> tuple[Any, ...]:
    if info.annotation is bool:
        return (False, True)
    if named := plugins.named(info):
        # No loss depends on the optimiser, whose own contracts test its updates.
        return () if named.folder == "optimizers" else tuple(named.options)
    return get_args(info.annotation) if get_origin(info.annotation) is Literal else ()


def _possible(kind: type[System], shape: Shape, options: Mapping[str, Any]) -> bool:
    """Whether the system accepts these options for the shape; what it refuses with `ValueError` is no variant."""
    try:
        with torch.device("meta"):
            kind(kind.Config(**options), shape).phases(BATCH)
    except ValueError:
        return False
    except Exception:  # noqa: BLE001 -- the contracts will tell
        return True
    return True


def drawn(phase: Phase, *key: int) -> dict[str, Tensor]:
    return {name: noise.draw(what, *key, name) for name, what in phase.noise.items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in tensors.items()}


def differing(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    return [key for key, value in before.items() if not torch.equal(value, after[key])]


@contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aigc-lab-check-") as folder:
        yield Path(folder)


def listed(names: list[str]) -> str:
    """The first three names, and the number of the others: "a, b, c and 2 more"."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
