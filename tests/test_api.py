"""The package as a library: the same semantics as the commands."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WriterHere

import aigc_lab
from aigc_lab.tracking import writer

RING: dict[str, Any] = {
    "name": "mine",
    "data": {"name": "ring", "points": 2000},
    "system": {"name": "point_gan", "hidden": 16, "lr": {"log": [1e-4, 1e-2]}},
    "training": {"steps": 20, "batch_size": 32, "log_every": 10, "evaluate_every": 10, "threads": 1},
    "evaluation": {"name": "points", "samples": 400},
    "objective": {"minimize": "rkl"},
    "search": {"trials": 2},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", WriterHere)


def test_importing_is_light() -> None:
    heavy = "{'torch', 'mlflow', 'optuna', 'pandas', 'sqlalchemy', 'pydantic', 'rich', 'typer'}"
    code = f"import sys, aigc_lab; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_sweep_of_a_mapping(capsys: pytest.CaptureFixture[str]) -> None:
    table = aigc_lab.sweep(RING, trials=1)
    assert list(table["trial"]) == [0] and list(table["rank"]) == [1]
    assert {"sweep", "system", "state", "score", "value", "low", "high", "n", "floor", "signature"} <= set(table)
    assert 1e-4 <= table["config.lr"][0] <= 1e-2
    assert capsys.readouterr().out == "", "a table is returned, not printed"
    more = aigc_lab.sweep(RING, changes={"search.trials": 2})
    assert sorted(more["trial"]) == [0, 1] and set(more["sweep"]) == set(table["sweep"])
    same = aigc_lab.compare("mine")
    assert same.equals(more)
    assert aigc_lab.compare().equals(more)
    other = aigc_lab.compare("mine", score="hq")
    assert set(other["score"]) == {"hq"}

    numpys: Any = {"seed": np.int64(3), "changes": {"system.lr": np.float64(1e-3), "training.steps": np.int32(20)}}
    run = aigc_lab.train(RING, **numpys, home="elsewhere")
    assert run["run"].endswith(".0.3") and run["state"] == "FINISHED" and type(run["seed"]) is int
    points = aigc_lab.load(run["run"], home="elsewhere").sample(5)
    assert points.shape == (5, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: aigc_lab.sweep("digts"), "unknown experiment 'digts'; did you mean digits"),
        (lambda: aigc_lab.sweep(RING | {"name": "../up"}), "needs a name"),
        (lambda: aigc_lab.sweep(RING | {"name": None}), "needs a name"),
        (lambda: aigc_lab.sweep(RING | {"data": Path()}), "holds what YAML cannot"),
        (lambda: aigc_lab.sweep(RING | {"trainig": {}}), "trainig: unknown key; did you mean training"),
        (lambda: aigc_lab.train(RING), "train takes one configuration, and system.lr is still open"),
        (lambda: aigc_lab.train(RING, changes={"system.lrr": 1}), "system.lrr"),
        (
            lambda: aigc_lab.train(RING, changes={"data.path": object()}),
            "data.path: it holds what YAML cannot",
        ),
        (lambda: aigc_lab.train(RING, seed=1.5), "seed: it should be a whole number, not 1.5"),  # type: ignore[arg-type]
        (lambda: aigc_lab.sweep(RING, workers="two"), "workers: it should be a whole"),  # type: ignore[arg-type]
        (lambda: aigc_lab.compare("x"), "no registry at"),
    ],
)
def test_a_users_mistake_is_a_usage_error(call: Any, said: str) -> None:
    with pytest.raises(aigc_lab.UsageError, match=said):
        call()
