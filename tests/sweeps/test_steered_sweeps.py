"""Whole sweeps that verdicts and several objectives steer, as they are typed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from shell import command

from aigc_lab.archive import optuna_study
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.sweeps import list_trials
from aigc_lab.registry.verdicts import last_verdicts
from aigc_lab.runs.scores import RunScores
from aigc_lab.tracking import writer
from aigc_lab.verdicts.conclusion import Collapse

TEXT = """\
data: {name: ring, points: 2000}
system: {name: point_gan, hidden: 8, lr: {log: [1.0e-4, 1.0e-3]}}
training: {steps: 8, batch_size: 16, log_every: 1, evaluate_every: 1, threads: 1}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 3}
"""
SEVERAL = "[{minimize: rkl, subject_to: {collapse: [NONE, PARTIAL], stability: [WITHHELD]}}, {maximize: hq}]"


class Silent:
    """A writer that leaves everything in the spool."""

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    def finish(self, patience: float | None = None) -> None: ...


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(writer, "Writer", Silent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ring.yaml").write_text(TEXT)
    return tmp_path


def verdicts_of_trials(monkeypatch: pytest.MonkeyPatch, verdicts: dict[int, Collapse]) -> None:
    """Samples of trial n are judged as this verdict, whatever they are."""
    examine = RunScores.examine

    def examined(self: Any, split: Any, *, judged: bool = False) -> Any:
        scores, verdict = examine(self, split, judged=judged)
        forced = verdicts.get(self._job.trial)
        return scores, verdict if verdict is None or forced is None else replace(verdict, verdict=forced)

    monkeypatch.setattr(RunScores, "examine", examined)


def test_verdicts_and_several_objectives_steer_a_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Optuna is told is what the registry holds; what violates a constraint is on no front and confirmed by none;
    the study travels in an archive.
    """
    verdicts_of_trials(monkeypatch, {0: Collapse.TOTAL, 1: Collapse.NONE, 2: Collapse.PARTIAL})
    words = ("ring.yaml", "--set", f"objective={SEVERAL}", "--set", "confirm={top: 1, seeds: 1}", "--workers", "1")
    told = command("sweep", *words, "--json")
    assert told.code == 0, told.errors
    rows = json.loads(told.output)
    sweep = rows[0]["sweep"]
    settings = Settings.load(None)
    with open_registry(settings) as registry:
        trials = list_trials(registry, sweep)
        pages = [show_run(registry, f"{sweep}.{number}.0") for number in range(3)]
        verdicts = last_verdicts(registry, sweep)
    assert [verdicts[f"{sweep}.{number}.0"]["collapse"] for number in range(3)] == ["TOTAL", "NONE", "PARTIAL"]
    # By step: the last evaluation, on the reference split, is that of the result.
    final = [{score["name"]: score["value"] for score in page["progress"]} for page in pages]
    study = optuna.load_study(study_name=sweep, storage=settings.optuna_url)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [trial.values for trial in study.trials] == [[each["rkl"], each["hq"]] for each in final]
    assert [trial["value"] for trial in trials] == [each["rkl"] for each in final]
    assert [trial.constraints for trial in study.trials] == [
        {"collapse": share, "stability": 0.0} for share in (1.0, 0.0, 0.0)
    ]
    by_trial = {row["trial"]: row for row in rows}
    assert rows[-1]["trial"] == 0 and not by_trial[0]["front"]
    assert "violates collapse: TOTAL" in by_trial[0]["marks"]
    (confirmed,) = [row["trial"] for row in rows if row["confirmed"]]
    assert confirmed != 0 and by_trial[confirmed]["front"]
    table = command("compare", sweep)
    assert "front" in table.output and "× violates a constraint of its sweep" in table.output
    assert command("verify", sweep).code == 0
    assert command("export", sweep, "-o", "a.tar").code == 0
    assert command("import", "a.tar", "--home", "other").code == 0
    there = optuna_study.dump(Settings.load(Path("other")).optuna_url, sweep)
    assert there == optuna_study.dump(settings.optuna_url, sweep) and there is not None
    assert there["directions"] == ["MINIMIZE", "MAXIMIZE"]


def test_the_pruner_collapse_stops_what_is_judged_total(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second such evaluation after a quarter of 8 steps; what that saved is said by each command."""
    verdicts_of_trials(monkeypatch, {1: Collapse.TOTAL})
    told = command("sweep", "ring.yaml", "--set", "search.pruner=collapse", "--workers", "1")
    assert told.code == 0, told.errors
    said = "Pruner collapse stopped 1 of 3 trials: 5 of 24 steps (21%) were not trained."
    assert said in told.output
    (sweep,) = [word for word in told.output.split() if word.startswith("ring-")][:1]
    with open_registry(Settings.load(None)) as registry:
        pages = [show_run(registry, f"{sweep}.{number}.0") for number in range(3)]
    assert [page["state"] for page in pages] == ["FINISHED", "PRUNED", "FINISHED"]
    assert pages[1]["reason"] == "collapsed, or much worse than it has been"
    assert [score["step"] for score in pages[1]["progress"] if score["name"] == "rkl"] == [1, 2, 3]
    assert said in command("compare", sweep).output
    assert said in command("status", sweep).output
    row = json.loads(command("status", sweep, "--json").output)
    assert row["saved"] == {"pruner": "collapse", "pruned": 1, "trials": 3, "saved": 5, "steps": 24}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            (f"objective={SEVERAL}", "search.pruner=median"),
            "a pruner goes by one objective, and this sweep has",
        ),
        (("objective={minimize: rkl, subject_to: {collapse: [NOEN]}}",), "unknown verdict 'NOEN'; did you mean NONE?"),
        (("objective={minimize: rkl, subject_to: {stability: [STABLE]}}",), "a run has 8 evaluations, and a stability"),
        (("search.sampler=cmaes",), "search.sampler"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_training(folder: Path, changes: tuple[str, ...], said: str) -> None:
    for word in ("sweep", "sweep --dry-run"):
        told = command(*word.split(), "ring.yaml", *(each for change in changes for each in ("--set", change)))
        assert told.code == 2 and said in told.why
    assert not (folder / "home").exists() and not list(folder.glob("*/registry.db"))


def test_the_pruners_are_listed() -> None:
    listed = command("list", "pruners").output
    assert all(name in listed for name in ("collapse", "hyperband", "median", "none", "alarm"))
