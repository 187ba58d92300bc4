"""What every file in `pruners/` must do, found by name; that these contracts can fail; Optuna's rule; a user's file."""

import random
from pathlib import Path
from typing import Any

import optuna
import pytest

from aigc_lab import plugins
from aigc_lab.config import Better
from aigc_lab.contracts.base import Contract, examine
from aigc_lab.contracts.pruners import PRUNER, Case, prefixes, tables
from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.sweeps.study import Study
from aigc_lab.verdicts.stability import Alarm

NAMES = plugins.names("pruners")


def found(name: str) -> type[Pruner]:
    return plugins.find(Pruner, name)  # type: ignore[type-abstract]


@pytest.mark.parametrize("contract", PRUNER, ids=lambda contract: contract.name.replace(" ", "_"))
@pytest.mark.parametrize("name", NAMES)
def test_a_pruner_keeps_its_contracts(name: str, contract: Contract[Case]) -> None:
    contract.check(Case(found(name)))


def test_names_and_reasons_are_as_they_were() -> None:
    """They are in experiments and in registries that users keep."""
    assert NAMES == ["alarm", "collapse", "hyperband", "median", "none"]
    assert found("median").reason == "worse than the median of its system at this step"
    assert found("collapse").reason == "collapsed, or much worse than it has been"
    assert found("hyperband").reason == "not among the best third of its system at this step"
    assert found("alarm").reason == "much worse than it has been"


def test_the_median_is_that_of_optuna() -> None:
    """Every answer over 20 searches is the one of Optuna's own pruner."""
    reference = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1000 // 4)
    answers = set()
    for runs, better in tables():
        study = optuna.create_study(direction="minimize" if better == "lower" else "maximize")
        states = {True: optuna.trial.TrialState.COMPLETE, False: optuna.trial.TrialState.PRUNED}
        for run in runs[1:]:
            study.add_trial(
                optuna.trial.create_trial(
                    value=0.0 if run.finished else None,
                    state=states[run.finished],
                    intermediate_values=dict(run.values),
                )
            )
        for run in prefixes(runs[0]):
            asked = optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, intermediate_values=dict(run.values)
            )
            answer = found("median")(1000).stops(run, runs[1:], better)
            assert answer == reference.prune(study, asked)
            answers.add(answer)
    assert answers == {True, False}


@pytest.mark.parametrize(
    ("values", "stops"), [({300: float("nan")}, True), ({300: float("inf")}, True), ({200: 9.0}, False)]
)
def test_the_median_of_what_is_not_finite(values: dict[int, float], stops: bool) -> None:
    finished = [Curve({200: 1.0, 300: level}, finished=True) for level in (1.0, 2.0)]
    assert found("median")(1000).stops(Curve(values), finished, "lower") is stops
    assert found("median")(1000).stops(Curve(values), finished[:1], "lower") is False


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_hyperband_is_that_of_optuna(better: Better) -> None:
    """Every answer of three searches, each of 60 trials one after the other, is that of Optuna's own pruner."""
    source, every, steps, answers = random.Random(1), 10, 100, set()
    for _ in range(3):
        study = optuna.create_study(study_name="hyperband", direction="minimize" if better == "lower" else "maximize")
        reference = optuna.pruners.HyperbandPruner(min_resource=every, max_resource=steps, reduction_factor=3)
        others: list[Curve] = []
        for number in range(60):
            trial, values, stops = study.ask(), dict[int, float](), False
            level = source.choice([1.0, 2.0, 3.0, float("nan")])
            while len(values) < steps // every and not stops:
                step = every * (len(values) + 1)
                values[step] = level + source.uniform(0, 1)
                trial.report(values[step], step)
                stops = found("hyperband")(steps).stops(Curve(values, number=number), others, better)
                assert stops == reference.prune(study, study.trials[number]), (number, step)
                answers.add(stops)
            others.append(Curve(values, finished=not stops, number=number))
            study.tell(trial, 0.0 if not stops else None, state=None if not stops else optuna.trial.TrialState.PRUNED)
    assert answers == {True, False}


TOTAL_AT = {"early": [10, 20], "once": [30], "twice": [30, 40], "apart": [30, 50], "late": [90, 100]}


@pytest.mark.parametrize(
    ("at", "verdict", "stops"),
    [
        ("early", "TOTAL", None),
        ("once", "TOTAL", None),
        ("twice", "TOTAL", 40),
        ("apart", "TOTAL", None),
        ("late", "TOTAL", 100),
        ("twice", "SEVERE", None),
        ("twice", "UNMEASURABLE", None),
    ],
)
def test_collapse_stops_after_two_total_verdicts_in_a_row(at: str, verdict: str, stops: int | None) -> None:
    """After a quarter of the steps, while the objective goes on improving, and whatever others do."""
    steps = range(10, 101, 10)
    verdicts = {step: verdict if step in TOTAL_AT[at] else "PARTIAL" for step in steps}
    whole = Curve({step: 100.0 / step for step in steps}, verdicts=verdicts)
    stopped = [max(run.values) for run in prefixes(whole) if found("collapse")(100).stops(run, [], "lower")]
    assert min(stopped, default=None) == stops


@pytest.mark.parametrize(("errors", "at"), [({}, 70), (0.02, 60), (2.0, None)])
def test_collapse_stops_on_the_online_alarm_with_the_errors_that_there_are(errors: Any, at: int | None) -> None:
    """At the second evaluation above 1.35 times the best; without errors not before the sixth; in large ones never."""
    values = dict(zip(range(10, 101, 10), [8.0, 5.0, 3.0, 2.0, 3.5, 3.6, 3.6, 3.5, 3.6, 3.5], strict=True))
    known = dict.fromkeys(values, errors) if errors else {}
    stopped = [
        max(run.values)
        for run in prefixes(Curve(values, errors=known))
        if found("collapse")(100).stops(run, [], "lower")
    ]
    assert min(stopped, default=None) == at
    judge = Alarm()
    raised = [step for step, value in values.items() if judge.add(step, value, errors or None)]
    assert stopped == raised


MINE = '''"""Stops what is above 30 (nobody 2026)."""
from aigc_lab.pruners.base import Pruner

class Mine(Pruner):
    reason = "hopeless"

    def stops(self, run, others, better):
        return better == "lower" and run.values[max(run.values)] > 30
'''
BREAKS = {
    "it answers yes or no": ("returns None", 'return better == "lower" and', 'better == "lower" and'),
    "the best run is never stopped": ("it stops the best of 7 runs at step", "> 30", "> 0"),
    "it goes by what it is given": (
        "another answer when asked again",
        "        return better",
        "        self.calls = getattr(self, 'calls', 0) + 1\n        if self.calls > 40 and not others[0].finished:\n"
        "            return True\n        return better",
    ),
}


@pytest.mark.parametrize("contract", BREAKS)
def test_a_contract_catches_the_pruner_that_breaks_it(contract: str, tmp_path: Path) -> None:
    said, old, new = BREAKS[contract]
    assert old in MINE
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace(old, new))
    results = examine(PRUNER, {"": Case(found(str(path)))}, path)
    broken = [(result.contract, result.message) for result in results if result.state == "broken"]
    assert [name for name, _ in broken] == [contract] and said in broken[0][1]


YAML = """\
data: {name: ring, points: 500}
system: {name: point_gan, lr: {log: [1e-4, 1e-3]}}
training: {steps: 40, batch_size: 8, log_every: 10, evaluate_every: 10}
evaluation: {name: points, samples: 200}
objective: {minimize: rkl}
search: {trials: 3, pruner: %s}
"""


def test_a_users_file_stops_runs_of_a_search(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "e.yaml").write_text(YAML % "./mine.py")

    def loaded() -> experiment.Experiment:
        return experiment.load_experiment(str(tmp_path / "e.yaml"), data_dir=tmp_path)

    first = loaded()
    assert first.own_files == [tmp_path / "mine.py"] and first.pruner.reason == "hopeless"
    assert first.resolve(lambda hole: hole.ends()[0]).pruned == "hopeless"
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    here, there = Study("s", url, first).trial(0), Study("s", url, loaded()).trial(0)
    assert [here.should_stop("point_gan", step, value) for step, value in ((10, 5.0), (20, 31.0))] == [False, True]
    assert there.should_stop("point_gan", 20, 31.0) is True, "another process, asked again"
    digest = first.digest
    (tmp_path / "mine.py").write_text(MINE.replace("30", "40"))
    assert loaded().digest != digest


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mediann", "search.pruner: unknown pruner 'mediann'; did you mean median?"),
        ("./other.py", "search.pruner: ./other.py: no such file in"),
    ],
)
def test_what_is_wrong_with_a_pruner_is_said_at_its_key(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(YAML % name)
    with pytest.raises(UsageError) as caught:
        check_experiment(experiment.load_experiment(str(tmp_path / "e.yaml"), data_dir=tmp_path))
    assert said in str(caught.value)
