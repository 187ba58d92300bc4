"""Scalars of the steps of an interval: losses and dynamics of each, gradient norms of the last, kept on the device."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from aigc_lab.systems.base import Phase, System
from aigc_lab.training.optimizers import trained

# What the column of a gradient's norm is called, before the weight.
_GRADIENT = "gradient of "


class Diverged(ArithmeticError):
    """Divergence: a loss, a gradient, a weight or an optimiser's memory that is not finite. `step` counts from 1;
    `tensor` names the first such value.
    """

    def __init__(self, step: int, tensor: str) -> None:
        super().__init__(f"{tensor} is not finite at step {step}")
        self.step = step
        self.tensor = tensor


#: what was recorded of a phase: itself, the names of its dynamics and of its loss's parts, and whether its gradients
#: were measured
Recorded = tuple[Phase, tuple[str, ...], tuple[str, ...], bool]


@dataclass(frozen=True)
class Columns:
    """What the numbers of a row are. `ran` are the phases, by name, as often as they repeat; `names` those of the
    columns; `norms` the columns of a phase's gradient norms, by the scalar that they give, where they were measured.
    """

    ran: list[str] | None
    names: list[str]
    norms: dict[str, list[int]]

    @property
    def scalars(self) -> list[int]:
        """The columns that are no norms."""
        return [column for column, name in enumerate(self.names) if not name.startswith(_GRADIENT)]


@dataclass
class _Table:
    """Rows of neighbouring steps in which the same phases ran and were measured."""

    columns: Columns
    rows: list[Tensor]


class Recorder:
    """Row of scalars for each step, kept on the device; non-finite ones are detected and named when the rows are copied
    to the host.

    A row holds, for each phase in turn, the dynamics, the parts of its loss, the loss, and where they are measured the
    norm of every gradient tensor. In that order the first non-finite entry is a cause, and those after it may be its
    consequences. Of a step whose gradients were not measured, a gradient that is not finite shows in the next loss that
    reads its weight, and at the end of the interval at the latest in the weight or in the optimiser's memory.
    """

    def __init__(self, system: System, optimizers: Mapping[str, torch.optim.Optimizer] = MappingProxyType({})) -> None:
        self._device = next(system.parameters()).device
        self._of = {id(parameter): name for name, parameter in system.named_parameters()}
        self._optimizers = optimizers
        self._tables: list[_Table] = []

    def columns(self, recorded: Sequence[Recorded]) -> Columns:
        """The columns of a step in which these were recorded, in this order."""
        names: list[str] = []
        norms: dict[str, list[int]] = {}
        for phase, dynamics, parts, measured in recorded:
            names += [f"dynamics/{name}" for name in dynamics]
            names += [*(f"loss/{phase.name}/{name}" for name in parts), f"loss/{phase.name}/total"]
            if measured:
                first = len(names)
                names += [f"{_GRADIENT}{self._of[id(parameter)]}" for parameter in trained(phase)]
                norms.setdefault(_norm_of(phase.name), []).extend(range(first, len(names)))
        return Columns([phase.name for phase, *_ in recorded], names, norms)

    def add(self, columns: Columns, row: Tensor) -> None:
        """Adds the row of a step: its numbers [columns], on the device."""
        last = self._tables[-1].columns if self._tables else None
        if last is not columns and last != columns:
            self._tables.append(_Table(columns, []))
        self._tables[-1].rows.append(row)

    def dump(self) -> tuple[Tensor | None, dict[str, Any]]:
        """Numbers of the interval so far, row by row in one dimension, None at its beginning, and what they mean as
        JSON data.
        """
        meaning = [
            {"ran": columns.ran, "names": columns.names, "norms": columns.norms, "rows": len(table.rows)}
            for table in self._tables
            if (columns := table.columns)
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
            _Table(
                Columns(each["ran"], each["names"], each["norms"]),
                list(block.reshape(each["rows"], len(each["names"]))),
            )
            for each, block in zip(tables, torch.split(numbers.to(self._device).flatten(), sizes), strict=True)
        ]

    def _numbers(self) -> Tensor:
        return torch.cat([row for table in self._tables for row in table.rows])

    @torch.no_grad()
    def collect(self, step: int) -> dict[str, float]:
        """Means over the interval that ends at `step`, of each scalar over the steps that have it, after one copy to
        the host. Raises `Diverged` for non-finite values.
        """
        tables, self._tables = self._tables, []
        # A gradient that was seen itself need not be looked for in what it did.
        lasting = {} if all(table.columns.norms for table in tables) else dict(self._lasting())
        rows = [row for table in tables for row in table.rows]
        if lasting:
            # Sums: one pass, as fast as memory; those of what is finite are finite, short of 10³⁸.
            rows.append(torch.stack([value.sum() for value in lasting.values()]).float())
        numbers = torch.cat(rows).double().cpu()
        sizes = [len(table.rows) * len(table.columns.names) for table in tables]
        *blocks, last = torch.split(numbers, [*sizes, len(lasting)])
        values = [block.reshape(len(table.rows), -1) for table, block in zip(tables, blocks, strict=True)]
        left = sum(len(table.rows) for table in tables)
        for table, block in zip(tables, values, strict=True):
            if not torch.isfinite(block).all():
                row, column = (~torch.isfinite(block)).nonzero()[0].tolist()
                raise Diverged(step - left + row + 1, table.columns.names[column])
            left -= len(table.rows)
        for name, finite in zip(lasting, torch.isfinite(last).tolist(), strict=True):
            if not finite:
                raise Diverged(step, name)
        return _means(tables, values)

    def _lasting(self) -> Iterator[tuple[str, Tensor]]:
        """What a gradient leaves its trace in, by name: the weights that are trained, and the optimisers' memory."""
        for optimizer in self._optimizers.values():
            for weight in optimizer.param_groups[0]["params"]:
                yield self._of[id(weight)], weight.detach()
                for key, value in optimizer.state.get(weight, {}).items():
                    if value.shape == weight.shape and value.is_floating_point():
                        yield f"{key} of {self._of[id(weight)]}", value


class Silent(Recorder):
    """Recorder of a process that only trains a part: another records."""

    def add(self, columns: Columns, row: Tensor) -> None: ...


def _norm_of(phase: str) -> str:
    return f"dynamics/grad_norm/{phase}"


def _means(tables: list[_Table], values: list[Tensor]) -> dict[str, float]:
    """Mean of each scalar over the rows that have it, whose numbers are float64 `values` [rows, columns] on the host.

    A gradient norm is that of a step's whole gradient, over the repeats of its phase, at the steps that measured it.
    """
    parts: dict[str, list[tuple[int, float]]] = {}
    # Rows of the same phases have the same scalars, measured or not.
    for _, group in groupby(zip(tables, values, strict=True), key=lambda each: each[0].columns.ran):
        members = list(group)
        first = members[0][0].columns
        names = [first.names[column] for column in first.scalars]
        together = torch.cat([block[:, table.columns.scalars] for table, block in members])
        columns: dict[str, list[float]] = {}
        for name, mean in zip(names, together.mean(0).tolist(), strict=True):
            columns.setdefault(name, []).append(mean)
        for name, means in columns.items():
            parts.setdefault(name, []).append((len(together), math.fsum(means) / len(means)))
        for table, block in members:
            for name, norms in table.columns.norms.items():
                repeats = len(columns[f"loss/{name.rpartition('/')[2]}/total"])
                of_steps = (block[:, norms].square().sum(1) / repeats).sqrt()
                parts.setdefault(name, []).append((len(block), of_steps.mean().item()))
    return {name: _over(counted) for name, counted in parts.items()}


def _over(parts: list[tuple[int, float]]) -> float:
    """The mean over all rows, from means of some, each with their number."""
    if len(parts) == 1:
        return parts[0][1]
    return math.fsum(count * mean for count, mean in parts) / sum(count for count, _ in parts)
