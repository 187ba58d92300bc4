"""Which runs a confirmation takes, from the registry alone: interrupted or not, in any order, the same."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from registries import Lab, url_in

from aigc_lab.commands.judge import seeds_of
from aigc_lab.commands.status import StatusView
from aigc_lab.display.races import race_sentences
from aigc_lab.errors import UsageError
from aigc_lab.experiment.experiment import Experiment, load_experiment
from aigc_lab.host.settings import Settings
from aigc_lab.registry.best import best_run
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.races import looks, race_of
from aigc_lab.registry.records import Role
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.states import RunState
from aigc_lab.registry.steering import Steering
from aigc_lab.registry.store import Registry
from aigc_lab.sweeps.budget import confirmations, describe_confirmation, most_runs
from aigc_lab.sweeps.confirmation import confirm_best
from aigc_lab.web.seeds import marked

TRIALS, SEARCHED = 5, 2
RACE = {"top": 4, "seeds": 9, "race": True, "report": 3}


def experiment(confirm: dict[str, Any] | None) -> Experiment:
    sections = {
        "name": "rivals",
        "data": {"name": "ring"},
        "system": {"name": "point_gan", "lr": {"log": [1e-4, 1e-2]}},
        "training": {"steps": 10, "log_every": 5, "evaluate_every": 5},
        "evaluation": "points",
        "objective": {"minimize": "fd"},
        "search": {"trials": TRIALS, "seeds": SEARCHED},
        "confirm": confirm,
    }
    return load_experiment(sections, data_dir=Path())


class Sweep:
    """A sweep of five trials, each a deviation worse than the one before, whose search is over."""

    def __init__(self, folder: Path, confirm: dict[str, Any], *, spread: float = 0.3) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.experiment = folder, experiment(confirm)
        self.lab = Lab(Registry.open(url_in(folder), connected=True))
        stored = self.experiment.document.data
        self.id = self.lab.registry.sweep("rivals", "0" * 8, stored, "fd", "lower")
        self.spread = spread
        self.failing: set[tuple[int, int]] = set()
        self.settled: dict[tuple[int, int], None] = {}
        for trial in range(TRIALS):
            for seed in range(SEARCHED):
                self.do(trial, seed, "search")
            self.lab.registry.finish_trial(self.id, trial, RunState.FINISHED, float(trial))

    def do(self, trial: int, seed: int, role: Role) -> None:
        """A run, whose value is that of its trial and seed, better on the holdout for some and worse for others."""
        value = trial + random.Random(f"{trial}/{seed}").gauss(0, self.spread)
        state = RunState.FAILED if (trial, seed) in self.failing else RunState.FINISHED
        self.lab.run(self.id, trial, seed, value, state=state, role=role, split="reference")
        self.settled[trial, seed] = None

    @property
    def progress(self) -> tuple[str, int, int]:
        """What `status` says of it."""
        (row,) = StatusView(self.lab.registry, Settings.load(self.folder), self.id).rows()
        return row["condition"], row["done"], row["total"]

    def confirm(self, *, order: random.Random | None = None, dies_after: int | None = None) -> None:
        """The confirmation, whose runs of a round end in an `order`; its process `dies_after` so many runs."""
        left = dies_after

        def runs(wanted: Sequence[tuple[int, int]], role: Role) -> bool:
            nonlocal left
            todo = [run for run in wanted if run not in self.settled]
            for trial, seed in todo if order is None else order.sample(todo, len(todo)):
                if left == 0:
                    self.lab.run(self.id, trial, seed, role=role, state=RunState.RUNNING)  # as kill -9 leaves it
                    raise ProcessLookupError
                left = None if left is None else left - 1
                self.do(trial, seed, role)
            return True

        confirm_best(
            self.experiment, Steering.of(self.experiment.document.data), self.lab.registry, self.id, runs, self.settled
        )

    def runs(self, role: Role) -> set[tuple[int, int]]:
        every = list_runs(self.lab.registry, self.id)
        return {(run["trial"], run["seed"]) for run in every if run["role"] == role and run["state"] == "FINISHED"}


def test_the_three_sets_of_seeds_do_not_meet_and_the_winner_reports(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, RACE)
    sweep.confirm()
    assert {seed for _, seed in sweep.runs("search")} == {0, 1}
    assert {seed for _, seed in sweep.runs("confirm")} == set(range(2, 2 + 5))
    assert sweep.runs("report") == {(0, 11), (0, 12), (0, 13)}
    assert {trial for trial, _ in sweep.runs("confirm")} == {0, 1, 2, 3}, "the candidates are the best of the search"
    first, *others = compare_trials(sweep.lab.registry, sweep.id).rows
    assert (first["trial"], first["role"], first["seeds"], first["confirmed"]) == (0, "report", 3, True)
    assert [row["role"] for row in others] == ["confirm"] * 3 + ["search"]
    best = best_run(sweep.lab.registry, sweep.id)
    assert best is not None and best["run"] in {f"{sweep.id}.0.{seed}" for seed in (11, 12, 13)}

    of_seeds = {row["trial"]: (row["runs"], row["confirmed"]) for row in seeds_of("rivals", tmp_path)}
    assert of_seeds == {0: (3, True), 1: (5, True), 2: (5, True), 3: (5, True), 4: (2, False)}
    runs = [run | {"score": first["score"]} for run in list_runs(sweep.lab.registry, sweep.id) if run["trial"] == 0]
    assert Counter((run["role"], run["counts"]) for run in marked(first, runs)) == {
        ("search", False): 2,
        ("confirm", False): 5,
        ("report", True): 3,
    }
    assert {run["mark"] for run in marked(first, runs)} == {
        *("best", "", "worst"),
        *("of the search, not counted", "of the confirmation, not counted"),
    }


@pytest.mark.parametrize("confirm", [RACE, RACE | {"budget": 25}, {"top": 2, "seeds": 4, "report": 2}])
def test_killed_at_any_run_and_in_any_order_the_same_runs_are_trained(tmp_path: Path, confirm: dict[str, Any]) -> None:
    whole = Sweep(tmp_path / "whole", confirm, spread=1.0)
    whole.confirm()
    confirmed, reported = whole.runs("confirm"), whole.runs("report")
    assert reported
    for number in range(2):
        draw = random.Random(number)
        other = Sweep(tmp_path / str(number), confirm, spread=1.0)
        for _ in range(3):
            with pytest.raises(ProcessLookupError):
                other.confirm(order=draw, dies_after=draw.randrange(4))
        other.confirm(order=draw)
        assert (other.runs("confirm"), other.runs("report")) == (confirmed, reported)
    again = len(list_runs(whole.lab.registry, whole.id))
    whole.confirm()
    assert len(list_runs(whole.lab.registry, whole.id)) == again, "what is done is not done again"


def test_failed_runs_do_not_hang_it_and_are_repeated_when_they_may_be(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, RACE)
    sweep.failing = {(0, 4), (0, 5), *((1, seed) for seed in range(20))}
    sweep.confirm()
    found = race_of(sweep.lab.registry, sweep.id)
    assert found is not None and found[1].over
    assert (1, None) in {(each.candidate, each.p) for each in found[1].dropped}
    assert sweep.runs("report") == {(0, 11), (0, 12), (0, 13)}
    sweep.failing = set()
    for run in [(0, 4), (0, 5)]:
        del sweep.settled[run]  # as --retry-failed does
    sweep.confirm()
    assert {(0, 4), (0, 5)} <= sweep.runs("confirm")


def test_the_registry_alone_tells_of_the_race(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, RACE)
    assert race_of(sweep.lab.registry, sweep.id) is None and looks(sweep.lab.registry, sweep.id) == 1
    with pytest.raises(ProcessLookupError):
        sweep.confirm(dies_after=3)
    assert race_of(sweep.lab.registry, sweep.id) is None, "the first round is not over"
    sweep.confirm()
    found = race_of(sweep.lab.registry, "rivals")
    assert found is not None
    race, standing = found
    assert (standing.leader, standing.contenders, standing.taken) == (0, [0], 20)
    assert looks(sweep.lab.registry, sweep.id) == race.looks == 9 - 5 + 1
    rows = compare_trials(sweep.lab.registry).rows
    assert [row.get("looks") for row in rows] == [5, 5, 5, 5, None], "of the trial that took no part there is nothing"
    (told,) = race_sentences(sweep.lab.registry, compare_trials(sweep.lab.registry, sweep.id))
    assert told.startswith(
        "Trial 0 (vae) won the race of 4: trial 1 (vae) was dropped after 5 seeds (p = 0.0079 before correction), "
    )
    assert told.endswith("It took 20 of the 36 runs that 9 seeds of each take; 16 saved.")
    assert len(list_runs(sweep.lab.registry, sweep.id)) == 10 + 20 + 3
    assert sweep.progress == ("ended", 33, 33), "what was saved is not waited for"


def test_a_race_that_cannot_be_decided_says_so(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {"top": 2, "seeds": 6, "race": True}, spread=9.0)
    sweep.confirm()
    (told,) = race_sentences(sweep.lab.registry, compare_trials(sweep.lab.registry, sweep.id))
    assert "The race of 2 ended undecided: trial " in told and "cannot be told from it by 6 seeds each" in told
    assert told.endswith("It took 12 of the 12 runs that 6 seeds of each take.")
    assert len(sweep.runs("report")) == 4


def test_fixed_seeds_stay_what_they_were(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {"top": 2, "seeds": 3})
    sweep.confirm()
    assert sweep.runs("confirm") == {(trial, seed) for trial in (0, 1) for seed in (2, 3, 4)}
    assert not sweep.runs("report") and race_of(sweep.lab.registry, sweep.id) is None
    assert race_sentences(sweep.lab.registry, compare_trials(sweep.lab.registry, sweep.id)) == []


def test_of_one_candidate_nothing_is_chosen(tmp_path: Path) -> None:
    """Four of the five trials have no value: there is nobody to race with."""
    sweep = Sweep(tmp_path, RACE)
    for trial in range(1, TRIALS):
        sweep.lab.registry.finish_trial(sweep.id, trial, RunState.DIVERGED, None)
    sweep.confirm()
    assert not sweep.runs("confirm") and len(sweep.runs("report")) == 3
    assert sweep.progress == ("ended", 10 + 3, 10 + 3)
    assert race_of(sweep.lab.registry, sweep.id) is None


@pytest.mark.parametrize(
    ("confirm", "before", "after"),
    [
        ({"top": 4, "seeds": 3}, 10 + 6, 10 + 6),
        ({"top": 4, "seeds": 3, "report": 2}, 10 + 6 + 2, 10 + 6 + 2),
        (RACE, 10 + 18 + 3, 10 + 8 + 3),
    ],
)
def test_fewer_candidates_than_top_are_not_waited_for(
    tmp_path: Path, confirm: dict[str, Any], before: int, after: int
) -> None:
    sweep = Sweep(tmp_path, confirm, spread=0.01)
    for trial in range(2, TRIALS):
        sweep.lab.registry.finish_trial(sweep.id, trial, RunState.DIVERGED, None)
    assert sweep.progress == ("stopped", 10, before)
    sweep.confirm()
    assert sweep.progress == ("ended", after, after)


def test_without_a_candidate_nothing_is_confirmed(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, RACE)
    for trial in range(TRIALS):
        sweep.lab.registry.finish_trial(sweep.id, trial, RunState.DIVERGED, None)
    sweep.confirm()
    assert sweep.progress == ("ended", 10, 10)


def test_the_winner_comes_first_though_its_report_is_worse_than_the_second(tmp_path: Path) -> None:
    """The seeds that report choose nothing: not even against the seeds by which the others lost."""
    sweep = Sweep(tmp_path, {"top": 2, "seeds": 4, "report": 2})
    values = {(trial, seed): float(trial) for trial in (0, 1) for seed in range(2, 6)} | {(0, 6): 7.0, (0, 7): 8.0}
    for (trial, seed), value in values.items():
        role: Role = "report" if seed > 5 else "confirm"
        sweep.lab.run(sweep.id, trial, seed, value, role=role, split="reference")
    rows = compare_trials(sweep.lab.registry, sweep.id).rows
    assert [(row["rank"], row["trial"], row["score"]["value"]) for row in rows[:2]] == [(1, 0, 7.5), (2, 1, 1.0)]
    best = best_run(sweep.lab.registry, sweep.id)
    assert best is not None and best["run"] == f"{sweep.id}.0.6"


@pytest.mark.parametrize(
    ("confirm", "most", "told"),
    [
        ({"top": 2, "seeds": 3}, 6, ""),
        ({"top": 1, "seeds": 3}, 3, ""),
        ({"top": 9, "seeds": 2}, 10, ""),
        (RACE, 39, "to confirm: a race of the best 4, 20 to 36 runs (9 seeds of each at most); then 3 fresh seeds of"),
        (RACE | {"budget": 25}, 28, "to confirm: a race of the best 4, 20 to 25 runs (9 seeds of each at most); then "),
        ({"top": 2, "seeds": 4, "report": 2}, 10, "to confirm: the best 2 with 4 seeds each; then 2 fresh seeds of "),
    ],
)
def test_what_it_may_cost_is_said_before(confirm: dict[str, Any], most: int, told: str) -> None:
    plan = experiment(confirm)
    assert confirmations(plan, TRIALS) == most
    assert most_runs(plan) == TRIALS * SEARCHED + most
    assert describe_confirmation(plan).startswith(told) and bool(told) == bool(describe_confirmation(plan))


@pytest.mark.parametrize(
    ("confirm", "told"),
    [
        ({"top": 1, "seeds": 9, "race": True}, "set confirm.top to 2 or more, or leave out confirm.race"),
        ({"top": 1, "seeds": 9, "report": 2}, "leave out confirm.report, or set confirm.top to 2 or more"),
        ({"top": 2, "seeds": 3, "race": True}, "set confirm.seeds to 5 or more, or leave out confirm.race"),
        ({"top": 3, "seeds": 5, "race": True}, "set confirm.seeds to 6 or more"),
        ({"top": 3, "seeds": 9, "race": True, "budget": 14}, "set it to 15 or more, or lower confirm.top"),
        ({"top": 3, "seeds": 9, "budget": 15}, "add confirm.race: true, or leave it out"),
        ({"top": 3, "seeds": 9, "race": True, "report": 0}, "confirm.report: "),
    ],
)
def test_a_race_that_can_decide_nothing_is_refused_before_any_training(confirm: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as refused:
        _ = experiment(confirm).file
    assert told in str(refused.value) and "confirm" in str(refused.value) and "\n" not in str(refused.value)


def test_a_value_that_is_not_finite_is_the_worst(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {"top": 2, "seeds": 6, "race": True})
    for seed in range(2, 6):
        sweep.lab.run(sweep.id, 0, seed, math.nan, role="confirm", split="reference")
        sweep.lab.run(sweep.id, 1, seed, 5.0, role="confirm", split="reference")
    found = race_of(sweep.lab.registry, sweep.id)
    assert found is not None and found[1].leader == 1 and found[1].contenders == [1]


def test_a_row_of_a_race_and_another_sweep_says_how_often_the_race_looked(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, RACE)
    sweep.confirm()
    other = sweep.lab.sweep("other")
    sweep.lab.run(other, 0, 0, 1.0, role="confirm")
    rows = compare_trials(sweep.lab.registry, [sweep.id, other], by="system", where="confirmed").rows
    assert [(row["sweep"], row["confirmed"], row["looks"]) for row in rows] == [(None, True, 5)]
    assert race_sentences(sweep.lab.registry, compare_trials(sweep.lab.registry, [sweep.id, other], by="system")) == []


def test_a_run_that_failed_by_its_own_nan_is_the_worst_of_a_confirmation(tmp_path: Path) -> None:
    """Trial 0 is the better one of two, but for these seeds; leaving them out would reward it for failing."""
    sweep = Sweep(tmp_path, {"top": 2, "seeds": 3, "report": 2})
    for seed in (2, 3):
        nan = "ValueError: Input contains NaN."
        sweep.lab.run(sweep.id, 0, seed, role="confirm", state=RunState.FAILED, reason=nan)
        sweep.settled[0, seed] = None
    sweep.confirm()
    assert sweep.runs("report") == {(1, 5), (1, 6)}
    assert compare_trials(sweep.lab.registry, sweep.id).rows[0]["trial"] == 1


def test_a_winner_that_violates_a_constraint_is_said_to_rank_last(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {"top": 2, "seeds": 6, "race": True})
    sweep.confirm()
    comparison = compare_trials(sweep.lab.registry, sweep.id)
    assert len(race_sentences(sweep.lab.registry, comparison)) == 1
    comparison.rows[0]["marks"].append("violates collapse: SEVERE")
    _, told = race_sentences(sweep.lab.registry, comparison)
    assert told.startswith("Trial 0 (vae) violates a constraint of its sweep by its fresh seeds")
