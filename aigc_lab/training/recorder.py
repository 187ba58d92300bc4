"""Scalars of the steps of an interval: losses, dynamics and gradient norms, kept on the device."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aigc_lab.systems.base import Phase, System
from aigc_lab.training.optimizers import trained


class Diverged(ArithmeticError):
    """Divergence: a loss or a gradient that is not finite. `step` counts from 1; `tensor` names the first
    such value.
    """

    def __init__(self, step: int, tensor: str) -> None:
        super().__init__(f"{tensor} is not finite at step {step}")
        self.step = step
        self.tensor = tensor


class Recorder:
    """Row of scalars for each step, kept on the device; non-finite ones are detected and named when the rows are copied
    to the host.

    A row holds, for each phase in turn, the dynamics, the parts of its loss, the loss, and the norm of every gradient
    tensor. In that order the first non-finite entry is a cause, and those after it may be its consequences.
    """

    def __init__(self, system: System) -> None:
        self._parameters = list(system.parameters())
        self._of = {id(parameter): name for name, parameter in system.named_parameters()}
        self._names: list[str] = []
        self._phases: dict[str, list[int]] = {}
        self._row: list[Tensor] = []
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def record(
        self,
        phase: Phase,
        total: Tensor,
        parts: Mapping[str, Tensor],
        dynamics: Mapping[str, Tensor],
        gradients: tuple[Tensor, ...],
    ) -> None:
        """Adds the scalars of a phase to the row of the current step."""
        if not self._rows:
            parameters = trained(phase)
            self._names += [f"dynamics/{name}" for name in dynamics]
            self._names += [*(f"loss/{phase.name}/{name}" for name in parts), f"loss/{phase.name}/total"]
            self._names += [f"gradient of {self._of[id(parameter)]}" for parameter in parameters]
            norms = range(len(self._names) - len(parameters), len(self._names))
            self._phases.setdefault(f"dynamics/grad_norm/{phase.name}", []).extend(norms)
        self._row += [*dynamics.values(), *parts.values(), total, *torch._foreach_norm(gradients)]  # noqa: SLF001

    @torch.no_grad()
    def end_step(self) -> None:
        """Completes the row of the current step."""
        self._rows.append(torch.stack(self._row).float())  # of several types the widest holds each exactly
        self._row = []

    def dump(self) -> tuple[Tensor | None, dict[str, Any]]:
        """Rows of the interval so far [steps, names], None at its beginning, and the names of their columns as JSON
        data.
        """
        return torch.stack(self._rows) if self._rows else None, {"names": self._names, "phases": self._phases}

    def load(self, rows: Tensor | None, meaning: dict[str, Any]) -> None:
        """Restores the rows that `dump` returned."""
        device = next(iter(self._parameters)).device
        self._rows = [] if rows is None else list(rows.to(device))
        self._names, self._phases = list(meaning["names"]), {k: list(v) for k, v in meaning["phases"].items()}

    def collect(self, step: int) -> dict[str, float]:
        """Means over the interval that ends at `step`, after one copy to the host. Raises `Diverged` for non-finite
        values.
        """
        table = torch.stack(self._rows).double().cpu()
        self._rows = []
        if not torch.isfinite(table).all():
            row, column = (~torch.isfinite(table)).nonzero()[0].tolist()
            raise Diverged(step - len(table) + row + 1, self._names[column])
        values: dict[str, list[float]] = {}
        for name, mean in zip(self._names, table.mean(0).tolist(), strict=True):
            if not name.startswith("gradient of "):
                values.setdefault(name, []).append(mean)
        scalars = {name: math.fsum(means) / len(means) for name, means in values.items()}
        for name, columns in self._phases.items():
            # The norm of each step's whole gradient, over the repeats of the phase, averaged over the interval.
            repeats = len(values[f"loss/{name.rpartition('/')[2]}/total"])
            scalars[name] = (table[:, columns].square().sum(1) / repeats).sqrt().mean().item()
        self._names, self._phases = [], {}
        return scalars
