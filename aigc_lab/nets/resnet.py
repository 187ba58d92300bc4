"""Residual networks for square pictures of 16, 32 and 64 pixels: those of spectrally normalised GANs (Miyato et al.
2018, table 4 and figure 9), and the modern ones of R3GAN (Huang et al. 2024).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab.nets.convolutions import Conv2d, DoublingConv2d, HalvingConv2d

_SIDES = (16, 32, 64)


def _halvings(size: tuple[int, ...], end: int) -> int:
    _, height, width = size
    if height != width or height not in _SIDES:
        raise ValueError(f"it makes square pictures of {', '.join(map(str, _SIDES))} pixels, not {height}×{width}")
    return (height // end).bit_length() - 1


def initialise(network: nn.Module) -> None:
    """Xavier's uniform weights, √2 wider in the residual branch, and no bias to begin with: as in their code."""
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and not part.weight.is_meta:
            nn.init.xavier_uniform_(part.weight, 2**0.5 if "branch" in name else 1.0)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class _Up(nn.Module):
    """Twice the side: (BN, ReLU, ×2, conv, BN, ReLU, conv) + (×2, 1×1 conv)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # No biases: the next batch normalisation takes away whatever is added to all of a channel.
        self.branch = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Identity(),  # what doubled the side, by whose number stored weights are called
            DoublingConv2d(channels, channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            Conv2d(channels, channels, 3, padding=1, bias=False),
        )
        # A 1×1 convolution and a repetition commute: the smaller picture first.
        self.skip = nn.Sequential(nn.Identity(), Conv2d(channels, channels, 1, bias=False), nn.Upsample(scale_factor=2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x) + self.skip(x)
        return out


class Decoder(nn.Sequential):
    """[N, latent] -> [N, C, H, W], unbounded."""

    def __init__(self, latent: int, width: int, size: tuple[int, ...]) -> None:
        ups = [_Up(width) for _ in range(_halvings(size, 4))]
        super().__init__(
            nn.Linear(latent, 16 * width),
            nn.Unflatten(1, (width, 4, 4)),
            *ups,
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Conv2d(width, size[0], 3, padding=1),
        )


class _Down(nn.Module):
    """(ReLU, conv, ReLU, conv, ½) + (1×1 conv, ½); the picture itself is not rectified first, nor halved without
    `halve`.
    """

    def __init__(self, inputs: int, outputs: int, *, first: bool = False, halve: bool = True) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *([] if first else [nn.ReLU()]),
            Conv2d(inputs, outputs, 3, padding=1),
            nn.ReLU(),
            HalvingConv2d(outputs, outputs) if halve else Conv2d(outputs, outputs, 3, padding=1),
        )
        # A 1×1 convolution and an average commute: the smaller picture first.
        pool = [nn.AvgPool2d(2)] if halve else []
        self.skip = nn.Sequential(*pool, *([Conv2d(inputs, outputs, 1)] if halve or inputs != outputs else []))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x) + self.skip(x)
        return out


class Encoder(nn.Module):
    """[N, C, H, W] -> [N, outputs]: halvings to 8×8, two blocks there, the sum over places, a linear map."""

    def __init__(self, outputs: int, width: int, size: tuple[int, ...]) -> None:
        super().__init__()
        downs = [_Down(width if number else size[0], width, first=not number) for number in range(_halvings(size, 8))]
        self.blocks = nn.Sequential(*downs, *(_Down(width, width, halve=False) for _ in range(2)))
        self.out = nn.Linear(width, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(F.relu(self.blocks(x)).sum((2, 3)))
        return out


class _Residual(nn.Module):
    """x + a bottleneck of 1×1, grouped 3×3 and 1×1 convolutions without normalisation (Huang et al. 2024, figure 3).

    It starts as fix-up does (Zhang et al. 2019): the last convolution at zero, so that every block is the identity, the
    other two smaller by the fourth root of the number of blocks.
    """

    def __init__(self, channels: int, groups: int, expansion: int, blocks: int) -> None:
        super().__init__()
        inner = channels * expansion
        first = Conv2d(channels, inner, 1)
        grouped = Conv2d(inner, inner, 3, padding=1, groups=groups)
        last = Conv2d(inner, channels, 1, bias=False)
        self.branch = nn.Sequential(first, nn.LeakyReLU(0.2), grouped, nn.LeakyReLU(0.2), last)
        if not last.weight.is_meta:
            for layer in (first, grouped):
                nn.init.kaiming_normal_(layer.weight, 0.2)
                with torch.no_grad():
                    layer.weight.mul_(blocks**-0.25)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


def _keep_variance(layer: nn.Module) -> None:
    """Weights of variance 1 / fan-in, so that what goes in is as large as what comes out."""
    weight = layer.weight
    if isinstance(weight, Tensor) and not weight.is_meta:
        nn.init.kaiming_normal_(weight, nonlinearity="linear")


class _Filtered(nn.Module):
    """Square pictures of `side` pixels at twice the side, or, with `halve`, at half of it, through the low-pass filter
    (1, 3, 3, 1) in both directions, with zeros around the picture: what R3GAN's published code resamples with (a filter
    (1, 2, 1) convolved with (1, 1)). As products with a matrix: torch's own kernels add their gradients up in an order
    that a GPU does not repeat.
    """

    matrix: Tensor

    def __init__(self, side: int, *, halve: bool = False) -> None:
        super().__init__()
        small = side // 2 if halve else side
        # The larger picture's pixels lie a quarter beside the smaller one's: shares of ¾ and ¼.
        near = (torch.arange(2 * small) + 0.5) / 2 - 0.5
        shares = (1 - (near[:, None] - torch.arange(small)).abs()).clamp(min=0)
        self.register_buffer("matrix", shares.T / 2 if halve else shares, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        resampled: Tensor = self.matrix.to(x.dtype) @ x @ self.matrix.to(x.dtype).T
        return resampled


class ModernDecoder(nn.Module):
    """[N, latent] -> [N, C, H, W]: at every side from 4×4 two residual blocks, filtered doubling between."""

    def __init__(self, latent: int, width: int, size: tuple[int, ...], groups: int, expansion: int) -> None:
        super().__init__()
        doublings = _halvings(size, 4)
        # A learned 4×4 picture of features, scaled by what the latent says.
        self.base = nn.Parameter(torch.randn(width, 4, 4))
        self.style = nn.Linear(latent, width, bias=False)
        stages: list[nn.Module] = []
        for number in range(doublings + 1):
            stages += [_Filtered(2 * 2**number)] if number else []
            stages += [_Residual(width, groups, expansion, 2 * (doublings + 1)) for _ in range(2)]
        colours = Conv2d(width, size[0], 1)
        self.stages = nn.Sequential(*stages, colours)
        for layer in (self.style, colours):
            _keep_variance(layer)

    def forward(self, latents: Tensor) -> Tensor:
        out: Tensor = self.stages(self.base * self.style(latents)[:, :, None, None])
        return out


class ModernEncoder(nn.Sequential):
    """[N, C, H, W] -> [N, outputs]: two residual blocks at every side down to 4×4, filtered halving between, and a
    depthwise 4×4 convolution.
    """

    def __init__(
        self, outputs: int, width: int, size: tuple[int, ...], groups: int, expansion: int, bias: bool = True
    ) -> None:
        layers: list[nn.Module] = [Conv2d(size[0], width, 1)]
        sides = _halvings(size, 4) + 1
        for number in range(sides):
            layers += [_Filtered(size[1] // 2 ** (number - 1), halve=True)] if number else []
            layers += [_Residual(width, groups, expansion, 2 * sides) for _ in range(2)]
        last = [Conv2d(width, width, 4, groups=width, bias=False), nn.Linear(width, outputs, bias=bias)]
        for layer in (layers[0], *last):
            _keep_variance(layer)
        super().__init__(*layers, last[0], nn.Flatten(), last[1])
