"""Each sampler: going on as if nothing had been, against Optuna's own and SciPy, and what reaches it besides."""

import logging
import math
import os
import pickle
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
from optuna._gp import gp
from scipy.stats import qmc

from aigc_lab import noise
from aigc_lab.errors import UsageError
from aigc_lab.experiment.checks import check_experiment
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.sweeps import samplers, steering
from aigc_lab.sweeps.steering import check_steering, search_notes
from aigc_lab.sweeps.study import Study, Suggestion

TEXT = """\
data: {name: ring}
system: {name: point_gan, lr: {log: [1e-4, 1e-2]}, critic_lr_ratio: {uniform: [0.2, 4]}}
training: {steps: 100, log_every: 10, evaluate_every: 10}
evaluation: points
objective: {minimize: rkl}
"""
CHOICE = TEXT.replace("4]}}", "4]}, loss: {choice: [nonsaturating, hinge]}}")
SAMPLERS = ["tpe", "gp", "cma_es", "nsga2", "qmc"]
Point = dict[str, Any]


def experiment(folder: Path, text: str = TEXT, **options: Any) -> Experiment:
    path = folder / "mine.yaml"
    path.write_text(f"{text}search: {options}\n".replace("True", "true").replace("False", "false"))
    return load_experiment(str(path), data_dir=folder)


def url(folder: Path, name: str = "optuna") -> str:
    return f"sqlite:///{folder / f'{name}.db'}"


def worth(point: Point) -> float:
    return sum(abs(math.log10(value) + 0.5) for value in point.values() if isinstance(value, float))


def picked(found: Experiment, suggestion: Suggestion) -> Point:
    return found.resolve(suggestion.pick).values


def searched(found: Experiment, where: str, count: int, *, interrupted: bool = False) -> list[Point]:
    """What trials are given; `interrupted` loses the process before and after the values of each have been chosen."""
    study, points = Study("s", where, found), []
    for number in range(count):
        suggestion = study.trial(number)
        if interrupted:
            study.close()
            study = Study("s", where, found)
            picked(found, study.trial(number))
            suggestion = Study("s", where, found).trial(number)
        points.append(picked(found, suggestion))
        suggestion.tell(worth(points[-1]))
    return points


def stored(where: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=where).get_trials()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_search_goes_on_as_an_uninterrupted_one(tmp_path: Path, sampler: str) -> None:
    """Also where a process is lost in each trial. Another seed searches elsewhere."""
    found = experiment(tmp_path, TEXT if sampler == "cma_es" else CHOICE, sampler=sampler, trials=20)
    whole = searched(found, url(tmp_path, "whole"), 10)
    assert searched(found, url(tmp_path, "again"), 10, interrupted=True) == whole
    drawn = searched(experiment(tmp_path, CHOICE, sampler="random", trials=20), url(tmp_path, "random"), 10)
    assert drawn[6:] != whole[6:]
    other = experiment(tmp_path, TEXT if sampler == "cma_es" else CHOICE, sampler=sampler, trials=20, seed=1)
    assert searched(other, url(tmp_path, "other"), 3)[1:] != whole[1:3]


@pytest.mark.parametrize("sampler", ["gp", "cma_es", "qmc"])
def test_a_model_asked_again_gives_what_it_gave(tmp_path: Path, sampler: str) -> None:
    """The trial was lost between two of its values: it is no trial beside itself, and takes no further point."""
    found = experiment(tmp_path, sampler=sampler, trials=8)
    whole = searched(found, url(tmp_path, "whole"), 5)
    searched(found, url(tmp_path), 4)
    lost = Study("s", url(tmp_path), found)
    lost.trial(4).pick(found.holes[0])
    lost.close()
    assert picked(found, Study("s", url(tmp_path), found).trial(4)) == whole[4]


@pytest.mark.parametrize("sampler", ["gp", "cma_es"])
def test_nothing_is_said_amid_the_progress(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Where a model has converged, and where a sampler does without constraints, which is said before the start."""
    said: list[str] = []
    study = Study("s", url(tmp_path), found := experiment(tmp_path, sampler=sampler, trials=8))
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    logger = logging.getLogger("optuna")
    logger.addHandler(handler)

    def converged(self: Any, *_: Any) -> Any:
        logging.getLogger("optuna._gp.optim_mixed").warning("Study already converged")
        warnings.warn_explicit(
            "invalid value encountered in divide", RuntimeWarning, "a.py", 1, "optuna._gp.optim_mixed"
        )
        warnings.warn_explicit("overflow encountered in exp", RuntimeWarning, "a.py", 2, "optuna._gp.optim_mixed")
        return {}

    monkeypatch.setattr(optuna.samplers.GPSampler, "sample_relative", converged)
    for number in range(3):
        suggestion = study.trial(number)
        suggestion.tell(worth(picked(found, suggestion)), violations={"collapse": 1.0})
    logger.removeHandler(handler)
    study.close()
    others = {"overflow encountered in exp"} if sampler == "gp" else set()
    assert (said, {str(each.message) for each in recwarn}) == ([], others)


# ---- against Optuna's own and SciPy


def test_cma_es_asks_and_tells_as_its_package_does(tmp_path: Path) -> None:
    """Each suggestion is that of an optimizer that was told the generations before, and nothing else is stored."""
    found = experiment(tmp_path, sampler="cma_es", trials=20)
    points = searched(found, url(tmp_path), 20)
    places = [((p["system.critic_lr_ratio"] - 0.2) / 3.8, (math.log10(p["system.lr"]) + 4) / 2) for p in points]
    for number in range(1, 20):  # the first trial is that of the paper's defaults
        random = np.random.RandomState(noise.generator(0, "sampler", number).initial_seed() % 2**32)
        start = random.randint(1, 2**31 - 2)
        optimizer = cmaes.CMA(mean=np.full(2, 0.5), sigma=1 / 6, bounds=np.array([[0, 1]] * 2), seed=start)
        size = optimizer.population_size
        for first in range(1, number - size + 1, size):
            generation = range(first, first + size)
            optimizer.tell([(np.array(places[each]), worth(points[each])) for each in generation])
        optimizer.reseed_rng(random.randint(1, 2**16) + number)
        assert optimizer.ask() == pytest.approx(np.array(places[number]), abs=1e-9), number
    attributes = [trial.system_attrs for trial in stored(url(tmp_path))]
    assert max(each.get("cma:generation", 0) for each in attributes) == 3
    assert not any(key.startswith("cma:optimizer") for each in attributes for key in each)


class _Evil:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def test_a_pickle_that_somebody_put_into_a_study_is_not_loaded(tmp_path: Path) -> None:
    """Studies come in archives, from anybody."""
    found = experiment(tmp_path, sampler="cma_es", trials=20)
    searched(found, url(tmp_path), 3)
    study = optuna.load_study(study_name="s", storage=url(tmp_path))
    planted = pickle.dumps(_Evil(tmp_path / "executed")).hex()
    last = study.get_trials()[-1]._trial_id
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database, database:
        row = (last, "cma:optimizer:0", f'"{planted}"')
        database.execute("INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, ?, ?)", row)
    assert "cma:optimizer:0" in stored(url(tmp_path))[-1].system_attrs
    picked(found, Study("s", url(tmp_path), found).trial(3))
    assert not (tmp_path / "executed").exists()


def test_qmc_gives_each_trial_its_point_of_one_scrambled_sobol_sequence(tmp_path: Path) -> None:
    found = experiment(tmp_path, sampler="qmc", trials=8)
    points = searched(found, url(tmp_path), 8)
    seed = noise.generator(0, "sampler").initial_seed() % 2**32
    expected = qmc.Sobol(2, scramble=True, seed=seed).random(8)
    # The first trial is that of the paper's defaults.
    for point, (rate, ratio) in list(zip(points, expected, strict=True))[1:]:
        assert point["system.critic_lr_ratio"] == pytest.approx(0.2 + 3.8 * ratio)
        assert point["system.lr"] == pytest.approx(10 ** (-4 + 2 * rate))


def test_generations_of_nsga2_fit_the_sweep(tmp_path: Path) -> None:
    sizes = {trials: samplers.population(experiment(tmp_path, trials=trials).file.search) for trials in (5, 40, 1000)}
    assert sizes == {5: 4, 40: 8, 1000: 50}
    found = experiment(tmp_path, sampler="nsga2", trials=20)
    searched(found, url(tmp_path), 9)
    generations = [trial.system_attrs.get("NSGAIISampler:generation") for trial in stored(url(tmp_path))]
    assert generations == [None, 0, 0, 0, 0, 1, 1, 1, 1], "the first trial is that of the paper's defaults"


# ---- standard errors


def told(value: float, errors: dict[int, float | None]) -> optuna.trial.FrozenTrial:
    attributes = {f"evaluation:{step}": {"error": error, "collapse": None} for step, error in errors.items()}
    return optuna.trial.create_trial(value=value, user_attrs=attributes)


@pytest.mark.parametrize(
    ("trials", "least"),
    [
        ([(1.0, {10: 9.0, 100: 0.1}), (3.0, {10: 9.0, 100: 0.3})], (0.01 + 0.09) / 2 / 1.0),
        ([(1.0, {}), (3.0, {9: 0.2})], 0.04),
        ([(1.0, {}), (3.0, {10: None})], 0.0),
        ([(1.0, {10: 0.1})], 0.0),
        ([(1.0, {10: 0.1}), (1.0, {10: 0.1})], 0.0),
        ([(1.0, {10: 50.0}), (3.0, {10: 50.0})], 0.5),
    ],
)
def test_the_least_noise_is_the_mean_squared_error_of_the_last_evaluations(trials: Any, least: float) -> None:
    """In units of the variance of the values, of which it is half at most."""
    finished = [told(*each) for each in trials]
    assert samplers.least_noise(finished) == pytest.approx(least)
    assert samplers.least_noise(finished, seeds=4) == pytest.approx(least / 4) or least == 0.5


def test_standard_errors_reach_the_gaussian_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored with the evaluations, they are the least noise that it may estimate, in another process too."""
    noises: list[float] = []
    fit = gp.fit_kernel_params

    def fitted(*given: Any, **options: Any) -> Any:
        noises.append(options["minimum_noise"])
        return fit(*given, **options)

    monkeypatch.setattr("optuna.samplers._gp.sampler.gp.fit_kernel_params", fitted)
    found = experiment(tmp_path, sampler="gp", trials=8)
    for number, value in enumerate((1.0, 2.0, 3.0)):
        suggestion = Study("s", url(tmp_path), found).trial(number)
        picked(found, suggestion)
        suggestion.should_stop("point_gan", 100, value, error=0.2)
        suggestion.tell(value)
    picked(found, Study("s", url(tmp_path), found).trial(3))
    assert noises == pytest.approx([0.04 / np.var([1.0, 2.0]), 0.04 / np.var([1.0, 2.0, 3.0])])


# ---- verdicts and constraints


def test_a_resumed_attempt_is_stopped_by_the_verdicts_of_the_first(tmp_path: Path) -> None:
    found = experiment(tmp_path, pruner="collapse")
    study = Study("s", url(tmp_path), found)
    first = study.trial(0)
    picked(found, first)
    for step in (10, 20, 30):
        assert first.should_stop("point_gan", step, 5.0, error=0.1, collapse="TOTAL") is False
    study.close()
    again = Study("s", url(tmp_path), found).trial(0)
    # A repeated evaluation reports nothing: what was stored counts.
    assert again.should_stop("point_gan", 30, 99.0, collapse="NONE") is False
    assert again.should_stop("point_gan", 40, 5.0, error=0.1, collapse="TOTAL") is True
    attributes = stored(url(tmp_path))[0].user_attrs
    assert attributes["evaluation:30"] == {"error": 0.1, "collapse": "TOTAL"}
    assert Study("s", url(tmp_path), found).trial(0).should_stop("point_gan", 40, 5.0) is True


def test_what_nobody_reads_is_not_stored(tmp_path: Path) -> None:
    found = experiment(tmp_path, pruner="none")
    suggestion = Study("s", url(tmp_path), found).trial(0)
    assert suggestion.should_stop("point_gan", 10, 1.0, error=0.1, collapse="TOTAL") is False
    assert stored(url(tmp_path))[0].user_attrs == {"system": "point_gan"}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_constraints_reach_the_sampler(tmp_path: Path, sampler: str) -> None:
    """The lower half of the rates is best and violates: a sampler that sees that looks in the upper half."""
    found = experiment(tmp_path, sampler=sampler, trials=24)
    runs: dict[bool, list[float]] = {}
    for constrained in (True, False):
        where = url(tmp_path, str(constrained))
        study = Study("s", where, found)
        for number in range(24):
            suggestion = study.trial(number)
            point = picked(found, suggestion)
            low = point["system.lr"] < 1e-3
            suggestion.tell(
                math.log10(point["system.lr"]), violations={"collapse": float(low)} if constrained else None
            )
            suggestion.tell(99.0, violations={"collapse": 9.0})  # told twice, it stays
        rates = [trial.params["system.lr"] for trial in stored(where)]
        known = [trial.constraints for trial in stored(where)]
        assert known == ([{"collapse": float(rate < 1e-3)} for rate in rates] if constrained else [{}] * 24)
        runs[constrained] = rates[10:]
    assert np.median(np.log10(runs[True])) > np.median(np.log10(runs[False])) + 0.3


# ---- several objectives


DIRAC = """\
data: {name: dirac}
system: {name: dirac}
training: {steps: 100, log_every: 10, evaluate_every: 10}
evaluation: dirac
objective: {minimize: norm, subject_to: {collapse: [NONE]}}
"""
SEVERAL = TEXT.replace("{minimize: rkl}", "[{minimize: rkl}, {maximize: hq}]")


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random"])
def test_several_objectives_have_a_direction_each(tmp_path: Path, sampler: str) -> None:
    found = experiment(tmp_path, SEVERAL, sampler=sampler, trials=12)
    study = Study("s", url(tmp_path), found)
    for number in range(8):
        suggestion = study.trial(number)
        picked(found, suggestion)
        assert suggestion.should_stop("point_gan", 10, 1.0, error=0.1, collapse="TOTAL") is False
        suggestion.tell([float(number), 0.5], pruned=number == 6) if number != 7 else suggestion.tell(None)
    known = optuna.load_study(study_name="s", storage=url(tmp_path))
    assert [direction.name for direction in known.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert [trial.values for trial in known.trials] == [*([float(n), 0.5] for n in range(6)), None, None]


# ---- what is refused, and what is said


def checked(found: Experiment) -> None:
    check_experiment(found)
    check_steering(found)


def test_a_constraint_on_a_verdict_that_nothing_is_given_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        checked(experiment(tmp_path, DIRAC))
    assert "objective.subject_to.collapse: no collapse verdict is given under protocol dirac on dirac" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{minimize: rkl}", "[]", "objective: it names no score"),
        ("{minimize: rkl}", "[{minimize: rkl}, {minimize: rkl}]", "objective: rkl stands here twice"),
        (
            "{minimize: rkl}",
            "[{minimize: rkl}, {maximise: hq}]",
            "objective[1].maximise: unknown key; did you mean",
        ),
        ("{minimize: rkl}", "[{minimize: rkl}, {maximize: hp}]", "objective[1].maximize: unknown score of protocol"),
        ("{minimize: rkl}", "[{minimize: rkl}, {minimize: hq}]", "hq is better when it is higher; use maximize"),
        ("{minimize: rkl}", "[{minimize: rkl}, {maximize: hq, subject_to: {collapse: [NONE]}}]", "beside the first"),
        ("{minimize: rkl}", "{minimize: rkl, subject_to: {colapse: [NONE]}}", "unknown kind of verdict 'colapse'; did"),
        ("{minimize: rkl}", "{minimize: rkl, subject_to: {collapse: [NON]}}", "'NON'; did you mean NONE?"),
        ("{minimize: rkl}", "{minimize: rkl, subject_to: {stability: [STABEL]}}", "did you mean STABLE?"),
        ("{minimize: rkl}", "{minimize: rkl, subject_to: {collapse: []}}", "name one verdict or more"),
        ("{minimize: rkl}", "{minimize: rkl, subject_to: {collapse: NONE}}", "it should be a valid list, not"),
        ("evaluate_every: 10}", "evaluate_every: 50}", "a run has 2 evaluations, and a stability verdict takes 10"),
    ],
)
def test_a_mistake_is_one_line_before_any_training(tmp_path: Path, old: str, new: str, said: str) -> None:
    constrained = "{minimize: rkl, subject_to: {collapse: [NONE], stability: [STABLE]}}"
    text = TEXT.replace("{minimize: rkl}", constrained) if "minimize" not in old else TEXT
    assert old in text
    with pytest.raises(UsageError) as caught:
        checked(experiment(tmp_path, text.replace(old, new)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pruner": "median"}, "search.pruner: a pruner goes by one objective, and this sweep has several; set it to"),
        ({"sampler": "cma_es"}, "search.sampler: cma_es takes one objective, and this sweep has several; use nsga2"),
        ({"sampler": "cmaes"}, "search.sampler: it should be 'tpe', 'random', 'grid'"),
    ],
)
def test_a_search_that_cannot_have_several_objectives_is_refused(
    tmp_path: Path, options: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_experiment(experiment(tmp_path, SEVERAL, **options))
    assert said in str(caught.value)


TWO = """\
data: {name: ring}
system: {choice: [{name: point_gan, lr: {log: [1e-4, 1e-2]}}, {name: vae}]}
training: {steps: 100, log_every: 10, evaluate_every: 10, batch_size: {int: [32, 64]}}
evaluation: points
objective: {minimize: rkl}
"""
CONSTRAINED = TEXT.replace("rkl}", "rkl, subject_to: {collapse: [NONE]}}")


@pytest.mark.parametrize(
    ("text", "sampler", "said"),
    [
        (TEXT, "cma_es", []),
        (CHOICE, "cma_es", ["sampler cma_es moves numbers that every trial has; drawn at random: system.loss"]),
        (TWO, "cma_es", ["sampler cma_es moves numbers that every trial has; drawn at random: system.point_gan.lr"]),
        (TWO, "gp", ["sampler gp goes by what every trial has; drawn at random: system.point_gan.lr; tpe learns"]),
        (CHOICE, "gp", []),
        (CHOICE, "nsga2", ["sampler nsga2 goes by generations of 4 trials; those of the first are drawn at random"]),
        (CONSTRAINED, "qmc", ["sampler qmc does not look at constraints (tpe, gp and nsga2 do); ranking and"]),
        (CONSTRAINED, "tpe", []),
        (TWO, "tpe", []),
    ],
)
def test_what_a_sampler_does_not_do_is_said_before(tmp_path: Path, text: str, sampler: str, said: list[str]) -> None:
    notes = search_notes(experiment(tmp_path, text, sampler=sampler))
    assert len(notes) == len(said) and all(note.startswith(start) for note, start in zip(notes, said, strict=True))


def test_a_missing_package_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="search.sampler: cma_es needs the package cmaes: pip install cmaes"):
        check_steering(experiment(tmp_path, sampler="cma_es"))
    check_steering(experiment(tmp_path, sampler="nsga2"))
