"""The convolutional pyramid of DCGAN (Radford, Metz & Chintala 2016), for 16, 32 and 64 pixels.

Every stage halves or doubles the side with a 4×4 convolution of stride 2, between 4×4 pixels and the full size; the
channels double as the side halves, from `width` at the widest picture.
"""

import torch
from torch import nn

from aigc_lab.nets.convolutions import Conv2d, ConvTranspose2d
from aigc_lab.nets.critics import MinibatchStd, Norm, norm_2d

SIDES = (16, 32, 64)


def stages(size: tuple[int, ...]) -> int:
    """How many halvings lead from the picture to 4×4. Raises `ValueError` for a size that the pyramid does not fit."""
    _, height, width = size
    if height != width or height not in SIDES:
        raise ValueError(f"it makes square pictures of {', '.join(map(str, SIDES))} pixels, not {height}×{width}")
    return (height // 4).bit_length() - 1


def initialise(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions and linear layers, N(1, 0.02) for the scales of batch normalisation (section 4)."""
    for part in module.modules():
        if next(part.parameters(), torch.empty(0)).is_meta:
            continue  # built to see whether it fits: nothing to fill, and torch would import its compiler to do so
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d) and part.affine:
            nn.init.normal_(part.weight, 1.0, 0.02)


class Decoder(nn.Sequential):
    """[N, latent] -> [N, C, H, W], unbounded: the caller applies tanh or a likelihood."""

    def __init__(self, latent: int, width: int, size: tuple[int, ...]) -> None:
        top = width * 2 ** (stages(size) - 1)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent, 1, 1)),
            ConvTranspose2d(latent, top, 4, bias=False),
            nn.BatchNorm2d(top),
            nn.ReLU(inplace=True),
        ]
        channels = top
        while channels > width:
            layers += [
                ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(inplace=True),
            ]
            channels //= 2
        super().__init__(*layers, ConvTranspose2d(width, size[0], 4, stride=2, padding=1))


class Encoder(nn.Sequential):
    """[N, C, H, W] -> [N, outputs]; nothing is normalised on the first layer, as in the paper.

    With `minibatch_std` the last layer sees how much the features vary over the batch.
    """

    def __init__(
        self,
        outputs: int,
        width: int,
        size: tuple[int, ...],
        norm: Norm = "batch",
        minibatch_std: bool = False,
        bias: bool = True,
    ) -> None:
        layers: list[nn.Module] = [Conv2d(size[0], width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        channels = width
        for _ in range(stages(size) - 1):
            layers += [
                # What is normalised by batch or layer loses its mean: a bias before it would do nothing.
                Conv2d(channels, channels * 2, 4, stride=2, padding=1, bias=norm in ("spectral", "none")),
                *norm_2d(norm, channels * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ]
            channels *= 2
        if minibatch_std:
            layers.append(MinibatchStd())
        super().__init__(*layers, Conv2d(channels + minibatch_std, outputs, 4, bias=bias), nn.Flatten())
