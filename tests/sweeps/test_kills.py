"""Nothing is lost when processes are killed or MLflow goes away: short here, as long as one likes with
`tests/harness.py`.
"""

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Postgres
from harness import CASES, Judge, References, Report, Target, campaign, disturbed, plain_environment

KILLS: list[Target] = ["supervisor", "worker", "writer"]
#: enough runs to be killed in
FEW = replace(CASES["points"], trials=4, changes={"search.trials": 4})


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(plain_environment()):
        monkeypatch.delenv(name)


def test_a_sweep_whose_processes_are_killed(tmp_path: Path, empty_mlflow: Path) -> None:
    chance, report = random.Random(3), Report()
    with disturbed(tmp_path / "sweep", chance, report, case=FEW, empty=empty_mlflow) as sweep:
        sweep.endure(Counter(KILLS))
        Judge(sweep, References(tmp_path / "undisturbed"), report).judge()
        found = report.problems[:]
        shown = next((sweep.home / "artifacts" / "mlflow").glob("*/*/artifacts/**/*.safetensors"))
        for lost in shown.parent.glob("*.safetensors"):
            lost.unlink()  # it is the home's own file, too
            lost.write_bytes(b"ten bytes.")
        next(sweep.home.glob("checkpoints/*/0.1/*/last.safetensors")).write_bytes(b"the home's, and so MLflow's")
        Judge(sweep, References(tmp_path / "again"), report)._files()
    print(report)
    assert not found
    told = " ".join(report.problems)
    assert "MLflow has no checkpoints/" in told and "(10 bytes) is none of the home's" in told, "a loss is seen"
    assert "last.safetensors is not the file that the registry recorded" in told
    assert all(report.kills[target] for target in KILLS)
    assert report.compared == report.runs["FINISHED"] > 0


@pytest.mark.long
def test_sweep_after_sweep_on_postgres(tmp_path: Path, postgres: Postgres) -> None:
    report = campaign(tmp_path, 30, 11, database=postgres.database)
    print(report)
    assert not report.problems and report.kills.total() >= 30
    assert report.compared == report.runs["PRUNED"] + report.runs["FINISHED"] > 0


@pytest.mark.long
def test_sweep_after_sweep(tmp_path: Path) -> None:
    report = campaign(tmp_path, 120, 7)
    print(report)
    assert not report.problems and report.kills.total() >= 120
    assert set(report.cases) == set(CASES) and report.away * 2 >= report.sweeps
    assert report.runs["PRUNED"] and report.compared == report.runs["PRUNED"] + report.runs["FINISHED"]
