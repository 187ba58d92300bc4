"""Verdicts on the way: those that a run is given and keeps, those given again, and those of several seeds."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Judged, WriterHere
from mlflow.tracking import MlflowClient
from PIL import Image
from typer.testing import CliRunner

from aigc_lab import cli
from aigc_lab.api import sweep
from aigc_lab.commands.judge import seeds_of
from aigc_lab.commands.rejudge import rejudge_sweep
from aigc_lab.data.ring import Ring
from aigc_lab.display import run_page
from aigc_lab.errors import Failure, UsageError
from aigc_lab.host import environment
from aigc_lab.host.settings import Settings
from aigc_lab.metrics.base import Evidence
from aigc_lab.metrics.fd import FD
from aigc_lab.registry.records import StoredVerdict
from aigc_lab.registry.runs import list_runs, show_run
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import artifacts_by_run, list_sweeps
from aigc_lab.registry.verdicts import verdicts_by_run
from aigc_lab.runs.run import _Run
from aigc_lab.runs.showcase import Showcase
from aigc_lab.scoring.collapse_judge import CollapseJudge
from aigc_lab.scoring.evaluator import Evaluator
from aigc_lab.sweeps import study
from aigc_lab.tracking import writer
from aigc_lab.verdicts.conclusion import Collapse, CollapseVerdict
from aigc_lab.verdicts.seeds import wilson
from aigc_lab.web.report import render_report

FOUND = {"PARTIAL", "SEVERE", "TOTAL"}
BRIEF: dict[str, Any] = {"batch_size": 64, "ema": 0.0, "threads": 1}
ONCE: dict[str, Any] = {"sampler": "grid", "trials": 1, "seeds": 1}
# Steps far too long, and no regularisation: the generator runs from mode to mode.
BROKEN: dict[str, Any] = {
    "name": "broken",
    "data": {"name": "ring", "sigma": 0.15},
    "system": {"name": "point_gan", "lr": 2e-3, "latent_size": 2, "hidden": 32},
    "training": BRIEF | {"steps": 600, "log_every": 50, "evaluate_every": 300},
    "evaluation": {"name": "points", "samples": 500},
    "objective": {"minimize": "rkl"},
    "search": ONCE,
}
SOUND: dict[str, Any] = {
    "name": "sound",
    "data": {"name": "digits"},
    "system": {"name": "vae", "width": 16, "lr": 2e-3},
    "training": BRIEF | {"steps": 400, "log_every": 100, "evaluate_every": 400},
    "evaluation": {"name": "image-small", "samples": 400},
    "objective": {"minimize": "fd_clf"},
    "search": ONCE,
}


@dataclass(frozen=True)
class Done:
    """A finished sweep of one run."""

    home: Path
    compared: list[dict[str, Any]]

    @property
    def settings(self) -> Settings:
        return Settings.load(self.home)

    def run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The run, and its verdicts."""
        with Registry.open(self.settings.registry_url, home=self.home, create=False) as registry:
            (found,) = list_sweeps(registry)
            (run,) = list_runs(registry, found["sweep"])
            return run, verdicts_by_run(registry, found["sweep"])[run["run"]]


@pytest.fixture(autouse=True, scope="module")
def _here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "Writer", WriterHere)
        for name in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Done:
    home = tmp_path_factory.mktemp("broken")
    return Done(home, sweep(BROKEN, home=home).to_dict("records"))


# ---- runs


def test_a_run_that_collapses_is_said_to_at_every_evaluation(broken: Done) -> None:
    run, verdicts = broken.run()
    collapses = [each for each in verdicts if each["kind"] == "collapse"]
    assert [each["step"] for each in collapses] == [300, 600]
    last = collapses[-1]
    assert last["verdict"] in FOUND and last["verdict"] == run["collapse"], last["reason"]
    numbers = last["evidence"]
    assert len(numbers["bins"]) == 8 and numbers["missing_low"] > 0.02 and numbers["n"] == 500
    gone = [row["name"] for row in numbers["bins"] if row["state"] == "missing"]
    assert gone and last["reason"].endswith(f"diversity within bins {numbers['diversity']:.2f} of real")
    assert last["signature"].startswith("points|data:ring:")
    (stability,) = [each for each in verdicts if each["kind"] == "stability"]
    assert (stability["step"], stability["verdict"], run["stability"]) == (600, "WITHHELD", "WITHHELD")


def test_what_compares_and_what_is_tracked_say_it_too(broken: Done) -> None:
    run, _ = broken.run()
    (row,) = broken.compared
    assert (row["collapse"], row["stability"]) == (f"1 {run['collapse']}", "1 WITHHELD")
    tags = MlflowClient(tracking_uri=broken.settings.tracking_uri).get_run(run["mlflow_run_id"]).data.tags
    assert (tags["collapse"], tags["stability"]) == (run["collapse"], "WITHHELD")


def test_it_is_judged_the_same_again(broken: Done) -> None:
    run, before = broken.run()
    rows = rejudge_sweep(run["sweep"], broken.settings, "cpu")
    assert [(row["kind"], row["verdict"], row["before"]) for row in rows] == [
        ("collapse", run["collapse"], run["collapse"]),
        ("stability", "WITHHELD", "WITHHELD"),
    ]
    after, verdicts = broken.run()
    assert after == run
    assert verdicts == before
    # What the curves of the run showed beside its history is found again, in their file.
    (stability,) = [each for each in verdicts if each["kind"] == "stability"]
    assert any("× its median" in each["what"] for each in stability["evidence"]["evidence"])
    with Registry.open(broken.settings.registry_url, home=broken.home, create=False) as registry:
        (curves,) = [file for file in artifacts_by_run(registry, run["sweep"])[run["run"]] if file["name"] == "curves"]
    Path(curves["path"]).rename(broken.home / "aside")
    try:
        rejudge_sweep(run["sweep"], broken.settings, "cpu")
        (stability,) = [each for each in broken.run()[1] if each["kind"] == "stability"]
        assert not any("× its median" in each["what"] for each in stability["evidence"]["evidence"])
    finally:
        (broken.home / "aside").rename(curves["path"])
        rejudge_sweep(run["sweep"], broken.settings, "cpu")


def test_mlflow_is_told_what_is_said_again(broken: Done) -> None:
    run, _ = broken.run()
    client = MlflowClient(tracking_uri=broken.settings.tracking_uri)
    client.set_tag(run["mlflow_run_id"], "collapse", "NONE")
    rejudge_sweep(run["sweep"], broken.settings, "cpu")
    assert client.get_run(run["mlflow_run_id"]).data.tags["collapse"] == run["collapse"]


def test_a_run_without_its_weights_is_judged_by_its_history(broken: Done) -> None:
    run, before = broken.run()
    with Registry.open(broken.settings.registry_url, home=broken.home, create=False) as registry:
        (last,) = [each for each in show_run(registry, run["run"])["checkpoints"] if each["kind"] == "last"]
    path = Path(last["path"])
    path.rename(broken.home / "aside")
    try:
        result = CliRunner().invoke(cli.app, ["rejudge", "broken", "--home", str(broken.home), "--json"])
        rows = {row["kind"]: row for row in json.loads(result.stdout)}
        assert rows["collapse"]["verdict"] is None and rows["collapse"]["before"] == run["collapse"]
        assert rows["stability"]["verdict"] == "WITHHELD"
        assert isinstance(result.exception, Failure) and "1 runs cannot be judged again" in str(result.exception)
        assert broken.run()[1] == before  # what was said stays
    finally:
        (broken.home / "aside").rename(path)


def test_a_diverged_run_keeps_its_step_and_its_reason(tmp_path: Path) -> None:
    wild = BROKEN | {
        "name": "wild",
        "system": {"name": "point_gan", "lr": 1e30, "latent_size": 2, "hidden": 32},
        "training": BROKEN["training"] | {"steps": 60, "evaluate_every": 20, "log_every": 5},
    }
    done = Done(tmp_path, sweep(wild, home=tmp_path).to_dict("records"))
    run, before = done.run()
    assert run["state"] == "DIVERGED"
    (stability,) = [each for each in before if each["kind"] == "stability"]
    assert stability["verdict"] == "DIVERGED"
    rows = rejudge_sweep(run["sweep"], done.settings, "cpu")
    assert [(row["kind"], row["verdict"], row["before"]) for row in rows] == [("stability", "DIVERGED", "DIVERGED")]
    assert done.run()[1] == before


def test_other_data_are_not_judged_by(broken: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = broken.run()
    monkeypatch.setattr(Ring, "digest", "f" * 64)
    with pytest.raises(UsageError, match=r"are of other data: data:ring:\w{8}, and here is data:ring:ffffffff"):
        rejudge_sweep(run["sweep"], broken.settings, "cpu")
    assert broken.run()[1] == before


def test_another_number_of_samples_is_not_judged_by(tmp_path: Path) -> None:
    protocol = tmp_path / "mine.yaml"
    protocol.write_text("metrics: [modes]\nsamples: 400\n")
    brief = BROKEN["training"] | {"steps": 40, "evaluate_every": 20, "log_every": 20}
    mine = BROKEN | {"name": "mine", "evaluation": str(protocol), "training": brief}
    done = Done(tmp_path / "home", sweep(mine, home=tmp_path / "home").to_dict("records"))
    run, before = done.run()
    protocol.write_text("metrics: [modes]\nsamples: 100\n")
    with pytest.raises(UsageError, match=r"are of another number of samples \(mine\): n:400, and here is n:100 now"):
        rejudge_sweep(run["sweep"], done.settings, "cpu")
    assert done.run()[1] == before


def test_it_is_judged_with_the_threads_that_it_was_trained_with(broken: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = broken.run()
    settled: list[int | None] = []
    monkeypatch.setattr(environment, "settle", settled.append)
    rejudge_sweep(run["sweep"], broken.settings, "cpu")
    assert settled == [1] and broken.run()[1] == before


def test_what_stability_is_measured_against_is_signed(broken: Done) -> None:
    run, verdicts = broken.run()
    (stability,) = [each for each in verdicts if each["kind"] == "stability"]
    (score,) = [each for each in run["scores"] if each["name"] == "rkl"]
    measured, _, said = stability["signature"].rpartition("|stability|")
    assert measured.split("|")[0] == score["signature"].split("|")[0] and "|n:500" in measured
    assert said == "better:lower|v:3"  # a Gaussian lies in all of so wide modes alike


def test_a_pruned_run_is_judged_again_by_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.Suggestion, "should_stop", lambda self, system, step, value, **told: step == 40)
    brief = BROKEN["training"] | {"steps": 60, "evaluate_every": 20, "log_every": 20}
    cut = BROKEN | {"name": "cut", "training": brief, "search": ONCE | {"pruner": "alarm"}}
    done = Done(tmp_path, sweep(cut, home=tmp_path).to_dict("records"))
    run, before = done.run()
    assert run["state"] == "PRUNED" and [each["step"] for each in before] == [20, 40, 40]
    rows = rejudge_sweep(run["sweep"], done.settings, "cpu")
    assert [(row["kind"], row["verdict"], row["before"]) for row in rows] == [("stability", "WITHHELD", "WITHHELD")]
    assert done.run()[1] == before
    with Registry.open(done.settings.registry_url, home=tmp_path, create=False) as registry:
        assert show_run(registry, run["run"])["reason"] == "much worse than it has been"
    told = seeds_of(run["sweep"], tmp_path)[0]
    assert (told["runs"], told["pruned"]) == (0, 1)


def test_of_a_confirmed_configuration_the_fresh_seeds_are_counted(tmp_path: Path) -> None:
    brief = BROKEN["training"] | {"steps": 20, "evaluate_every": 20, "log_every": 20}
    twice = BROKEN | {"name": "twice", "training": brief, "confirm": {"top": 1, "seeds": 2}}
    done = Done(tmp_path, sweep(twice, home=tmp_path).to_dict("records"))
    (row,) = seeds_of("twice", tmp_path)
    assert (row["runs"], row["confirmed"]) == (2, True)
    (compared,) = done.compared
    assert sum(int(each.split()[0]) for each in compared["collapse"].split(", ")) == 2
    assert row["collapse"]["decided"] + row["collapse"]["undecided"] == 2
    shown = CliRunner().invoke(cli.app, ["judge", "seeds", "twice", "--home", str(tmp_path)]).stdout
    assert " 2* " in shown and "fresh seeds alone" in shown


def test_while_no_fresh_seed_has_ended_the_others_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = BROKEN["training"] | {"steps": 20, "evaluate_every": 20, "log_every": 20}
    half = BROKEN | {"name": "half", "training": brief, "confirm": {"top": 1, "seeds": 1}}
    concluded = _Run.conclude

    def conclude(run: _Run) -> None:
        if run._job.role == "confirm":
            raise KeyboardInterrupt
        concluded(run)

    monkeypatch.setattr(_Run, "conclude", conclude)
    with pytest.raises(KeyboardInterrupt):
        sweep(half, home=tmp_path)
    (row,) = seeds_of("half", tmp_path)
    assert (row["runs"], row["confirmed"]) == (1, False)


def test_the_weights_themselves_are_judged_where_an_average_is_sampled_from(tmp_path: Path) -> None:
    """One that follows them at once is told the same of; one that is slow is not: the weights run from mode to mode."""
    slow = BROKEN | {"name": "slow", "training": BROKEN["training"] | {"ema": 0.999, "steps": 300}}
    fast = BROKEN | {"name": "fast", "training": BROKEN["training"] | {"ema": 1e-9, "steps": 300}}
    found = {}
    for plan in (slow, fast):
        home = tmp_path / plan["name"]
        done = Done(home, sweep(plan, home=home).to_dict("records"))
        run, before = done.run()
        found[plan["name"]] = {each["kind"]: each for each in before}
        tags = MlflowClient(tracking_uri=done.settings.tracking_uri).get_run(run["mlflow_run_id"]).data.tags
        assert tags["collapse_raw"] == found[plan["name"]]["collapse_raw"]["verdict"]
        rejudge_sweep(run["sweep"], done.settings, "cpu")
        assert done.run()[1] == before  # what cannot be made again is kept
        shown = CliRunner().invoke(cli.app, ["show", run["run"], "--home", str(home)]).stdout
        assert "collapse of the last weights, without their moving average" in shown
    same, other = found["fast"], found["slow"]
    assert same["collapse_raw"]["evidence"] == same["collapse"]["evidence"]
    assert other["collapse_raw"]["evidence"] != other["collapse"]["evidence"]
    assert other["collapse_raw"]["signature"] == other["collapse"]["signature"]


def test_of_many_pictures_some_are_judged_and_their_labels_are_theirs(
    tmp_path: Path, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more samples than a metric keeps, vectors are of a choice, of generated and of real ones."""
    monkeypatch.setattr(FD, "keeps", 250)
    brief = SOUND["training"] | {"steps": 20, "log_every": 20, "evaluate_every": 20}
    protocol = tmp_path / "many.yaml"
    protocol.write_text("metrics: [{fd: {features: classifier}}]\nsamples: 300\n")
    many = SOUND | {"name": "many", "training": brief, "evaluation": str(protocol)}
    juries: list[CollapseJudge] = []
    collapse = CollapseJudge.collapse

    def seen(jury: CollapseJudge, evidence: Evidence) -> CollapseVerdict | None:
        juries.append(jury)
        return collapse(jury, evidence)

    monkeypatch.setattr(CollapseJudge, "collapse", seen)
    done = Done(tmp_path / "home", sweep(many, home=tmp_path / "home").to_dict("records"))
    _, verdicts = done.run()
    assert [each["evidence"]["n"] for each in verdicts if each["kind"] == "collapse"] == [250]
    judge, splits = juries[0]._judge, [judged.dataset.load(split) for split in ("reference", "holdout")]
    assert len(judge.pool) == 500
    # The classifier knows digits: nearly all of the pool's vectors are told to be of their own label.
    assert (judge._predictions[0] == judge.bins.of).double().mean() > 0.9
    shown = juries[0].examples("7", 8).values
    sevens = torch.cat([each.values[each.labels == 7] for each in splits])
    assert all(any(torch.equal(each, seven) for seven in sevens) for each in shown)


def test_a_picture_that_cannot_be_written_stops_no_judging(
    broken: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = broken.run()
    monkeypatch.setattr("aigc_lab.commands.rejudge._drawn", raising(OSError(28, "No space left on device")))
    rejudge_sweep(run["sweep"], broken.settings, "cpu")
    assert broken.run()[1] == before
    assert "the picture of what is missing cannot be written (No space left on device)" in capsys.readouterr().err


def test_what_is_missing_is_drawn_by_a_resumed_run_and_drawn_again(
    tmp_path: Path, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what the stored verdict says: a run that was interrupted after its last evaluation judges no more."""
    plain = {"real": 0.1, "generated": 0.1, "threshold": 0.025, "low": 0.05, "high": 0.15, "diversity": None}
    bins = [plain | {"name": str(digit), "state": "missing" if digit > 6 else "present"} for digit in range(10)]
    numbers: dict[str, Any] = {"diversity": None, "coverage": None, "precision": 1.0, "duplicates": 0.0}
    said = CollapseVerdict(Collapse.SEVERE, "so it is", 400, 0.3, 0.3, 0.3, bins=bins, signature="clf", **numbers)

    def examined(self: Evaluator, *arguments: Any, judged: bool = False) -> tuple[Any, Any]:
        scores, _ = examine(self, *arguments)
        return scores, said if judged else None

    examine = Evaluator.examine
    monkeypatch.setattr(Evaluator, "examine", examined)
    monkeypatch.setattr(Showcase, "draw_temperatures", raising(KeyboardInterrupt))
    brief = SOUND["training"] | {"steps": 20, "log_every": 20, "evaluate_every": 20}
    lacking = SOUND | {"name": "lacking", "training": brief}
    with pytest.raises(KeyboardInterrupt):
        sweep(lacking, home=tmp_path)
    monkeypatch.setattr(Showcase, "draw_temperatures", lambda self, step: None)
    done = Done(tmp_path, sweep(lacking, home=tmp_path).to_dict("records"))

    def drawn() -> Any:
        with Registry.open(done.settings.registry_url, home=tmp_path, create=False) as registry:
            files = artifacts_by_run(registry, run["sweep"])[run["run"]]
        return next((np.asarray(Image.open(file["path"])) for file in files if file["name"] == "missing"), None)

    run, verdicts = done.run()
    assert [each["verdict"] for each in verdicts if each["kind"] == "collapse"] == [said.verdict]
    # A row of eight for each digit, every one of them a real picture of it.
    picture = drawn()
    pool = [judged.dataset.load(split) for split in ("reference", "holdout")]
    pixels = torch.cat([each.values for each in pool])[:, 0].numpy()
    labels = torch.cat([each.labels for each in pool if each.labels is not None]).numpy()
    rows, width = 3, 8
    high, wide = picture.shape[0] // rows, picture.shape[1] // width
    for row, digit in enumerate((7, 8, 9)):
        for column in range(width):
            tile = picture[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            assert labels[nearest_picture(tile, pixels)] == digit
    rejudge_sweep(run["sweep"], done.settings, "cpu")
    assert np.array_equal(drawn(), picture)
    # Where nothing is missing any more there is no picture of it.
    said = replace(said, bins=[row | {"state": "present"} for row in said.bins])
    rejudge_sweep(run["sweep"], done.settings, "cpu")
    assert drawn() is None


def raising(kind: type[BaseException] | BaseException) -> Any:
    def fail(*arguments: Any) -> None:
        raise kind

    return fail


def nearest_picture(tile: Any, pixels: Any) -> int:
    """Which of the pictures a tile of a grid shows: enlarged by a whole number, with a margin."""
    side = pixels.shape[1]
    factor = tile.shape[0] // side
    seen = [tile[y::factor, x::factor, 0][:side, :side] for y in range(2 * factor) for x in range(2 * factor)]
    away = [np.abs(pixels.astype(int) - each.astype(int)).sum((1, 2)) for each in seen if each.shape == (side, side)]
    best = min(away, key=lambda each: each.min())
    assert best.min() == 0
    return int(best.argmin())


def test_the_seeds_of_a_configuration_are_judged_together(broken: Done) -> None:
    run, _ = broken.run()
    result = CliRunner().invoke(cli.app, ["judge", "seeds", "broken", "--home", str(broken.home), "--json"])
    (row,) = json.loads(result.stdout)
    assert (row["sweep"], row["trial"], row["system"], row["runs"], row["pruned"]) == (
        *(run[key] for key in ("sweep", "trial", "system")),
        1,
        0,
    )
    assert (row["collapse"]["wrong"], row["collapse"]["decided"]) == (1, 1)
    assert (row["collapse"]["low"], row["collapse"]["high"]) == pytest.approx(wilson(1, 1))
    assert (row["unstable"]["decided"], row["unstable"]["undecided"]) == (0, 1)  # two evaluations say nothing
    assert row["last"] is None and row["median_failure"] is None and row["steps"] in (300, 600)
    shown = CliRunner().invoke(cli.app, ["judge", "seeds", "broken", "--home", str(broken.home)]).stdout
    assert "1/1 [21%, 100%]" in shown and "A claim needs 10 seeds" in shown
    unknown = CliRunner().invoke(cli.app, ["judge", "seeds", "brokem", "--home", str(broken.home)])
    assert isinstance(unknown.exception, UsageError) and "broken" in str(unknown.exception)


def test_what_a_verdict_rests_on_is_kept_listed_and_cleared(broken: Done) -> None:
    def command(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli.app, ["cache", *arguments, "--home", str(broken.home)])
        assert bool(result.exit_code) == bool(code)
        return result.stdout

    run, before = broken.run()
    rows = json.loads(command("list", "--json"))
    assert {row["kind"] for row in rows} >= {"nulls", "baselines"}
    assert "files are whole" in command("verify")
    lists = next(Path(row["file"]) for row in rows if row["file"].endswith(".safetensors") and row["kind"] == "nulls")
    whole = lists.read_bytes()
    lists.write_bytes(whole[:-8] + b"\0\0\0\1\0\0\0\1")
    assert "are not those that were written" in command("verify", code=1)
    # A null that nobody computed would judge for ever.
    nulls = lists.with_suffix(".json")
    kept = json.loads(nulls.read_text())
    other = kept | {"nulls": {**kept["nulls"], "manifold 500 200": [0.1, 0.1, 0.1, 0.0]}}
    rejudge_sweep(run["sweep"], broken.settings, "cpu")  # what is damaged is computed again
    assert broken.run()[1] == before and lists.read_bytes() == whole
    (baseline,) = [Path(row["file"]) for row in rows if row["kind"] == "baselines"]
    told: Any
    for file, changed in ((nulls, other), (baseline, json.loads(baseline.read_text()) | {"value": "12"})):
        for told in ({"nulls": {}}, {"value": 1.0}, changed, [1], None):
            file.write_text(json.dumps(told))
            assert file.name in command("verify", code=1)
        rejudge_sweep(run["sweep"], broken.settings, "cpu")
        assert broken.run()[1] == before and "files are whole" in command("verify")
    away = ["--home", str(broken.home / "nowhere")]  # a typo must not clear the cache of commands without a home
    for what in ("list", "verify", "clear"):
        refused = CliRunner().invoke(cli.app, ["cache", what, *away])
        assert isinstance(refused.exception, UsageError) and "there is no such home" in str(refused.exception)
    assert "files removed" in command("clear") and json.loads(command("list", "--json")) == []
    rejudge_sweep(run["sweep"], broken.settings, "cpu")
    assert broken.run()[1] == before and lists.read_bytes() == whole


def test_a_report_shows_verdicts_though_bins_have_changed(broken: Done) -> None:
    """Rejudged under other rules the last verdict has other bins than those before it."""
    run, before = broken.run()

    def page() -> tuple[str, dict[str, Any]]:
        with Registry.open(broken.settings.registry_url, home=broken.home, create=False) as registry:
            html = render_report(registry, run["sweep"], detailed=1).html
        told = re.search(r"<script[^>]*>\s*(\{.*?\})\s*</script>", html, re.DOTALL)
        assert told is not None
        (figures,) = json.loads(told[1])["runs"]
        return html, figures

    html, figures = page()
    last = [each for each in before if each["kind"] == "collapse"][-1]
    rows = last["evidence"]["bins"]
    assert figures["bins"]["steps"] == [300, 600] and figures["bins"]["names"] == [row["name"] for row in rows]
    shares = [ratios[-1] for ratios in figures["bins"]["ratios"]]
    assert shares == pytest.approx([row["generated"] / row["real"] for row in rows])
    assert f"collapse: {last['verdict']}, " in html and "stability: WITHHELD, " in html
    (stability,) = [each for each in before if each["kind"] == "stability"]
    assert figures["alarm"] == stability["evidence"]["alarm_step"]
    with Registry.open(broken.settings.registry_url, home=broken.home, create=False) as registry:
        others = [StoredVerdict(**each) for each in before]
        for each in others:
            if each.kind == "collapse" and each.step == 300:
                each.evidence["bins"] = [*each.evidence["bins"], each.evidence["bins"][0] | {"name": "more"}]
            if each.kind == "collapse" and each.step == 600:
                each.evidence["bins"] = [each.evidence["bins"][0] | {"real": 0.0}, *each.evidence["bins"][1:]]
        registry.rejudge(run["run"], others)
    try:
        _, figures = page()
        assert figures["bins"]["steps"] == [600] and figures["bins"]["names"] == [row["name"] for row in rows[1:]]
    finally:
        rejudge_sweep(run["sweep"], broken.settings, "cpu")
        with Registry.open(broken.settings.registry_url, home=broken.home, create=False) as registry:
            registry.rejudge(run["run"], [StoredVerdict(**each) for each in before])


def test_show_tells_how_it_came_to_that(broken: Done) -> None:
    run, before = broken.run()
    row = {"evidence": {"bins": []}, "reason": "so it is", "signature": "s", "kind": "collapse"}
    bins = [each for each in before if each["kind"] == "collapse"][-1]["evidence"]["bins"]
    gone = [each | {"state": "missing"} for each in bins[:2]]
    stages = [("NONE", []), ("NONE", []), ("PARTIAL", gone[:1]), ("PARTIAL", gone), ("NONE", [])]
    rows = [
        row | {"step": 100 * at, "verdict": verdict, "evidence": {"bins": gone_}}
        for at, (verdict, gone_) in enumerate(stages)
    ]
    told = [str(text) for text in run_page._verdict_parts(rows, None)["collapse"]]
    assert told[0] == "NONE: so it is" and told[2] == "s"
    assert told[1] == "step 0: NONE; step 200: PARTIAL (0 missing); step 300: PARTIAL (0, 1 missing); step 400: NONE"
    shown = CliRunner().invoke(cli.app, ["show", run["run"], "--home", str(broken.home)]).stdout
    assert f"{run['collapse']}: " in shown and "share of the samples that look real" in " ".join(shown.split())


def test_a_vae_of_digits_has_not_collapsed(tmp_path: Path) -> None:
    done = Done(tmp_path, sweep(SOUND, home=tmp_path).to_dict("records"))
    run, verdicts = done.run()
    (collapse,) = [each for each in verdicts if each["kind"] == "collapse"]
    assert run["collapse"] == collapse["verdict"] not in FOUND, collapse["reason"]
    assert "by:classes" in collapse["signature"]
