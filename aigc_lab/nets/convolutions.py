"""torch's convolutions, faster on a CPU: between pictures of few channels and features of many, and where pictures are
doubled before one or halved after it.

From features to a picture (the last layer of what draws one, and the gradient by the picture of the first layer of what
reads it) oneDNN pads one channel to sixteen, and falls from its fast kernels to slow ones: a 3×3 convolution of 64
features to one channel at 32×32 runs at 5 GFLOP/s, one of 64 to 64 at 100 (torch 2.15, one core of an AMD EPYC). Here
it is one product and a few sums.

The numbers are those of torch's layers but for rounding, at every order of reverse-mode derivative; names, shapes and
initial values of the parameters are the same. For other shapes, on other devices, and where products of float32 are to
be less precise than convolutions (`training.matmul_precision`), torch computes them.
"""

from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: of more channels than these oneDNN makes good use, and of fewer features than these it is as quick
FEW, FEATURES = 4, 8
#: pixels of a picture from which on fewer products pay for the sums of weights that they need
LARGE = 8 * 8


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`: [N, in channels, H, W] -> [N, out channels, H', W']."""

    # What spectral normalisation calls with weights of its own.
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        window = _window(self, input, weight)
        if window is None or min(input.shape[2:]) + 2 * window.padding < window.size:
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        x, weight, bias = _cast(input, weight, bias)
        if not window.padding and input.shape[2:] == weight.shape[2:]:
            return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
        few, many = sorted((self.in_channels, self.out_channels))
        if few <= FEW and many >= FEATURES and _quicker(x, window):
            if few == self.in_channels:
                read: Tensor = _Read.apply(x, weight, bias, window)
                return read
            if window.stride == 1 and window.padding < window.size:
                # Features to pixels by the mirrored weights.
                mirrored = _laid_out(weight.flip(2, 3).transpose(0, 1), last=_is_last(x))
                return _picture(x, mirrored, bias, window._replace(padding=window.size - 1 - window.padding))
        return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`: [N, in channels, H, W] -> [N, out channels, H', W']."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        window = _window(self, input, self.weight)
        if window is None or output_size is not None or self.output_padding != (0, 0):
            return super().forward(input, output_size)
        x, weight, bias = _cast(input, self.weight, self.bias)
        if not window.padding and input.shape[2:] == (1, 1):
            return _plus(bias, (x.flatten(1) @ weight.flatten(1)).view(-1, *weight.shape[1:]))
        drawn = min(window.picture(input.shape[2:])) > 0
        if drawn and self.out_channels <= FEW and self.in_channels >= FEATURES and _quicker(x, window):
            return _picture(x, weight, bias, window)
        return super().forward(input, output_size)


class _Scaling(nn.Conv2d):
    """Windows of 3×3 with a padding of 1, before or after which a picture changes its size."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def _pays(self, input: Tensor, channels: int) -> bool:
        large = input.dim() == 4 and input.shape[2:].numel() >= LARGE
        return large and input.device.type == "cpu" and self.in_channels * self.out_channels >= channels**2


class DoublingConv2d(_Scaling):
    """`torch.nn.Upsample(scale_factor=2)`, then `torch.nn.Conv2d` with windows of 3×3 and a padding of 1:
    [N, in channels, H, W] -> [N, out channels, 2H, 2W].

    A window sees 2×2 pixels of what was not yet doubled, each once, twice or four times: four products with sums of
    weights in the place of nine. On a CPU, for 128 channels and 8×8 to 16×16 pixels, 1.5 to 2.1 times as fast.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._pays(input, 64):
            return super()._conv_forward(F.interpolate(input, scale_factor=2.0), weight, bias)  # type: ignore[no-any-return]
        sums = _pairs(_pairs(weight, 2), 4).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # 4 out channels, in channels, 2, 2
        # Of the windows on all pixels and those around them, a quarter of the results each.
        around = F.conv2d(input, sums, None if bias is None else bias.repeat_interleave(4), padding=1)
        return _laid_out(F.pixel_shuffle(around, 2)[:, :, 1:-1, 1:-1], last=_is_last(around))


class HalvingConv2d(_Scaling):
    """`torch.nn.Conv2d` with windows of 3×3 and a padding of 1, then `torch.nn.AvgPool2d(2)`:
    [N, in channels, H, W] -> [N, out channels, H/2, W/2].

    The mean of four windows side by side is one of 4×4, whose weights are means: four products for nine. On a CPU, of
    32 to 128 channels and 16×16 to 32×32 pixels, 1.8 to 2.4 times as fast.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._pays(input, 32):
            return F.avg_pool2d(super()._conv_forward(input, weight, bias), 2)
        means = F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, stride=1)
        return F.conv2d(input, means, bias, stride=2, padding=1)


class _Window(NamedTuple):
    """The square of a picture's pixels that belongs to one place of the features; its padding is of zeros."""

    size: int
    stride: int
    padding: int

    def picture(self, places: torch.Size) -> tuple[int, int]:
        """Height and width of the smallest picture that has so many places."""
        height, width = ((side - 1) * self.stride + self.size - 2 * self.padding for side in places)
        return height, width


def _window(layer: nn.Conv2d | nn.ConvTranspose2d, input: Tensor, weight: Tensor) -> _Window | None:
    """The layer's window, if it is one that this module knows and the input one that it is for."""
    if input.device.type != "cpu" or input.dim() != 4 or input.shape[1] != layer.in_channels:
        return None
    types = {each.dtype for each in (input, weight, layer.bias) if each is not None}
    if len(types) > 1 and not torch.is_autocast_enabled("cpu"):
        return None
    if layer.groups != 1 or layer.padding_mode != "zeros" or torch.get_float32_matmul_precision() != "highest":
        return None
    found = [layer.kernel_size, layer.stride, layer.padding]
    if any(isinstance(each, str) or each[0] != each[1] for each in found) or layer.dilation != (1, 1):
        return None
    window = _Window(*(int(each[0]) for each in found))
    return None if window.size == 1 or window.size % window.stride else window


def _quicker(x: Tensor, window: _Window) -> bool:
    """Whether features become a picture quicker here: in 16 bits, which oneDNN is quick at, of windows of stride 2."""
    return x.dtype in (torch.float32, torch.float64) or window == (4, 2, 1)


def _pairs(weights: Tensor, dim: int) -> Tensor:
    """Along a dimension in the place of three weights [2, 2] sums: for the odd and the even of the doubled pixels those
    of either pixel that its window sees.
    """
    first, middle, third = weights.unbind(dim)
    odd, even = torch.stack([first + middle, third], dim), torch.stack([first, middle + third], dim)
    return torch.stack([odd, even], dim)


def _cast(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors as autocast has a convolution take them, which leaves doubles as they are."""
    if not torch.is_autocast_enabled("cpu") or torch.float64 in (input.dtype, weight.dtype):
        return input, weight, bias
    dtype = torch.get_autocast_dtype("cpu")
    return input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _is_last(x: Tensor) -> bool:
    """Whether the channels are innermost in memory, of more than one and more than one pixel."""
    return x.stride(1) == 1 and x.shape[1] > 1 and x.shape[2:].numel() > 1


def _laid_out(x: Tensor, *, last: bool) -> Tensor:
    # `memory_format` would do, but not under `vmap`.
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if last else x.contiguous()


def _plus(bias: Tensor | None, features: Tensor) -> Tensor:
    return features if bias is None else features + bias[:, None, None]


def _picture(x: Tensor, weight: Tensor, bias: Tensor | None, window: _Window) -> Tensor:
    drawn: Tensor = _Draw.apply(x, weight, window, window.picture(x.shape[2:]))
    return drawn.clone() if bias is None else _plus(bias, drawn)  # no view of what the function computes


class _Read(torch.autograd.Function):
    """Features [N, F, h, w] of pictures [N, C, H, W] by weights [F, C, k, k] and a bias [F]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(picture: Tensor, weight: Tensor, bias: Tensor | None, window: _Window) -> Tensor:
        return F.conv2d(picture, weight, bias, window.stride, window.padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        picture, weight, _, ctx.window = inputs
        ctx.save_for_backward(picture, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        picture, weight = ctx.saved_tensors
        of_picture, of_weight, of_bias, _ = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):  # as torch's own gradients are computed
            return (
                _Draw.apply(gradient, weight, ctx.window, picture.shape[2:]) if of_picture else None,
                _of_weight(picture, gradient, weight, ctx.window) if of_weight else None,
                gradient.sum((0, 2, 3)) if of_bias else None,
                None,
            )


class _Draw(torch.autograd.Function):
    """Pictures [N, C, H, W] of a size, of features [N, F, h, w] by weights [F, C, k, k]: what the gradient of `_Read`
    by the picture is.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weight: Tensor, window: _Window, size: tuple[int, int]) -> Tensor:
        if features.dtype in (torch.float32, torch.float64):
            return _by_product(features, weight, window, size)
        if size == window.picture(features.shape[2:]):
            return _by_phases(features, weight)
        more = [side % 2 for side in size]
        return F.conv_transpose2d(features, weight, None, window.stride, window.padding, more)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        features, weight, ctx.window, _ = inputs
        ctx.save_for_backward(features, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        features, weight = ctx.saved_tensors
        of_features, of_weight, *_ = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            return (
                _Read.apply(gradient, weight, None, ctx.window) if of_features else None,
                _of_weight(gradient, features, weight, ctx.window) if of_weight else None,
                None,
                None,
            )


def _of_weight(picture: Tensor, features: Tensor, weight: Tensor, window: _Window) -> Tensor:
    """The gradient by the weights, which is the same for both; torch knows its derivatives."""
    stride, padding, only = [window.stride] * 2, [window.padding] * 2, [False, True, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        features, picture, weight, None, stride, padding, [1, 1], False, [0, 0], 1, only
    )[1]
    return found


def _by_product(features: Tensor, weight: Tensor, window: _Window, size: tuple[int, int]) -> Tensor:
    """The pixels of each window by one product, and the sums of those that windows share.

    A window is cut into squares of its stride's side; the squares (a, b) of all windows tile the padded picture, so
    that they are added at once.
    """
    (_, stride, padding), across = window, window.size // window.stride
    count, channels, last = features.shape[0], weight.shape[1], _is_last(features)
    cut = weight.reshape(*weight.shape[:2], across, stride, across, stride)  # F, C, a, p, b, q
    taps = cut.permute(2, 4, 3, 5, 1, 0).flatten(0, 4)  # a b p q C, F
    shape = (across, across, stride * stride * channels)
    if last:
        tiles = (taps @ features.permute(0, 2, 3, 1).flatten(0, 2).t()).view(*shape, count, *features.shape[2:])
    else:
        tiles = (taps @ features.flatten(2)).view(count, *shape, *features.shape[2:]).movedim(0, 3)
    height, width = features.shape[2:]
    rows, columns = (-(-(side + 2 * padding) // stride) for side in size)
    planes = tiles.new_zeros(shape[2], count, max(rows, height + across - 1), max(columns, width + across - 1))
    for a, b in product(range(across), range(across)):
        planes[..., a : a + height, b : b + width].add_(tiles[a, b])
    rows, columns = (stride * side for side in planes.shape[2:])
    phases = planes.view(stride, stride, channels, *planes.shape[1:])  # p, q, C, N, H / stride, W / stride
    if last:
        padded = phases.permute(3, 4, 0, 5, 1, 2).reshape(count, rows, columns, channels).permute(0, 3, 1, 2)
    else:
        padded = phases.permute(3, 2, 4, 0, 5, 1).reshape(count, channels, rows, columns)
    return _laid_out(padded[:, :, padding : padding + size[0], padding : padding + size[1]], last=last)


def _by_phases(features: Tensor, weight: Tensor) -> Tensor:
    """Of windows (4, 2, 1) four pictures of half the side, each a convolution of 3×3, a pixel of each in turn (Shi et
    al. 2016, "Real-time single image and video super-resolution", section 2): more arithmetic than a product and its
    sums, but nothing is rounded to 16 bits before it is summed.
    """
    count, channels = weight.shape[:2]
    for dim in (2, 4):
        # Pixel 2i + p has the weight p + 1 - 2d of feature i + d, d in {-1, 0, 1}.
        taps = weight.unbind(dim)
        none = torch.zeros_like(taps[0])
        even, odd = torch.stack([taps[3], taps[1], none], dim), torch.stack([none, taps[2], taps[0]], dim)
        weight = torch.stack([even, odd], dim)
    phases = weight.permute(1, 2, 4, 0, 3, 5).reshape(4 * channels, count, 3, 3)  # of F, C, p, d, q, d
    picture: Tensor = F.pixel_shuffle(F.conv2d(features, phases, padding=1), 2)
    return picture
