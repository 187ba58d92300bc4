"""A program as CUDA graphs: the launches of a step's kernels as one, and no Python between them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from aigc_lab.training.program import Piece, Program


class Graphs:
    """Repeats a program on a GPU. Inputs are copied to where the graphs read them. What is done aside, and what is
    computed of the host's tensors, happens between two graphs, as ever.

    Making one runs nothing that a graph holds, and what lies between two of them. Raises `RuntimeError` for what cannot
    be captured.
    """

    def __init__(self, program: Program, inputs: Sequence[Tensor]) -> None:
        self._names, self._output = list(dict.fromkeys(program.inputs)), program.outputs[0]
        self._places = [program.inputs.index(name) for name in self._names]
        self._values = {
            name: inputs[place].detach().clone() for name, place in zip(self._names, self._places, strict=True)
        }
        self._steps: list[Callable[[], object]] = []
        pool = torch.cuda.graph_pool_handle()  # of all pieces: the results of one are read by the next
        for first, last, captured in _pieces(program):
            piece = program.compiled(first, last)
            self._steps.append(self._captured(piece, pool) if captured else self._as_ever(piece))

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The program's result, in memory of its own."""
        for name, place in zip(self._names, self._places, strict=True):
            self._values[name].copy_(inputs[place], non_blocking=True)
        with torch.no_grad():
            for step in self._steps:
                step()
        return self._values[self._output].clone()

    def _captured(self, piece: Piece, pool: Any) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        # Other threads copy checkpoints meanwhile, which the stricter modes forbid them.
        with torch.no_grad(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            results = piece.run(*(self._values[name] for name in piece.takes))
        self._values |= dict(zip(piece.gives, results, strict=True))
        return graph.replay

    def _as_ever(self, piece: Piece) -> Callable[[], object]:
        def run() -> None:
            results = piece.run(*(self._values[name] for name in piece.takes))
            self._values |= dict(zip(piece.gives, results, strict=True))

        with torch.no_grad():
            run()
        return run


def _pieces(program: Program) -> Iterator[tuple[int, int, bool]]:
    """Neighbouring lines as `first`, `last`, and whether they are captured."""
    first = 0
    for captured, lines in groupby(program.lines, key=lambda line: not (line.aside or line.host)):
        last = first + len(list(lines))
        yield first, last, captured
        first = last
