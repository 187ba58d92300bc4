"""What sets all generated pictures apart from real ones alike: blur, a codec's traces, noise, contrast, colour; and
real pictures made to look so.

Features may take what is blurred for another class, which then seems to be missing. Real pictures with the same shift,
of which all classes are known to be there, show whether they do.
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
    """Real pictures, uint8 [m, C, H, W], made to look like the generated ones, uint8 [n, C, H, W]: each spatial
    frequency as strong as there on the geometric mean, what is stronger there beyond a common contrast as noise, and
    the mean colours of the pictures as theirs. Of the real ones the means are taken by `weights` [m].

    A filter adds the same to the logarithm of every picture's power, whatever it shows; a class that is gone changes
    the mean of these logarithms by a part of how it differs from the others.
    """
    basis = _OPPONENT if real.shape[1] == 3 else torch.eye(real.shape[1])
    weights = weights.double() / weights.sum()
    even = torch.full((len(generated),), 1 / len(generated), dtype=torch.float64)
    there, mean, covariance = _moments(real, basis, weights)
    here, wanted_mean, wanted_covariance = _moments(generated, basis, even)
    change = here - there  # of the logarithms of the powers [C, H, W']
    contrast = change.flatten(1)[:, 1:].median(1).values.clamp_min(0)[:, None, None]
    gain = (change.minimum(contrast) / 2).exp()
    # What is stronger than that everywhere is none of the picture's.
    extra = ((here + _EULER).exp() - (there + contrast + _EULER).exp()).clamp_min(0).sqrt()
    turn, side = _transport(covariance, wanted_covariance), math.sqrt(real.shape[2] * real.shape[3])
    made = []
    for first in range(0, len(real), _AT_ONCE):
        waves, means = _waves(real[first : first + _AT_ONCE], basis)
        grain = noise.draw(noise.Draw((len(waves), *real.shape[1:])), "shift", first).double()
        waves = waves * gain + torch.fft.rfft2(grain, norm="ortho") * extra
        waves[:, :, 0, 0] = side * ((means - mean) @ turn + wanted_mean)
        pixels = torch.einsum("ndhw,dc->nchw", torch.fft.irfft2(waves, real.shape[2:], norm="ortho"), basis.double())
        made.append(pixels.round().clamp(0, 255).byte())
    return torch.cat(made)


def _waves(pictures: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The spectra [n, C, H, W'] of pictures, orthonormal, and their mean colours [n, C]."""
    turned = torch.einsum("nchw,dc->ndhw", pictures.double(), basis.double())
    return torch.fft.rfft2(turned, norm="ortho"), turned.mean((2, 3))


def _moments(pictures: Tensor, basis: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted mean of the logarithm of each frequency's power [C, H, W'], and the mean [C] and the covariance
    [C, C] of the pictures' mean colours.
    """
    logs, means = torch.zeros(()), []
    for part, weight in zip(torch.split(pictures, _AT_ONCE), torch.split(weights, _AT_ONCE), strict=True):
        waves, colours = _waves(part, basis)
        # What rounding to whole numbers adds: less is none.
        logs = logs + torch.einsum("n,nchw->chw", weight, (waves.abs().square() + 1 / 12).log())
        means.append(colours)
    every = torch.cat(means)
    mean = weights @ every
    centred = every - mean
    return logs, mean, centred.T @ (weights[:, None] * centred)


def _transport(there: Tensor, here: Tensor) -> Tensor:
    """The matrix of the optimal transport from N(0, there) to N(0, here) (Dowson & Landau 1982)."""
    root = _root(there)
    inverse = torch.linalg.pinv(root)
    matrix: Tensor = inverse @ _root(root @ here @ root) @ inverse
    return matrix


def _root(matrix: Tensor) -> Tensor:
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = (axes * values.clamp_min(0).sqrt()) @ axes.T
    return root
