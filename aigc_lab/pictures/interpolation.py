"""Ways between two points of a latent space: straight, and along a great circle (Shoemake 1985; White 2016)."""

import torch
from torch import Tensor

# A sine below this: the ends point the same way, or away from each other, and there is no one great circle.
_NO_ANGLE = 1e-4
# Beyond this quantile float32 knows no normal number.
_EDGE = 1e-6


def linear(start: Tensor, end: Tensor, at: Tensor) -> Tensor:
    """Points [N, T, …] on the straight lines from each of `start` to its `end` [N, …], at shares `at` [T] of the way.

    >>> linear(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.0, 0.5, 1.0]))[0, :, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    share = at.reshape(1, -1, *[1] * (start.ndim - 1))
    return (1 - share) * start.unsqueeze(1) + share * end.unsqueeze(1)


def spherical(start: Tensor, end: Tensor, at: Tensor) -> Tensor:
    """Points [N, T, …] between each of `start` and its `end` [N, …], at shares `at` [T] of the angle between them.

    Between independent draws of N(0, I) in many dimensions the straight line passes where hardly any draw lies; these
    points keep the norm. Ends of one direction, or of opposite ones, are joined by the straight line.
    """
    first, last = start.flatten(1), end.flatten(1)
    angle = torch.nn.functional.cosine_similarity(first, last).clamp(-1, 1).arccos()[:, None, None]
    sine, share = angle.sin(), at[None, :, None]
    arc = (((1 - share) * angle).sin() * first[:, None] + (share * angle).sin() * last[:, None]) / sine
    between = torch.where(sine > _NO_ANGLE, arc, linear(first, last, at))
    return between.reshape(len(start), len(at), *start.shape[1:])


def between_latents(law: str, start: Tensor, end: Tensor, at: Tensor) -> Tensor:
    """`spherical` for latents of a law of `Draw`. Uniform ones are turned by their quantiles into normal numbers and
    back, since the circle itself leaves their cube.
    """
    if law == "normal":
        return spherical(start, end, at)
    low, width = (-1.0, 2.0) if law == "uniform" else (0.0, 1.0)
    normal = [((each - low) / width).clamp(_EDGE, 1 - _EDGE) for each in (start, end)]
    turned = spherical(torch.special.ndtri(normal[0]), torch.special.ndtri(normal[1]), at)
    latents: Tensor = torch.special.ndtr(turned) * width + low
    return latents
