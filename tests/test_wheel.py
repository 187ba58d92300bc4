"""What an install gives: the wheel and the libraries that it declares, in a fresh environment far from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import aigc_lab

ROOT = Path(aigc_lab.__file__).parent.parent
SWEEP = (
    "sweep ring --trials 1 --steps 40 --set training.evaluate_every=20 --set training.log_every=20 --set confirm=null"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_carries_what_it_needs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for path in (
        "cli/inspect.py",
        "content/experiments/digits.yaml",
        "content/evaluation/points.yaml",
        "registry/tables.py",
    ):
        assert f"aigc_lab/{path}" in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {
        "aigc_lab",
        f"aigc_lab-{aigc_lab.__version__.replace('-', '_')}.dist-info".replace("aigc_lab-", "aigc_lab-"),
    }
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "aigc_lab").rglob("*") if path.is_file()}
    code = {name for name in kept if "__pycache__" not in name}
    assert code <= set(names)


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv installs the wheel, and it is not here")
def test_an_installed_wheel_does_the_main_job(wheel: Path, tmp_path: Path) -> None:
    place, work = tmp_path / "env", tmp_path / "work"
    work.mkdir()
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("AIGC_LAB_", "MLFLOW_", "PYTHON"))}
    python = str(place / "bin" / "python")
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(place)], check=True, env=plain)
    subprocess.run(["uv", "pip", "install", "-q", "--python", python, str(wheel)], check=True, env=plain)

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=work, env=plain, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lab(words: str) -> str:
        return run(str(place / "bin" / "aigc-lab"), *words.split())

    assert Path(run(python, "-c", "import aigc_lab; print(aigc_lab.__file__)").strip()).is_relative_to(place)
    listed = {row["name"] for row in json.loads(lab("list experiments --json"))}
    assert {"digits", "ring", "mnist"} <= listed
    (row,) = json.loads(lab(f"{SWEEP} --json"))
    assert row["state"] == "FINISHED"
    lab("promote ring --name shapes --force --reason untrained")
    lab("sample shapes -n 9 -o pictures")
    assert any((work / "pictures").iterdir())
    lab("report ring -o ring.html")
    assert (work / "ring.html").stat().st_size > 100_000
