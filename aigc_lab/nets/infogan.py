"""The networks of InfoGAN (Chen et al. 2016, table 1), on which "Are GANs Created Equal?" (Lucic et al. 2018) compares
all losses: two convolutions and two linear layers, for pictures whose sides are multiples of 4.

In both papers `width` is 64, and the linear layer has 1,024 = 16 × 64 features.
"""

from torch import nn

from aigc_lab.nets.convolutions import Conv2d, ConvTranspose2d
from aigc_lab.nets.critics import MinibatchStd, Norm, norm_1d, norm_2d


def _quarter(size: tuple[int, ...]) -> tuple[int, int]:
    _, height, width = size
    if height % 4 or width % 4:
        raise ValueError(f"it makes pictures whose sides are multiples of 4, not {height}×{width}")
    return height // 4, width // 4


class Decoder(nn.Sequential):
    """[N, latent] -> [N, C, H, W], unbounded: the caller applies tanh or a likelihood."""

    def __init__(self, latent: int, width: int, size: tuple[int, ...]) -> None:
        small = (2 * width, *_quarter(size))
        flat = small[0] * small[1] * small[2]
        super().__init__(
            nn.Linear(latent, 16 * width, bias=False),
            nn.BatchNorm1d(16 * width),
            nn.ReLU(inplace=True),
            nn.Linear(16 * width, flat, bias=False),
            nn.BatchNorm1d(flat),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, small),
            ConvTranspose2d(2 * width, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            ConvTranspose2d(width, size[0], 4, stride=2, padding=1),
        )


class Encoder(nn.Sequential):
    """[N, C, H, W] -> [N, outputs]; nothing is normalised on the first layer."""

    def __init__(
        self,
        outputs: int,
        width: int,
        size: tuple[int, ...],
        norm: Norm = "batch",
        minibatch_std: bool = False,
        bias: bool = True,
    ) -> None:
        channels, height, side = 2 * width, *_quarter(size)
        inner = norm in ("spectral", "none")
        super().__init__(
            Conv2d(size[0], width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            Conv2d(width, channels, 4, stride=2, padding=1, bias=inner),
            *norm_2d(norm, channels),
            nn.LeakyReLU(0.2, inplace=True),
            *([MinibatchStd()] if minibatch_std else []),
            nn.Flatten(),
            nn.Linear((channels + minibatch_std) * height * side, 16 * width, bias=inner),
            *norm_1d(norm, 16 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(16 * width, outputs, bias=bias),
        )
