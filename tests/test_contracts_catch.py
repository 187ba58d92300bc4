"""Every contract can fail: for each, a small broken system that this contract catches, and no other."""

from pathlib import Path

import pytest

from aigc_lab import plugins
from aigc_lab.contracts.base import Result, examine
from aigc_lab.contracts.systems import SYSTEM, Case
from aigc_lab.data.ring import Ring
from aigc_lab.systems.base import System

SOUND = """
import itertools
from typing import Any
import torch
from pydantic import BaseModel
from torch import nn
from aigc_lab.config import Strict
from aigc_lab.noise import Draw
from aigc_lab.samples import Images, Modality, Points, Shape
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System

class Mine(System):
    modality = Modality.POINTS
    class Config(Strict):
        width: int = 8

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.net = nn.Sequential(nn.Linear(3, config.width), nn.Tanh(), nn.Linear(config.width, 2))
        self.idle = nn.Identity()

    def phases(self, batch_size):
        return [Phase("fit", self.loss, [self.net], OptimizerConfig(1e-2), {"z": self.latents(batch_size)})]

    def loss(self, batch, noise, step):
        made = self.net(noise["z"])
        total = (made.mean(0) - batch.values.mean(0) - 1).square().sum() + 0.1 * made.square().mean()
        return Loss(total, {"part": total})

    def samplers(self):
        return [self.net]

    def latents(self, count):
        return Draw((count, 3))

    def sample(self, latents, *, labels=None):
        return Points(self.net(latents))
"""
LOSS = '        made = self.net(noise["z"])\n'
BUILT = "        self.idle = nn.Identity()\n"
SAMPLE = "        return Points(self.net(latents))\n"

# Contract -> (what is replaced, by what, a piece of what is said).
BREAKS: dict[str, tuple[str, str, str]] = {
    "unknown keys are refused": ("Config(Strict)", "Config(BaseModel)", "write class Config(Strict)"),
    "every key has a default": ("width: int = 8", "width: int", "--set width=…"),
    "it can be built": ("config.width", "config.wide", "AttributeError: 'Config' object has no attribute 'wide'"),
    "its phases are described": ("Draw((count, 3))", "(count, 3)", "noise z is a tuple"),
    "every parameter is trained": (
        BUILT,
        "        self.idle = nn.Linear(1, 1)\n",
        "no phase trains idle.weight, idle.bias",
    ),
    "what it does not make is refused": (
        "super().__init__(config, shape)",
        "super().__init__(config, Shape(Modality.POINTS, (2,)))",
        "accepts images",
    ),
    "losses are finite": ("Loss(total, {", "Loss(total, {'bad': (total * 0).log(), ", "bad is -inf at the first batch"),
    "every trained parameter gets a gradient": (
        LOSS,
        LOSS.replace('noise["z"])', 'noise["z"]) + self.net[2].bias.detach() - self.net[2].bias'),
        "net.2.bias (phase fit)",
    ),
    "a loss draws only from its noise": (LOSS, LOSS.rstrip() + " + torch.randn(12, 2)\n", "declare a Draw"),
    "a loss leaves its arguments alone": (LOSS, '        noise["z"].mul_(2)\n' + LOSS, "fit changes z in place"),
    "a phase changes only what it trains": (
        LOSS,
        LOSS + "        self.net[0].bias.data.clamp_(-0.01, 0.01)\n",
        "the loss of phase fit changes net.0.bias",
    ),
    "a loss is a function of its arguments": (
        LOSS,
        LOSS + "        made = made * (1 + 0.01 * next(self.calls))\n",
        "total of the same batch, noise and step is",
    ),
    "every phase alone lowers its own loss": (
        "OptimizerConfig(1e-2)",
        "OptimizerConfig(30.0)",
        "look at its learning rate",
    ),
    "the fused optimiser steps as plain adam does": (
        BUILT,
        BUILT + "        self.net[2].weight = nn.Parameter(torch.randn(config.width, 2).t())\n",
        "make the parameter contiguous",
    ),
    "samples have the declared shape and range": (
        "Points(self.net(latents))",
        "Points(self.net(latents).double())",
        "torch.float64",
    ),
    "every latent gives its own sample": (
        "Points(self.net(latents))",
        "Points(self.net(latents * 0))",
        "seven latents give 1",
    ),
    "more samples of one key begin with the same": (
        "Points(self.net(latents))",
        "Points(self.net(latents) + torch.randn(len(latents), 2))",
        "others than 3 alone",
    ),
    "a seed decides the weights to the bit": (
        BUILT,
        BUILT + "        source = torch.Generator()\n        source.seed()\n"
        "        self.net[0].weight.data.normal_(generator=source)\n",
        "twice seed 5",
    ),
    "a restored run goes on as if never stopped": (
        LOSS,
        "        self.seen = [*getattr(self, 'seen', []), *([step] if step not in getattr(self, 'seen', []) else [])]\n"
        + LOSS
        + "        made = made * (1 + 0.01 * len(self.seen))\n",
        "after one",
    ),
    "stored weights give the same samples": (
        BUILT + SAMPLE,
        "",
        "register what sample reads as a buffer",
    ),
    "samplers names all that sample uses": ("", "", "samples of the average move with the raw weights"),
    "the average shares all that it does not sample with": ("", "", "is not sampled with, and was copied"),
    "it stacks under vmap or says why not": (
        LOSS,
        LOSS + "        if made.mean() > 1e6: print()\n",
        "declare unstackable",
    ),
}
# Those that change two places.
MORE = {
    "a loss is a function of its arguments": [(BUILT, BUILT + "        self.calls = itertools.count()\n")],
    "stored weights give the same samples": [
        (BUILT, BUILT + "        self.shift = torch.randn(2)\n"),
        (SAMPLE, SAMPLE.replace("(latents))", "(latents) + self.shift)")),
    ],
    "samplers names all that sample uses": [
        ("[self.net], Opt", "[self.net, self.scale], Opt"),
        (BUILT, BUILT + "        self.scale = nn.Linear(2, 2)\n"),
        (LOSS, '        made = self.scale(self.net(noise["z"]))\n'),
        (SAMPLE, SAMPLE.replace("self.net(latents)", "self.scale(self.net(latents))")),
    ],
    "the average shares all that it does not sample with": [
        ("class Mine", "class _Copied(nn.Identity):\n    def __deepcopy__(self, memo): return _Copied()\n\nclass Mine"),
        (BUILT, "        self.idle = nn.Sequential(_Copied())\n        self.extra = self.idle\n"),
    ],
}


def examined(tmp_path: Path, text: str) -> dict[str, Result]:
    path = tmp_path / "mine.py"
    path.write_text(text)
    kind = plugins.find(System, str(path))  # type: ignore[type-abstract]
    ring = Ring(Ring.Config(points=300), tmp_path)
    case = Case(kind, ring.shape, ring.load("train"))
    return {result.contract: result for result in examine(SYSTEM, {"": case}, path)}


def test_a_sound_system_keeps_all(tmp_path: Path) -> None:
    results = examined(tmp_path, SOUND)
    assert {result.state for result in results.values()} == {"kept"}
    assert set(results) == set(BREAKS), "every contract has a system that breaks it"


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_system_that_breaks_it(contract: str, tmp_path: Path) -> None:
    old, new, said = BREAKS[contract]
    text = SOUND
    for before, after in [(old, new)] * (contract not in MORE or (old in SOUND and bool(old))) + MORE.get(contract, []):
        assert before in text
        text = text.replace(before, after)
    results = examined(tmp_path, text)
    broken = {name: result.message for name, result in results.items() if result.state == "broken"}
    assert list(broken) == [contract], broken
    assert said in broken[contract]
