"""What every file in `penalties/` must do, found by name; that each of these contracts can fail; and a user's file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aigc_lab import plugins
from aigc_lab.archive import bounds
from aigc_lab.cli.options import changed
from aigc_lab.commands.check import check_file
from aigc_lab.contracts.base import Contract, ContractResult, examine
from aigc_lab.contracts.penalties import PENALTY, Case
from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.host import trust
from aigc_lab.penalties.base import CriticTurn, Penalty
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.checkpoint import load_system, save_weights
from aigc_lab.training.model_code import code_of
from aigc_lab.training.state import TrainingState

NAMES = plugins.names("penalties")
DIGEST = "cae80f4a906f887034bb7483887d637a191e150876dde574ab4c449de0c4a906"
SHAPE = Shape(Modality.POINTS, (2,), classes=8)


@pytest.mark.parametrize("contract", PENALTY, ids=lambda contract: contract.name.replace(" ", "_"))
@pytest.mark.parametrize("name", NAMES)
def test_a_penalty_keeps_its_contracts(name: str, contract: Contract[Case]) -> None:
    # With the paper's weight so small a GAN is all penalty.
    options = {"penalty_weight": 0.1} if name == "consensus" else {}
    contract.check(Case(plugins.find(Penalty, name), options))


def test_a_contract_says_why_it_matters_in_one_sentence() -> None:
    names = [contract.name for contract in PENALTY]
    assert len(set(names)) == len(names)
    for contract in PENALTY:
        assert contract.why.endswith(".") and 40 < len(contract.why) < 240, contract.name


# ---- values, against closed forms


class Line(nn.Module):
    """D(x) = w · x + b, whose gradient is w everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0, -4.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w[:, None] + 0.5


def turn(critic: nn.Module, penalty: Penalty) -> CriticTurn:
    """Four real and four made points; the anchors of LeCam remember 0.7 and −0.4."""
    source = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(4, 2, generator=source, dtype=torch.float64) for _ in range(2))
    noise = {name: torch.rand(what.size, generator=source).double() for name, what in penalty.noise(4, 4, (2,)).items()}
    memory = penalty.memory()
    for name, value in {"real_anchor": 0.7, "fake_anchor": -0.4}.items():
        if name in memory:
            memory[name].fill_(value)
    return CriticTurn(
        critic=critic,
        generator=critic,
        real=real,
        noise=noise,
        memory=memory,
        pack=lambda samples: samples,
        critic_loss=lambda players: players.critic(real).mean(),
        generator_loss=lambda players: players.generator(fake).mean(),
        seen_real=real,
        seen_fake=fake,
        real_scores=critic(real),
        fake_scores=critic(fake),
    )


def lecam(at: CriticTurn) -> float:
    return ((at.real_scores + 0.4).square().mean() + (at.fake_scores - 0.7).square().mean()).item()


def consensus(at: CriticTurn) -> float:
    """Each loss here is the mean of w · x + ½: its gradient by w is the mean of the points."""
    return float(at.real.mean(0).square().sum() + at.seen_fake.mean(0).square().sum()) / 2


# ‖w‖ = 5; a critic that is flat has the norm 0.
VALUES: dict[str, tuple[Any, Any]] = {
    "none": (None, None),
    "instance_noise": (None, None),
    "wgan_gp": (16.0, 1.0),
    "dragan": (16.0, 1.0),
    "r1": (12.5, 0.0),
    "r2": (12.5, 0.0),
    "r1_r2": (25.0, 0.0),
    "lecam": (lecam, 0.9**2 + 0.2**2),
    "consensus": (consensus, consensus),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("flat", [False, True])
def test_the_value_on_a_line_and_on_a_plain(name: str, flat: bool) -> None:
    critic, penalty = Line(), plugins.find(Penalty, name)()
    if flat:
        critic.w.data.zero_()
    at = turn(critic, penalty)
    value, expected = penalty.value(at), VALUES[name][flat]
    expected = expected(at) if callable(expected) else expected
    assert value is None if expected is None else value is not None
    if value is not None:
        assert value.ndim == 0 and value.item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_anchors_of_lecam_follow_the_mean_scores() -> None:
    penalty = plugins.find(Penalty, "lecam")()
    at = turn(Line(), penalty)
    penalty.value(at)
    penalty.after(at.memory)
    for which, before, scores in (("real", 0.7, at.real_scores), ("fake", -0.4, at.fake_scores)):
        assert at.memory[f"{which}_anchor"].item() == pytest.approx(0.99 * before + 0.01 * scores.mean().item())


def test_instance_noise_has_the_deviation_of_its_weight() -> None:
    penalty, points = plugins.find(Penalty, "instance_noise")(), torch.zeros(20_000, 2)
    (what,) = penalty.sample_noise("real", 20_000, (2,)).values()
    noise = {"instance_real": torch.randn(what.size, generator=torch.Generator().manual_seed(1))}
    changed = penalty.changed(points, noise, "real", 0.3)
    assert changed.std().item() == pytest.approx(0.3, rel=0.01) and abs(changed.mean().item()) < 0.01


def test_what_experiments_and_stored_weights_may_say_is_as_it_was() -> None:
    """Names, weights and buffers are in files that users keep."""
    weights = {name: plugins.find(Penalty, name).weight for name in NAMES}
    assert weights == {
        "none": 0,
        "wgan_gp": 10,
        "dragan": 10,
        "r1": 10,
        "r2": 10,
        "r1_r2": 10,
        "lecam": 0.3,
        "consistency": 10,
        "consensus": 10,
        "instance_noise": 0.1,
    }
    system = PointGAN(PointGAN.Config(penalty="lecam", hidden=8, latent_size=4), SHAPE)
    assert dict(system.named_buffers()).keys() == {"real_anchor", "fake_anchor", "real_seen", "fake_seen"}
    from aigc_lab.objectives import penalties

    for name in ("input_gradient", "norms", "wgan_gp", "dragan", "zero_centred", "lecam", "consistency", "consensus"):
        assert callable(getattr(penalties, name))


# ---- each contract can fail

MINE = '''"""Small scores (nobody 2026): E D² of both sides; weight 0.1."""
import torch
from aigc_lab.noise import Draw
from aigc_lab.penalties.base import Penalty

class Mine(Penalty):
    weight = 0.1
    sees_constant = True

    def noise(self, count, packs, critic_shape):
        return {"mine": Draw((packs, 1))}

    def value(self, turn):
        scores = turn.real_scores.square() + turn.fake_scores.square()
        return (scores * turn.noise["mine"].square()).mean()
'''
VALUE = "        scores = turn.real_scores.square() + turn.fake_scores.square()\n"
BREAKS: dict[str, tuple[str, dict[str, str]]] = {
    "its weight is a number": ("finite number", {"weight = 0.1": "weight = -1"}),
    "it goes with a small gan": (
        "never",
        {"    def noise": "    def check_options(self, config):\n        raise ValueError('never')\n\n    def noise"},
    ),
    "its noise has names of its own": ("'latents' is drawn by others", {'"mine"': '"latents"'}),
    "what it remembers has names of its own": (
        "begins with another value",
        {"    def noise": "    def memory(self):\n        return {'own': torch.rand(())}\n\n    def noise"},
    ),
    "losses are finite": ("is nan at the first batch", {VALUE: VALUE + "        scores = scores * float('nan')\n"}),
    "a loss draws only from its noise": (
        "torch's stream",
        {VALUE: VALUE + "        scores = scores + torch.rand(())\n"},
    ),
    "a loss leaves its arguments alone": (
        "changes mine in place",
        {VALUE: VALUE + "        turn.noise['mine'].mul_(2)\n"},
    ),
    "a step asks the device for no number": (
        "_local_scalar_dense",
        {VALUE: VALUE + "        scores = scores * (1 + 0 * turn.real_scores.mean().item())\n"},
    ),
    "a step makes its tensors where the weights are": (
        "make tensors with device=x.device",
        {VALUE: VALUE + "        scores = scores + torch.zeros(12, 1, device='cpu')\n"},
    ),
    "a loss is a function of its arguments": (
        "of the same batch, noise and step",
        {VALUE: VALUE + "        self.calls = getattr(self, 'calls', 0) + 1\n        scores = scores * self.calls\n"},
    ),
    "a weight of zero changes no loss": (
        "with weight 0 a loss is",
        {
            "    def noise": "    def changed(self, samples, noise, which, weight):\n"
            "        return samples * 2\n\n    def noise"
        },
    ),
    "its term is added with its weight": (
        "depends on the weight",
        {
            "    def noise": "    def changed(self, samples, noise, which, weight):\n"
            "        return samples * (1 + weight)\n\n    def noise"
        },
    ),
    "a flat critic has finite gradients": (
        "mask before a square root",
        {"scores * turn": "scores.sqrt() * turn"},
    ),
    "replicas may differ in what only the losses read": (
        ".item()",
        {
            "    sees_constant = True\n": "    tensor_weight = True\n\n"
            "    def changed(self, samples, noise, which, weight):\n        return samples * (1 + float(weight))\n",
            "def value": "def other",
        },
    ),
}


def examined(folder: Path, text: str) -> list[ContractResult]:
    path = folder / "mine.py"
    path.write_text(text)
    kind = plugins.find(Penalty, str(path))
    return list(examine(PENALTY, {"": Case(kind)}, path))


def test_a_sound_file_keeps_all(tmp_path: Path) -> None:
    assert [(result.contract, result.message) for result in examined(tmp_path, MINE) if result.state != "kept"] == []


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_penalty_that_breaks_it(contract: str, tmp_path: Path) -> None:
    said, changes = BREAKS[contract]
    text = MINE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    broken = [result for result in examined(tmp_path, text) if result.state == "broken"]
    assert [result.contract for result in broken] == [contract]
    assert said in broken[0].message


# ---- a user's file

YAML = """\
data: {name: ring, points: 500}
system: {name: point_gan, hidden: 8, latent_size: 4, penalty: %s}
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


def loaded(mine: Path, penalty: str = "./mine.py") -> experiment.Experiment:
    (mine.parent / "e.yaml").write_text(YAML % penalty)
    return experiment.load_experiment(str(mine.parent / "e.yaml"), data_dir=mine.parent)


def test_an_experiment_names_a_file_and_is_another_when_it_changes(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # it is looked for beside the experiment
    first = loaded(mine)
    check_experiment(first)
    plan = first.resolve(lambda hole: hole.ends()[0])
    assert plan.system_config.penalty == str(mine) and plan.named_files == {"penalty": "./mine.py"}
    assert first.own_files == [mine] and set(first.code.values()) == {"mine.py"}
    digest = first.digest
    mine.write_text(MINE + "\n# changed")
    assert loaded(mine).digest != digest
    mine.write_text(MINE)
    assert loaded(mine).digest == digest
    # One of a search's choices is a file of the experiment too.
    searched = loaded(mine, "{choice: [r1, ./mine.py]}")
    assert searched.own_files == [mine]
    check_experiment(searched)


def test_an_experiment_without_files_has_the_digest_that_it_had(tmp_path: Path) -> None:
    """A stored sweep goes on: the digest of this text was computed before penalties were files."""
    (tmp_path / "e.yaml").write_text(YAML % "r1")
    assert experiment.load_experiment(str(tmp_path / "e.yaml"), data_dir=tmp_path).digest == DIGEST


def test_what_is_wrong_with_a_penalty_is_said_at_its_key(mine: Path) -> None:
    with pytest.raises(UsageError, match=r"e.yaml:2: system.penalty: unknown penalty 'lecma'; did you mean lecam\?"):
        check_experiment(loaded(mine, "lecma"))
    with pytest.raises(UsageError, match=r"e.yaml:2: system.penalty: \./other.py: no such file in"):
        check_experiment(loaded(mine, "./other.py"))
    mine.write_text(MINE.replace("weight = 0.1", "pass"))
    with pytest.raises(UsageError, match=r"Mine lacks weight; see aigc_lab.penalties.base.Penalty"):
        check_experiment(loaded(mine))


def test_code_that_nobody_has_trusted_is_not_run(mine: Path, tmp_path: Path) -> None:
    mine.write_text(MINE + "\nraise SystemExit('it was run')")
    stranger = loaded(mine)
    stranger.allowed = trust.gate(tmp_path / "home")
    with pytest.raises(UsageError, match="this code came from elsewhere"):
        check_experiment(stranger)


def test_weights_keep_the_code_of_a_users_penalty(mine: Path, tmp_path: Path) -> None:
    config = PointGAN.Config(hidden=8, latent_size=4, penalty=str(mine))
    system = TrainingState.fresh(PointGAN, config, SHAPE, seed=0, batch_size=8, device="cpu").system
    path = tmp_path / "model" / "last.safetensors"
    files = save_weights(system, system.state_dict(), path, {})
    assert sorted(file.name for file in files) == ["last.json", "last.safetensors", "penalty.mine.py"]
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["config"]["penalty"] == "penalty.mine.py" and "source" not in told
    mine.unlink()
    read: Any = load_system(path)
    assert torch.equal(read.generate(5, "k").values, system.generate(5, "k").values)
    assert read.config.penalty == str(path.with_name("penalty.mine.py"))
    # Stored once more, it is the same model.
    again = save_weights(read, read.state_dict(), tmp_path / "again" / "last.safetensors", {})
    assert json.loads(again[1].read_text()) == told

    with pytest.raises(UsageError, match="this code came from elsewhere"):
        load_system(path, allowed=trust.gate(tmp_path / "home"))
    path.with_name("penalty.mine.py").write_text(MINE + "\n# touched")
    with pytest.raises(UsageError, match="not the code that these weights were trained with"):
        load_system(path)


@pytest.mark.parametrize("name", ["./evil.py", "/tmp/evil.py", "evil.py"])
def test_weights_run_no_code_but_what_lies_beside_them_under_its_digest(name: str, tmp_path: Path) -> None:
    system = PointGAN(PointGAN.Config(hidden=8, latent_size=4), SHAPE)
    path = tmp_path / "last.safetensors"
    save_weights(system, system.state_dict(), path, {})
    told = json.loads(path.with_suffix(".json").read_text())
    told["config"]["penalty"] = name
    path.with_suffix(".json").write_text(json.dumps(told))
    (tmp_path / "evil.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(UsageError, match='"config.penalty" is .*, a file that "config_sources" does not say'):
        load_system(path)


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({"penalty": {"file": "penalty.mine.py", "sha256": "ab"}}, None),
        ({"penalty": {"file": "penalty.mine.py", "sha256": "cd"}}, '"config_sources.penalty.sha256" is not that of'),
        ({"penalty": {"file": "../penalty.mine.py", "sha256": "ab"}}, "must be a file of code beside it"),
        (["penalty.mine.py"], "must hold keys and files"),
    ],
)
def test_an_archive_names_code_beside_its_weights_alone(sources: Any, said: str | None) -> None:
    told = {"system": "point_gan", "config_sources": sources}
    digests = {"checkpoints/0.0/penalty.mine.py": "ab"}
    if said is None:
        bounds._check_description("checkpoints/0.0/last.json", told, digests)
        assert code_of(told) == [("penalty.mine.py", "ab")]
        return
    with pytest.raises(UsageError, match=said):
        bounds._check_description("checkpoints/0.0/last.json", told, digests)


def test_check_knows_a_file_and_a_name(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(mine.parent)
    monkeypatch.delenv("AIGC_LAB_HOME", raising=False)

    def check(wanted: str, *changes: str) -> list[dict[str, Any]]:
        return check_file(wanted, None, changed(list(changes), {}), json=False, home=None)

    rows = check("./mine.py")
    assert [row["contract"] for row in rows] == [contract.name for contract in PENALTY]
    assert {row["state"] for row in rows} == {"kept"} and {row["plugin"] for row in rows} == {"mine"}
    assert capsys.readouterr().out.splitlines() == [f"✓ {contract.name}" for contract in PENALTY]
    with pytest.raises(UsageError, match="--set weight=3: it is checked on what ships, without options"):
        check("./mine.py", "weight=3")
    assert plugins.kinds([System, Penalty], "wgan_gp") == [System, Penalty]
    assert plugins.kinds([System, Penalty], "lecam") == [Penalty]
