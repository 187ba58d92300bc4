"""Small classifier of a dataset's classes and its training recipe: the judge of `fd_clf`, and what `cas` trains."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab import noise
from aigc_lab.data.shared.batches import Batches
from aigc_lab.noise import Key
from aigc_lab.optimizers.base import uncompiled
from aigc_lab.samples import Samples
from aigc_lab.shape import Shape

# Changes whenever the network or the recipe below does: a part of stored files' keys and of signatures.
VERSION = "cnn-1"
DIMENSIONS = 32
BATCH, LR = 128, 2e-3


class Network(nn.Module):
    """Convolutional classifier: uint8 images [N, C, H, W] -> (features [N, 32], logits [N, classes]).

    Features have few dimensions on purpose: some hundred samples then determine the Fréchet distance well (n ≥ 4d).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        channels = shape.size[0]
        self.body = nn.Sequential(
            *self._stage(channels, 16, stride=2 if shape.size[1] > 16 else 1),
            *self._stage(16, 32, stride=2),
            *self._stage(32, 64, stride=2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 64, DIMENSIONS),
        )
        assert shape.classes is not None
        self.head = nn.Linear(DIMENSIONS, shape.classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.body(images.float() / 127.5 - 1)
        return vectors, self.head(F.relu(vectors))


def fit(samples: Samples, shape: Shape, steps: int, *, seed: int = 0, device: str = "cpu") -> Network:
    """Classifier trained on labelled images for `steps`; the stored judges have seed 0."""
    key: tuple[Key, ...] = (seed,) if seed else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(noise.generator("classifier", "weights", *key).initial_seed())
        # channels_last: a third faster on a CPU for convolutions this small
        network = Network(shape).to(device).to(memory_format=torch.channels_last)
    optimizer = uncompiled(torch.optim.AdamW)(network.parameters(), lr=LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    batches = Batches(samples.to(device), BATCH, seed)
    for step in range(steps):
        batch = batches[step]
        # One shift of up to two pixels for the whole batch: enough variety for a network this small.
        shifts = torch.randint(-2, 3, (2,), generator=noise.generator("classifier", "shift", step, *key)).tolist()
        images = torch.roll(batch.values, shifts, dims=(2, 3))
        loss = F.cross_entropy(network(images)[1], batch.labels, label_smoothing=0.05)  # type: ignore[arg-type]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network
