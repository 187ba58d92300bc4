"""Inception v3 (Szegedy et al. 2015) as TensorFlow froze it on 2015-12-05, to be run and not to be trained.

Its layers are named as in the file of weights that pytorch-fid and torch-fidelity publish. They are run in another
order, which changes the last digits only: batch normalisation is folded into the convolutions; 1×1 convolutions of one
input are one; and an average pool comes after the 1×1 convolution that follows it, where there are fewer channels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 1008
SIZE = 299
_EPSILON = 1e-3
#: pooled channels after the first and the second maximum, before the auxiliary classifier, and at the end
DIMENSIONS = (64, 192, 768, 2048)


# The weight and the bias of every convolution.
_Folded = Mapping[str, tuple[Tensor, Tensor]]


class _Kernel(NamedTuple):
    """A convolution; the ones without padding are those that shrink the picture."""

    inputs: int
    outputs: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


def _a(inputs: int, pool: int) -> dict[str, _Kernel]:
    return {
        "branch1x1": _Kernel(inputs, 64),
        "branch5x5_1": _Kernel(inputs, 48),
        "branch5x5_2": _Kernel(48, 64, (5, 5)),
        "branch3x3dbl_1": _Kernel(inputs, 64),
        "branch3x3dbl_2": _Kernel(64, 96, (3, 3)),
        "branch3x3dbl_3": _Kernel(96, 96, (3, 3)),
        "branch_pool": _Kernel(inputs, pool),
    }


def _b(inputs: int) -> dict[str, _Kernel]:
    return {
        "branch3x3": _Kernel(inputs, 384, (3, 3), 2, padded=False),
        "branch3x3dbl_1": _Kernel(inputs, 64),
        "branch3x3dbl_2": _Kernel(64, 96, (3, 3)),
        "branch3x3dbl_3": _Kernel(96, 96, (3, 3), 2, padded=False),
    }


def _c(inner: int) -> dict[str, _Kernel]:
    row, column = (1, 7), (7, 1)
    return {
        "branch1x1": _Kernel(768, 192),
        "branch7x7_1": _Kernel(768, inner),
        "branch7x7_2": _Kernel(inner, inner, row),
        "branch7x7_3": _Kernel(inner, 192, column),
        "branch7x7dbl_1": _Kernel(768, inner),
        "branch7x7dbl_2": _Kernel(inner, inner, column),
        "branch7x7dbl_3": _Kernel(inner, inner, row),
        "branch7x7dbl_4": _Kernel(inner, inner, column),
        "branch7x7dbl_5": _Kernel(inner, 192, row),
        "branch_pool": _Kernel(768, 192),
    }


def _d() -> dict[str, _Kernel]:
    return {
        "branch3x3_1": _Kernel(768, 192),
        "branch3x3_2": _Kernel(192, 320, (3, 3), 2, padded=False),
        "branch7x7x3_1": _Kernel(768, 192),
        "branch7x7x3_2": _Kernel(192, 192, (1, 7)),
        "branch7x7x3_3": _Kernel(192, 192, (7, 1)),
        "branch7x7x3_4": _Kernel(192, 192, (3, 3), 2, padded=False),
    }


def _e(inputs: int) -> dict[str, _Kernel]:
    row, column = (1, 3), (3, 1)
    return {
        "branch1x1": _Kernel(inputs, 320),
        "branch3x3_1": _Kernel(inputs, 384),
        "branch3x3_2a": _Kernel(384, 384, row),
        "branch3x3_2b": _Kernel(384, 384, column),
        "branch3x3dbl_1": _Kernel(inputs, 448),
        "branch3x3dbl_2": _Kernel(448, 384, (3, 3)),
        "branch3x3dbl_3a": _Kernel(384, 384, row),
        "branch3x3dbl_3b": _Kernel(384, 384, column),
        "branch_pool": _Kernel(inputs, 192),
    }


_STEM = {
    "Conv2d_1a_3x3": _Kernel(3, 32, (3, 3), 2, padded=False),
    "Conv2d_2a_3x3": _Kernel(32, 32, (3, 3), padded=False),
    "Conv2d_2b_3x3": _Kernel(32, 64, (3, 3)),
    "Conv2d_3b_1x1": _Kernel(64, 80),
    "Conv2d_4a_3x3": _Kernel(80, 192, (3, 3), padded=False),
}
_MIXED = {
    "Mixed_5b": _a(192, 32),
    "Mixed_5c": _a(256, 64),
    "Mixed_5d": _a(288, 64),
    "Mixed_6a": _b(288),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": _d(),
    "Mixed_7b": _e(1280),
    "Mixed_7c": _e(2048),
}
KERNELS = _STEM | {f"{block}.{name}": kernel for block, named in _MIXED.items() for name, kernel in named.items()}


def shapes() -> dict[str, tuple[int, ...]]:
    """What the published file holds: the name and the shape of every tensor that is read."""
    found: dict[str, tuple[int, ...]] = {}
    for name, kernel in KERNELS.items():
        found[f"{name}.conv.weight"] = (kernel.outputs, kernel.inputs, *kernel.size)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.bn.{part}"] = (kernel.outputs,)
    return found | {"fc.weight": (CLASSES, 2048)}


class Inception(nn.Module):
    """uint8 images [N, 1 or 3, H, W] -> (vectors [N, dimensions], and of 2048 the logits [N, 1008], else None).

    The resize to 299×299 is pytorch-fid's: bilinear, corners not aligned, no smoothing. Grey images are as if they were
    three times the same colour, which the first convolution knows without seeing it thrice. The logits have no bias:
    so the first Inception score read them, and all that followed.
    """

    def __init__(self, weights: Mapping[str, Tensor], dimensions: int) -> None:
        """From the tensors of `shapes`, all of them there."""
        super().__init__()
        self.dimensions = dimensions
        self.size = SIZE
        folded = {name: _fold(weights, name) for name in KERNELS}
        self.stem = nn.ModuleList(_conv(folded, name) for name in _STEM)
        kinds: dict[str, type[_Block]] = {"5": _A, "6": _C, "7": _E}
        special: dict[str, type[_Block]] = {"Mixed_6a": _B, "Mixed_7a": _D, "Mixed_7c": _LastE}
        wanted = {64: "", 192: "", 768: "56", 2048: "567"}[dimensions]
        self.mixed = nn.Sequential(
            *(special.get(name, kinds[name[6]])(folded, name) for name in _MIXED if name[6] in wanted)
        )
        self.fc = nn.Parameter(weights["fc.weight"].float(), requires_grad=False) if dimensions == 2048 else None
        self.grey = nn.Parameter(folded["Conv2d_1a_3x3"][0].sum(1, keepdim=True), requires_grad=False)
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        # From [0, 255] to [−1, 1] while the picture is small.
        x = F.interpolate(images.float() / 127.5 - 1, (self.size, self.size), mode="bilinear", align_corners=False)
        x = x.contiguous(memory_format=torch.channels_last)
        first, *early, middle, late = self.stem
        x = first(x) if images.shape[1] == 3 else F.relu_(F.conv2d(x, self.grey, first.bias, 2))  # type: ignore[arg-type]
        for conv in early:
            x = conv(x)
        x = F.max_pool2d(x, 3, 2)
        if self.dimensions > 64:
            x = F.max_pool2d(late(middle(x)), 3, 2)
        vectors = self.mixed(x).mean((2, 3))
        return vectors, None if self.fc is None else F.linear(vectors, self.fc)


def _fold(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """The weight and the bias of a convolution with its batch normalisation inside."""
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
    )
    scale = scale / (variance + _EPSILON).sqrt()
    weight = weights[f"{name}.conv.weight"].double() * scale[:, None, None, None]
    return weight.float(), (shift - mean * scale).float()


class _Conv(nn.Conv2d):
    """A convolution and ReLU."""

    bias: nn.Parameter

    def __init__(self, kernel: _Kernel, outputs: int) -> None:
        padding = tuple(side // 2 for side in kernel.size) if kernel.padded else 0
        with torch.device("meta"):
            super().__init__(kernel.inputs, outputs, kernel.size, kernel.stride, padding)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.linear(x))

    def linear(self, x: Tensor) -> Tensor:
        """Without ReLU."""
        return super().forward(x)


def _conv(folded: _Folded, *names: str) -> _Conv:
    """One convolution, or several of one input side by side."""
    made = _Conv(KERNELS[names[0]], sum(KERNELS[name].outputs for name in names))
    weight, bias = zip(*(folded[name] for name in names), strict=True)
    made.weight, made.bias = nn.Parameter(torch.cat(weight)), nn.Parameter(torch.cat(bias))
    return made


class _Block(nn.Module):
    """`heads` are the 1×1 convolutions that read the block's input, as one; the rest has its published name."""

    heads_of: tuple[str, ...]

    def __init__(self, folded: _Folded, name: str) -> None:
        super().__init__()
        kernels = _MIXED[name]
        self.widths = [kernels[head].outputs for head in self.heads_of]
        self.heads = _conv(folded, *(f"{name}.{head}" for head in self.heads_of))
        for rest in sorted(kernels.keys() - set(self.heads_of)):
            self.add_module(rest, _conv(folded, f"{name}.{rest}"))

    def split(self, x: Tensor) -> list[Tensor]:
        """What the heads make of the input. An average pool is linear too, so that the head that the published network
        has after it comes before it, and ReLU last.
        """
        parts = list(torch.split(self.heads.linear(x), self.widths, 1))
        if self.heads_of[-1] == "branch_pool":
            parts[-1] = F.avg_pool2d(parts[-1], 3, 1, 1, count_include_pad=False)
        return [F.relu(part) for part in parts]

    def through(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x


class _A(_Block):
    heads_of = ("branch1x1", "branch5x5_1", "branch3x3dbl_1", "branch_pool")

    def forward(self, x: Tensor) -> Tensor:
        one, five, three, pool = self.split(x)
        five = self.through(five, "branch5x5_2")
        return torch.cat([one, five, self.through(three, "branch3x3dbl_2", "branch3x3dbl_3"), pool], 1)


class _B(_Block):
    heads_of = ("branch3x3dbl_1",)

    def forward(self, x: Tensor) -> Tensor:
        (double,) = self.split(x)
        double = self.through(double, "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([self.through(x, "branch3x3"), double, F.max_pool2d(x, 3, 2)], 1)


class _C(_Block):
    heads_of = ("branch1x1", "branch7x7_1", "branch7x7dbl_1", "branch_pool")

    def forward(self, x: Tensor) -> Tensor:
        one, seven, double, pool = self.split(x)
        seven = self.through(seven, "branch7x7_2", "branch7x7_3")
        double = self.through(double, "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5")
        return torch.cat([one, seven, double, pool], 1)


class _D(_Block):
    heads_of = ("branch3x3_1", "branch7x7x3_1")

    def forward(self, x: Tensor) -> Tensor:
        three, seven = self.split(x)
        seven = self.through(seven, "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4")
        return torch.cat([self.through(three, "branch3x3_2"), seven, F.max_pool2d(x, 3, 2)], 1)


class _E(_Block):
    heads_of: tuple[str, ...] = ("branch1x1", "branch3x3_1", "branch3x3dbl_1", "branch_pool")

    def forward(self, x: Tensor) -> Tensor:
        one, three, double, *pool = self.split(x)
        pool = pool or [self.through(F.max_pool2d(x, 3, 1, 1), "branch_pool")]
        double = self.through(double, "branch3x3dbl_2")
        pairs = [
            self.through(three, "branch3x3_2a"),
            self.through(three, "branch3x3_2b"),
            self.through(double, "branch3x3dbl_3a"),
            self.through(double, "branch3x3dbl_3b"),
        ]
        return torch.cat([one, *pairs, *pool], 1)


class _LastE(_E):
    """With a maximum where the others have an average: an error of that Inception, which its features keep."""

    heads_of = ("branch1x1", "branch3x3_1", "branch3x3dbl_1")
