"""What every file in `optimizers/` must do, found by name; that these contracts can fail; a user's file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from aigc_lab import plugins
from aigc_lab.cli.options import changed
from aigc_lab.commands.check import check_file
from aigc_lab.contracts.base import Contract, ContractResult, examine
from aigc_lab.contracts.optimizers import OPTIMIZER, Case
from aigc_lab.data.ring import Ring
from aigc_lab.data.shared.batches import Batches
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host import trust
from aigc_lab.optimizers import adam
from aigc_lab.optimizers.adam import DirectAdam
from aigc_lab.optimizers.base import Optimizer, uncompiled
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import Decay, OptimizerConfig, System
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.checkpoint import load_system, restore_state, save_state, save_weights
from aigc_lab.training.loop import train_one
from aigc_lab.training.stack import Stack
from aigc_lab.training.state import TrainingState

NAMES = plugins.names("optimizers")
# Of the experiment below with `penalty: r1`, as it was before optimisers were files.
DIGEST = "cae80f4a906f887034bb7483887d637a191e150876dde574ab4c449de0c4a906"
SHAPE = Shape(Modality.POINTS, (2,))
CASES: list[tuple[str, dict[str, Any]]] = [*((name, {}) for name in NAMES), ("sgd", {"momentum": 0.9})]


def found(name: str) -> type[Optimizer]:
    return plugins.find(Optimizer, name)  # type: ignore[type-abstract]


@pytest.mark.parametrize("contract", OPTIMIZER, ids=lambda contract: contract.name.replace(" ", "_"))
@pytest.mark.parametrize(("name", "options"), CASES)
def test_an_optimiser_keeps_its_contracts(name: str, options: dict[str, Any], contract: Contract[Case]) -> None:
    contract.check(Case(found(name), options))


def test_a_contract_says_why_it_matters_in_one_sentence() -> None:
    names = [contract.name for contract in OPTIMIZER]
    assert len(set(names)) == len(names)
    for contract in OPTIMIZER:
        assert contract.why.endswith(".") and 40 < len(contract.why) < 240, contract.name
        assert set(contract.needs) <= set(names[: names.index(contract.name)]), "what it needs is checked before"


# ---- as it was


def test_what_ships_is_torchs_own_with_the_options_that_it_had() -> None:
    weights = [nn.Parameter(torch.ones(2))]
    expected: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
        "adam": (DirectAdam, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-8, "weight_decay": 0, "fused": True}),
        "rmsprop": (
            uncompiled(torch.optim.RMSprop),
            {"lr": 0.1, "alpha": 0.99, "eps": 1e-8, "momentum": 0, "centered": False},
        ),
        "sgd": (
            uncompiled(torch.optim.SGD),
            {"lr": 0.1, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False},
        ),
    }
    assert expected.keys() == set(NAMES)
    for name, (kind, options) in expected.items():
        optimizer = OptimizerConfig(0.1, (0.5, 0.9), rule=name).optimizer.build(weights, 0.1)
        assert type(optimizer) is kind
        assert {key: optimizer.param_groups[0][key] for key in options} == options


@pytest.mark.parametrize(
    ("case", "left"),
    [("plain", 0), ("hooked", 6), ("closure", 6), ("a weight without gradient", 3), ("two types", 6)],
)
def test_adam_is_torchs_fused_one_to_the_bit(case: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six updates whose rates move: what is handed straight to the kernel, and so many as are `left` to torch."""
    torchs, by_torch = adam._torchs_step, []

    def counted(optimizer: DirectAdam, closure: Any) -> Any:
        by_torch.append(closure)
        return torchs(optimizer, closure)

    monkeypatch.setattr(adam, "_torchs_step", counted)
    source = torch.Generator().manual_seed(0)
    types = [torch.float32, torch.float64 if case == "two types" else torch.float32, torch.float32]
    values = [torch.randn(rows, 2, generator=source).to(dtype) for rows, dtype in zip((3, 2, 1), types, strict=True)]
    made = [[nn.Parameter(value.clone()) for value in values] for _ in range(2)]
    options: dict[str, Any] = {"lr": 1e-2, "betas": (0.5, 0.9), "eps": 1e-8}
    pair = DirectAdam(made[0], **options), torch.optim.Adam(made[1], **options, fused=True)
    calls: list[int] = []
    if case == "hooked":
        for each in pair:
            each.register_step_post_hook(lambda optimizer, *_: calls.append(id(optimizer)))
    for step in range(6):
        gradients = [torch.randn(value.shape, generator=source).to(value.dtype) for value in values]
        if case == "a weight without gradient" and step % 2:
            gradients[1] = None  # type: ignore[call-overload]
        for each, weights in zip(pair, made, strict=True):
            each.param_groups[0].update(lr=1e-2 / (1 + step), betas=(0.5, 0.9 + step / 100))
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = None if gradient is None else gradient.clone()
            each.step(*[lambda: 1.5] * (case == "closure"))
        for ours, theirs in zip(*made, strict=True):
            assert torch.equal(ours, theirs)
    for one, two in zip(made[0], made[1], strict=True):
        kept, expected = pair[0].state[one], pair[1].state[two]
        assert kept.keys() == expected.keys() and all(torch.equal(kept[key], expected[key]) for key in expected)
    assert sorted(calls) == sorted([id(each) for each in pair] * 6 * (case == "hooked"))
    assert len(by_torch) == left


def test_hooks_of_adam_are_called_where_torch_has_made_no_adam_of_its_own() -> None:
    code = """
import torch
from aigc_lab.optimizers import adam
from aigc_lab.optimizers.adam import DirectAdam
weight = torch.nn.Parameter(torch.ones(2))
optimizer, calls = DirectAdam([weight], lr=0.1), []
optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
optimizer.register_step_post_hook(lambda *_: calls.append("after"))
for _ in range(2):
    weight.grad = torch.ones(2)
    optimizer.step()
print(calls)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["before", "after"] * 2)


@pytest.mark.parametrize("name", plugins.names("optimizers"))
def test_no_update_waits_for_torchs_compiler(name: str) -> None:
    code = f"""
import sys, torch
from aigc_lab.optimizers.base import from_name
weight = torch.nn.Parameter(torch.ones(2))
optimizer = from_name({name!r}, {{}}).build([weight], 0.1)
optimizer.load_state_dict(optimizer.state_dict())
optimizer.zero_grad()
for _ in range(2):
    weight.grad = torch.ones(2)
    optimizer.step()
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules], bool((weight < 1).all()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "foreach": True}),
        (torch.optim.RMSprop, {"alpha": 0.9}),
        (torch.optim.AdamW, {"weight_decay": 1e-2}),
    ],
)
def test_without_the_compiler_updates_have_the_same_bits(kind: Any, options: dict[str, Any]) -> None:
    ends = []
    for each in (kind, uncompiled(kind)):
        weight = nn.Parameter(torch.linspace(-1, 1, 7))
        optimizer = each([weight], lr=0.1, **options)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
        for _ in range(4):
            optimizer.zero_grad()
            weight.square().mul(torch.arange(7)).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        ends.append(weight.detach())
    assert torch.equal(*ends)


def test_every_system_has_the_optimiser_of_its_paper_by_default() -> None:
    rules = {}
    for name in plugins.names("systems"):
        kind = plugins.find(System, name)  # type: ignore[type-abstract]
        field = kind.Config.model_fields["optimizer"]
        rules[name] = field.default
        assert kind.Config().optimizer_options == {}  # type: ignore[attr-defined]
    others = {name: rule for name, rule in rules.items() if rule != "adam"}
    assert others == {"wgan": "rmsprop", "dirac": "sgd", "vae_gan": "rmsprop"}


def test_a_schedule_moves_the_step_and_the_beta_of_a_rule_that_has_one() -> None:
    decay = Decay(steps=10, lr=0.0, beta2=0.99)
    assert OptimizerConfig(0.1, (0.0, 0.9), decay=decay).at(0) == {"lr": 0.1, "betas": (0.0, 0.9)}
    assert OptimizerConfig(0.1, (0.0, 0.9), decay=decay).at(10) == {"lr": 0.0, "betas": (0.0, 0.99)}
    assert OptimizerConfig(0.1, (0.0, 0.9), rule="rmsprop", decay=decay).at(10) == {"lr": 0.0}
    assert OptimizerConfig(0.1).at(10) == {}


def test_momentum_is_polyaks() -> None:
    """v ← 0.9 v + w, w ← w − 0.1 v, of ½ w² by hand."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = found("sgd")(found("sgd").Config(momentum=0.9)).build([weight], 0.1)  # type: ignore[call-arg]
    w, v = 1.0, 0.0
    for _ in range(5):
        weight.grad = weight.detach().clone()
        optimizer.step()
        v = 0.9 * v + w
        w -= 0.1 * v
        assert weight.item() == pytest.approx(w, rel=1e-12)


# ---- each contract can fail

MINE = '''"""Lion (Chen et al. 2023): steps by the sign of an interpolated momentum."""
import torch
from pydantic import Field
from aigc_lab.config import Strict
from aigc_lab.optimizers.base import Optimizer, uncompiled

class _Lion(torch.optim.Optimizer):
    def __init__(self, parameters, lr, beta1, beta2):
        super().__init__(parameters, {"lr": lr, "betas": (beta1, beta2)})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                state = self.state[weight]
                mean = state.setdefault("mean", torch.zeros_like(weight))
                weight.sub_(group["lr"] * (beta1 * mean + (1 - beta1) * weight.grad).sign())
                mean.mul_(beta2).add_(weight.grad, alpha=1 - beta2)

class Lion(Optimizer):
    class Config(Strict):
        beta1: float = Field(0.9, ge=0, lt=1)
        beta2: float = Field(0.99, ge=0, lt=1)

    memory = ("mean",)

    def build(self, parameters, lr, *, fast=True):
        return _Lion(parameters, lr, self.config.beta1, self.config.beta2)
'''
SIGN = "(beta1 * mean + (1 - beta1) * weight.grad).sign()"
BREAKS: dict[str, tuple[str, dict[str, str]]] = {
    "unknown knobs are refused": (
        "leave model_config as Strict has it",
        {"    class Config(Strict):\n": '    class Config(Strict):\n        model_config = {"extra": "ignore"}\n'},
    ),
    "every knob has a default": ("no default for beta1", {"Field(0.9, ge=0, lt=1)": "Field(ge=0, lt=1)"}),
    "it builds an optimiser of torch": (
        "has lr 0.5",
        {"return _Lion(parameters, lr,": "return _Lion(parameters, 2 * lr,"},
    ),
    "a knob that is taken can be built": (
        "Config takes beta2=-1, and then: ValueError: negative",
        {
            "beta2: float = Field(0.99, ge=0, lt=1)": "beta2: float = 0.99",
            "        super().__init__(parameters": "        if beta2 < 0:\n            raise ValueError('negative')\n"
            "        super().__init__(parameters",
        },
    ),
    "a step lowers a quadratic": ("which sign has it?", {"weight.sub_": "weight.add_"}),
    "the step size is read at every step": (
        "with lr 0 it moves matrix, vector",
        {'(group["lr"] *': '(self.defaults["lr"] *'},
    ),
    "its state is what it declares": ("memory and counters declare", {'    memory = ("mean",)\n': ""}),
    "its state is stored to the bit": (
        "mean is another when it is read",
        {
            "torch.zeros_like(weight))": "torch.zeros_like(weight).double())",
            "(1 - beta1) * weight.grad).sign()": "(1 - beta1) * weight.grad).sign().float()",
            "add_(weight.grad, ": "add_(weight.grad.double() / 3, ",
        },
    ),
    "the same gradients give the same bits": (
        "does step() draw?",
        {SIGN: f"({SIGN} + 0.1 * torch.randn(()))"},
    ),
    "a restored run goes on as if never stopped": (
        "without a stop and",
        {
            "        for group in self.param_groups:\n": "        for group in self.param_groups:\n"
            '            group["calls"] = group.get("calls", 0) + 1\n',
            '(group["lr"] *': '(group["lr"] / group["calls"] *',
        },
    ),
    "stacked it does as alone or says why not": ("unstackable = 'why'", {SIGN: f"{SIGN} / weight.norm()"}),
}


def examined(folder: Path, text: str) -> list[ContractResult]:
    path = folder / "mine.py"
    path.write_text(text)
    return list(examine(OPTIMIZER, {"": Case(found(str(path)))}, path))


def test_a_sound_file_keeps_all(tmp_path: Path) -> None:
    assert [(each.contract, each.message) for each in examined(tmp_path, MINE) if each.state != "kept"] == []


def test_every_contract_has_a_twin_that_breaks_it() -> None:
    assert BREAKS.keys() == {contract.name for contract in OPTIMIZER}


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_optimiser_that_breaks_it(contract: str, tmp_path: Path) -> None:
    said, changes = BREAKS[contract]
    text = MINE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    broken = [result for result in examined(tmp_path, text) if result.state == "broken"]
    assert [result.contract for result in broken] == [contract]
    assert said in broken[0].message


def test_a_reason_is_enough_not_to_stack(tmp_path: Path) -> None:
    text = MINE.replace(SIGN, f"{SIGN} / weight.norm()").replace(
        '    memory = ("mean",)\n', '    memory = ("mean",)\n    unstackable = "it goes by the norm of a weight"\n'
    )
    assert {result.state for result in examined(tmp_path, text)} == {"kept"}
    config = PointGAN.Config(hidden=8, latent_size=4, optimizer=str(tmp_path / "mine.py"))
    states = [TrainingState.fresh(PointGAN, config, SHAPE, seed=s, batch_size=8, device="cpu") for s in (0, 1)]
    with pytest.raises(ValueError, match="PointGAN cannot be stacked: it goes by the norm of a weight"):
        Stack(states)


# ---- in an experiment

YAML = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 8, latent_size: 4, optimizer: %s}
training: {steps: 4, batch_size: 8}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "mine.py"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


def loaded(mine: Path, optimizer: str = "./mine.py", **changes: str) -> Experiment:
    (mine.parent / "e.yaml").write_text(YAML % optimizer)
    given = [(key, text, f"--set {key}={text}") for key, text in changes.items()]
    return load_experiment(str(mine.parent / "e.yaml"), given, data_dir=mine.parent)


def test_an_experiment_names_a_file_and_is_another_when_it_changes(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = loaded(mine)
    check_experiment(first)
    plan = first.resolve(lambda hole: hole.ends()[0])
    assert plan.system_config.optimizer == str(mine) and plan.named_files == {"optimizer": "./mine.py"}
    assert first.own_files == [mine] and set(first.code.values()) == {"mine.py"}
    digest = first.digest
    mine.write_text(MINE + "\n# changed")
    assert loaded(mine).digest != digest
    searched = loaded(mine, "{choice: [adam, ./mine.py]}")
    assert searched.own_files == [mine]
    check_experiment(searched)


def test_knobs_are_set_searched_and_refused_at_their_key(mine: Path) -> None:
    options = "system.optimizer_options"
    chosen = loaded(mine, "sgd, optimizer_options: {momentum: 0.1}", **{f"{options}.momentum": "0.9"})
    plan = chosen.resolve(lambda hole: hole.ends()[0])
    assert plan.system_config.optimizer_options == {"momentum": 0.9}
    assert PointGAN(plan.system_config, SHAPE).phases(8)[0].optimizer.optimizer.memory == ("momentum_buffer",)
    searched = loaded(mine, "sgd", **{options: "{momentum: {choice: [0, 0.5, 0.9]}}"})
    check_experiment(searched)
    assert [hole.name for hole in searched.holes] == ["system.optimizer_options.momentum"]
    for text, said in {
        "{momentun: 0.9}": "unknown knob of optimizer sgd 'momentun'; did you mean momentum?",
        "{momentum: 1}": "optimizer sgd: momentum: it should be less than 1",
    }.items():
        with pytest.raises(UsageError, match="system.optimizer_options") as error:
            check_experiment(loaded(mine, "sgd", **{options: text}))
        assert said in str(error.value)
    with pytest.raises(UsageError, match=r"e.yaml:2: system.optimizer: unknown optimizer 'adm'; did you mean adam\?"):
        check_experiment(loaded(mine, "adm"))
    fresh = loaded(mine, "sgd", **{f"{options}.momentum": "0.9"})  # the file has no such mapping
    assert fresh.resolve(lambda hole: hole.ends()[0]).system_config.optimizer_options == {"momentum": 0.9}
    for set_, said in {
        "sgd, beta1: 0.3": "beta1 is set, and the optimizer sgd has no such knob: leave it out",
        "adam, beta1: 0.3, optimizer_options: {beta1: 0.9}": "beta1 is set, and so is optimizer_options.beta1",
    }.items():
        with pytest.raises(UsageError, match="cannot be built") as error:
            check_experiment(loaded(mine, set_))
        assert said in str(error.value)
    with pytest.raises(ValidationError, match="beta1"):
        PointGAN.Config(optimizer_options={"beta1": 2})


def test_knobs_of_a_system_reach_a_users_rule_and_those_that_it_lacks_do_not(mine: Path) -> None:
    config = PointGAN.Config(optimizer=str(mine), beta1=0.3, optimizer_options={"beta2": 0.7})
    rule = PointGAN(config, SHAPE).phases(8)[0].optimizer.optimizer
    assert (rule.config.beta1, rule.config.beta2) == (0.3, 0.7)
    assert OptimizerConfig(0.1, rule=str(mine)).optimizer.config.beta2 == 0.99, "its own default"


def test_an_experiment_without_the_key_has_the_digest_that_it_had(mine: Path) -> None:
    """A stored sweep goes on: the digest of this text was computed before optimisers were files."""
    (mine.parent / "e.yaml").write_text(YAML.replace(", optimizer: %s", ", penalty: r1"))
    assert load_experiment(str(mine.parent / "e.yaml"), data_dir=mine.parent).digest == DIGEST


def test_code_that_nobody_has_trusted_is_not_run(mine: Path, tmp_path: Path) -> None:
    mine.write_text(MINE + "\nraise SystemExit('it was run')")
    stranger = loaded(mine)
    stranger.allowed = trust.gate(tmp_path / "home")
    with pytest.raises(UsageError, match="this code came from elsewhere"):
        check_experiment(stranger)


@pytest.mark.parametrize("name", ["vae", "point_gan"])
def test_weights_keep_the_code_of_a_users_optimiser(name: str, mine: Path, tmp_path: Path) -> None:
    kind: Any = plugins.find(System, name)
    shape = SHAPE if name == "point_gan" else Shape(Modality.IMAGES, (1, 16, 16))
    small = {"hidden": 8, "latent_size": 4} if name == "point_gan" else {"width": 8, "latent_size": 4}
    config = kind.Config(optimizer=str(mine), **small)
    system = TrainingState.fresh(kind, config, shape, seed=0, batch_size=8, device="cpu").system.eval()
    path = tmp_path / "model" / "last.safetensors"
    files = save_weights(system, system.state_dict(), path, {})
    assert sorted(file.name for file in files) == ["last.json", "last.safetensors", "optimizer.mine.py"]
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["config"]["optimizer"] == "optimizer.mine.py" and "source" not in told
    mine.unlink()
    read: Any = load_system(path)
    assert torch.equal(read.generate(5, "k").values, system.generate(5, "k").values)
    with pytest.raises(UsageError, match="this code came from elsewhere"):
        load_system(path, allowed=trust.gate(tmp_path / "home"))


def test_weights_that_were_stored_before_the_key_are_loaded(tmp_path: Path) -> None:
    system = PointGAN(PointGAN.Config(hidden=8, latent_size=4), SHAPE)
    path = tmp_path / "last.safetensors"
    save_weights(system, system.state_dict(), path, {})
    told = json.loads(path.with_suffix(".json").read_text())
    del told["config"]["optimizer"], told["config"]["optimizer_options"]
    path.with_suffix(".json").write_text(json.dumps(told))
    assert load_system(path).config == system.config


def test_a_run_under_a_users_optimiser_goes_on_to_the_bit(mine: Path, tmp_path: Path) -> None:
    config = PointGAN.Config(hidden=8, latent_size=4, optimizer=str(mine))
    samples = Ring(Ring.Config(), Path()).load("train").take(slice(0, 200))

    def trained(state: TrainingState, steps: int) -> TrainingState:
        for _ in train_one(state, Batches(samples, 8, 0), seed=0, steps=steps, every=steps, precision="fp32"):
            pass
        return state

    def fresh(seed: int = 0) -> TrainingState:
        return TrainingState.fresh(PointGAN, config, SHAPE, seed=seed, batch_size=8, device="cpu")

    straight, half, other = trained(fresh(), 8), trained(fresh(), 4), fresh(seed=1)
    save_state(half, tmp_path / "state.safetensors")
    restore_state(other, tmp_path / "state.safetensors")
    for name, value in trained(other, 8).system.state_dict().items():
        assert torch.equal(value, straight.system.state_dict()[name]), name


def test_check_knows_a_file_and_a_name(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mine.parent)
    monkeypatch.delenv("AIGC_LAB_HOME", raising=False)

    def check(wanted: str, *changes: str) -> list[dict[str, Any]]:
        return check_file(wanted, None, changed(list(changes), {}), json=False, home=None)

    for name in ("./mine.py", "sgd"):
        rows = check(name)
        assert [row["contract"] for row in rows] == [contract.name for contract in OPTIMIZER]
        assert {row["state"] for row in rows} == {"kept"}
        assert capsys.readouterr().out.splitlines() == [f"✓ {contract.name}" for contract in OPTIMIZER]
