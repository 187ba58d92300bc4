"""The order in which a run sees its training data: a function of (seed, batch number), on the device."""

import torch
from torch import Tensor

from aigc_lab import noise
from aigc_lab.samples import Samples


class Batches:
    """Batch k of an endless concatenation of epochs, each a fresh permutation keyed by (seed, epoch).

    The data stays on the device as it is stored (uint8 for images), so a batch is one index operation: no worker
    processes, no copies from the host.
    """

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        self.samples = samples
        self.size = size
        self._seed = seed
        self._orders: dict[int, Tensor] = {}

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {old: order for old, order in self._orders.items() if old == epoch - 1}
            order = torch.randperm(len(self.samples), generator=noise.generator(self._seed, "order", epoch))
            device = self.samples.values.device
            # From pinned memory the copy is queued like any kernel: a new epoch does not wait for the device.
            self._orders[epoch] = order.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else order
        return self._orders[epoch]

    def __getitem__(self, number: int) -> Samples:
        first, total = number * self.size, len(self.samples)
        pieces, position = [], first
        while position < first + self.size:
            epoch, offset = divmod(position, total)
            piece = self._order(epoch)[offset : offset + first + self.size - position]
            pieces.append(piece)
            position += len(piece)
        return self.samples.take(pieces[0] if len(pieces) == 1 else torch.cat(pieces))
