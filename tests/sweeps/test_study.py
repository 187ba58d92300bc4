"""Suggestions from a real Optuna on SQLite, without any training: counts, turns, continuation, pruning."""

import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest

from aigc_lab.errors import UsageError
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.sweeps.budget import total_trials
from aigc_lab.sweeps.optuna_storage import check_storage
from aigc_lab.sweeps.study import Study, Suggestion

TEXT = """\
data: {name: digits}
system:
  choice:
    - name: dcgan
      loss: {choice: [nonsaturating, hinge]}
      lr: {log: [1e-4, 1e-3]}
    - name: vae
      likelihood: {choice: [bernoulli, gaussian]}
      beta: {log: [0.25, 4.0]}
      lr: {log: [3e-4, 3e-3]}
training: {steps: 100, log_every: 10, evaluate_every: 10}
evaluation: image-small
objective: {minimize: fd_clf}
"""
GRID = """\
data: {name: ring}
system:
  choice:
    - {name: point_gan, loss: {choice: [nonsaturating, hinge]}, critic_layers: {int: [1, 3]}}
    - {name: vae}
training: {steps: 10}
evaluation: points
objective: {minimize: rkl}
"""
Point = dict[str, Any]


def experiment(folder: Path, text: str = TEXT, **options: Any) -> Experiment:
    path = folder / "mine.yaml"
    path.write_text(f"{text}search: {options}\n".replace("True", "true").replace("False", "false"))
    return load_experiment(str(path), data_dir=folder)


def url(folder: Path, name: str = "optuna") -> str:
    return f"sqlite:///{folder / f'{name}.db'}"


def values(found: Experiment, suggestion: Suggestion) -> Point:
    found_values = found.resolve(suggestion.pick).values
    assert {type(value) for value in found_values.values()} <= {bool, int, float, str, type(None)}, "no NumPy's"
    return found_values


def worth(point: Point) -> float:
    """A score that prefers some points, so that a sampler has something to learn."""
    return sum(abs(value - 1e-3) for value in point.values() if isinstance(value, float))


def searched(found: Experiment, where: str, numbers: range, *, each_anew: bool = False) -> list[Point]:
    """What the trials of these numbers are given; `each_anew` opens the study again for every one."""
    study, points = None, []
    for number in numbers:
        if study is None or each_anew:
            study = Study("s", where, found)
        suggestion = study.trial(number)
        points.append(values(found, suggestion))
        suggestion.tell(worth(points[-1]))
    return points


def stored(where: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=where).get_trials()


# ---- counts and turns


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_system_gets_its_turn_and_its_paper_defaults_first(tmp_path: Path, sampler: str) -> None:
    found = experiment(tmp_path, sampler=sampler, trials=8, per_system=True)
    points = searched(found, url(tmp_path), range(total_trials(found)))
    assert len(stored(url(tmp_path))) == 8
    assert Counter(point["system"] for point in points) == {"dcgan": 4, "vae": 4}
    assert points[0] == {"system": "dcgan", "system.dcgan.loss": "nonsaturating", "system.dcgan.lr": 2e-4}
    assert points[1] == {
        "system": "vae",
        "system.vae.likelihood": "bernoulli",
        "system.vae.beta": 1.0,
        "system.vae.lr": 5e-4,
    }
    assert len({tuple(point.items()) for point in points}) == 8


def test_a_sampler_left_alone_chooses_the_system(tmp_path: Path) -> None:
    found = experiment(tmp_path, sampler="random", trials=20, per_system=False)
    points = searched(found, url(tmp_path), range(20))
    assert [point["system"] for point in points[:2]] == ["dcgan", "vae"]  # the paper's defaults come first all the same
    turns = [point["system"] for point in points[2:]]
    assert set(turns) == {"dcgan", "vae"}
    assert turns != ["dcgan", "vae"] * 9


def test_another_seed_suggests_otherwise(tmp_path: Path) -> None:
    one = searched(experiment(tmp_path, sampler="random", seed=0), url(tmp_path, "a"), range(4))
    two = searched(experiment(tmp_path, sampler="random", seed=1), url(tmp_path, "b"), range(4))
    assert one[:2] == two[:2]
    assert one[2:] != two[2:]


def test_without_holes_there_is_one_trial(tmp_path: Path) -> None:
    text = TEXT.replace("system:\n", "system: {name: vae}\nunused:\n").partition("unused:")[0]
    found = experiment(tmp_path, text + TEXT[TEXT.index("training:") :], trials=10)
    assert total_trials(found) == 1
    assert searched(found, url(tmp_path), range(1)) == [{}]


# ---- going on


LAST = 8


class Whole(NamedTuple):
    """A sweep without interruption: what it was given, and a copy of its storage after five trials."""

    points: list[Point]
    after_five: Path


@pytest.fixture(scope="module", params=["tpe", "random"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Whole]:
    folder = tmp_path_factory.mktemp("whole")
    found = experiment(folder, sampler=request.param, trials=LAST)
    points = searched(found, url(folder), range(5))
    shutil.copy(folder / "optuna.db", folder / "five.db")
    study = Study("s", url(folder), found)
    for number in range(5, LAST):
        suggestion = study.trial(number)
        points.append(values(found, suggestion))
        suggestion.tell(worth(points[-1]))
    # What was asked before is not asked again.
    assert searched(found, url(folder), range(LAST)) == points
    assert len(stored(url(folder))) == LAST
    return request.param, Whole(points, folder / "five.db")


def test_a_continued_study_suggests_what_an_uninterrupted_one_does(tmp_path: Path, whole: tuple[str, Whole]) -> None:
    sampler, known = whole
    found = experiment(tmp_path, sampler=sampler, trials=LAST)
    assert searched(found, url(tmp_path), range(LAST), each_anew=True) == known.points
    if sampler == "tpe":  # it does more than draw at random
        drawn = searched(experiment(tmp_path, sampler="random", trials=LAST), url(tmp_path, "random"), range(LAST))
        assert drawn[:4] == known.points[:4]
        assert drawn[4:] != known.points[4:]


@pytest.mark.parametrize("crash", ["before ask", "before pick", "before tell"])
def test_a_crash_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[str, Whole], crash: str
) -> None:
    sampler, known = whole
    found = experiment(tmp_path, sampler=sampler, trials=LAST)
    shutil.copy(known.after_five, tmp_path / "optuna.db")
    study = Study("s", url(tmp_path), found)
    if crash == "before ask":
        with monkeypatch.context() as broken:
            broken.setattr(optuna.Study, "ask", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                study.trial(5)
        assert stored(url(tmp_path))[5].state == optuna.trial.TrialState.WAITING
    else:
        suggestion = study.trial(5)
        if crash == "before tell":
            assert values(found, suggestion) == known.points[5]
    del study

    assert searched(found, url(tmp_path), range(5, LAST)) == known.points[5:]
    assert [trial.number for trial in stored(url(tmp_path))] == list(range(LAST))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells which files are open")
def test_a_study_that_is_closed_has_nothing_open(tmp_path: Path) -> None:
    def opened() -> int:
        links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        return sum(str(entry.readlink()).startswith(str(tmp_path)) for entry in links if entry.is_symlink())

    study = Study("s", url(tmp_path), experiment(tmp_path))
    study.trial(0).tell(1.0)
    assert opened()
    study.close()
    assert not opened()


def test_trials_come_in_order(tmp_path: Path) -> None:
    study = Study("s", url(tmp_path), experiment(tmp_path))
    with pytest.raises(AssertionError, match="trial 1 is asked for before trial 0"):
        study.trial(1)


# ---- grid


@pytest.mark.parametrize("per_system", [True, False])
def test_a_grid_visits_every_point_once(tmp_path: Path, per_system: bool) -> None:
    found = experiment(tmp_path, GRID, sampler="grid", trials=100, per_system=per_system)
    assert total_trials(found) == 7
    study = Study("s", url(tmp_path), found)
    points: list[Point] = []
    for number in range(7):
        suggestion = study.trial(number)
        points.append({hole.name: suggestion.pick(hole) for hole in found.holes if existing(hole, points, suggestion)})
        suggestion.tell(1.0)
    losses, layers = ("nonsaturating", "hinge"), (1, 2, 3)
    wanted = {("point_gan", loss, layer) for loss in losses for layer in layers} | {("vae", None, None)}
    keys = ("system", "system.point_gan.loss", "system.point_gan.critic_layers")
    assert {tuple(point.get(key) for key in keys) for point in points} == wanted
    if per_system:
        assert [point["system"] for point in points[:2]] == ["point_gan", "vae"]


def existing(hole: Any, points: list[Point], suggestion: Suggestion) -> bool:
    """Whether the hole exists under what this trial has chosen (the plugins do not fit, so nothing is resolved)."""
    chosen = dict(suggestion._trial.params)
    return all(chosen.get(name) == value for name, value in hole.given)


def test_a_grid_may_be_cut_short(tmp_path: Path) -> None:
    assert total_trials(experiment(tmp_path, GRID, sampler="grid", trials=3)) == 3


# ---- pruning


def pruned(study: Study, number: int, system: str, curve: list[float]) -> int | None:
    """The step at which a trial of this curve is stopped; told to the study either way."""
    suggestion = study.trial(number)
    for index, value in enumerate(curve):
        stop = suggestion.should_stop(system, 10 * (index + 1), value)
        assert type(stop) is bool, "Optuna may say it in NumPy's words, which no message takes"
        if stop:
            suggestion.tell(None, pruned=True)
            return 10 * (index + 1)
    suggestion.tell(curve[-1])
    return None


def test_a_trial_is_compared_with_its_own_system(tmp_path: Path) -> None:
    study = Study("s", url(tmp_path), experiment(tmp_path, trials=20, pruner="median"))
    fast, slow = [1.0] * 10, [50.0] * 10
    number = 0
    for _ in range(3):
        assert pruned(study, number, "dcgan", fast) is None
        assert pruned(study, number + 1, "vae", slow) is None  # far above the median of both
        number += 2
    assert pruned(study, number, "dcgan", [2.0] * 10) == 30  # below all of vae, the worst of its own; after a quarter
    assert pruned(study, number + 1, "vae", [60.0] * 10) == 30
    assert pruned(study, number + 2, "vae", [40.0] * 10) is None
    states = Counter(trial.state.name for trial in stored(url(tmp_path)))
    assert states == {"COMPLETE": 7, "PRUNED": 2}


def test_two_trials_of_a_system_must_have_finished(tmp_path: Path) -> None:
    study = Study("s", url(tmp_path), experiment(tmp_path, trials=20, pruner="median"))
    assert pruned(study, 0, "vae", [1.0] * 10) is None
    assert pruned(study, 1, "vae", [9.0] * 10) is None
    assert pruned(study, 2, "dcgan", [9.0] * 10) is None
    assert pruned(study, 3, "vae", [9.5] * 10) == 30


def test_higher_may_be_better(tmp_path: Path) -> None:
    text = TEXT.replace("minimize: fd_clf", "maximize: classifier_score")
    study = Study("s", url(tmp_path), experiment(tmp_path, text, pruner="median"))
    for number in range(2):
        assert pruned(study, number, "vae", [5.0] * 10) is None
    assert pruned(study, 2, "vae", [1.0] * 10) == 30
    assert pruned(study, 3, "vae", [9.0] * 10) is None


@pytest.mark.parametrize(
    ("goal", "of"), [("minimize: fd_clf", lambda v: v), ("maximize: classifier_score", lambda v: 9 - v)]
)
def test_an_alarm_stops_a_run_that_becomes_worse(tmp_path: Path, goal: str, of: Callable[[float], float]) -> None:
    text = TEXT.replace("minimize: fd_clf", goal)
    study = Study("s", url(tmp_path), experiment(tmp_path, text, trials=20, pruner="alarm"))
    learning = [8.0, 6.1, 4.9, 4.0, 3.2, 2.5, 2.1, 1.6, 1.5, 1.4]
    assert pruned(study, 0, "vae", [of(value) for value in learning]) is None
    lost = [*learning, 5.0, 5.2, 5.1]
    # Two evaluations in a row; the first trial of its system, for it is compared with itself.
    assert pruned(study, 1, "dcgan", [of(value) for value in lost]) == 120
    assert pruned(study, 2, "vae", [*map(of, learning), of(5.0), of(1.4)]) is None
    assert pruned(study, 3, "vae", [of(8.0), math.inf]) == 20


def test_nothing_is_pruned_without_a_pruner(tmp_path: Path) -> None:
    study = Study("s", url(tmp_path), experiment(tmp_path, pruner="none"))
    for number in range(4):
        assert pruned(study, number, "vae", [float(number)] * 10) is None


def test_a_repeated_attempt_is_pruned_where_the_first_was(tmp_path: Path) -> None:
    found = experiment(tmp_path, trials=20, pruner="median")
    study = Study("s", url(tmp_path), found)
    for number in range(2):
        pruned(study, number, "vae", [1.0] * 10)
    first = study.trial(2)
    assert [first.should_stop("vae", step, 5.0) for step in (10, 20)] == [False, False]
    assert pruned(Study("s", url(tmp_path), found), 2, "vae", [5.0] * 10) == 30
    assert stored(url(tmp_path))[2].intermediate_values == {10: 5.0, 20: 5.0, 30: 5.0}


def test_a_trial_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    study = Study("s", url(tmp_path), experiment(tmp_path, pruner="median"))
    suggestion = study.trial(0)
    suggestion.should_stop("dcgan", 10, 1.0)
    suggestion.tell(1.0)
    before = stored(url(tmp_path))
    assert suggestion.should_stop("vae", 20, 99.0) is False
    suggestion.tell(2.0)
    suggestion.tell(None, pruned=True)
    suggestion.tell(None)
    assert stored(url(tmp_path)) == before
    assert before[0].value == 1.0


# ---- storage


@pytest.mark.parametrize(
    "bad",
    [
        "postgresql+psycopg://me:secret@127.0.0.1:1/optuna",
        "nonsense://me:secret@host/x",
        "postgresql://me:secret@host:port/x",
        "no url, secret or not",
        "sqlite:////nowhere/at/all/optuna.db",
    ],
)
def test_a_storage_that_cannot_be_used_is_told_without_its_password(tmp_path: Path, bad: str) -> None:
    for use in (check_storage, lambda where: Study("s", where, experiment(tmp_path))):
        with pytest.raises(UsageError) as caught:
            use(bad)
        message = str(caught.value)
        assert message.startswith("Optuna's storage")
        assert message.endswith("see AIGC_LAB_OPTUNA_URL")
        assert ":secret" not in message
        assert "\n" not in message


def test_a_file_that_is_no_storage_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("words " * 1000)
    with pytest.raises(UsageError, match="not a database"):
        check_storage(url(tmp_path))
    assert (tmp_path / "optuna.db").read_text() == "words " * 1000


# ---- what is remembered of a study


def test_what_is_remembered_is_what_is_stored(tmp_path: Path) -> None:
    """Whatever a study asks its storage for afterwards, a process that reads the database anew gets the same."""
    found = experiment(tmp_path, sampler="tpe", trials=8)
    study = Study("s", url(tmp_path), found)
    for number in range(6):
        suggestion = study.trial(number)
        values(found, suggestion)
        suggestion.should_stop("vae", 10, 0.5 + number)
        if number < 4:  # the others stay under way
            suggestion.tell(None if number == 3 else 1.5 * number, pruned=number == 2)
    remembered, anew = study._study.get_trials(), stored(url(tmp_path))
    assert [trial.state.name for trial in anew] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "RUNNING", "RUNNING"]
    facts = ("number", "_trial_id", "state", "values", "params", "distributions", "intermediate_values")
    for mine, theirs in zip(remembered, anew, strict=True):
        for fact in (*facts, "user_attrs", "system_attrs"):
            assert getattr(mine, fact) == getattr(theirs, fact), (mine.number, fact)
        for moment in ("datetime_start", "datetime_complete"):
            assert (getattr(mine, moment) is None) == (getattr(theirs, moment) is None)
