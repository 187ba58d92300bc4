"""Scalars of the steps of an interval: losses, dynamics and gradient norms, kept on the device."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass
class _Table:
    """Rows of neighbouring steps in which the same phases ran: `ran`, by name, as often as they repeat.

    `names` are those of the columns; `norms` are the columns of a phase's gradient norms, by the scalar that they give.
    """

    ran: list[str] | None
    names: list[str]
    norms: dict[str, list[int]]
    rows: list[Tensor]

    def means(self, values: Tensor) -> dict[str, float]:
        """Mean of each scalar over the rows, whose numbers are float64 `values` [rows, columns] on the host."""
        columns: dict[str, list[float]] = {}
        for name, mean in zip(self.names, values.mean(0).tolist(), strict=True):
            if not name.startswith("gradient of "):
                columns.setdefault(name, []).append(mean)
        scalars = {name: math.fsum(means) / len(means) for name, means in columns.items()}
        for name, norms in self.norms.items():
            # The norm of each step's whole gradient, over the repeats of the phase, averaged over the rows.
            repeats = len(columns[f"loss/{name.rpartition('/')[2]}/total"])
            scalars[name] = (values[:, norms].square().sum(1) / repeats).sqrt().mean().item()
        return scalars


class Recorder:
    """Row of scalars for each step, kept on the device; non-finite ones are detected and named when the rows are copied
    to the host.

    A row holds, for each phase in turn, the dynamics, the parts of its loss, the loss, and the norm of every gradient
    tensor. In that order the first non-finite entry is a cause, and those after it may be its consequences.
    """

    def __init__(self, system: System) -> None:
        self._device = next(system.parameters()).device
        self._of = {id(parameter): name for name, parameter in system.named_parameters()}
        self._tables: list[_Table] = []
        self._row: list[Tensor] = []
        self._recorded: list[tuple[Phase, list[str], list[str]]] = []

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
        self.announce(phase, parts, dynamics)
        self._row += [*dynamics.values(), *parts.values(), total, *torch._foreach_norm(gradients)]  # noqa: SLF001

    def announce(self, phase: Phase, parts: Iterable[str], dynamics: Iterable[str]) -> None:
        """Adds the names of a phase's scalars alone: the whole row comes with the end of the step."""
        self._recorded.append((phase, list(dynamics), list(parts)))

    @torch.no_grad()
    def end_step(self, row: Tensor | None = None) -> None:
        """Completes the row of the current step; `row` holds its numbers [columns] where only names were added."""
        ran = [phase.name for phase, _, _ in self._recorded]
        if not self._tables or self._tables[-1].ran != ran:
            self._tables.append(_Table(ran, *self._columns(), []))
        # Of several types the widest holds each exactly.
        if row is None:
            row = torch.stack(self._row).float() if self._row else torch.zeros(0, device=self._device)
        self._tables[-1].rows.append(row)
        self._row, self._recorded = [], []

    def _columns(self) -> tuple[list[str], dict[str, list[int]]]:
        """Names of the columns of the current row, and which of them are the gradient norms of each phase."""
        names: list[str] = []
        norms: dict[str, list[int]] = {}
        for phase, dynamics, parts in self._recorded:
            names += [f"dynamics/{name}" for name in dynamics]
            names += [*(f"loss/{phase.name}/{name}" for name in parts), f"loss/{phase.name}/total"]
            first = len(names)
            names += [f"gradient of {self._of[id(parameter)]}" for parameter in trained(phase)]
            norms.setdefault(f"dynamics/grad_norm/{phase.name}", []).extend(range(first, len(names)))
        return names, norms

    def dump(self) -> tuple[Tensor | None, dict[str, Any]]:
        """Numbers of the interval so far, row by row in one dimension, None at its beginning, and what they mean as
        JSON data.
        """
        meaning = [
            {"ran": table.ran, "names": table.names, "norms": table.norms, "rows": len(table.rows)}
            for table in self._tables
        ]
        return self._numbers() if self._tables else None, {"tables": meaning}

    def load(self, numbers: Tensor | None, meaning: dict[str, Any]) -> None:
        """Restores the rows that `dump` returned."""
        if numbers is None:
            self._tables = []
            return
        # Before phases could start late or stop early: one table, its rows in two dimensions.
        of_before = [{"ran": None, "names": meaning.get("names"), "norms": meaning.get("phases"), "rows": len(numbers)}]
        tables = meaning.get("tables", of_before)
        sizes = [each["rows"] * len(each["names"]) for each in tables]
        self._tables = [
            _Table(each["ran"], each["names"], each["norms"], list(block.reshape(each["rows"], len(each["names"]))))
            for each, block in zip(tables, torch.split(numbers.to(self._device).flatten(), sizes), strict=True)
        ]

    def _numbers(self) -> Tensor:
        return torch.cat([row for table in self._tables for row in table.rows])

    def collect(self, step: int) -> dict[str, float]:
        """Means over the interval that ends at `step`, of each scalar over the steps that have it, after one copy to
        the host. Raises `Diverged` for non-finite values.
        """
        tables, numbers = self._tables, self._numbers().double().cpu()
        self._tables = []
        blocks = torch.split(numbers, [len(table.rows) * len(table.names) for table in tables])
        of_tables: list[tuple[int, dict[str, float]]] = []
        left = sum(len(table.rows) for table in tables)
        for table, block in zip(tables, blocks, strict=True):
            values = block.reshape(len(table.rows), len(table.names))
            if not torch.isfinite(values).all():
                row, column = (~torch.isfinite(values)).nonzero()[0].tolist()
                raise Diverged(step - left + row + 1, table.names[column])
            left -= len(table.rows)
            of_tables.append((len(table.rows), table.means(values)))
        return _over_all(of_tables)


class Silent(Recorder):
    """Recorder of a process that only trains a part: another records."""

    def record(self, *_: object) -> None: ...

    def end_step(self, row: Tensor | None = None) -> None: ...


def _over_all(means: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Means over all rows, from the means over each table's, with its number of rows."""
    if len(means) == 1:
        return dict(means[0][1])
    scalars: dict[str, float] = {}
    for name in dict.fromkeys(name for _, of_table in means for name in of_table):
        parts = [(count, of_table[name]) for count, of_table in means if name in of_table]
        scalars[name] = math.fsum(count * mean for count, mean in parts) / sum(count for count, _ in parts)
    return scalars
