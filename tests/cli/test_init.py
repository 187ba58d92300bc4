"""`aigc-lab init` and the experiments of one's own that it leads to."""

import sys
from pathlib import Path
from typing import Any

import pytest

from aigc_lab import cli
from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.host import content


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    monkeypatch.setattr(sys, "argv", ["aigc-lab", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def says(loaded: experiment.Experiment) -> tuple[Any, Any]:
    """All that a digest is made of but the content of a user's folder, which is not there yet."""
    return loaded.document.data, loaded.protocol


def test_what_is_copied_loads_as_ours_does(here: Path) -> None:
    before = {name: says(experiment.load_experiment(name, data_dir=here)) for name in content.names("experiments")}
    copied = content.copy(here, force=False)
    assert {f"experiments/{name}.yaml" for name in before} <= set(copied.written)
    assert {f"evaluation/{name}.yaml" for name in content.names("evaluation")} <= set(copied.written)
    assert (here / "experiments/digits.yaml").read_bytes() == (
        content.folder("experiments") / "digits.yaml"
    ).read_bytes()
    assert content.find_file("experiments", "digits") == here / "experiments" / "digits.yaml"
    assert {name: says(experiment.load_experiment(name, data_dir=here)) for name in before} == before
    assert content.copy(here, force=False).written == []


def test_a_changed_protocol_is_another_sweep(here: Path) -> None:
    before = experiment.load_experiment("ring", data_dir=here).digest
    content.copy(here, force=False)
    protocol = here / "evaluation" / "points.yaml"
    text = protocol.read_text()
    assert "samples: 2500" in text
    protocol.write_text(text.replace("samples: 2500", "samples: 2000"))
    changed = experiment.load_experiment("ring", data_dir=here)
    assert changed.protocol.samples == 2000
    assert changed.digest != before


def test_a_file_that_differs_is_not_replaced(here: Path) -> None:
    content.copy(here, force=False)
    (here / "experiments/ring.yaml").write_text("mine")
    (here / "experiments/digits.yaml").unlink()
    with pytest.raises(UsageError, match=r"holds experiments/ring\.yaml with other content; nothing was written"):
        content.copy(here, force=False)
    assert not (here / "experiments/digits.yaml").exists()
    assert set(content.copy(here, force=True).written) == {"experiments/ring.yaml", "experiments/digits.yaml"}
    assert (here / "experiments/ring.yaml").read_text() != "mine"


def test_whose_a_name_is(here: Path) -> None:
    assert content.origin("experiments", "ring") == ""
    content.copy(here, force=False)
    assert content.origin("experiments", "ring") == "yours: experiments/ring.yaml, same as ours"
    (here / "experiments/ring.yaml").write_text("# other\n")
    assert content.origin("experiments", "ring") == "yours: experiments/ring.yaml, instead of ours"
    (here / "experiments/mine.yaml").write_text("# My own.\n")
    assert content.origin("experiments", "mine") == "yours: experiments/mine.yaml"
    assert "mine" in content.names("experiments")
    with pytest.raises(UsageError, match="unknown experiment 'mime'; did you mean mine?"):
        content.find_file("experiments", "mime")


def test_the_checkout_itself_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(content.folder("experiments").parent)
    assert content.folders("experiments") == [content.folder("experiments")]
    assert content.origin("experiments", "ring") == ""


def test_the_command(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shell(monkeypatch, capsys, "init", "lab")
    assert code == 0
    assert "wrote lab/experiments/ring.yaml" in out and "Next: cd lab" in out
    (here / "lab/experiments/ring.yaml").write_text("# Mine.\n")
    code, out, err = shell(monkeypatch, capsys, "init", "lab")
    assert (code, out) == (2, "") and err.count("\n") == 1
    monkeypatch.chdir(here / "lab")
    code, out, _ = shell(monkeypatch, capsys, "list", "experiments")
    assert "Mine.  (yours: experiments/ring.yaml, instead of ours)" in out
    (here / "file").touch()
    code, _, err = shell(monkeypatch, capsys, "init", str(here / "file"))
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
