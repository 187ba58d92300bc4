"""The networks that systems for images may be built on: a decoder of latents and an encoder of pictures."""

from typing import Literal

from torch import nn

from aigc_lab.nets import dcgan, infogan
from aigc_lab.nets.critics import Norm

Network = Literal["dcgan", "infogan"]


def decoder(network: Network, latent: int, width: int, size: tuple[int, ...]) -> nn.Sequential:
    """[N, latent] -> [N, C, H, W], unbounded. Raises `ValueError` for a size that it cannot make."""
    return dcgan.Decoder(latent, width, size) if network == "dcgan" else infogan.Decoder(latent, width, size)


def encoder(
    network: Network,
    outputs: int,
    width: int,
    size: tuple[int, ...],
    norm: Norm = "batch",
    minibatch_std: bool = False,
    bias: bool = True,
) -> nn.Sequential:
    """[N, C, H, W] -> [N, outputs]. Raises `ValueError` for a size that it cannot read."""
    kind = dcgan.Encoder if network == "dcgan" else infogan.Encoder
    return kind(outputs, width, size, norm, minibatch_std, bias)
