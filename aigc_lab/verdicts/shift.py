"""Shift of all generated pictures against real ones (blur, a codec's traces, noise, contrast, colour), and real
pictures with that shift.

Features may classify blurred pictures as another class, which then seems to be missing. Real pictures with the same
shift, of which all classes are known to be there, show whether they do.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from aigc_lab import noise

# Luminance and two differences of colours, orthonormal: codecs and networks blur these more than that.
_OPPONENT = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]]) / torch.tensor([3.0, 2, 6]).sqrt()[:, None]
# Pictures whose power is taken at a time.
_AT_ONCE = 512
# The power of rounding to whole numbers; it keeps logarithms finite.
_ROUNDING = 1 / 12
# A mean log power to which little more than rounding is needed.
_NOTHING = math.log(3 * _ROUNDING)
# The mean logarithm of white noise's power in the window over neighbouring frequencies is less than that of its mean by
# this. The window, [1 2 1] / 4 both ways, is much like a mean of 7.1 squared normal numbers: theirs would be 0.147.
_LOG_OF_MEAN = 0.135
# Power is noise where it is more than this many standard errors of what it is the difference of: of some thousand
# frequencies none is by chance.
_ERRORS = 4.0
# Generated pictures of which so many have less detail than so few real ones of any bin are blurred, whatever they show.
_MOST, _FEW = 0.75, 0.05


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
    there, its_error, mean, covariance = _moments(real, basis, weights)
    here, error, target_mean, target_covariance = _moments(generated, basis, even)
    change = here - there  # of the logarithms of the powers [C, H, W]
    contrast = change.flatten(1)[:, 1:].median(1).values.clamp_min(0)[:, None, None]
    gain = (change.minimum(contrast) / 2).exp()
    # How much of what lies below the rounding a filter passes cannot be seen: it passes nothing.
    gain[(here < _NOTHING) & (change < -1)] = 0.0
    # Power beyond the common contrast does not come from the pictures: it is added as noise, but where as much may be
    # by chance: on a flat ground a hundredth of the power of strong frequencies is a lot of noise.
    extra = ((here + _LOG_OF_MEAN).exp() - (there + contrast + _LOG_OF_MEAN).exp()).clamp_min(0).sqrt()
    extra[change - contrast < _ERRORS * (its_error + error).sqrt()] = 0.0
    turn, side = _transport(covariance, target_covariance), math.sqrt(real.shape[2] * real.shape[3])
    blocks = []
    for first in range(0, len(real), _AT_ONCE):
        waves, means = _waves(real[first : first + _AT_ONCE], basis)
        grain = noise.draw(noise.Draw((len(waves), *real.shape[1:])), "shift", first).double()
        waves = waves * gain + grain * extra
        waves[:, :, 0, 0] = side * ((means - mean) @ turn + target_mean)
        pixels = torch.einsum("nduv,uh,vw,dc->nchw", waves, *_cosines(real), basis.double())
        blocks.append(pixels.round().clamp(0, 255).byte())
    return torch.cat(blocks)


def blurred(real: Tensor, generated: Tensor, of: Tensor) -> bool:
    """Whether generated pictures, uint8 [n, C, H, W], are blurred whatever they show: three of four have less fine
    detail than 95 % of the real ones, uint8 [m, C, H, W], of every bin `of` [m]. No classes that are gone, and none
    that are left, make that of sharp pictures.
    """
    if min(real.shape[2:]) < 3:
        return False
    there, most = _detail(real), _detail(generated).quantile(_MOST)
    return all(bool(most < there[of == bin_].quantile(_FEW)) for bin_ in torch.unique(of).tolist())


def _detail(pictures: Tensor) -> Tensor:
    """Fine detail of each picture [n]: the median of what remains of its grey values beyond planes of 3×3 pixels
    (Immerkær 1996), which few edges do not change.
    """
    rows = pictures.double().mean(1).diff(n=2, dim=1)
    return rows.diff(n=2, dim=2).abs().flatten(1).median(1).values


def _waves(pictures: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal cosine transforms [n, C, H, W] of pictures, and their mean colours [n, C].

    A picture that goes on beyond its edges as in a mirror has no jump there, as it would in a Fourier transform: the
    jump's power at all frequencies along the axes would hide what a blur takes away there.
    """
    turned = torch.einsum("nchw,dc->ndhw", pictures.double(), basis.double())
    return torch.einsum("ndhw,uh,vw->nduv", turned, *_cosines(pictures)), turned.mean((2, 3))


def _cosines(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal matrices of the cosine transform (DCT-II) of columns [H, H] and of rows [W, W]."""
    matrices = []
    for size in pictures.shape[2:]:
        places = torch.arange(size, dtype=torch.float64)
        matrix = (math.pi / size * places[:, None] * (places + 0.5)).cos() * math.sqrt(2 / size)
        matrix[0] = math.sqrt(1 / size)
        matrices.append(matrix)
    return matrices[0], matrices[1]


def _moments(pictures: Tensor, basis: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted mean log power of each frequency [C, H, W] and its squared standard error, and mean [C] and covariance
    [C, C] of the pictures' mean colours.
    """
    logs, sums, squares, means = torch.zeros(()), torch.zeros(()), torch.zeros(()), []
    for part, weight in zip(torch.split(pictures, _AT_ONCE), torch.split(weights, _AT_ONCE), strict=True):
        waves, colours = _waves(part, basis)
        each = _power(waves).log()
        logs = logs + torch.einsum("n,nchw->chw", weight, each)
        sums = sums + torch.einsum("n,nchw->chw", weight.square(), each)
        squares = squares + torch.einsum("n,nchw->chw", weight.square(), each.square())
        means.append(colours)
    error = (squares - 2 * logs * sums + logs.square() * weights.square().sum()).clamp_min(0)
    every = torch.cat(means)
    mean = weights @ every
    centred = every - mean
    return logs, error, mean, centred.T @ (weights[:, None] * centred)


def _power(waves: Tensor) -> Tensor:
    """Power [n, C, H, W] near each frequency, over a window of 3×3, with that of rounding. Without the window the
    logarithm of so few numbers says little. Frequency 0, the mean colour, is no part of what is near it.
    """
    power = waves.square()
    if min(power.shape[2:]) > 1:
        power[:, :, 0, 0] = (power[:, :, 0, 1] + power[:, :, 1, 0]) / 2
        wide = F.pad(power, (1, 1, 1, 1), mode="replicate")
        rows = (wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]) / 4
        power = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
    return power + _ROUNDING


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
