"""Spectral normalisation (Miyato et al. 2018): layers whose weight is divided by its largest singular value.

The singular vectors u, v are buffers of the layer's own, and a forward pass only reads them: it is a function of
weights and buffers, so that it can be differentiated twice, stacked and repeated. `iterate` moves them, one power
iteration at a time; a system does so once before each update of its critic (algorithm 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aigc_lab.nets.convolutions import Conv2d, DoublingConv2d, HalvingConv2d
from aigc_lab.nets.precision import single

# Power iterations from the random start, so that the first weights that are used are normalised already.
_WARM = 15


class _Spectral(nn.Module):
    weight: Tensor
    u: Tensor
    v: Tensor

    def _begin(self) -> None:
        matrix = self.weight.detach().flatten(1)
        self.register_buffer("u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn_like(matrix[0]), dim=0))
        if not matrix.is_meta:
            for _ in range(_WARM):
                self.iterate()

    @torch.no_grad()
    def iterate(self) -> None:
        """One power iteration: v ← Wᵀu, u ← Wv, each of length 1."""
        with single(self.weight):
            matrix = self.weight.detach().flatten(1)
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def normalised(self) -> Tensor:
        """W / uᵀWv, in single precision."""
        with single(self.weight):
            # Of copies: a later iteration may not change what a backward pass still needs.
            sigma = self.u.clone() @ (self.weight.flatten(1) @ self.v.clone())
            normalised: Tensor = self.weight / sigma.clamp_min(1e-12)
            return normalised


class _SpectralConvolution(_Spectral):
    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self._conv_forward(x, self.normalised(), self.bias)  # type: ignore[operator]
        return convolved


class SpectralConv2d(_SpectralConvolution, Conv2d):
    pass


class SpectralDoublingConv2d(_SpectralConvolution, DoublingConv2d):
    pass


class SpectralHalvingConv2d(_SpectralConvolution, HalvingConv2d):
    pass


class SpectralLinear(_Spectral, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised(), self.bias)


_KINDS: dict[type[nn.Module], type[_Spectral]] = {
    nn.Conv2d: SpectralConv2d,
    Conv2d: SpectralConv2d,
    DoublingConv2d: SpectralDoublingConv2d,
    HalvingConv2d: SpectralHalvingConv2d,
    nn.Linear: SpectralLinear,
}


def spectral(network: nn.Module) -> nn.Module:
    """The network with every convolution and linear layer in it normalised, the weights as they are."""
    for part in network.modules():
        kind = _KINDS.get(type(part))
        if kind is not None:
            part.__class__ = kind
            part._begin()  # type: ignore[operator]  # noqa: SLF001
    return network


def is_spectral(network: nn.Module) -> bool:
    """Whether any of its layers is normalised."""
    return any(isinstance(part, _Spectral) for part in network.modules())


def iterate(network: nn.Module) -> None:
    """One power iteration of every normalised layer."""
    for part in network.modules():
        if isinstance(part, _Spectral):
            part.iterate()
