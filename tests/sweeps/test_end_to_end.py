"""Whole sweeps and runs, in process: what they leave in the registry, in MLflow and on disk, and how they go on."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import pytest
import torch
from conftest import Judged, WriterHere
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from safetensors.torch import load_file

from aigc_lab.commands import spool
from aigc_lab.commands.sweep import Change, sweep_experiment, train_experiment
from aigc_lab.data.ring import Ring
from aigc_lab.errors import Failure, UsageError
from aigc_lab.executors import inline
from aigc_lab.host.settings import Settings
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.races import race_of
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import list_trials, run_outcomes
from aigc_lab.runs.job import Job, RunOutcome
from aigc_lab.runs.run import execute
from aigc_lab.sweeps.estimate import Estimate
from aigc_lab.sweeps.study import Suggestion
from aigc_lab.systems import base
from aigc_lab.systems.point_gan import PointGAN
from aigc_lab.tracking import writer

POINTS = """\
data: {name: ring, points: 2000}
system:
  name: point_gan
  hidden: 16
  lr: {log: [1e-4, 1e-2]}
  loss: {choice: [nonsaturating, hinge]}
training: {steps: 60, batch_size: 32, log_every: 10, evaluate_every: 20, threads: 1}
evaluation: {name: points, samples: 400}
objective: {minimize: rkl}
search: {trials: 2, seeds: 2}
confirm: {top: 1, seeds: 1}
"""
DIGITS = """\
data: {name: digits}
system:
  choice:
    - {name: dcgan, width: 8, loss: {choice: [nonsaturating, hinge]}}
    - {name: vae, width: 8, beta: {log: [0.25, 4.0]}}
training: {steps: 20, batch_size: 16, log_every: 10, evaluate_every: 20, threads: 1}
evaluation: {name: image-small, samples: 120}
objective: {minimize: fd_clf}
search: {trials: 2}
"""
ONE = POINTS.replace("{log: [1e-4, 1e-2]}", "1e-3").replace("{choice: [nonsaturating, hinge]}", "hinge")
SHORT = ("training.steps=20", "search.seeds=1", "confirm=null")
SCORES = {"modes", "hq", "rkl"}
RUN_KEYS = {"run", "sweep", "trial", "seed", "system", "state", "scores", "scalars", "mlflow_run_id", "seconds"}


class Home:
    """One home, and the commands in it."""

    def __init__(self, folder: Path, mlflow: Path | None = None) -> None:
        self.path = folder / "home"
        self.file = folder / "points.yaml"
        if mlflow is not None:
            self.path.mkdir(parents=True)
            shutil.copy(mlflow, self.path / "mlflow.db")

    def _changes(self, text: str, changes: tuple[str, ...]) -> list[Change]:
        self.file.write_text(text)
        split = [change.partition("=") for change in changes]
        return [(key, value, f"--set {key}={value}") for key, _, value in split]

    def sweep(self, text: str, *changes: str, retry_failed: bool = False) -> list[dict[str, Any]]:
        made = self._changes(text, changes)
        options: dict[str, Any] = {"device": "cpu", "json": True, "home": self.path}
        return sweep_experiment(str(self.file), made, retry_failed=retry_failed, **options)

    def train(self, text: str, *changes: str, seed: int = 0) -> dict[str, Any]:
        made = self._changes(text, changes)
        return train_experiment(str(self.file), made, seed=seed, device="cpu", home=self.path)

    def registry(self) -> Registry:
        return Registry.open(f"sqlite:///{self.path / 'registry.db'}", create=False)

    def runs(self, of: str | None = None) -> list[dict[str, Any]]:
        with self.registry() as registry:
            return list_runs(registry, of)

    def show(self, run: str) -> dict[str, Any]:
        with self.registry() as registry:
            return show_run(registry, run)

    def trials(self, of: str) -> list[dict[str, Any]]:
        with self.registry() as registry:
            return list_trials(registry, of)

    def states(self) -> dict[tuple[int, int], str]:
        return {(run["trial"], run["seed"]): run["state"] for run in self.runs()}

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=f"sqlite:///{self.path / 'mlflow.db'}")

    def mlflow(self) -> list[Run]:
        experiments = [e.experiment_id for e in self.client.search_experiments() if e.name != "Default"]
        return list(self.client.search_runs(experiments, run_view_type=ViewType.ALL))


@pytest.fixture(autouse=True, scope="module")
def _plain_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", WriterHere)
        for name in list(os.environ):
            if name.startswith("AIGC_LAB_") or name == "MLFLOW_TRACKING_URI":
                patch.delenv(name)
        yield


@pytest.fixture
def home(tmp_path: Path, empty_mlflow: Path) -> Home:
    return Home(tmp_path, empty_mlflow)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, list[dict[str, Any]]]:
    """A finished sweep that nobody changes, and the rows that the command returned."""
    home = Home(tmp_path_factory.mktemp("done"))
    return home, home.sweep(POINTS)


Done = tuple[Home, list[dict[str, Any]]]


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a run was done again")


# ---- what a sweep leaves


def test_the_rows_of_a_sweep(done: Done) -> None:
    home, rows = done
    assert [row["rank"] for row in rows] == [1, 2]
    assert {row["trial"] for row in rows} == {0, 1}
    for row in rows:
        assert {"rank", "sweep", "trial", "system", "config", "seeds", "state", "score"} <= row.keys()
        assert {"name", "value", "low", "high", "n", "floor", "signature"} <= row["score"].keys()
        assert (row["score"]["name"], row["score"]["n"], row["state"]) == ("rkl", 400, "FINISHED")
        assert "holdout" in row["score"]["signature"]
        assert row["config"].keys() == {"lr", "loss"}
    assert [row["seeds"] for row in rows] == [1, 2]  # one is confirmed, by its fresh seed alone
    assert rows[0]["confirmed"]
    with home.registry() as registry:
        assert compare_trials(registry, "points").rows == rows
    json.dumps(rows, allow_nan=False)


def test_the_first_trial_is_the_papers_defaults(done: Done) -> None:
    first = next(row for row in done[1] if row["trial"] == 0)
    assert first["config"] == {"lr": 1e-4, "loss": "nonsaturating"}


def test_the_runs_of_a_sweep(done: Done) -> None:
    home, rows = done
    runs = home.runs("points")
    confirmed = rows[0]["trial"]
    assert sorted((run["trial"], run["seed"]) for run in runs) == sorted(
        [*itertools.product((0, 1), (0, 1)), (confirmed, 2)]
    )
    for run in runs:
        assert run.keys() >= RUN_KEYS
        assert run["state"] == "FINISHED"
        assert run["seconds"] > 0
        assert {score["name"] for score in run["scores"]} == SCORES
        assert all(score["split"] == "holdout" for score in run["scores"])
        assert {"loss/critic/total", "dynamics/real_score", "dynamics/fake_score"} <= run["scalars"].keys()
    roles = {(run["trial"], run["seed"]): run["role"] for run in runs}
    assert roles[confirmed, 2] == "confirm"
    assert Counter(roles.values()) == {"search": 4, "confirm": 1}


def test_a_race_goes_on_where_it_was_interrupted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    race = [f"confirm.{change}" for change in ("top=2", "seeds=5", "race=true", "report=1")]
    changes, begun = ("training.steps=20", "search.seeds=1", *race), itertools.count()

    def stops(*arguments: Any) -> list[RunOutcome]:
        if next(begun) == 6:
            raise KeyboardInterrupt
        return execute(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(inline, "execute", stops)
        with pytest.raises(KeyboardInterrupt):
            home.sweep(POINTS, *changes)
    assert len([run for run in home.runs() if run["state"] == "FINISHED"]) == 6
    rows = home.sweep(POINTS, *changes)
    with home.registry() as registry:
        found = race_of(registry, "points")
    assert found is not None and found[1].over
    told = Counter((run["role"], run["state"]) for run in home.runs())
    assert told == {("search", "FINISHED"): 2, ("confirm", "FINISHED"): found[1].taken, ("report", "FINISHED"): 1}
    assert (rows[0]["role"], rows[0]["trial"], rows[0]["seeds"]) == ("report", found[1].leader, 1)
    assert Counter(run.data.tags["role"] for run in home.mlflow()) == Counter(run["role"] for run in home.runs())


def test_the_value_of_a_trial_is_the_median_of_what_the_search_saw(done: Done) -> None:
    home, _ = done
    with home.registry() as registry:
        seen = run_outcomes(registry, home.trials("points")[0]["sweep"])
    for row in home.trials("points"):
        values = [run["value"] for run in seen if run["trial"] == row["trial"] and run["seed"] < 2]
        assert row["value"] == pytest.approx(sum(values) / 2)
        assert row["state"] == "FINISHED"
    best = min(home.trials("points"), key=lambda row: row["value"])
    assert (best["trial"], 2) in home.states()


def test_a_run_has_its_history_and_its_files(done: Done) -> None:
    home, _ = done
    for run in home.runs():
        page = home.show(run["run"])
        assert page.keys() >= RUN_KEYS
        assert [entry["step"] for entry in page["progress"] if entry["name"] == "rkl"] == [20, 40, 60]
        assert [(a["number"], a["state"], a["reason"]) for a in page["attempts"]] == [(1, "FINISHED", None)]
        assert {"host", "threads", "versions"} <= page["environment"].keys()
        assert page["environment"]["threads"] == 1
        kinds = {file["kind"]: file for file in page["checkpoints"]}
        assert kinds.keys() == {"last", "selected"}
        assert kinds["last"]["step"] == 60
        for file in kinds.values():
            content = Path(file["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
            assert len(content) == file["bytes"]
            description = json.loads(Path(file["path"]).with_suffix(".json").read_text())
            assert (description["system"], description["run"]) == ("point_gan", run["run"])
        files = {file["name"]: Path(file["path"]) for file in page["artifacts"]}
        assert files.keys() == {"curves", "samples", *(f"samples/{step:06d}" for step in (0, 20, 40, 60))}
        pictures = [path.read_bytes() for name, path in files.items() if name != "curves"]
        assert all(content.startswith(b"\x89PNG") for content in pictures)
        # The last on the way shows the finished model; those before it do not.
        assert len(set(pictures)) == 4 and pictures.count(files["samples"].read_bytes()) == 2
        curve = json.loads(files["curves"].read_text())["loss/critic/total"]
        assert curve["step"] == [10, 20, 30, 40, 50, 60]
        assert curve["value"][-1] == page["scalars"]["loss/critic/total"]
        rkl = {e["step"]: e["value"] for e in page["progress"] if e["name"] == "rkl"}
        assert kinds["selected"]["step"] == min(rkl, key=lambda step: rkl[step])


def test_mlflow_has_one_run_for_each_of_ours(done: Done) -> None:
    home, rows = done
    assert sorted(e.name for e in home.client.search_experiments() if e.name != "Default") == [rows[0]["sweep"]]
    ours = {run["mlflow_run_id"]: run for run in home.runs()}
    theirs = {run.info.run_id: run for run in home.mlflow()}
    assert theirs.keys() == ours.keys()
    for identity, run in theirs.items():
        mine = ours[identity]
        assert run.info.status == "FINISHED"
        tags = run.data.tags
        assert (tags["sweep"], tags["trial"], tags["seed"], tags["system"], tags["attempt"], tags["state"]) == (
            mine["sweep"],
            str(mine["trial"]),
            str(mine["seed"]),
            "point_gan",
            "1",
            "FINISHED",
        )
        assert tags["role"] == mine["role"]
        assert tags["threads"] == "1"
        assert tags["data_digest"] == Ring(Ring.Config(points=2000), Path()).digest
        assert len(tags["git_commit"]) == 40
        assert tags["git_dirty"] in ("True", "False")
        assert tags["version.torch"] == torch.__version__.partition("+")[0]
        config = home.show(mine["run"])["config"]
        assert float(run.data.params["lr"]) == config["lr"]
        assert (run.data.params["loss"], run.data.params["training.steps"]) == (config["loss"], "60")
        assert run.inputs is not None
        (given,) = run.inputs.dataset_inputs
        assert given.dataset.name == "ring"
        assert tags["data_digest"].startswith(given.dataset.digest)


def test_mlflow_has_the_curves_and_the_pictures(done: Done) -> None:
    home, _ = done
    for run in home.runs():
        identity = run["mlflow_run_id"]
        for name, last in run["scalars"].items():
            points = sorted((p.step, p.value) for p in home.client.get_metric_history(identity, name))
            # What a run took is known at its end; all else at every interval.
            assert [step for step, _ in points] == ([60] if name.startswith("time/") else [10, 20, 30, 40, 50, 60])
            assert points[-1][1] == pytest.approx(last)
        assert len(home.client.get_metric_history(identity, "dynamics/samples_per_second")) == 6
        progress = home.show(run["run"])["progress"]
        for name in SCORES:
            points = sorted((p.step, p.value) for p in home.client.get_metric_history(identity, f"score/{name}"))
            assert points == [(entry["step"], entry["value"]) for entry in progress if entry["name"] == name]
        final = {score["name"]: score["value"] for score in run["scores"]}
        metrics = home.client.get_run(identity).data.metrics
        assert {name: metrics[f"score/{name}_holdout"] for name in SCORES} == final
        images = [file.path for file in home.client.list_artifacts(identity, "images")]
        shown = [re.fullmatch(r"images/samples~grid\+step\+(\d+)\+.*\.png", path) for path in images]
        # The first is of the initial weights.
        assert sorted(int(match[1]) for match in shown if match) == [0, 20, 40, 60]
        model = [file.path for file in home.client.list_artifacts(identity, "model")]
        assert sorted(model) == [
            f"model/{kind}.{end}" for kind in ("last", "selected") for end in ("json", "safetensors")
        ]
        copy = Path(home.client.download_artifacts(identity, "model/last.safetensors"))
        files = {file["kind"]: file["sha256"] for file in home.show(run["run"])["checkpoints"]}
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == files["last"]


def test_a_finished_sweep_is_not_done_again(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    home, rows = done
    before, trials = home.runs(), home.trials("points")
    with mock.patch.object(inline, "execute", refuse):
        assert home.sweep(POINTS) == rows
        assert home.sweep(f"# a comment\n{POINTS}") == rows
        assert home.sweep(POINTS, "search.trials=1") == rows  # fewer than there are
    assert home.runs() == before
    assert home.trials("points") == trials
    shown = capsys.readouterr()
    assert shown.out == ""
    best = min((run for run in before if run["role"] == "confirm"), key=lambda run: run["run"])["run"]
    assert shown.err.count("What it means\nTrial ") == 3
    for line in (f"aigc-lab show {best} --home", f"aigc-lab compare {rows[0]['sweep']} --home", "aigc-lab ui --home"):
        assert line in shown.err
    assert str(home.path / "artifacts") in shown.err or "artifacts" in shown.err


def test_a_dry_run_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path)
    made = home._changes(POINTS, ())
    assert sweep_experiment(str(home.file), made, device="cpu", dry_run=True, json=True, home=home.path) == []
    assert not home.path.exists()
    assert "points: 2 trials, at most 5 runs, about " in capsys.readouterr().err


# ---- pictures


def test_a_sweep_over_images(home: Home, judged: Judged) -> None:
    shutil.copytree(judged.cache, home.path / "cache")  # the classifier, which takes seconds to train
    rows = home.sweep(DIGITS)
    assert {row["system"] for row in rows} == {"dcgan", "vae"}
    assert {row["score"]["name"] for row in rows} == {"fd_clf"}
    assert len({row["score"]["signature"] for row in rows}) == 1
    for run in home.runs():
        assert {score["name"] for score in run["scores"]} == {"fd_clf", "classifier_score"}
        fd = next(score for score in run["scores"] if score["name"] == "fd_clf")
        assert fd["low"] <= fd["value"] <= fd["high"]
        assert fd["n"] == 120
        assert fd["floor"] < fd["value"]
        assert [file.path for file in home.client.list_artifacts(run["mlflow_run_id"], "images")]
        last = next(file for file in home.show(run["run"])["checkpoints"] if file["kind"] == "last")
        assert load_file(last["path"])
    assert len(list((home.path / "cache" / "classifiers").glob("*.safetensors"))) == 1  # and none was trained anew
    assert {run.info.status for run in home.mlflow()} == {"FINISHED"}


# ---- the same bits


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, empty_mlflow: Path) -> None:
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        row = Home(tmp_path / name, empty_mlflow).train(ONE, *SHORT, seed=seed)
        assert row["run"].endswith(f".0.{seed}")
        scalars = {key: value for key, value in row["scalars"].items() if not key.startswith("time/")}
        found[name] = (next(f["sha256"] for f in row["checkpoints"] if f["kind"] == "last"), scalars, row["scores"])
    assert found["a"] == found["b"]
    assert found["a"][0] != found["c"][0]


def test_train_is_one_run_with_the_same_records(home: Home) -> None:
    row = home.train(ONE, *SHORT)
    assert row == home.show(row["run"])
    assert row.keys() >= RUN_KEYS
    assert {score["name"] for score in row["scores"]} == SCORES
    with mock.patch.object(inline, "execute", refuse):
        assert home.train(ONE, *SHORT) == row
    other = home.train(ONE, *SHORT, seed=3)
    assert other["sweep"] == row["sweep"]
    assert [(run["seed"], run["state"]) for run in home.runs()] == [(0, "FINISHED"), (3, "FINISHED")]
    assert [trial["state"] for trial in home.trials("points")] == ["FINISHED"]


# ---- going on


def test_more_trials_are_the_new_ones_only(home: Home) -> None:
    first = home.sweep(POINTS, *SHORT, "search.trials=1")
    did: list[str] = []

    def watched(jobs: Sequence[Job], *rest: Any) -> list[RunOutcome]:
        did.extend(f"{job.trial}.{job.seed}" for job in jobs)
        return execute(jobs, *rest)

    with mock.patch.object(inline, "execute", watched):
        rows = home.sweep(POINTS, *SHORT, "search.trials=3")
    assert did == ["1.0", "2.0"]
    assert {row["sweep"] for row in rows} == {first[0]["sweep"]}
    assert sorted(row["trial"] for row in rows) == [0, 1, 2]
    with mock.patch.object(inline, "execute", watched):
        changed = home.sweep(POINTS, *SHORT, "search.trials=1", "training.batch_size=16")
    assert did == ["1.0", "2.0", "0.0"]
    assert changed[0]["sweep"] != rows[0]["sweep"]
    assert len(home.runs()) == 4


# ---- runs that end badly


@contextlib.contextmanager
def losses(change: Any) -> Iterator[list[int]]:
    """`change(run, loss)` in the place of the critic's loss of the n-th system that is trained."""
    built: list[int] = []
    original = PointGAN.phases

    def phases(self: PointGAN, batch_size: int) -> list[base.Phase]:
        if next(self.parameters()).is_meta:  # built to see whether it fits
            return original(self, batch_size)
        number = len(built)
        built.append(number)
        critic, generator = original(self, batch_size)
        return [critic._replace(loss=lambda *given: change(number, critic.loss(*given))), generator]

    # The estimate trains too, before the runs; it is not what these tests break.
    known = Estimate(1, 1, 0.0, {"point_gan": 1.0})
    with (
        mock.patch("aigc_lab.commands.sweep.estimate", return_value=known),
        mock.patch.object(PointGAN, "phases", phases),
    ):
        yield built


def test_a_run_that_diverges_is_told_and_the_sweep_goes_on(home: Home) -> None:
    def third_is_nan(run: int, loss: base.Loss) -> base.Loss:
        return loss._replace(total=loss.total * float("nan")) if run == 2 else loss

    with losses(third_is_nan) as built:
        home.sweep(POINTS, "training.steps=20", "confirm=null", "search.trials=2")
    assert len(built) == 4
    assert home.states() == {(0, 0): "FINISHED", (0, 1): "FINISHED", (1, 0): "DIVERGED", (1, 1): "FINISHED"}
    page = home.show("points.1.0")
    assert page["reason"] == "loss/critic/total is not finite at step 1"
    tags = home.client.get_run(page["mlflow_run_id"]).data.tags
    assert (tags["state"], tags["reason"]) == ("DIVERGED", page["reason"])
    # Its page does not look like one that ended well.
    assert sorted(run.info.status for run in home.mlflow()) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    # The seed that diverged counts as the worst value that had been seen.
    with home.registry() as registry:
        value = {(o["trial"], o["seed"]): o["value"] for o in run_outcomes(registry, page["sweep"])}
    worst = max(value[0, 0], value[0, 1], value[1, 1])
    trials = home.trials("points")
    assert trials[1]["value"] == pytest.approx((worst + value[1, 1]) / 2)
    assert trials[1]["state"] == "FINISHED"
    # Going on neither repeats it nor thinks otherwise of it, even when worse values have come since.
    with losses(third_is_nan):
        home.sweep(POINTS, "training.steps=20", "confirm=null", "search.trials=3")
    before = home.trials("points")
    with contextlib.closing(sqlite3.connect(home.path / "registry.db")) as database:
        database.execute("UPDATE score SET value = 99 WHERE name = 'rkl' AND run_id LIKE '%.2._'")
        database.commit()
    with mock.patch.object(inline, "execute", refuse):
        home.sweep(POINTS, "training.steps=20", "confirm=null", "search.trials=3")
    assert home.trials("points") == before
    assert before[:2] == trials


def test_a_rate_that_cannot_work_diverges(home: Home) -> None:
    row = home.train(ONE, *SHORT, "system.lr=1e30")
    assert row["state"] == "DIVERGED"
    assert "is not finite at step" in row["reason"]
    assert [trial["state"] for trial in home.trials("points")] == ["DIVERGED"]
    rows = home.sweep(ONE, *SHORT, "system.lr=1e30")
    assert [(row["rank"], row["state"], row["score"]) for row in rows] == [(None, "DIVERGED", None)]


def test_a_run_that_raises_is_told_and_done_again_when_that_is_asked_for(home: Home) -> None:
    def first_breaks(run: int, loss: base.Loss) -> base.Loss:
        if run == 0:
            raise RuntimeError("out of\nluck")
        return loss

    with losses(first_breaks) as built:
        rows = home.sweep(POINTS, *SHORT)
    assert len(built) == 2  # the other trial was done
    assert home.states() == {(0, 0): "FAILED", (1, 0): "FINISHED"}
    page = home.show("points.0.0")
    assert page["reason"] == "RuntimeError: out of\nluck"
    run = home.client.get_run(page["mlflow_run_id"])
    assert (run.info.status, run.data.tags["state"], run.data.tags["reason"]) == ("FAILED", "FAILED", page["reason"])
    assert {row["trial"]: row["state"] for row in rows} == {0: "FAILED", 1: "FINISHED"}
    assert [trial["state"] for trial in home.trials("points")] == ["FAILED", "FINISHED"]

    with mock.patch.object(inline, "execute", refuse):
        home.sweep(POINTS, *SHORT)  # the same would happen again
    home.sweep(POINTS, *SHORT, retry_failed=True)
    assert home.states() == {(0, 0): "FINISHED", (1, 0): "FINISHED"}
    assert [attempt["state"] for attempt in home.show("points.0.0")["attempts"]] == ["FAILED", "FINISHED"]
    keys = Counter((run.data.tags["trial"], run.data.tags["attempt"]) for run in home.mlflow())
    assert keys == {("0", "1"): 1, ("0", "2"): 1, ("1", "1"): 1}
    assert [trial["state"] for trial in home.trials("points")] == ["FINISHED", "FINISHED"]


def test_when_every_run_fails_so_does_the_command(home: Home) -> None:
    def breaks(run: int, loss: base.Loss) -> NoReturn:
        raise RuntimeError("no luck")

    with losses(breaks), pytest.raises(Failure, match="all 2 runs of points-.* failed"):
        home.sweep(POINTS, *SHORT)
    with losses(breaks), pytest.raises(Failure, match=r"run points-.*\.0\.0 failed: RuntimeError: no luck"):
        home.train(ONE, *SHORT)


def test_a_pruned_run_is_told_and_its_other_seeds_are_not_run(home: Home) -> None:
    asked: list[int] = []

    def should_stop(self: Any, system: str, step: int, value: float, **told: Any) -> bool:
        asked.append(step)
        return len(asked) > 3  # the second trial's first evaluation

    with mock.patch.object(Suggestion, "should_stop", should_stop):
        rows = home.sweep(POINTS, "training.steps=60")
    # Trial 0: its first seed is asked about, thrice; trial 1: stopped at once; nobody asks about the confirming run.
    assert asked == [20, 40, 60, 20]
    assert home.states() == {(0, 0): "FINISHED", (0, 1): "FINISHED", (0, 2): "FINISHED", (1, 0): "PRUNED"}
    page = home.show("points.1.0")
    assert page["reason"] == "stopped by the pruner"  # of an experiment that names none
    assert [entry["step"] for entry in page["progress"] if entry["name"] == "rkl"] == [20]
    run = home.client.get_run(page["mlflow_run_id"])
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "PRUNED")
    assert {row["trial"]: row["state"] for row in rows} == {0: "FINISHED", 1: "PRUNED"}
    with mock.patch.object(inline, "execute", refuse):
        assert home.sweep(POINTS, "training.steps=60") == rows


def test_ctrl_c_leaves_nothing_running(home: Home) -> None:
    def second_is_interrupted(run: int, loss: base.Loss) -> base.Loss:
        if run == 1:
            raise KeyboardInterrupt
        return loss

    with losses(second_is_interrupted), pytest.raises(KeyboardInterrupt):
        home.sweep(POINTS, *SHORT)
    assert home.states() == {(0, 0): "FINISHED", (1, 0): "KILLED"}
    assert [trial["state"] for trial in home.trials("points")] == ["FINISHED", "KILLED"]
    assert sorted(run.info.status for run in home.mlflow()) == ["FINISHED", "KILLED"]
    home.sweep(POINTS, *SHORT)
    assert set(home.states().values()) == {"FINISHED"}
    assert [trial["state"] for trial in home.trials("points")] == ["FINISHED", "FINISHED"]


# ---- an MLflow server that is down


def test_a_sweep_that_has_begun_goes_on_while_mlflow_is_down(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    with pytest.raises(UsageError, match=f"MLflow at {nobody} cannot be reached"):  # it may be a typo
        home.sweep(POINTS, *SHORT)
    assert not (home.path / "registry.db").exists()

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    home.sweep(POINTS, *SHORT, "search.trials=1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    capsys.readouterr()
    rows = home.sweep(POINTS, *SHORT, "search.trials=2")
    assert [row["trial"] for row in rows] and set(home.states().values()) == {"FINISHED"}
    assert len(home.states()) == 2
    said = capsys.readouterr().err
    assert f"MLflow at {nobody} cannot be reached" in said and "the sweep goes on" in said
    assert "something waits" in said

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert len(home.mlflow()) == 1
    assert [row["records"] for row in spool.flush_spools(None, Settings.load(home.path))] == [0]
    assert [run.info.status for run in home.mlflow()] == ["FINISHED"] * 2
