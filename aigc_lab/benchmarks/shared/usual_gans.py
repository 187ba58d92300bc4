"""The two GANs of the script that most tutorials share, for 32×32 pictures: what peers are timed on.

`mlp`: a generator 100-128-256-512-1024-pixels and a critic pixels-512-256-1; `dcgan`: upsampling and convolutions of
128 and 64 channels, and a critic of four strided convolutions with dropout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from aigc_lab.benchmarks.base import Size
from aigc_lab.benchmarks.shared import trainings
from aigc_lab.config import Width
from aigc_lab.nets.convolutions import Conv2d, DoublingConv2d
from aigc_lab.samples import Images
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.shared.image_gan import PictureGAN
from aigc_lab.training.state import MatmulPrecision, Precision, Replica, TrainingState

SIDE, LATENT, BATCH = 32, 100, 64
#: steps from one log line to the next, of our trainer
LOG_EVERY = 50
Network = Literal["mlp", "dcgan"]
NETWORKS: tuple[Network, ...] = ("mlp", "dcgan")


@dataclass(frozen=True)
class Way:
    """How the numbers of a training lie and are computed: the keys `training.precision`, `channels_last` and
    `matmul_precision` of an experiment.
    """

    precision: Precision = "fp32"
    channels_last: bool = False
    matmul: MatmulPrecision = "highest"

    def __str__(self) -> str:
        """As tables say it.

        >>> str(Way()), str(Way("bf16", channels_last=True)), str(Way(matmul="medium"))
        ('fp32', 'bf16, channels last', 'fp32, products at medium')
        """
        products = f", products at {self.matmul}" if self.matmul != "highest" else ""
        return f"{self.precision}{', channels last' * self.channels_last}{products}"

    @property
    def changes(self) -> list[str]:
        """The keys of an experiment that say so, where they are not its defaults.

        >>> Way("bf16", channels_last=True).changes, Way(matmul="medium").changes
        (['training.precision=bf16', 'training.channels_last=true'], ['training.matmul_precision=medium'])
        """
        keys = {"precision": self.precision, "channels_last": self.channels_last, "matmul_precision": self.matmul}
        plain = {"precision": "fp32", "channels_last": False, "matmul_precision": "highest"}
        return [f"training.{key}={str(value).lower()}" for key, value in keys.items() if value != plain[key]]

    def segments(self, replicas: Sequence[Replica], steps: int) -> Callable[[], None]:
        """A call that trains replicas, whose states are laid out this way, for so many steps more."""
        return trainings.segments(
            replicas, steps, decay=0.0, precision=self.precision, matmul_precision=self.matmul, every=LOG_EVERY
        )


def ways(network: Network, size: Size) -> list[Way]:
    """As experiments train, and what is fastest on most machines: not of a `tiny` measurement."""
    fast = Way("bf16", channels_last=True) if network == "dcgan" else Way(matmul="medium")
    return [Way()] if size == "tiny" else [Way(), fast]


def networks(name: str, *, ours: bool = False) -> tuple[nn.Module, nn.Module]:
    """Generator [N, 100] -> [N, 1, 32, 32] in [−1, 1], and critic [N, 1, 32, 32] -> logits [N, 1], with new weights; of
    torch's layers, or of `ours` where there are such.
    """
    return _mlp() if name == "mlp" else _dcgan(ours)


def pictures(count: int = 10_000) -> Tensor:
    """Random bytes [count, 1, 32, 32] in the place of a dataset's pictures; the same in every call."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, SIDE, SIDE), dtype=torch.uint8, generator=source)


class UsualGAN(PictureGAN):
    """These networks with the loss and the knobs of every GAN here. For timing alone: the convolutional critic's
    dropout draws from torch's stream, and not from keyed noise.
    """

    class Config(PictureGAN.Config):
        network: Network = "mlp"
        latent_size: Width = LATENT
        latent_law: Literal["uniform", "normal"] = Field("normal", description="as the script does")

    config: Any

    def __init__(self, config: Config, shape: Shape) -> None:
        super().__init__(config, shape)
        self.generator, self.critic = networks(config.network, ours=True)


def state_of(network: Network, device: str, *, channels_last: bool = False) -> TrainingState:
    """A fresh state without a moving average. As in the script, fakes serve both updates, and a critic without batch
    statistics judges real and made samples at once.
    """
    return TrainingState.fresh(
        UsualGAN,
        UsualGAN.Config(network=network, share_fakes=True, one_pass=network == "mlp"),
        Shape(Modality.IMAGES, (1, SIDE, SIDE)),
        seed=0,
        batch_size=BATCH,
        device=device,
        channels_last=channels_last,
        averaged=False,
    )


def real_images(device: str) -> Images:
    return Images(pictures()).to(device)


def _mlp() -> tuple[nn.Module, nn.Module]:
    pixels = SIDE * SIDE
    made: list[nn.Module] = [nn.Linear(LATENT, 128), nn.LeakyReLU(0.2)]
    for inputs in (128, 256, 512):
        # The scripts write BatchNorm1d(n, 0.8): a momentum was meant, and it is ε.
        made += [nn.Linear(inputs, 2 * inputs), nn.BatchNorm1d(2 * inputs, 0.8), nn.LeakyReLU(0.2)]
    generator = nn.Sequential(*made, nn.Linear(1024, pixels), nn.Tanh(), nn.Unflatten(1, (1, SIDE, SIDE)))
    first = [nn.Flatten(), nn.Linear(pixels, 512), nn.LeakyReLU(0.2)]
    return generator, nn.Sequential(*first, nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))


def _doubled(outputs: int, ours: bool) -> list[nn.Module]:
    if ours:
        return [nn.Identity(), DoublingConv2d(128, outputs)]
    return [nn.Upsample(scale_factor=2), nn.Conv2d(128, outputs, 3, padding=1)]


def _dcgan(ours: bool) -> tuple[nn.Module, nn.Module]:
    convolution = Conv2d if ours else nn.Conv2d
    side = SIDE // 4
    made: list[nn.Module] = [nn.Linear(LATENT, 128 * side**2), nn.Unflatten(1, (128, side, side)), nn.BatchNorm2d(128)]
    for outputs in (128, 64):
        made += _doubled(outputs, ours)
        made += [nn.BatchNorm2d(outputs, 0.8), nn.LeakyReLU(0.2, inplace=True)]
    generator = nn.Sequential(*made, convolution(64, 1, 3, padding=1), nn.Tanh())
    seen: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64), (64, 128)):
        seen += [convolution(inputs, outputs, 3, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Dropout2d(0.25)]
        if inputs > 1:
            seen.append(nn.BatchNorm2d(outputs, 0.8))
    critic = nn.Sequential(*seen, nn.Flatten(), nn.Linear(128 * (SIDE // 16) ** 2, 1))
    for part in (*generator.modules(), *critic.modules()):
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
    return generator, critic
