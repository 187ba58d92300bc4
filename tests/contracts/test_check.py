"""`aigc-lab check`, as a stranger uses it: what is said of good and of bad files, and with which exit code."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from test_contracts_catch import SOUND

from aigc_lab import plugins
from aigc_lab.cli.options import changed
from aigc_lab.commands.check import _system_cases, check_file, conclude
from aigc_lab.contracts.systems import SYSTEM
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import confined
from aigc_lab.host.settings import Settings
from aigc_lab.metrics.base import Metric
from aigc_lab.systems.base import System

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIGC_LAB_HOME", raising=False)
    path = tmp_path / "mine.py"
    path.write_text(SOUND)
    return path


def check(wanted: str, *changes: str, data: str | None = None, json: bool = False) -> list[dict[str, Any]]:
    return check_file(wanted, data, changed(list(changes), {}), json=json, home=None)


def test_a_sound_file_keeps_all_and_leaves_nothing_behind(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = check("./mine.py")
    conclude(rows)
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"✓ {contract.name}" for contract in SYSTEM]
    assert f"all {len(SYSTEM)} contracts are kept" in err
    assert [path.name for path in mine.parent.iterdir()] == ["mine.py"]


def test_a_broken_contract_is_explained_and_the_others_are_checked(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.write_text(SOUND.replace('noise["z"]', 'noise["zz"]') + f"# {mine}\n")
    rows = check("./mine.py")
    lines = capsys.readouterr().out.splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("✗"))
    assert lines[place] == "✗ losses are finite — KeyError: 'zz'"
    assert re.fullmatch(rf'    {mine}:\d+: made = self.net\(noise\["zz"\]\)', lines[place + 1])
    (last,) = (line for line in lines if line.startswith("·"))
    assert "not checked; first repair: losses are finite" in last
    with pytest.raises(Failure, match=rf"1 of {len(SYSTEM)} contracts are broken, and \d+ could not be checked"):
        conclude(rows)
    assert len(rows) == len(SYSTEM)


def test_what_a_plugin_prints_stays_out_of_the_json(mine: Path) -> None:
    mine.write_text(SOUND.replace("        made", "        print('noise')\n        made"))
    command = [sys.executable, "-c", "from aigc_lab.cli import main; main()", "check", "mine.py", "--json"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=mine.parent, env=env)
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in json.loads(done.stdout)} == {"kept"}


def test_a_file_that_ends_its_process_is_told_with_what_was_checked(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(confined.VARIABLE, "20")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mine.write_text(SOUND.replace("        made", "        import os; os._exit(3)\n        made"))
    said = r'mine.py:\d+: ended the process with code 3 while "losses are finite" was checked; raise an exception'
    with pytest.raises(UsageError, match=said):
        check("mine.py")
    assert "✓ unknown keys are refused" in capsys.readouterr().out


def test_other_choices_are_checked_too(mine: Path) -> None:
    text = SOUND.replace("width: int = 8", 'width: int = 8\n        law: Literal["a", "b"] = "a"')
    text = text.replace("import torch\n", "import torch\nfrom typing import Literal\n", 1)
    mine.write_text(text.replace("made = self", 'assert self.config.law == "a"\n        made = self'))
    broken = [row for row in check("mine.py") if row["state"] == "broken"]
    assert [(row["contract"], row["case"]) for row in broken] == [("losses are finite", "law=b")]
    assert {row["state"] for row in check("mine.py", "law=a")} == {"kept"}


@pytest.mark.parametrize(
    ("old", "new", "options", "said"),
    [
        ("def loss(self", "def loss(self:", (), r"mine.py:\d+: invalid syntax"),
        ("def samplers", "def sampler", (), r"Mine lacks samplers\(self\); see aigc_lab.systems.base.System"),
        ("(System)", "(nn.Module)", (), r"mine.py: defines no plugin; a plugin file has one subclass of .*System"),
        ("", "", ("wdth=3",), r"--set wdth=3: wdth: .*did you mean width"),
        ("", "", ("width=wide",), r'--set width=wide: width: it should be a valid integer, not "wide"'),
    ],
)
def test_a_mistake_is_one_line(mine: Path, old: str, new: str, options: tuple[str, ...], said: str) -> None:
    mine.write_text(SOUND.replace(old, new))
    with pytest.raises(UsageError, match=said) as caught:
        check("mine.py", *options)
    assert "\n" not in str(caught.value)


OWN_NETWORKS = '''
"""Points by networks of its own, which read no labels."""
from torch import nn
from aigc_lab.systems.shared.point_gan import PointSystem

class Mine(PointSystem):
    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.generator = nn.Linear(config.latent_size, 2)
        self.critic = nn.Sequential(nn.Linear(2 * config.packing, 8), nn.Tanh(), nn.Linear(8, 1))
'''
OWN_LANGUAGE = '''
"""A language model that is always told the class."""
from aigc_lab.systems.lstm_lm import LSTMLM

class Mine(LSTMLM):
    conditional = True
'''


@pytest.mark.parametrize(("code", "classes"), [(OWN_NETWORKS, 8), (OWN_LANGUAGE, 2)])
def test_labels_are_tried_where_a_system_reads_them(code: str, classes: int, mine: Path) -> None:
    mine.write_text(code)
    kind = plugins.find(System, str(mine))  # type: ignore[type-abstract]
    cases = _system_cases(kind, None, {}, Settings.load(None))
    assert "" in cases
    for case in cases.values():
        labels, state = case.samples.labels, case.fresh()
        assert case.shape.classes == classes and labels is not None and set(labels.tolist()) == {*range(classes)}
        assert state.phases and case.loss(state.phases[0], 0).total.isfinite()


def test_the_wrong_dataset_and_the_wrong_name_are_said(mine: Path) -> None:
    with pytest.raises(UsageError, match="Mine makes points, and dataset digits holds images; try --data ring"):
        check("mine.py", data="digits")
    with pytest.raises(UsageError, match="unknown plugin 'vea'; did you mean vae"):
        check("vea")


def test_an_experiment_a_dataset_and_a_metric_can_be_checked(mine: Path) -> None:
    assert [row["state"] for row in check(str(ROOT / "experiments" / "ring.yaml"))] == ["kept"]
    assert {row["state"] for row in check("digits")} == {"kept"}
    assert {row["state"] for row in check("modes")} == {"kept"}


# ---- what is shown


def test_the_metric_that_its_base_shows_keeps_its_contracts(mine: Path) -> None:
    shown = textwrap.dedent(
        (Metric.__doc__ or "").partition("no more than this:\n")[2].partition("\n    Other scores")[0]
    )
    Path("brightness.py").write_text(shown, "utf-8")
    conclude(check("./brightness.py"))
