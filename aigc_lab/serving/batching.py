"""Batching of requests: samples of several requests go through the network in shared blocks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_lab.noise import draw
from aigc_lab.samples import Samples
from aigc_lab.systems.base import BLOCK, System


class Lot(NamedTuple):
    """Latents of a whole block and labels [BLOCK] if any, of which the first `size` samples are wanted."""

    latents: Tensor
    labels: Tensor | None
    size: int


def lots(system: System, n: int, seed: int, labels: Sequence[int] | None) -> Iterator[Lot]:
    """Lots of `n` samples of a seed, block by block, as `System.generate` draws them. `labels` are taken in turn; a
    conditional system without labels takes all of its classes.
    """
    if labels is None and system.conditional and system.shape.classes is not None:
        labels = range(system.shape.classes)
    device = next(system.parameters()).device
    for number, first in enumerate(range(0, n, BLOCK)):
        latents = draw(system.latents(BLOCK), "sample", seed, number, device=device)
        turn = None if labels is None else [labels[(first + place) % len(labels)] for place in range(BLOCK)]
        yield Lot(latents, None if turn is None else torch.tensor(turn, device=device), min(BLOCK, n - first))


@torch.inference_mode()
def draw_lots(system: System, lots_in_order: Iterable[Lot], options: Mapping[str, Any]) -> Iterator[Samples]:
    """Samples of the lots in order, on the host, in parts of at most BLOCK. Memory is needed for one block at a time.

    Each lot gives the same samples as it would alone, but for rounding that depends on the place in a block; none was
    seen in the systems that ship.
    """
    for together in _packed(lots_in_order):
        count = sum(lot.size for lot in together)
        latents, labels = _block(together)
        yield system.sample(latents, labels=labels, **options).take(slice(0, count)).to("cpu")


def _packed(lots_in_order: Iterable[Lot]) -> Iterator[list[Lot]]:
    """Groups of neighbouring lots that fill a block together. No lot is split: a whole block stays in its place."""
    together: list[Lot] = []
    for lot in lots_in_order:
        if sum(other.size for other in together) + lot.size > BLOCK:
            yield together
            together = []
        elif together:  # only the last one's latents fill the block up
            together[-1] = _cut(together[-1])
        together.append(lot)
    if together:
        yield together


def _cut(lot: Lot) -> Lot:
    """Lot without the latents beyond `size`; a copy, so that the rest is freed."""
    return Lot(
        lot.latents[: lot.size].clone(), None if lot.labels is None else lot.labels[: lot.size].clone(), lot.size
    )


def _block(together: list[Lot]) -> tuple[Tensor, Tensor | None]:
    """Latents and labels of one block. It is always whole, since a smaller batch would give other bits."""
    if len(together) == 1:
        return together[0].latents, together[0].labels
    latents = torch.cat([lot.latents[: lot.size] for lot in together])
    rest = BLOCK - len(latents)
    latents = torch.cat([latents, together[-1].latents[:rest]])
    labels = [lot.labels[: lot.size] for lot in together if lot.labels is not None]
    return latents, torch.cat([*labels, labels[-1].new_zeros(rest)]) if labels else None
