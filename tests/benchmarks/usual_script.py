"""The GAN script that most tutorials share, in our words: `uv run python tests/benchmarks/usual_script.py [mlp|dcgan]`.

MNIST at 32×32 through a `DataLoader` and PIL transforms, one at a time in the training process; plain
`torch.optim.Adam`; sigmoid and binary cross-entropy; the generator is updated first, and its fakes serve the critic's
update too; losses cross to the host and are printed at each step. It trains the networks that ours trains.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from aigc_lab.benchmarks.shared.usual_gans import BATCH, LATENT, NETWORKS, SIDE, Network, networks

#: the name of the contestant of `aigc-lab bench --peers tests/benchmarks`
NAME = "the usual script"


class Noise28(Dataset[Any]):
    """Random pictures in MNIST's place, as PIL images of 28×28, where MNIST is not at hand."""

    def __init__(self, count: int = 10_000) -> None:
        drawn = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        self.pictures, self._changed = drawn, _transform()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self._changed(transforms.functional.to_pil_image(self.pictures[row][None])), 0


def _transform() -> Any:
    steps = [transforms.Resize(SIDE), transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    return transforms.Compose(steps)


def dataset(folder: Path | None) -> Dataset[Any]:
    """MNIST's training pictures below the folder, or random ones."""
    if folder is None or not (folder / "MNIST" / "raw").is_dir():
        return Noise28()
    pictures: Dataset[Any] = datasets.MNIST(str(folder), train=True, download=False, transform=_transform())
    return pictures


def steps_of(name: Network, pictures: Dataset[Any], say: Any = print) -> Iterator[None]:
    """The script's training without end; takes one step at a time."""
    generator, critic = networks(name)
    critic = nn.Sequential(critic, nn.Sigmoid())
    criterion = nn.BCELoss()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=0.0002, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(critic.parameters(), lr=0.0002, betas=(0.5, 0.999))
    loader = DataLoader(pictures, batch_size=BATCH, shuffle=True, drop_last=True)
    epoch = 0
    while True:
        for number, (real, _) in enumerate(loader):
            valid, fake = torch.ones(len(real), 1), torch.zeros(len(real), 1)
            optimizer_g.zero_grad()
            made: Tensor = generator(torch.randn(len(real), LATENT))
            g_loss = criterion(critic(made), valid)
            g_loss.backward()
            optimizer_g.step()
            optimizer_d.zero_grad()
            d_loss = (criterion(critic(real), valid) + criterion(critic(made.detach()), fake)) / 2
            d_loss.backward()
            optimizer_d.step()
            losses = f"[D loss: {d_loss.item():f}] [G loss: {g_loss.item():f}]"
            say(f"[Epoch {epoch}] [Batch {number}/{len(loader)}] {losses}")
            yield
        epoch += 1


def _folder() -> Path | None:
    named = os.environ.get("AIGC_LAB_DATA_DIR")
    return None if named is None else Path(named)


def prepare(network: str, batch_size: int, device: str, threads: int) -> Iterator[None] | None:
    """Its steps, which print as in a terminal that nobody reads; None for what it does not train."""
    if network not in NETWORKS or (batch_size, device) != (BATCH, "cpu"):
        return None
    out = open(os.devnull, "w", buffering=1)  # noqa: SIM115 -- as long as it trains
    return steps_of(network, dataset(_folder()), lambda line: print(line, file=out))


def main() -> None:
    name: Any = sys.argv[1] if len(sys.argv) > 1 else "mlp"
    for _ in steps_of(name, dataset(_folder())):
        pass


if __name__ == "__main__":
    main()
