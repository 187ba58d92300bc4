"""What every file in `extractors/` must do, found by name; and that each of these contracts can fail."""

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import Judged
from networks_of_users import FORMS, MINE, random, small_minilm
from test_contract_metrics import Stacked

from aigc_lab import plugins
from aigc_lab.contracts.base import Contract, examine
from aigc_lab.contracts.extractors import EXTRACTOR, Case
from aigc_lab.data.base import Dataset
from aigc_lab.data.digits import Digits
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.extractors import stacked_digits
from aigc_lab.extractors.shared import lookup
from aigc_lab.host.weights import PUBLISHED, WeightsPolicy
from aigc_lab.nets import vit

NAMES = plugins.names("extractors")
SHAPES = {"dinov2": vit.dinov2_shapes, "clip": vit.clip_shapes}


@pytest.fixture(scope="module")
def cases(
    judged: Judged, inception_weights: WeightsPolicy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Case]]:
    """An extractor by its name, with weights of the published form and little in it where they are large."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked_digits, "_ROUNDS", 1)
        patch.setattr(stacked_digits, "_GATE", 0.5)
        for name in NAMES:
            kind, dataset, weights, n = lookup.find_extractor(name), judged.dataset, PUBLISHED, 64
            data: Dataset = dataset
            cache = judged.cache
            if name in FORMS:
                patch.setattr(kind, "form", FORMS[name])
                path = tmp_path_factory.mktemp("vit") / f"{name}.pth"
                torch.save(random(SHAPES[name](FORMS[name])), path)
                weights, n = WeightsPolicy(file=path, allow_unverified=True), 16
            elif name.startswith("inception"):
                weights, n = inception_weights, 8
            elif name == "sentences":
                data, n, cache = PyDoc(PyDoc.Config(), Path()), 300, tmp_path_factory.mktemp("sentences")
            elif name == "minilm":
                small_minilm(tmp_path_factory.mktemp("minilm"), patch)
                data, n = PyDoc(PyDoc.Config(), Path()), 300
            elif name == "stacked_digits":
                data, cache = Stacked(Digits.Config(), Path()), tmp_path_factory.mktemp("stacked")
            made[name] = Case(kind, data, cache, weights, n)
        yield made


@pytest.mark.parametrize("contract", EXTRACTOR, ids=lambda contract: contract.name)
@pytest.mark.parametrize("name", NAMES)
def test_contract(cases: dict[str, Case], name: str, contract: Contract[Case]) -> None:
    contract.check(cases[name])


# Contract -> (a piece of what is said, and what is replaced by what).
CALL = "        return self.network(as_rgb(images).float() / 127.5 - 1).mean((2, 3)), None\n"
BREAKS: dict[str, tuple[str, dict[str, str]]] = {
    "its scores have a name": ("short is 'my own'", {"    def __init__": "    short = 'my own'\n\n    def __init__"}),
    "what it cannot serve is refused before anything is loaded": (
        "check lets points through",
        {"    def __init__": "    check = classmethod(lambda cls, dataset, weights: None)\n\n    def __init__"},
    ),
    "its identity names its weights": ("fixed seed", {"torch.manual_seed(1)": "torch.seed()"}),
    "every image has one vector of finite numbers": ("not [64, d]", {".mean((2, 3))": ""}),
    "a vector does not depend on the images beside it": (
        "put the network in eval()",
        {CALL: CALL.replace(".mean((2, 3))", ".mean((2, 3)).sub(images.float().mean())")},
    ),
    "two objects give the same": (
        "of two objects the vectors are up to",
        {
            "torch.manual_seed(1)": "torch.seed()",
            "    def __call__": "        self.identity = 'mine:1'\n\n    def __call__",
        },
    ),
    "looking changes nothing": ("torch.Generator of its own", {CALL: f"        torch.rand(1)\n{CALL}"}),
    "noise is further from images than other images are": (
        "it sees nothing",
        {"return self.network": "return 0 * self.network"},
    ),
}


def broken(path: Path, changes: dict[str, str]) -> dict[str, str]:
    text = MINE.replace("SEED", "1")
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    case = Case(lookup.find_extractor(str(path)), Digits(Digits.Config(), Path()), path.parent, PUBLISHED)
    results = list(examine(EXTRACTOR, {"": case}, path))
    return {result.contract: result.message for result in results if result.state == "broken"}


def test_a_sound_one_keeps_them_all(tmp_path: Path) -> None:
    assert broken(tmp_path / "mine.py", {}) == {}


@pytest.mark.parametrize("contract", EXTRACTOR, ids=lambda contract: contract.name)
def test_each_can_fail_alone(tmp_path: Path, contract: Contract[Case]) -> None:
    said, changes = BREAKS[contract.name]
    found = broken(tmp_path / "mine.py", changes)
    assert list(found) == [contract.name], found
    assert said in found[contract.name]


def test_logits_are_looked_at_too(tmp_path: Path) -> None:
    vectors = CALL.removesuffix(", None\n").replace("return", "vectors =")
    for number, (logits, contract, said) in enumerate(
        [
            ("vectors.mean(0, keepdim=True)", "every image has one vector of finite numbers", "gives 1 logits for 64"),
            ("vectors - vectors.mean(0)", "a vector does not depend on the images beside it", "the logits are up to"),
        ]
    ):
        found = broken(tmp_path / f"mine{number}.py", {CALL: f"{vectors}\n        return vectors, {logits}\n"})
        assert list(found) == [contract] and said in found[contract], found


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("images.mul_(0)", "work on a copy"),
        ("self.network[0].bias.data.add_(1e-6)", "0.bias of its network has changed"),
    ],
)
def test_whatever_is_changed_is_said(tmp_path: Path, what: str, said: str) -> None:
    with mock.patch.object(Case, "n", 16):
        found = broken(tmp_path / "mine.py", {CALL: f"        {what}\n{CALL}"})
    assert said in found["looking changes nothing"]
