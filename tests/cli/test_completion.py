"""What Tab offers, asked as bash asks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aigc_lab.cli import completion
from aigc_lab.registry.store import Registry
from aigc_lab.shape import Modality, Shape

LAB = "import sys; sys.argv[0] = 'aigc-lab'; from aigc_lab.cli import main; main()"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with Registry.open(f"sqlite:///{tmp_path / '.aigc-lab' / 'registry.db'}") as registry:
        for name, digest in (("ring", "00000000"), ("rings", "11111111")):
            sweep = registry.sweep(name, digest, {}, "rkl", "lower")
            registry.trial(sweep, 0, "point_gan", {}, {})
            registry.run(sweep, 0, 0, "search")
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mine.py").touch()
    shape = Shape(Modality.POINTS, (2,), classes=3, class_names=("cat", "dog", "cow"))
    (tmp_path / "animals.json").write_text(json.dumps({"conditional": True, "shape": shape.dump()}))
    (tmp_path / "notes.txt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("aigc-lab comp", {"compare"}),
        ("aigc-lab compare ring-", {"ring-00000000"}),
        ("aigc-lab show rings", {"rings-11111111.0.0"}),
        ("aigc-lab sweep di", {"digits", "digits-8x8", "dirac", "disentangle-shapes", "disentangle-shapes-small"}),
        ("aigc-lab sweep mi", {"mine.yaml"}),
        ("aigc-lab sweep ring --executor ", {"inline", "local", "queue", "ray", "slurm"}),
        ("aigc-lab resume ring --executor mi", {"mine.py"}),
        ("aigc-lab bench --only s", {"self_bleu", "step"}),
        ("aigc-lab sample animals.safetensors --labels ", {"cat", "cow", "dog"}),
        ("aigc-lab sample animals.safetensors --labels dog,c", {"dog,cat", "dog,cow"}),
        ("aigc-lab sample ring-00000000.0.0 --labels ", set()),
        (
            "aigc-lab list ",
            {
                "systems",
                "datasets",
                "metrics",
                "experiments",
                "protocols",
                "penalties",
                "augmentations",
                "pruners",
                "optimizers",
                "executors",
                "modalities",
            },
        ),
    ],
)
def test_bash_is_offered(here: Path, typed: str, offered: set[str]) -> None:
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_AIGC_LAB_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", LAB], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_bash_is_one(here: Path) -> None:
    asked = {"_AIGC_LAB_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-c", LAB], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
    assert "complete" in done.stdout and "aigc-lab" in done.stdout


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/registry.db", "postgresql+psycopg://u:p@127.0.0.1:9/x", "nonsense"]
)
def test_a_registry_that_is_not_there_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", url)
    monkeypatch.chdir(tmp_path)
    assert completion.sweeps("") == completion.runs("") == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_registry_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registry.db").write_text("something else")
    monkeypatch.setenv("AIGC_LAB_REGISTRY_URL", f"sqlite:///{tmp_path / 'registry.db'}")
    assert completion.sweeps("") == []


def test_paths_are_offered_folder_by_folder(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "a.yaml").touch()
    assert completion.experiments("mi") == ["mine/", "mine.yaml"]
    assert completion.experiments("mine/") == ["mine/a.yaml"]
    assert completion.experiments("nowhere/") == []
