"""The networks of BEGAN (Berthelot et al. 2017, figure 1): 3×3 convolutions with ELU, no normalisation, for square
pictures whose side is 8 · 2^k.
"""

from torch import nn

from aigc_lab.nets.convolutions import Conv2d, DoublingConv2d


def _doublings(size: tuple[int, ...]) -> int:
    _, height, width = size
    halvings = (height // 8).bit_length() - 1
    if height != width or height != 8 * 2 ** max(halvings, 0):
        raise ValueError(f"it makes square pictures of 8, 16, 32, 64, … pixels, not {height}×{width}")
    return halvings


def _pair(inputs: int, outputs: int, stride: int = 1, *, doubled: bool = False) -> list[nn.Module]:
    """Two convolutions; of pictures of twice the side, if they are to be `doubled`."""
    last = Conv2d(inputs, outputs, 3, stride, padding=1)
    first = DoublingConv2d(inputs, inputs) if doubled else Conv2d(inputs, inputs, 3, padding=1)
    return [first, nn.ELU(), last, nn.ELU()]


class Decoder(nn.Sequential):
    """[N, hidden] -> [N, C, H, W], unbounded: the generator, and the second half of the critic."""

    def __init__(self, hidden: int, width: int, size: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        doublings = _doublings(size)
        for number in range(doublings):
            # In the place of what doubled the side, by whose number stored weights are called.
            layers += [*_pair(width, width, doubled=number > 0), nn.Identity()]
        super().__init__(
            nn.Linear(hidden, 64 * width),
            nn.Unflatten(1, (width, 8, 8)),
            *layers,
            *_pair(width, width, doubled=doublings > 0),
            Conv2d(width, size[0], 3, padding=1),
        )


class Encoder(nn.Sequential):
    """[N, C, H, W] -> [N, hidden]: a convolution of stride 2 halves the side and adds `width` channels."""

    def __init__(self, hidden: int, width: int, size: tuple[int, ...]) -> None:
        layers: list[nn.Module] = [Conv2d(size[0], width, 3, padding=1), nn.ELU()]
        channels = width
        for _ in range(_doublings(size)):
            layers += _pair(channels, channels + width, stride=2)
            channels += width
        super().__init__(*layers, *_pair(channels, channels), nn.Flatten(), nn.Linear(64 * channels, hidden))
