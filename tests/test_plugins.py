"""Plugins that users bring: a file, or an installed package's entry point, and what is said of one that cannot work."""

import json
import os
import signal
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_lab import plugins
from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.host import confined
from aigc_lab.shape import Modality, Shape
from aigc_lab.sweeps.rehearsal import rehearse
from aigc_lab.systems.base import System
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.training.checkpoint import load_system, save_weights

MINE = '''
"""A system that learns one point."""
from typing import ClassVar
import torch
from torch import nn
from aigc_lab.config import Strict
from aigc_lab.noise import Draw
from aigc_lab.samples import Modality, Points
from aigc_lab.systems.base import Loss, OptimizerConfig, Phase, System

class _Helper(System):
    pass

class Mine(System):
    modality = Modality.POINTS
    class Config(Strict):
        lr: float = 0.01
    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.centre = nn.Linear(shape.size[0], shape.size[0])
    def phases(self, batch_size):
        draws = {"z": self.latents(batch_size)}
        return [Phase("fit", lambda batch, noise, step: Loss((self.centre(noise["z"]) - batch.values).square().mean()),
                      [self.centre], OptimizerConfig(self.config.lr), draws)]
    def samplers(self):
        return [self.centre]
    def latents(self, count):
        return Draw((count, self.shape.size[0]))
    def sample(self, latents, *, labels=None):
        return Points(self.centre(latents))
'''
YAML = """\
data: {name: ring, points: 500}
system: {name: ./mine.py, lr: 0.02}
training: {steps: 4, batch_size: 8}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
"""
SHAPE = Shape(Modality.POINTS, (2,), classes=8)


def found(path: Path) -> type[System]:
    return plugins.find(System, str(path))  # type: ignore[type-abstract]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "own" / "mine.py"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


def test_a_file_is_a_plugin(mine: Path) -> None:
    kind = found(mine)
    assert (kind.__name__, plugins.name_of(kind), plugins.source_of(kind)) == ("Mine", "mine", MINE.encode())
    assert found(mine) is kind
    mine.write_text(MINE.replace("0.01", "0.03"))
    assert found(mine).Config().lr == 0.03  # type: ignore[attr-defined]
    assert plugins.source_of(PointGAN) is None


def test_a_file_is_looked_for_beside_the_experiment_and_then_here(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mine.parent / "e.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    loaded = experiment.load_experiment("own/e.yaml", data_dir=tmp_path)
    check_experiment(loaded)
    plan = loaded.resolve(lambda hole: hole.ends()[0])
    assert (plan.system, plan.system_config.lr) == ("mine", 0.02)
    # A changed file is another experiment.
    before = loaded.digest
    mine.write_text(MINE + "\n# changed")
    assert experiment.load_experiment("own/e.yaml", data_dir=tmp_path).digest != before
    mine.write_text(MINE)
    assert experiment.load_experiment("own/e.yaml", data_dir=tmp_path).digest == before
    monkeypatch.chdir(mine.parent)
    (tmp_path / "e.yaml").write_text(YAML)
    check_experiment(experiment.load_experiment("../e.yaml", data_dir=tmp_path))
    mine.unlink()
    with pytest.raises(
        UsageError, match=rf"e.yaml:2: system.name: ./mine.py: no such file in {tmp_path} and {tmp_path}/own"
    ):
        check_experiment(experiment.load_experiment("../e.yaml", data_dir=tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINE.replace("def phases(self", "def phases(self:"), r"mine.py:21: invalid syntax"),
        (MINE.replace("samplers", "sampler"), r"Mine lacks samplers\(self\); see aigc_lab.systems.base.System"),
        (MINE.replace("    modality = Modality.POINTS\n", ""), r"Mine lacks modality"),
        ("import torch\n", r"defines no System; a plugin file has one subclass"),
        (MINE + "\nclass Other(Mine): pass\n", r"defines Mine, Other; a plugin file has one subclass"),
        ("import no_such_package\n", r"mine.py:1: No module named 'no_such_package'; a plugin is one file"),
        ("x = 1\n\ny = x / 0\n", r"mine.py:3: ZeroDivisionError"),
        ("a\0b", r"mine.py.*null bytes"),
    ],
)
def test_a_file_that_cannot_work_is_explained(mine: Path, text: str, said: str) -> None:
    mine.write_text(text)
    for _ in range(2):  # the second time as the first
        with pytest.raises(UsageError, match=said):
            found(mine)


def test_weights_keep_the_code_of_a_users_system(mine: Path, tmp_path: Path) -> None:
    kind = found(mine)
    system = kind(kind.Config(lr=0.5), SHAPE)  # type: ignore[call-arg]
    path = tmp_path / "model" / "last.safetensors"
    files = save_weights(system, system.state_dict(), path, {})
    assert sorted(file.name for file in files) == ["last.json", "last.safetensors", "mine.py"]
    mine.unlink()
    loaded = load_system(path)
    assert torch.equal(loaded.generate(5, "k").values, system.generate(5, "k").values)
    assert json.loads(path.with_suffix(".json").read_text())["system"] == "mine"
    (path.parent / "mine.py").write_text(MINE + "\n# touched")
    with pytest.raises(UsageError, match="not the code that these weights were trained with"):
        load_system(path)


def test_an_installed_package_offers_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "fine": EntryPoint("fine", "aigc_lab.systems.point_gan:PointGAN", "aigc_lab.systems"),
        "module": EntryPoint("module", "aigc_lab.systems.vae", "aigc_lab.systems"),
        "gone": EntryPoint("gone", "no_such_package:Thing", "aigc_lab.systems"),
        "other": EntryPoint("other", "pathlib:Path", "aigc_lab.systems"),
        "dcgan": EntryPoint("dcgan", "no_such_package:Thing", "aigc_lab.systems"),
    }
    names: dict[type, str] = {}
    monkeypatch.setattr(plugins, "_installed", lambda folder: points if folder == "systems" else {})
    monkeypatch.setattr(plugins, "_NAMES", names)
    find: Any = plugins.find
    assert find(System, "fine") is PointGAN and plugins.name_of(PointGAN) == "fine"
    assert find(System, "module").__name__ == "VAE"
    assert {"fine", "vae"} <= set(plugins.names("systems")) == set(plugins.describe("systems"))
    assert find(System, "dcgan").__module__ == "aigc_lab.systems.dcgan", "what ships cannot be replaced unseen"
    with pytest.raises(UsageError, match="no_such_package:Thing of entry point gone: ModuleNotFoundError"):
        find(System, "gone")
    with pytest.raises(UsageError, match="pathlib:Path of entry point other is not a subclass of System"):
        find(System, "other")
    with pytest.raises(UsageError, match="unknown system 'fin'; did you mean fine"):
        find(System, "fin")


# ---- files that hang, end their process, or take it with them


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's file is tried in a process of its own, as outside the tests; nothing has passed yet."""
    monkeypatch.setenv(confined.VARIABLE, "2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(confined, "_passed", set())


HOSTILE = [
    ("while True: pass", r"mine.py:5: did not return within 2 s while it was imported; .*AIGC_LAB_PLUGIN_SECONDS"),
    ("import os; os._exit(3)", r"mine.py:5: ended the process with code 3 while it was imported"),
    ("raise KeyboardInterrupt", r"mine.py:5: KeyboardInterrupt; 'aigc-lab check' tests the file"),
    pytest.param(
        "import ctypes; ctypes.string_at(0)", r"mine.py:5: was ended by SIGSEGV while", marks=pytest.mark.slow
    ),
    pytest.param("import os; os.abort()", r"mine.py:5: was ended by SIGABRT while", marks=pytest.mark.slow),
    pytest.param("x = bytearray(10**15)", r"mine.py:5: MemoryError", marks=pytest.mark.slow),
    pytest.param("import os; os.fork()", r"mine.py: it forks this process", marks=pytest.mark.slow),
    pytest.param(
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()",
        r"mine.py: leaves a thread running",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.usefixtures("tried")
@pytest.mark.parametrize(("line", "said"), HOSTILE)
def test_a_file_that_would_take_the_command_with_it(mine: Path, line: str, said: str) -> None:
    mine.write_text(MINE.replace("import torch\n", f"import torch\n{line}\n", 1))
    with pytest.raises(UsageError, match=said) as caught:
        found(mine)
    assert "\n" not in str(caught.value)
    assert not list(mine.parent.parent.glob("cache/aigc-lab/plugins/*")), "it has not passed"


@pytest.mark.usefixtures("tried")
def test_what_has_passed_is_not_tried_again(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def call(function: str, given: dict[str, str], **_: object) -> list[dict[str, Any]]:
        calls.append((function, given))
        return []

    monkeypatch.setattr(confined, "call", call)
    for round in range(3):
        mine.write_text(MINE + "\n# another\n" * (round == 2))
        confined._passed.clear()  # as in another process
        for name in [name for name in plugins._SOURCES if name.startswith("aigc_lab_files")]:
            del plugins._SOURCES[name], sys.modules[name]
        found(mine)
    assert calls == [("aigc_lab.plugins:load", {"file": str(mine)})] * 2
    assert len(list((tmp_path / "cache" / "aigc-lab" / "plugins").iterdir())) == 2


def test_what_a_file_does_to_the_process_is_undone(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "import os, signal\nprint('noise')\nos.chdir('/')\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    mine.write_text(MINE.replace("import torch\n", f"import torch\n{hostile}", 1))
    before = os.getcwd(), signal.getsignal(signal.SIGTERM)
    found(mine)
    assert (os.getcwd(), signal.getsignal(signal.SIGTERM)) == before
    assert capsys.readouterr().out == ""
    mine.write_text("answer = input()\n")
    with pytest.raises(UsageError, match=r"mine.py:1: EOFError"):
        found(mine)


@pytest.mark.usefixtures("tried")
def test_an_experiment_is_rehearsed_before_it_is_begun(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its systems are built, trained and sampled where they can do no harm; a mistake in it is said with its line."""
    monkeypatch.setenv(confined.VARIABLE, "20")
    (mine.parent / "e.yaml").write_text(YAML)
    loaded = experiment.load_experiment(str(mine.parent / "e.yaml"), data_dir=tmp_path)
    mine.write_text(MINE.replace("        return Points(", "        import os; os._exit(3)\n        return Points("))
    said: list[str] = []
    with pytest.raises(UsageError, match=r"mine.py:\d+: ended the process with code 3 while mine was sampled"):
        rehearse(loaded, "cpu", said.append)
    assert said == ["mine.py: tried in a process of its own first, once for each content …"]
    calls: list[object] = []

    def call(*given: object, **_: object) -> list[dict[str, Any]]:
        calls.append(given)
        return []

    monkeypatch.setattr(confined, "call", call)
    for _ in range(2):
        rehearse(loaded, "cpu", said.append)
    assert len(calls) == 1 and len(said) == 2


def test_a_file_that_is_too_large_or_too_deep_is_no_plugin(mine: Path) -> None:
    with mine.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UsageError, match=r"mine.py: is larger than 16 MB"):
        found(mine)
    mine.write_text("x = " + "-" * 100_000 + "1")
    with pytest.raises(UsageError, match=r"mine.py.*(nested too deeply|too many nested)"):
        found(mine)
