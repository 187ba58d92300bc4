"""Shift of all generated pictures against real ones (blur, a codec's traces, noise, contrast, colour), and real
pictures with that shift.

Features may classify blurred pictures as another class, which then seems to be missing. Real pictures with the same
shift, of which all classes are known to be there, show whether they do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aigc_lab import noise

# Luminance and two differences of colours, orthonormal: codecs and networks blur these more than that.
_OPPONENT = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]]) / torch.tensor([3.0, 2, 6]).sqrt()[:, None]
# Pictures whose power is taken at a time.
_AT_ONCE = 512
# The mean of a logarithm of what is distributed exponentially is less than that of the mean by this.
_EULER = 0.5772156649


def shifted(real: Tensor, generated: Tensor, weights: Tensor) -> Tensor:
    """Real pictures, uint8 [m, C, H, W], with the shift of the generated ones, uint8 [n, C, H, W].

    Each spatial frequency gets the geometric mean power that it has there; power beyond a common contrast is added as
    noise; the mean colours of the pictures are transported to theirs. Means of real pictures are weighted by `weights`
    [m].

    A filter adds a constant to the log power of every picture, whatever it shows. A missing class changes the mean log
    power only by a part of its difference from the others.
    """
    basis = _OPPONENT if real.shape[1] == 3 else torch.eye(real.shape[1])
    weights = weights.double() / weights.sum()
    even = torch.full((len(generated),), 1 / len(generated), dtype=torch.float64)
    there, mean, covariance = _moments(real, basis, weights)
    here, target_mean, target_covariance = _moments(generated, basis, even)
    change = here - there  # of the logarithms of the powers [C, H, W']
    contrast = change.flatten(1)[:, 1:].median(1).values.clamp_min(0)[:, None, None]
    gain = (change.minimum(contrast) / 2).exp()
    # Power beyond the common contrast does not come from the pictures: it is added as noise.
    extra = ((here + _EULER).exp() - (there + contrast + _EULER).exp()).clamp_min(0).sqrt()
    turn, side = _transport(covariance, target_covariance), math.sqrt(real.shape[2] * real.shape[3])
    blocks = []
    for first in range(0, len(real), _AT_ONCE):
        waves, means = _waves(real[first : first + _AT_ONCE], basis)
        grain = noise.draw(noise.Draw((len(waves), *real.shape[1:])), "shift", first).double()
        waves = waves * gain + torch.fft.rfft2(grain, norm="ortho") * extra
        waves[:, :, 0, 0] = side * ((means - mean) @ turn + target_mean)
        pixels = torch.einsum("ndhw,dc->nchw", torch.fft.irfft2(waves, real.shape[2:], norm="ortho"), basis.double())
        blocks.append(pixels.round().clamp(0, 255).byte())
    return torch.cat(blocks)


def _waves(pictures: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal spectra [n, C, H, W'] of pictures, and their mean colours [n, C]."""
    turned = torch.einsum("nchw,dc->ndhw", pictures.double(), basis.double())
    return torch.fft.rfft2(turned, norm="ortho"), turned.mean((2, 3))


def _moments(pictures: Tensor, basis: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean log power of each frequency [C, H, W'], and mean [C] and covariance [C, C] of the pictures' mean
    colours.
    """
    logs, means = torch.zeros(()), []
    for part, weight in zip(torch.split(pictures, _AT_ONCE), torch.split(weights, _AT_ONCE), strict=True):
        waves, colours = _waves(part, basis)
        # 1/12 is the power of rounding to whole numbers; it keeps the logarithm finite.
        logs = logs + torch.einsum("n,nchw->chw", weight, (waves.abs().square() + 1 / 12).log())
        means.append(colours)
    every = torch.cat(means)
    mean = weights @ every
    centred = every - mean
    return logs, mean, centred.T @ (weights[:, None] * centred)


def _transport(there: Tensor, here: Tensor) -> Tensor:
    """Matrix of the optimal transport from N(0, there) to N(0, here) (Dowson & Landau 1982)."""
    root = _root(there)
    inverse = torch.linalg.pinv(root)
    matrix: Tensor = inverse @ _root(root @ here @ root) @ inverse
    return matrix


def _root(matrix: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = (axes * values.clamp_min(0).sqrt()) @ axes.T
    return root
