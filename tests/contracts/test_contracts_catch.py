"""Every contract can fail: for each, a small broken system that this contract catches, and no other."""

from pathlib import Path

import pytest

from aigc_lab import plugins
from aigc_lab.contracts.base import ContractResult, examine
from aigc_lab.contracts.system_case import Case
from aigc_lab.contracts.systems import SYSTEM
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
from aigc_lab.samples import Images, Points
from aigc_lab.shape import Modality, Shape
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
# The places that are replaced.
LOSS = '        made = self.net(noise["z"])\n'
BUILT = "        self.idle = nn.Identity()\n"
SAMPLE = "        return Points(self.net(latents))\n"
SUPER = "super().__init__(config, shape)"

# What makes it a sound conditional system.
CONDITIONAL = {
    "    class Config": "    conditional = True\n    class Config",
    LOSS: LOSS.replace(")\n", ") + 0.1 * batch.labels[:, None]\n"),
    SAMPLE: "        return Points(self.net(latents) + 0.1 * labels[:, None])\n",
}

# A number that only the loss may read.
NUMBER = {
    "    class Config": '    loss_only = frozenset({"weight"})\n    class Config',
    "width: int = 8": "width: int = 8\n        weight: float = 0.5",
    BUILT: BUILT + "        self.weight = config.weight\n",
}

# Contract -> (a piece of what is said, and what is replaced by what).
BREAKS: dict[str, tuple[str, dict[str, str]]] = {
    "unknown keys are refused": ("write class Config(Strict)", {"Config(Strict)": "Config(BaseModel)"}),
    "every key has a default": ("--set width=…", {"width: int = 8": "width: int"}),
    "it can be built": ("AttributeError: 'Config' object has no attribute 'wide'", {"config.width": "config.wide"}),
    "its phases are described": ("noise z is a tuple", {"Draw((count, 3))": "(count, 3)"}),
    "its curves can be stored": ("metric name 'loss/fit/part@1'", {'"part"': '"part@1"'}),
    "every parameter is trained": ("no phase trains idle.weight, idle.bias", {"nn.Identity()": "nn.Linear(1, 1)"}),
    "what it does not make is refused": (
        "accepts images",
        {SUPER: SUPER.replace("shape", "Shape(Modality.POINTS, (2,))")},
    ),
    "losses are finite": (
        "bad is -inf at the first batch",
        {"Loss(total, {": "Loss(total, {'bad': (total * 0).log(), "},
    ),
    "every trained parameter gets a gradient": (
        "net.2.bias (phase fit)",
        {LOSS: LOSS + "        made = made + self.net[2].bias.detach() - self.net[2].bias\n"},
    ),
    "a loss draws only from its noise": ("declare a Draw", {LOSS: LOSS + "        made = made + torch.randn(12, 2)\n"}),
    "a loss leaves its arguments alone": ("fit changes z in place", {LOSS: '        noise["z"].mul_(2)\n' + LOSS}),
    "a phase changes only what it trains": (
        "the loss of phase fit changes net.0.bias",
        {LOSS: LOSS + "        self.net[0].bias.data.clamp_(-0.01, 0.01)\n"},
    ),
    "a loss is a function of its arguments": (
        "total of the same batch, noise and step is",
        {
            LOSS: LOSS + "        made = made * (1 + 0.01 * next(self.calls))\n",
            BUILT: BUILT + "        self.calls = itertools.count()\n",
        },
    ),
    "every phase alone lowers its own loss": (
        "look at its learning rate",
        {"Loss(total, {": "Loss(2 * total.detach() - total, {"},
    ),
    "samples have the declared shape and range": (
        "torch.float64",
        {"(self.net(latents))": "(self.net(latents).double())"},
    ),
    "every latent gives its own sample": ("seven latents give 1", {"(self.net(latents))": "(self.net(latents * 0))"}),
    "more samples of one key begin with the same": (
        "others than 3 alone",
        {SAMPLE: SAMPLE.replace("(latents)", "(latents) + torch.randn(len(latents), 2)")},
    ),
    "a conditional system draws what it is asked for": (
        "labels 0 and 1 give the same samples",
        CONDITIONAL | {SAMPLE: SAMPLE},
    ),
    "a sample has the class of its own label": (
        "off where its neighbours have other labels",
        CONDITIONAL
        | {SAMPLE: CONDITIONAL[SAMPLE].replace("labels[:, None]", "torch.cat([labels[:1], labels])[:-1, None]")},
    ),
    "labels matter in training": ("other labels of a batch change no loss", CONDITIONAL | {LOSS: LOSS}),
    "a seed decides the weights to the bit": (
        "twice seed 5",
        {
            BUILT: BUILT + "        source = torch.Generator()\n        source.seed()\n"
            "        self.net[0].weight.data.normal_(generator=source)\n"
        },
    ),
    "a restored run goes on as if never stopped": (
        "after one",
        {
            BUILT: BUILT + "        self.steps = set()\n",
            LOSS: "        self.steps.add(step)\n" + LOSS + "        made = made * (1 + 0.01 * len(self.steps))\n",
        },
    ),
    "its steps as a program give their bits": (
        "declare uncapturable",
        {
            LOSS: LOSS + "        made = made * (1 + 0.01 * (next(self.calls) >= 6))\n",
            BUILT: BUILT + "        self.calls = itertools.count()\n",
        },
    ),
    "stored weights give the same samples": (
        "register what sample reads as a buffer",
        {
            BUILT: BUILT + "        self.shift = torch.randn(2)\n",
            SAMPLE: SAMPLE.replace("(latents)", "(latents) + self.shift"),
        },
    ),
    "samplers names all that sample uses": (
        "samples of the average move with the raw weights",
        {
            "[self.net], Opt": "[self.net, self.scale], Opt",
            BUILT: BUILT + "        self.scale = nn.Linear(2, 2)\n",
            LOSS: '        made = self.scale(self.net(noise["z"]))\n',
            SAMPLE: SAMPLE.replace("self.net(latents)", "self.scale(self.net(latents))"),
        },
    ),
    "the average shares all that it does not sample with": (
        "leaves idle in evaluation mode",
        {LOSS: LOSS + "        self.idle.eval()\n"},
    ),
    "a step asks the device for no number": (
        "asks for numbers (_local_scalar_dense)",
        {LOSS: LOSS + "        if made.mean() > 1e6: print()\n"},
    ),
    "a step makes its tensors where the weights are": (
        "make tensors with device=x.device",
        {LOSS: LOSS + "        made = made * torch.ones(2)\n"},
    ),
    "it stacks under vmap or says why not": (
        "declare unstackable",
        {LOSS: LOSS + "        made = torch.zeros(made.shape, device=made.device).copy_(made)\n"},
    ),
    "what only the optimisers read leaves the losses alone": (
        "take it out of optimizer_only",
        {
            "    class Config": '    optimizer_only = frozenset({"weight"})\n    class Config',
            "width: int = 8": "width: int = 8\n        weight: float = 1.0",
            LOSS: '        made = self.net(noise["z"]) * self.config.weight\n',
        },
    ),
    "replicas may differ in what only the losses read": (
        "read self.config.weight where it is used",
        NUMBER | {LOSS: LOSS + "        made = made * self.weight\n"},
    ),
}


def examined(tmp_path: Path, text: str) -> dict[str, ContractResult]:
    path = tmp_path / "mine.py"
    path.write_text(text)
    kind = plugins.find(System, str(path))  # type: ignore[type-abstract]
    ring = Ring(Ring.Config(points=300), tmp_path)
    case = Case(kind, ring.shape, ring.load("train"))
    return {result.contract: result for result in examine(SYSTEM, {"": case}, plugins.file_of(kind))}


@pytest.mark.parametrize("replaced", [{}, CONDITIONAL])
def test_a_sound_system_keeps_all(replaced: dict[str, str], tmp_path: Path) -> None:
    text = SOUND
    for old, new in replaced.items():
        text = text.replace(old, new)
    results = examined(tmp_path, text)
    assert {result.state for result in results.values()} == {"kept"}
    assert set(results) == set(BREAKS), "every contract has a system that breaks it"


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_system_that_breaks_it(contract: str, tmp_path: Path) -> None:
    said, replaced = BREAKS[contract]
    text = SOUND
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    results = examined(tmp_path, text)
    broken = {name: result.message for name, result in results.items() if result.state == "broken"}
    assert list(broken) == [contract], broken
    assert said in broken[contract]


def of_number(tmp_path: Path, **replaced: str) -> str | None:
    """What is said of a sound system with a key `weight`, whose pieces are replaced."""
    text = SOUND
    for old, new in NUMBER.items():
        text = text.replace(old, new)
    for piece, new in replaced.items():
        old = {"loss": LOSS, "built": NUMBER[BUILT], "keys": "weight: float = 0.5"}[piece]
        assert old in text
        text = text.replace(old, new)
    results = examined(tmp_path, text)
    broken = {name: result.message for name, result in results.items() if result.state == "broken"}
    assert broken.keys() <= {"replicas may differ in what only the losses read"}, broken
    return next(iter(broken.values()), None)


@pytest.mark.parametrize(
    "used",
    [
        "made = made * self.config.weight",
        "made = made * self.config.weight if self.config.weight else made",
        "made = made * self.config.weight if self.config.weight > 0 else made",
        "made = made * (1 - self.config.weight) ** 2",
        "made = made * (1 + min(step / 100, 1) * self.config.weight)",
        "pass",
    ],
)
def test_a_number_may_be_used_as_one_and_asked_whether_it_is_0(used: str, tmp_path: Path) -> None:
    assert of_number(tmp_path, loss=f"{LOSS}        {used}\n") is None


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"loss": "made = made * self.weight"}, "off"),
        ({"loss": "made = made * (2 if self.config.weight > 0.3 else 1)"}, "data-dependent"),
        ({"loss": "made = made * round(self.config.weight * 4)"}, "round"),
        ({"loss": "made = made * float(self.config.weight)"}, ".item()"),
        (
            {
                "keys": "weight: int = 8",
                "built": "self.net = nn.Sequential(nn.Linear(3, config.weight), nn.Linear(config.weight, 2))",
            },
            "layout of its weights",
        ),
        ({"keys": "weight: str = 'some'"}, "only a number"),
        ({"keys": "heaviness: float = 0.5", "built": "pass"}, "weight, which Config does not have"),
    ],
)
def test_a_key_that_is_more_than_a_number_of_the_loss_is_named(
    replaced: dict[str, str], said: str, tmp_path: Path
) -> None:
    places = {"loss": f"{LOSS}        ", "built": f"{BUILT}        ", "keys": ""}
    pieces = {piece: f"{places[piece]}{new}" + "\n" * (piece != "keys") for piece, new in replaced.items()}
    message = of_number(tmp_path, **pieces)
    assert message is not None and said in message, message


def test_a_schedule_or_a_phase_that_leaves_steps_out_breaks_nothing(tmp_path: Path) -> None:
    """The loss rises by its schedule alone, which is no fault of the phase; steps 10 to 19 have no other phase."""
    text = SOUND.replace("Loss(total, {", "Loss(total + 0.1 * step, {")
    fit = 'Phase("fit", self.loss, [self.net], OptimizerConfig(1e-2), {"z": self.latents(batch_size)})'
    text = text.replace(f"[{fit}]", f"[{fit}, {fit.replace('fit', 'again')}._replace(every=25)]")
    assert "again" in text
    assert {result.state for result in examined(tmp_path, text).values()} == {"kept"}


def test_a_reason_is_enough_not_to_stack(tmp_path: Path) -> None:
    _, replaced = BREAKS["it stacks under vmap or says why not"]
    text = SOUND.replace(
        "    class Config", '    unstackable = "it copies into a tensor of its own"\n    class Config', 1
    )
    for old, new in replaced.items():
        text = text.replace(old, new)
    assert {result.state for result in examined(tmp_path, text).values()} == {"kept"}


def test_an_error_of_the_users_code_is_shown_with_its_line(tmp_path: Path) -> None:
    result = examined(tmp_path, SOUND.replace('noise["z"]', 'noise["zz"]'))["losses are finite"]
    assert (result.state, result.message) == ("broken", "KeyError: 'zz'")
    assert result.where is not None and Path(result.where.file).name == "mine.py"
    assert result.where.code == 'made = self.net(noise["zz"])'
    assert SOUND.splitlines()[result.where.line - 1].strip().startswith("made = self.net(")
