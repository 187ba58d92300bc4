"""Samples of several requests, drawn together: as many of them as fit go through the network at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_lab.noise import draw
from aigc_lab.samples import Samples
from aigc_lab.systems.base import BLOCK, System


class Lot(NamedTuple):
    """The first `size` of the samples that the latents of a whole block give, with their labels [BLOCK] if any."""

    latents: Tensor
    labels: Tensor | None
    size: int


def lots(system: System, n: int, seed: int, labels: Sequence[int] | None) -> Iterator[Lot]:
    """What `n` samples of a seed start from, block by block, as `System.generate` draws it. `labels` are taken in turn;
    those of a conditional system without them are all of its classes.
    """
    if labels is None and system.conditional and system.shape.classes is not None:
        labels = range(system.shape.classes)
    device = next(system.parameters()).device
    for number, first in enumerate(range(0, n, BLOCK)):
        latents = draw(system.latents(BLOCK), "sample", seed, number, device=device)
        turn = None if labels is None else [labels[(first + place) % len(labels)] for place in range(BLOCK)]
        yield Lot(latents, None if turn is None else torch.tensor(turn, device=device), min(BLOCK, n - first))


@torch.inference_mode()
def drawn(system: System, wanted: Iterable[Lot], options: Mapping[str, Any]) -> Iterator[Samples]:
    """The samples of the lots in their order, on the host, in parts of BLOCK at most. What is in memory at once is what
    the network needs for one block. A lot beside others gives what it gives alone, but for rounding that depends on the
    place in a block: none was seen in the systems that ship.
    """
    for together in _packed(wanted):
        count = sum(lot.size for lot in together)
        latents, labels = _block(together)
        yield system.sample(latents, labels=labels, **options).take(slice(0, count)).to("cpu")


def _packed(wanted: Iterable[Lot]) -> Iterator[list[Lot]]:
    """Neighbours that fill a block together. None is torn: a whole block stays in its place."""
    together: list[Lot] = []
    for lot in wanted:
        if sum(other.size for other in together) + lot.size > BLOCK:
            yield together
            together = []
        elif together:  # only the last one's latents fill the block up
            together[-1] = _cut(together[-1])
        together.append(lot)
    if together:
        yield together


def _cut(lot: Lot) -> Lot:
    """Without what only fills a block; a copy, so that the rest is not held in memory."""
    return Lot(
        lot.latents[: lot.size].clone(), None if lot.labels is None else lot.labels[: lot.size].clone(), lot.size
    )


def _block(together: list[Lot]) -> tuple[Tensor, Tensor | None]:
    """One block of them. It is always whole: a part of one would give other bits."""
    if len(together) == 1:
        return together[0].latents, together[0].labels
    latents = torch.cat([lot.latents[: lot.size] for lot in together])
    rest = BLOCK - len(latents)
    latents = torch.cat([latents, together[-1].latents[:rest]])
    labels = [lot.labels[: lot.size] for lot in together if lot.labels is not None]
    return latents, torch.cat([*labels, labels[-1].new_zeros(rest)]) if labels else None
