"""Systems ask a penalty, an augmentation or an optimiser for its properties, and never for its name."""

import ast
from pathlib import Path

import pytest

import aigc_lab
from aigc_lab import plugins
from aigc_lab.augmentations.base import Augmentation
from aigc_lab.penalties.base import Penalty
from aigc_lab.shape import Modality, Shape
from aigc_lab.systems.base import System
from aigc_lab.systems.dirac import DiracGAN

PACKAGE = Path(aigc_lab.__file__).parent
FILES = sorted((PACKAGE / "systems").rglob("*.py"))
KEYS = {"penalty", "augment", "optimizer", "rule"}


def compared(tree: ast.AST) -> list[str]:
    """Comparisons and matches with what names a plugin, as text."""
    subjects = [(node, [node.left, *node.comparators]) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    matched = [(node, [node.subject]) for node in ast.walk(tree) if isinstance(node, ast.Match)]
    return [
        ast.unparse(node)
        for node, parts in [*subjects, *matched]
        if any(isinstance(part, ast.Attribute) and part.attr in KEYS for part in parts)
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_no_system_compares_the_name_of_a_plugin(file: Path) -> None:
    assert compared(ast.parse(file.read_text("utf-8"))) == []


def test_the_check_sees_a_comparison() -> None:
    assert len(FILES) > 20
    assert compared(ast.parse("if self.config.penalty != 'r1': pass\nmatch config.rule:\n  case 'sgd': pass"))
    assert not compared(ast.parse("if self._penalty.zero_centred == {'real'}: pass"))


def test_the_dirac_gan_takes_the_penalties_of_its_paper() -> None:
    named = plugins.named(DiracGAN.Config.model_fields["penalty"])
    assert named is not None and named.options == ["none", "consensus", "instance_noise", "r1", "wgan_gp"]
    weights = {name: plugins.find(Penalty, name).dirac_weight for name in named.options}
    # WGAN-GP's value is (|ψ| − 1)², and the paper's term γ/2 times that.
    assert weights == {"none": 1, "consensus": 1, "instance_noise": 1, "r1": 1, "wgan_gp": 0.5}


def test_what_systems_ask_of_penalties_and_augmentations() -> None:
    kinds = {name: plugins.find(Penalty, name) for name in plugins.names("penalties")}
    centred = {name: set(kind.zero_centred) for name, kind in kinds.items() if kind.zero_centred}
    assert centred == {"r1": {"real"}, "r2": {"fake"}, "r1_r2": {"real", "fake"}}
    assert [name for name, kind in kinds.items() if kind.gaussian_noise] == ["instance_noise"]
    identities = {name: plugins.find(Augmentation, name).identity for name in plugins.names("augmentations")}
    assert identities == {"none": True, "adaptive": False, "diffaugment": False}


def test_a_users_penalty_is_treated_by_its_properties(tmp_path: Path) -> None:
    """A copy of R1 + R2 in a file gets R3GAN's γ; one of WGAN-GP plays the Dirac-GAN with half of it."""
    for name in ("r1_r2", "wgan_gp"):
        (tmp_path / f"mine_{name}.py").write_text((PACKAGE / "penalties" / f"{name}.py").read_text())
    r3gan = plugins.find(System, "r3gan")  # type: ignore[type-abstract]
    config = r3gan.Config(penalty=str(tmp_path / "mine_r1_r2.py"), width=8, groups=4)  # type: ignore[call-arg]
    assert r3gan(config, Shape(Modality.IMAGES, (1, 16, 16)))._weight == 0.05
    game = DiracGAN.Config(penalty=str(tmp_path / "mine_wgan_gp.py"), penalty_weight=0.3)
    assert DiracGAN(game, Shape(Modality.POINTS, (1,)))._weight == 0.15
