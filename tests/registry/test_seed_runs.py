"""Runs put together by trial, system and parameter: never across signatures; of confirmed trials the fresh seeds."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from registries import Lab, url_in

import aigc_lab
from aigc_lab.commands.compare import add_statistics
from aigc_lab.commands.judge import seed_statistics, seeds_of
from aigc_lab.errors import UsageError
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.seed_runs import group_runs, read_seed_runs
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.verdicts.seeds import seed_spread, wilson


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    with Registry.open(url_in(tmp_path)) as registry:
        yield Lab(registry)


def searched(lab: Lab, name: str, sampler: str = "random") -> str:
    experiment = {"data": {"name": "ring"}, "search": {"sampler": sampler}}
    return lab.registry.sweep(name, f"{name:_<8}", experiment, "fd", "lower")


def test_a_sweep_that_is_named_twice_counts_once_and_signatures_are_never_pooled(lab: Lab) -> None:
    first, second = lab.sweep("one"), lab.sweep("two")
    for seed in range(3):
        lab.run(first, 0, seed, 10.0 + seed)
        lab.run(second, 0, seed, 20.0 + seed, signature="fd|n:50")
    lab.run(second, 0, 3, state=RunState.DIVERGED)
    rows = seed_statistics(lab.registry, [first, second, "one"], "system")
    assert [(row["signature"], row["runs"], row["sweeps"]) for row in rows] == [
        ("fd|n:1000", 3, [first]),
        ("fd|n:50", 4, [second]),  # the one that diverged would have had it
    ]
    assert [row["last"]["median"] for row in rows] == [11.0, 21.0]


def test_runs_of_one_signature_are_pooled_over_sweeps(lab: Lab) -> None:
    first, second = lab.sweep("one"), lab.sweep("two")
    values = [10.0, 11.0, 14.0, 15.0]
    for place, value in enumerate(values):
        lab.run((first, second)[place % 2], 0, place, value)
    (row,) = seed_statistics(lab.registry, [first, second], "system")
    assert (row["sweep"], row["trial"], row["system"], row["trials"]) == (None, None, "vae", 2)
    assert row["last"]["sd"] == seed_spread(values).sd
    assert [row["runs"] for row in seed_statistics(lab.registry, [first, second])] == [2, 2]


def test_rows_by_the_value_of_a_parameter(lab: Lab) -> None:
    sweep = lab.sweep()
    for trial in range(2):
        for seed in range(2):
            lab.run(sweep, trial, seed, 10.0 * trial + seed)
    rows = seed_statistics(lab.registry, [sweep], "lr")
    assert [(row["config"], row["runs"]) for row in rows] == [({"lr": 0.0}, 2), ({"lr": 0.1}, 2)]
    with pytest.raises(UsageError, match="--by lrr: unknown parameter 'lrr'; did you mean lr"):
        seed_statistics(lab.registry, [sweep], "lrr")


def test_of_a_confirmed_trial_the_fresh_seeds_alone_count(lab: Lab) -> None:
    sweep = lab.sweep()
    for seed in range(3):
        lab.run(sweep, 0, seed, 1.0)
    lab.run(sweep, 0, 7, 9.0, role="confirm")
    lab.run(sweep, 1, 0, 5.0)
    groups = group_runs(read_seed_runs(lab.registry, [sweep]))
    assert [([run.seed for run in group.runs], group.confirmed) for group in groups] == [([7], True), ([0], False)]


def test_the_share_near_the_best_is_of_drawn_trials(lab: Lab) -> None:
    sweep = searched(lab, "drawn")
    for trial, value in enumerate([5.0, 10.0, 11.9, 12.1, None]):
        lab.run(sweep, trial, 0, value, state=RunState.DIVERGED if value is None else RunState.FINISHED)
    (row,) = seed_statistics(lab.registry, [sweep], "system")
    assert row["within"] == {"within": 0, "of": 4, "low": wilson(0, 4)[0], "high": wilson(0, 4)[1]}  # the best is 5
    learned = searched(lab, "learned", "tpe")
    for trial, value in enumerate([10.0, 10.0, 11.9, 12.1]):
        lab.run(learned, trial, 0, value)
    assert seed_statistics(lab.registry, [learned], "system")[0]["within"] is None


def test_the_interquartile_mean_begins_at_ten_seeds(lab: Lab) -> None:
    sweep = lab.sweep()
    for seed in range(9):
        lab.run(sweep, 0, seed, float(seed))
    assert seed_statistics(lab.registry, [sweep])[0]["iqm"] is None
    lab.run(sweep, 0, 9, state=RunState.DIVERGED)
    mean = seed_statistics(lab.registry, [sweep])[0]["iqm"]
    assert (mean["n"], mean["value"]) == (10, 4.5)  # of 0 … 8 and ∞ the middle six: 2 … 7
    assert mean["low"] < 4.5


def test_a_figure_from_python_is_returned_and_written(lab: Lab, tmp_path: Path) -> None:
    lab.run(lab.sweep("mine"), 0, 0, 3.0)
    path = tmp_path / "f.svg"
    figure = aigc_lab.plot("mine", kind="seeds", path=path, home=tmp_path)
    assert isinstance(figure, Figure) and path.read_bytes().startswith(b"<?xml")
    with pytest.raises(UsageError, match=r"--kind budget: the sampler was tpe"):
        aigc_lab.plot(["mine"], kind="budget", home=tmp_path)
    with pytest.raises(UsageError, match="unknown kind 'seed'; did you mean seeds"):
        aigc_lab.plot("mine", kind="seed", home=tmp_path)  # type: ignore[arg-type]


def test_statistics_of_a_home(lab: Lab, tmp_path: Path) -> None:
    lab.run(lab.sweep("mine"), 0, 0, 3.0)
    for given in ("mine", ["mine"]):
        (row,) = seeds_of(given, tmp_path)
        assert (row["trial"], row["runs"]) == (0, 1)
    with pytest.raises(UsageError, match="mime"):
        seeds_of(["mine", "mime"], tmp_path)


def test_confirmed_trials_are_among_those_near_the_best(lab: Lab) -> None:
    sweep = searched(lab, "drawn")
    for trial, value in enumerate([20.0, 10.0, 11.0, 30.0]):
        lab.run(sweep, trial, 0, value)
    for trial in (1, 2):
        lab.run(sweep, trial, 1, 10.0 + trial, role="confirm")
    (row,) = seed_statistics(lab.registry, [sweep], "system")
    assert (row["within"]["within"], row["within"]["of"]) == (2, 3)


def test_a_run_that_failed_by_its_own_nan_counts_as_the_worst(lab: Lab) -> None:
    """As `compare` counts it: the same seeds are the row of a trial, and the run is one that diverged."""
    sweep = lab.sweep()
    lab.run(sweep, 0, 0, 1.0)
    lab.run(sweep, 0, 1, state=RunState.FAILED, reason="ValueError: Input contains NaN.", role="confirm")
    lab.run(sweep, 1, 0, 1.0)
    lab.run(sweep, 1, 1, state=RunState.FAILED, reason="OSError: no space left", role="confirm")
    groups = group_runs(read_seed_runs(lab.registry, [sweep]))
    assert [(group.confirmed, [run.state for run in group.ended]) for group in groups] == [
        (True, ["DIVERGED"]),
        (False, ["FINISHED"]),
    ]
    rows = {row["trial"]: row for row in compare_trials(lab.registry, sweep).rows}
    assert [rows[trial]["confirmed"] for trial in (0, 1)] == [True, False]


def test_statistics_of_a_row_are_of_its_own_signature(lab: Lab) -> None:
    sweep = lab.sweep()
    for seed in range(3):
        lab.run(sweep, 0, seed, 10.0 + seed)
        lab.run(sweep, 0, 3 + seed, 100.0 + seed, signature="fd|n:9")
    comparison = compare_trials(lab.registry, sweep)
    add_statistics(lab.registry, comparison)
    assert [(row["over_seeds"]["runs"], row["over_seeds"]["last"]["sd"]) for row in comparison.rows] == [(3, 1.0)] * 2
