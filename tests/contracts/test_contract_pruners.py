"""What every file in `pruners/` must do, found by name; that these contracts can fail; Optuna's rule; a user's file."""

from pathlib import Path

import optuna
import pytest

from aigc_lab import plugins
from aigc_lab.contracts.base import Contract, examine
from aigc_lab.contracts.pruners import PRUNER, Case, prefixes, tables
from aigc_lab.errors import UsageError
from aigc_lab.experiment import experiment
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.sweeps.study import Study

NAMES = plugins.names("pruners")


def found(name: str) -> type[Pruner]:
    return plugins.find(Pruner, name)  # type: ignore[type-abstract]


@pytest.mark.parametrize("contract", PRUNER, ids=lambda contract: contract.name.replace(" ", "_"))
@pytest.mark.parametrize("name", NAMES)
def test_a_pruner_keeps_its_contracts(name: str, contract: Contract[Case]) -> None:
    contract.check(Case(found(name)))


def test_names_and_reasons_are_as_they_were() -> None:
    """They are in experiments and in registries that users keep."""
    assert NAMES == ["alarm", "median", "none"]
    assert found("median").reason == "worse than the median of its system at this step"
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
