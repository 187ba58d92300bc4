"""Training batches on the device, in an order that is a function of (seed, batch number)."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.samples import Samples

# Batches whose sentences are sorted by length among themselves.
_WINDOW = 50


class Batches:
    """Batches of an endless concatenation of epochs, each a fresh permutation keyed by (seed, epoch).

    The data stays on the device as it is stored (uint8 for images), so a batch is one index operation: no worker
    processes, no copies from the host. Sentences of similar length share a batch, which is as long as its longest.
    """

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        self.samples = samples
        self.size = size
        self._seed = seed
        # Known to the host, so that the length of a batch is no question to the device.
        lengths = samples.lengths
        self._places = None if lengths is None else lengths.cpu()
        self._orders: dict[int, tuple[Tensor, Tensor]] = {}

    def _order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Row indices in the order of an epoch, on the host and on the device."""
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old == epoch - 1}
            source = noise.generator(self._seed, "order", epoch)
            order = torch.randperm(len(self.samples), generator=source)
            if self._places is not None:
                order = self._by_length(order, self._places, -epoch * len(order) % self.size, source)
            device = self.samples.values.device
            # From pinned memory the copy is queued like any kernel: a new epoch does not wait for the device.
            there = order.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else order
            self._orders[epoch] = order, there
        return self._orders[epoch]

    def _by_length(self, order: Tensor, places: Tensor, begun: int, source: torch.Generator) -> Tensor:
        """Order with neighbours of similar length, whose batches are shuffled. The first `begun` rows belong to a batch
        that the previous epoch began, and stay.
        """
        windows = torch.split(order[begun:], _WINDOW * self.size)
        alike = torch.cat([window[places[window].argsort(stable=True)] for window in windows])
        whole = len(alike) // self.size
        batches = alike[: whole * self.size].reshape(whole, self.size)
        shuffled = batches[torch.randperm(whole, generator=source)].flatten()
        return torch.cat([order[:begun], shuffled, alike[whole * self.size :]])

    def __getitem__(self, number: int) -> Samples:
        rows, longest = self._rows(number)
        labels = self.samples.labels
        # Whole rows are copied: several times as fast as an index.
        values = self.samples.values.index_select(0, rows)
        if self._places is not None:
            values = values[:, :longest]
        return replace(self.samples, values=values, labels=None if labels is None else labels.index_select(0, rows))

    def _rows(self, number: int) -> tuple[Tensor, int]:
        """Row numbers of a batch, on the samples' device, and the length of its longest sentence (0 of others)."""
        first, total = number * self.size, len(self.samples)
        pieces, position, longest = [], first, 0
        while position < first + self.size:
            epoch, offset = divmod(position, total)
            here, there = (order[offset : offset + first + self.size - position] for order in self._order(epoch))
            if self._places is not None:
                longest = max(longest, int(self._places[here].max()))
            pieces.append(there)
            position += len(there)
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)), longest


def batch_of_each(several: Sequence[Batches], number: int) -> list[Samples]:
    """Batch `number` of each; of the same samples all are taken by one index operation, one behind the other in memory.

    >>> from aigc_lab.samples import Points
    >>> points = Points(torch.arange(20.0).reshape(10, 2))
    >>> first, second = batch_of_each([Batches(points, 4, seed=0), Batches(points, 4, seed=1)], 0)
    >>> bool((second.values == Batches(points, 4, seed=1)[0].values).all())
    True
    """
    samples = several[0].samples
    one = all(each.samples.values is samples.values and each.samples.labels is samples.labels for each in several)
    if not one or len({each.size for each in several}) > 1 or samples.lengths is not None:
        return [each[number] for each in several]
    rows, size = torch.cat([each._rows(number)[0] for each in several]), several[0].size  # noqa: SLF001 -- its own
    values, labels = torch.split(samples.values.index_select(0, rows), size), samples.labels
    of_each = [None] * len(several) if labels is None else torch.split(labels.index_select(0, rows), size)
    return [replace(samples, values=mine, labels=own) for mine, own in zip(values, of_each, strict=True)]
