"""What every file in `systems/` must do, found by name: a new system is tested without touching this file."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from aigc_lab import plugins
from aigc_lab.contracts.base import Contract
from aigc_lab.contracts.system_case import Case, variants
from aigc_lab.contracts.systems import SYSTEM
from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.dirac import Dirac
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.ring import Ring
from aigc_lab.shape import Modality
from aigc_lab.systems.base import System

# Knobs that only make networks larger.
SMALL = {
    "width": 8,
    "hidden": 16,
    "critic_hidden": 8,
    "latent_size": 6,
    "groups": 4,
    "embedding": 12,
    "pseudo_inputs": 5,
    "critic_embedding": 6,
    "filters": 0.02,
    "rollouts": 2,
    "head_size": 4,
    "representations": 3,
    # All phases of a text GAN run in the few steps of a test.
    "pretrain_steps": 1,
    "critic_steps": 0,
    "interleave": 2,
}
# Knobs that systems inherit are turned on one system each: the code behind them is the same.
TURNED_ON = {"dcgan", "lstm_lm", "point_gan", "transformer_lm", "vae"}
# What is about scores and turns alone is the same for networks of points, whose steps are the cheapest.
LEFT_TO_POINTS = {"loss", "n_critic", "update"}
# Likewise a few knobs of a base whose systems differ in little else.
TRIED_WITH = {"sngan": {"spectral_norm"}, "gumbel_gan": {"decoder", "critic", "estimator"}}


class Prose(PyDoc):
    """Sentences of the documentation in two classes, by whether they hold the commonest word."""

    def labels(self) -> tuple[list[str], list[str]]:
        lines, _ = self.lines()
        return ["the" if " the " in line else "other" for line in lines], []


@cache
def case(name: str, choice: tuple[tuple[str, Any], ...]) -> Case:
    """A small system of the name with real data of its modality, the few hundred samples that these tests need."""
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    dataset = dataset_of(name, kind)
    small: dict[str, Any] = {key: value for key, value in SMALL.items() if key in kind.Config.model_fields}
    if "n_critic" in kind.Config.model_fields:  # what five steps of a critic show, two do
        small["n_critic"] = min(kind.Config.model_fields["n_critic"].default, 2)
    if ("penalty", "consensus") in choice:
        small["penalty_weight"] = 0.1  # with the paper's 10, so small a batch is all penalty
    return Case(kind, dataset.shape, dataset.load("train").take(slice(0, 300)), small | dict(choice))


def dataset_of(name: str, kind: type[System]) -> Dataset:
    if kind.modality == Modality.IMAGES:
        return Digits(Digits.Config(), Path())
    if kind.modality == Modality.TEXT:
        return Prose(PyDoc.Config(max_length=9, max_words=60, longer="cut"), Path())
    return Dirac(Dirac.Config(points=300), Path()) if name == "dirac" else Ring(Ring.Config(), Path())


def own_variants(name: str) -> Iterator[dict[str, Any]]:
    kind = plugins.find(System, name)  # type: ignore[type-abstract]
    parent = kind.__mro__[1]
    inherited: set[str] = set()
    if name not in TURNED_ON and parent is not System and issubclass(parent, System):
        inherited = set(getattr(getattr(parent, "Config", None), "model_fields", ()))
    elif name == "dcgan":
        inherited = LEFT_TO_POINTS
    for choice in variants(kind, dataset_of(name, kind).shape):
        if not choice.keys() & (inherited - TRIED_WITH.get(name, set())):
            yield choice


def every_contract() -> Iterator[Any]:
    for name in plugins.names("systems"):
        for number, choice in enumerate(own_variants(name)):
            label = "-".join([name, *(f"{key}={value}" for key, value in choice.items())])
            for contract in SYSTEM:
                if not (number and contract.once):
                    title = contract.name.replace(" ", "_")
                    yield pytest.param(name, tuple(choice.items()), contract, id=f"{label}-{title}")


@pytest.mark.parametrize(("name", "choice", "contract"), list(every_contract()))
def test_a_system_keeps_its_contracts(name: str, choice: tuple[tuple[str, Any], ...], contract: Contract[Case]) -> None:
    contract.check(case(name, choice))


def test_a_contract_says_why_it_matters_in_one_sentence() -> None:
    names = [contract.name for contract in SYSTEM]
    assert len(set(names)) == len(names)
    for contract in SYSTEM:
        assert contract.why.endswith(".") and 40 < len(contract.why) < 240, contract.name
        assert set(contract.needs) <= set(names[: names.index(contract.name)]), "what it needs is checked before"
