"""Randomness by key: every draw is a function of (seed, step, phase, name), never of a shared stream.

A run's result is thus independent of other draws in the process, and a run continues from any step without restoring
the state of a generator.
"""

import hashlib
import threading
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Key = int | str
Noise = Mapping[str, Tensor]


class Draw(NamedTuple):
    """One tensor of noise: N(0, 1), uniform on [−1, 1] as DCGAN draws its latents, or on [0, 1] (`unit`)."""

    size: tuple[int, ...]
    law: Literal["normal", "uniform", "unit"] = "normal"


def generator(*key: Key, device: torch.device | str = "cpu") -> torch.Generator:
    """Generator seeded by the key alone.

    On a CPU, torch's generator uses 32 bits of the seed: among 10⁵ draws of a run one pair may be equal, which is as
    harmless as one batch that comes twice.
    """
    return torch.Generator(device).manual_seed(_seed(key))


def _seed(key: tuple[Key, ...]) -> int:
    # 63 bits: a positive number in an int64.
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest()) >> 1


#: a generator of each device for the draws of each thread: seeding one again costs a fraction of making one
_of_thread = threading.local()


def _reseeded(key: tuple[Key, ...], device: torch.device | str) -> torch.Generator:
    """The thread's own generator of the device, in the state that `generator` of the key begins in."""
    generators: dict[str, torch.Generator] = _of_thread.__dict__
    name = str(device)
    if name not in generators:
        generators[name] = torch.Generator(device)
    return generators[name].manual_seed(_seed(key))


def draw(what: Draw, *key: Key, device: torch.device | str = "cpu") -> Tensor:
    """float32 of the draw's size on the device; the same key gives the same bits on the same kind of device.

    >>> latents = draw(Draw((2, 3)), 0, 100, "generator", "z")  # seed 0, step 100
    >>> bool((latents == draw(Draw((2, 3)), 0, 100, "generator", "z")).all())
    True
    >>> bool((latents == draw(Draw((2, 3)), 0, 101, "generator", "z")).any())
    False
    """
    source = _reseeded(key, device)
    if what.law != "normal":
        values = torch.rand(what.size, generator=source, device=device)
        return values.mul_(2).sub_(1) if what.law == "uniform" else values
    return torch.randn(what.size, generator=source, device=device)
