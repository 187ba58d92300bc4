"""EfficientNet-Lite0 (Tan & Le 2019, table 1; Liu 2020): B0 without squeeze-and-excitation, with ReLU6 for SiLU.

Made to be run, not trained: batch normalisation is folded into the convolutions, and tensors lie channels last in
memory. Both move the last digits only.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 1000
#: length of the feature vectors
DIMENSIONS = 1280
_STEM = 32
# TensorFlow's, and not torch's 1e-5.
_EPSILON = 1e-3
# (x − 127) / 128 of pixels from 0 to 255, as efficientnet_lite_builder.py has it.
_MEAN, _STD = 127.0, 128.0


class Stage(NamedTuple):
    """`depth` blocks of `channels` outputs: k×k kernels, the first block of the stride, inside `expansion` × wider."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    depth: int


STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)


class _Layer(NamedTuple):
    """A convolution and the normalisation behind it, by their names in the published file."""

    convolution: str
    normalisation: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outputs, self.inputs // self.groups, self.kernel, self.kernel


_HEAD = _Layer("_conv_head", "_bn1", STAGES[-1].channels, DIMENSIONS)


def _block(name: str, inputs: int, stage: Stage, stride: int) -> list[_Layer]:
    """MBConv: expand, filter each channel by itself, project without an activation."""
    inside = inputs * stage.expansion
    layers = [
        _Layer(f"{name}._depthwise_conv", f"{name}._bn1", inside, inside, stage.kernel, stride, inside),
        _Layer(f"{name}._project_conv", f"{name}._bn2", inside, stage.channels, activation=False),
    ]
    return [_Layer(f"{name}._expand_conv", f"{name}._bn0", inputs, inside), *layers] if stage.expansion > 1 else layers


def _blocks() -> Iterator[list[_Layer]]:
    """The stem and every MBConv, from the input on."""
    yield [_Layer("_conv_stem", "_bn0", 3, _STEM, 3, 2)]
    number, inputs = 0, _STEM
    for stage in STAGES:
        for index in range(stage.depth):
            yield _block(f"_blocks.{number}", inputs, stage, stage.stride if index == 0 else 1)
            number, inputs = number + 1, stage.channels


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the published file that is read."""
    sizes: dict[str, tuple[int, ...]] = {"_fc.weight": (CLASSES, DIMENSIONS), "_fc.bias": (CLASSES,)}
    for layer in [*(layer for block in _blocks() for layer in block), _HEAD]:
        sizes[f"{layer.convolution}.weight"] = layer.shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            sizes[f"{layer.normalisation}.{part}"] = (layer.outputs,)
    return sizes


class EfficientNetLite0(nn.Module):
    """uint8 or float images [N, 3, H, W] of 0 to 255 -> (features [N, 1280], logits [N, 1000] of ImageNet's classes).

    Images are resized to `side`×`side`, bicubic and smoothed where they shrink; it was trained with 224.
    """

    def __init__(self, weights: Mapping[str, Tensor], side: int) -> None:
        """From the tensors of `shapes`, all of them there. Raises `ValueError` for a side that is no multiple of 32."""
        super().__init__()
        if side < 32 or side % 32:
            raise ValueError(f"side = {side}: a multiple of 32 is wanted, by which the network shrinks an image")
        self.side = side
        self.blocks = nn.Sequential(*(_Block(layers, weights) for layers in [*_blocks(), [_HEAD]]))
        self.fc = nn.Linear(DIMENSIONS, CLASSES, device="meta")  # which draws no random weights
        self.fc.load_state_dict({name: weights[f"_fc.{name}"].float() for name in ("weight", "bias")}, assign=True)
        self.to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.blocks(self._normalised(images)).mean((2, 3))
        return vectors, self.fc(vectors)

    def _normalised(self, images: Tensor) -> Tensor:
        values, size = images.float(), (self.side, self.side)
        if images.shape[2:] != size:
            values = F.interpolate(values, size, mode="bicubic", antialias=True).clamp(0, 255)
        return ((values - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)


class _Block(nn.Sequential):
    """Layers one after the other, and their input added where it has the size of their output."""

    def __init__(self, layers: Sequence[_Layer], weights: Mapping[str, Tensor]) -> None:
        super().__init__(*(_Folded(layer, weights) for layer in layers))
        self.skips = layers[0].inputs == layers[-1].outputs and all(layer.stride == 1 for layer in layers)

    def forward(self, maps: Tensor) -> Tensor:
        outputs = maps
        for layer in self:
            outputs = layer(outputs)
        return outputs.add_(maps) if self.skips else outputs


class _Folded(nn.Conv2d):
    """A convolution with its normalisation in it (in float64), TensorFlow's padding around it and ReLU6 behind it."""

    def __init__(self, layer: _Layer, weights: Mapping[str, Tensor]) -> None:
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (weights[f"{layer.normalisation}.{part}"].double() for part in parts)
        # At a stride of one "SAME" padding is the same on both sides, and the convolution's own.
        even = layer.kernel // 2 if layer.stride == 1 else 0
        super().__init__(
            layer.inputs, layer.outputs, layer.kernel, layer.stride, even, groups=layer.groups, device="meta"
        )
        scale = gamma / (variance + _EPSILON).sqrt()
        self.load_state_dict(
            {
                "weight": (weights[f"{layer.convolution}.weight"].double() * scale[:, None, None, None]).float(),
                "bias": (beta - mean * scale).float(),
            },
            assign=True,
        )
        self.activation = layer.activation

    def forward(self, maps: Tensor) -> Tensor:
        if self.stride[0] > 1:
            maps = F.pad(maps, [*_same(maps.shape[3], self), *_same(maps.shape[2], self)])
        outputs = super().forward(maps)
        return F.relu6(outputs, inplace=True) if self.activation else outputs


def _same(size: int, layer: nn.Conv2d) -> tuple[int, int]:
    """TensorFlow's "SAME" padding before and after `size` pixels: one more behind where the sum is odd."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
