"""The GAN script that most tutorials share, in our words: `uv run python tests/benchmarks/usual_script.py [mlp|dcgan]`.

MNIST at 32×32 through a `DataLoader` and PIL transforms, one at a time in the training process; plain
`torch.optim.Adam`; sigmoid and binary cross-entropy; the generator is updated first, and its fakes serve the critic's
update too; losses cross to the host and are printed at each step. The networks are built here for all who are compared.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

SIDE, LATENT, BATCH = 32, 100, 64
Network = Literal["mlp", "dcgan"]


def networks(name: Network) -> tuple[nn.Module, nn.Module]:
    """Generator [N, 100] -> [N, 1, 32, 32] in [−1, 1], and critic [N, 1, 32, 32] -> logits [N, 1]."""
    return _mlp() if name == "mlp" else _dcgan()


def _mlp() -> tuple[nn.Module, nn.Module]:
    pixels = SIDE * SIDE
    made: list[nn.Module] = [nn.Linear(LATENT, 128), nn.LeakyReLU(0.2)]
    for inputs in (128, 256, 512):
        # The scripts write BatchNorm1d(n, 0.8): a momentum was meant, and it is ε.
        made += [nn.Linear(inputs, 2 * inputs), nn.BatchNorm1d(2 * inputs, 0.8), nn.LeakyReLU(0.2)]
    generator = nn.Sequential(*made, nn.Linear(1024, pixels), nn.Tanh(), nn.Unflatten(1, (1, SIDE, SIDE)))
    first = [nn.Flatten(), nn.Linear(pixels, 512), nn.LeakyReLU(0.2)]
    return generator, nn.Sequential(*first, nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))


def _dcgan() -> tuple[nn.Module, nn.Module]:
    side = SIDE // 4
    made: list[nn.Module] = [nn.Linear(LATENT, 128 * side**2), nn.Unflatten(1, (128, side, side)), nn.BatchNorm2d(128)]
    for outputs in (128, 64):
        made += [nn.Upsample(scale_factor=2), nn.Conv2d(128, outputs, 3, padding=1)]
        made += [nn.BatchNorm2d(outputs, 0.8), nn.LeakyReLU(0.2, inplace=True)]
    generator = nn.Sequential(*made, nn.Conv2d(64, 1, 3, padding=1), nn.Tanh())
    seen: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64), (64, 128)):
        seen += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Dropout2d(0.25)]
        if inputs > 1:
            seen.append(nn.BatchNorm2d(outputs, 0.8))
    critic = nn.Sequential(*seen, nn.Flatten(), nn.Linear(128 * (SIDE // 16) ** 2, 1))
    for part in (*generator.modules(), *critic.modules()):
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
    return generator, critic


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


def main() -> None:
    import os

    folder = os.environ.get("AIGC_LAB_DATA_DIR")
    name: Any = sys.argv[1] if len(sys.argv) > 1 else "mlp"
    for _ in steps_of(name, dataset(None if folder is None else Path(folder))):
        pass


if __name__ == "__main__":
    main()
