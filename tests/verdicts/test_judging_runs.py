"""Verdicts on the way: those that a run is given and keeps, those given again, and `aigc-lab judge collapse`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Judged, WriterHere
from mlflow.tracking import MlflowClient
from PIL import Image
from typer.testing import CliRunner

from aigc_lab import cli, noise
from aigc_lab.api import sweep
from aigc_lab.data.pydoc import PyDoc
from aigc_lab.data.ring import Ring
from aigc_lab.errors import Failure, UsageError
from aigc_lab.given import given as given_
from aigc_lab.registry import queries
from aigc_lab.registry.store import Registry
from aigc_lab.rejudging import rejudge
from aigc_lab.settings import Settings
from aigc_lab.tracking import writer
from aigc_lab.verdicts.seeds import wilson

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
            (found,) = queries.sweeps(registry)
            (run,) = queries.runs(registry, found["sweep"])
            return run, queries.verdicts(registry, found["sweep"])[run["run"]]


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
    assert row["verdicts"] == {"collapse": {run["collapse"]: 1}, "stability": {"WITHHELD": 1}}
    tags = MlflowClient(tracking_uri=broken.settings.tracking_uri).get_run(run["mlflow_run_id"]).data.tags
    assert (tags["collapse"], tags["stability"]) == (run["collapse"], "WITHHELD")


def test_it_is_judged_the_same_again(broken: Done) -> None:
    run, before = broken.run()
    rows = rejudge(run["sweep"], broken.settings, "cpu")
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
        (curves,) = [file for file in queries.files(registry, run["sweep"])[run["run"]] if file["name"] == "curves"]
    Path(curves["path"]).rename(broken.home / "aside")
    try:
        rejudge(run["sweep"], broken.settings, "cpu")
        (stability,) = [each for each in broken.run()[1] if each["kind"] == "stability"]
        assert not any("× its median" in each["what"] for each in stability["evidence"]["evidence"])
    finally:
        (broken.home / "aside").rename(curves["path"])
        rejudge(run["sweep"], broken.settings, "cpu")


def test_mlflow_is_told_what_is_said_again(broken: Done) -> None:
    run, _ = broken.run()
    client = MlflowClient(tracking_uri=broken.settings.tracking_uri)
    client.set_tag(run["mlflow_run_id"], "collapse", "NONE")
    rejudge(run["sweep"], broken.settings, "cpu")
    assert client.get_run(run["mlflow_run_id"]).data.tags["collapse"] == run["collapse"]


def test_a_run_without_its_weights_is_judged_by_its_history(broken: Done) -> None:
    run, before = broken.run()
    with Registry.open(broken.settings.registry_url, home=broken.home, create=False) as registry:
        (last,) = [each for each in queries.show(registry, run["run"])["checkpoints"] if each["kind"] == "last"]
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
    rows = rejudge(run["sweep"], done.settings, "cpu")
    assert [(row["kind"], row["verdict"], row["before"]) for row in rows] == [("stability", "DIVERGED", "DIVERGED")]
    assert done.run()[1] == before


def test_other_data_are_not_judged_by(broken: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    run, before = broken.run()
    monkeypatch.setattr(Ring, "digest", "f" * 64)
    with pytest.raises(UsageError, match=r"are of other data: data:ring:\w{8}, and here is data:ring:ffffffff"):
        rejudge(run["sweep"], broken.settings, "cpu")
    assert broken.run()[1] == before


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
    rejudge(run["sweep"], broken.settings, "cpu")  # what is damaged is computed again
    assert broken.run()[1] == before and lists.read_bytes() == whole
    (baseline,) = [Path(row["file"]) for row in rows if row["kind"] == "baselines"]
    told: Any
    for file, changed in ((nulls, other), (baseline, json.loads(baseline.read_text()) | {"value": "12"})):
        for told in ({"nulls": {}}, {"value": 1.0}, changed, [1], None):
            file.write_text(json.dumps(told))
            assert file.name in command("verify", code=1)
        rejudge(run["sweep"], broken.settings, "cpu")
        assert broken.run()[1] == before and "files are whole" in command("verify")
    away = ["--home", str(broken.home / "nowhere")]  # a typo must not clear the cache of commands without a home
    for what in ("list", "verify", "clear"):
        refused = CliRunner().invoke(cli.app, ["cache", what, *away])
        assert isinstance(refused.exception, UsageError) and "there is no such home" in str(refused.exception)
    assert "files removed" in command("clear") and json.loads(command("list", "--json")) == []
    rejudge(run["sweep"], broken.settings, "cpu")
    assert broken.run()[1] == before and lists.read_bytes() == whole


def test_a_vae_of_digits_has_not_collapsed(tmp_path: Path) -> None:
    done = Done(tmp_path, sweep(SOUND, home=tmp_path).to_dict("records"))
    run, verdicts = done.run()
    (collapse,) = [each for each in verdicts if each["kind"] == "collapse"]
    assert run["collapse"] == collapse["verdict"] not in FOUND, collapse["reason"]
    assert "by:classes" in collapse["signature"]


# ---- the command


class Command:
    """`aigc-lab judge collapse` in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, caught: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._caught = folder, patch, caught

    def __call__(self, *words: str, code: int = 0) -> tuple[str, str]:
        home = ["--home", str(self.folder / "home")]
        self._patch.setattr(sys, "argv", ["aigc-lab", "judge", "collapse", *words, *home])
        self._caught.readouterr()
        ended: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            ended = end.code
        said = self._caught.readouterr()
        assert (ended or 0) == code, said.out + said.err
        return said.out, said.err

    def refused(self, *words: str) -> str:
        """What is said, in one line, of what cannot be judged."""
        out, told = self(*words, code=2)
        lines = [line for line in told.splitlines() if not line.startswith("features: ")]
        assert out == "" and len(lines) == 1, out + told
        return lines[0]

    def file(self, name: str, array: Any) -> str:
        path = self.folder / name
        if name.endswith(".npz"):
            np.savez(path, array)
        elif name.endswith(".npy"):
            np.save(path, array)
        else:
            path.write_text(array, "utf-8")
        return str(path)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AIGC_LAB_WEIGHTS_DIR", str(tmp_path / "none"))
    return Command(tmp_path, monkeypatch, capsys)


def points() -> tuple[Any, Any, Any]:
    """Points of three modes of four, real ones of all four, and the modes of these."""
    data = Ring(Ring.Config(modes=4, sigma=0.1, points=2000), Path())
    made, real = data.load("train"), data.load("reference").take(slice(0, 1000))
    assert made.labels is not None and real.labels is not None
    return made.values[made.labels != 2][:400].numpy(), real.values.numpy(), real.labels.numpy()


def test_arrays_with_labels(command: Command) -> None:
    made, real, labels = points()
    given = ["--generated", command.file("made.npy", made), "--reference", command.file("real.npz", real)]
    names = "\n".join(("north", "east", "south", "west")[label] for label in labels)
    found = []
    for file in (
        command.file("labels.npy", labels),
        command.file("labels.txt", "\n".join(map(str, labels))),
        command.file("names.txt", names),
    ):
        out, _ = command(*given, "--labels", file, "--json")
        found.append(json.loads(out))
    assert {
        *["verdict", "reason", "n", "missing_low", "missing_seen", "missing_high", "diversity", "coverage"],
        *["precision", "duplicates", "bins", "signature", "phrases", "null"],
    } == {*found[0]}
    assert found[0] == found[1] and found[0]["verdict"] in {"PARTIAL", "SEVERE"} and found[0]["n"] == 400
    for verdict in found:
        (gone,) = [row for row in verdict["bins"] if row["state"] == "missing"]
        assert gone["generated"] == 0 and verdict["missing_low"] == gone["real"]
    assert [row["name"] for row in found[0]["bins"]] == ["0", "1", "2", "3"]
    assert [row["name"] for row in found[2]["bins"]] == ["east", "north", "south", "west"]
    assert "class south" in found[2]["reason"]
    # What is missing is shown by real samples of it, those nearest to its mean.
    shown = {row["name"]: row["examples"] for row in found[2]["bins"]}
    assert not any(shown[name] for name in ("east", "north", "west")) and len(shown["south"]) == 5
    places = [int(each.removeprefix("sample ")) for each in shown["south"]]
    away = np.linalg.norm(real - real[labels == 2].mean(0), axis=1)
    assert all(labels[places] == 2) and away[places].max() < np.median(away[labels == 2])
    out, _ = command(*given, "--labels", str(command.folder / "labels.npy"))
    assert out.startswith(f"{found[0]['verdict']}: at least") and "  2: missing, 0.0% [0.0%, " in out
    assert "    real ones: sample " in out
    # Without labels the bins are clusters.
    out, _ = command(*given, "--json")
    assert json.loads(out)["verdict"] in FOUND and json.loads(out)["signature"].count("by:clusters") == 1


def test_folders_of_pictures(command: Command, judged: Judged) -> None:
    sets = {"made": judged.dataset.load("train"), "real": judged.dataset.load("reference")}
    for name, samples in sets.items():
        (command.folder / name).mkdir()
        for number, pixels in enumerate((255 * samples.unit()).round().byte()[: 60 if name == "made" else 150, 0]):
            Image.fromarray(pixels.numpy()).save(command.folder / name / f"{number:04}.png")
    given = ["--generated", str(command.folder / "made"), "--reference", str(command.folder / "real")]
    out, told = command(*given, "--json")
    assert json.loads(out)["verdict"] not in FOUND and json.loads(out)["n"] == 60
    assert "features: a random network's" in told
    one = command.folder / "one"
    one.mkdir()
    for number in range(40):
        (one / f"{number}.png").write_bytes((command.folder / "made" / "0000.png").read_bytes())
    out, _ = command("--generated", str(one), *given[2:], "--json")
    assert json.loads(out)["verdict"] == "TOTAL"


def test_a_classifier_learns_the_labels_that_are_given(command: Command, judged: Judged) -> None:
    sets = {"made": judged.dataset.load("train"), "real": judged.dataset.load("reference")}
    for name, samples in sets.items():
        (command.folder / name).mkdir()
        for number, pixels in enumerate((255 * samples.unit()).round().byte()[:200, 0]):
            Image.fromarray(pixels.numpy()).save(command.folder / name / f"{number:04}.png")
    digits = sets["real"].labels
    assert digits is not None
    labels = command.file("labels.txt", "\n".join(map(str, digits[:200].tolist())))
    given = ["--generated", str(command.folder / "made"), "--reference", str(command.folder / "real")]
    out, _ = command(*given, "--labels", labels, "--features", "classifier", "--json")
    assert "clf:given" in json.loads(out)["signature"] and json.loads(out)["verdict"] not in FOUND


def test_folders_of_classes_are_called_by_their_names(command: Command, judged: Judged) -> None:
    sets = {"made": judged.dataset.load("train"), "real": judged.dataset.load("reference")}
    called = ("zero", "one", "two")
    for name, samples in sets.items():
        assert samples.labels is not None
        for digit in (0, 1, 2) if name == "real" else (0, 2):
            folder = command.folder / name / called[digit]
            folder.mkdir(parents=True)
            mine = (255 * samples.unit()[samples.labels == digit]).round().byte()[:, 0]
            for number, pixels in enumerate(mine[:120]):
                Image.fromarray(pixels.numpy()).save(folder / f"{number:04}.png")
    given = ["--generated", str(command.folder / "made"), "--reference", str(command.folder / "real")]
    out, _ = command(*given, "--json")
    found = json.loads(out)
    assert [row["name"] for row in found["bins"]] == ["one", "two", "zero"]
    (gone,) = [row for row in found["bins"] if row["generated"] < 0.05]
    assert gone["name"] == "one"
    if gone["state"] == "missing":
        assert all(each.startswith("one/") for each in gone["examples"])
    read = given_(command.folder / "real", data_dir=command.folder)
    read.load(1, None)
    assert read.classes == ["one", "two", "zero"] and read.called(0) == "one/0000.png"


def test_labels_come_before_modes_and_one_class_tells_nothing(command: Command) -> None:
    points_ = Ring(Ring.Config(), Path()).load("holdout").values.numpy()[:400]
    given = ["--generated", command.file("made.npy", points_), "--reference", "ring:holdout"]
    out, _ = command(*given, "--json")
    assert "by:modes" in json.loads(out)["signature"]
    count = len(Ring(Ring.Config(), Path()).load("holdout"))
    halves = command.file("halves.txt", "\n".join(("left", "right")[place % 2] for place in range(count)))
    out, _ = command(*given, "--labels", halves, "--json")
    found = json.loads(out)
    assert "by:classes" in found["signature"] and "cannot be told from the others" in found["reason"]
    made, real, _ = points()
    given = ["--generated", command.file("made.npy", made), "--reference", command.file("real.npy", real)]
    one = command.file("one.txt", "\n".join(["same"] * len(real)))
    out, _ = command(*given, "--labels", one)
    assert "there is one class only, so that these are clusters" in out
    blank = command.file("blank.txt", "\n".join(["a", ""] * (len(real) // 2)))
    assert "lines are blank; write a class on each" in command.refused(*given, "--labels", blank)


def test_sentences_of_runs_and_datasets(command: Command) -> None:
    data = PyDoc(PyDoc.Config(), Path())
    made = command.file("made.txt", "\n".join(data.load("train").sentences()[:300]))
    out, _ = command("--generated", made, "--reference", "pydoc:reference", "--json")
    assert json.loads(out)["verdict"] not in FOUND
    real = command.file("real.txt", "\n".join(data.load("reference").sentences()))
    again, _ = command("--generated", made, "--reference", real, "--json")
    assert json.loads(again)["verdict"] == json.loads(out)["verdict"]
    assert "--size: is for pictures, and these are sentences" in command.refused(
        "--generated", made, "--reference", real, "--size", "32"
    )
    few = command.file("few.txt", "\n".join(["dog", "cat"] * 60))
    told = command.refused("--generated", made, "--reference", few)
    assert "2 different real sentences say nothing of others: give at least 40" in told


def test_files_of_sentences(command: Command) -> None:
    data = PyDoc(PyDoc.Config(max_length=15), Path())
    real, made = (data.load(split).sentences() for split in ("reference", "train"))
    reference = command.file("real.txt", "\n".join(real))
    out, _ = command("--generated", command.file("made.txt", "\n".join(made[:300])), "--reference", reference, "--json")
    assert json.loads(out)["verdict"] not in FOUND and json.loads(out)["signature"].startswith("sentences|")
    out, _ = command("--generated", command.file("one.txt", "\n".join(made[:1] * 100)), "--reference", reference)
    assert out.startswith("TOTAL: one thing over and over")
    short = command.file("short.txt", "0\n1\n")
    told = command.refused("--generated", reference, "--reference", reference, "--labels", short)
    assert f"--labels: 2 are given for {len(real):,} reference sentences" in told


def test_what_cannot_be_judged_is_refused_in_a_line(command: Command) -> None:
    made, real, labels = points()
    good, reference = command.file("made.npy", made), command.file("real.npy", real)
    pictures = (255 * torch.rand((60, 1, 16, 16), generator=noise.generator("pictures"))).byte().numpy()
    bad = made.copy()
    bad[5, 1] = np.nan
    text = command.file("text.txt", "a b c\n" * 30)
    for words, told in (
        (
            ["--generated", good, "--reference", reference, "--labels", command.file("few.npy", labels[:7])],
            "labels: 7 are given for 1,000 reference samples",
        ),
        (
            ["--generated", good, "--reference", reference, "--labels", command.file("float.npy", labels / 2)],
            "not one whole number a sample",
        ),
        (["--generated", good, "--reference", reference, "--labels", str(command.folder / "no.npy")], "no.npy"),
        (["--generated", good, "--reference", reference, "--labels", str(command.folder / "no.txt")], "no.txt"),
        (["--generated", command.file("nan.npy", bad), "--reference", reference], "NaN"),
        (["--generated", command.file("pictures.npy", pictures), "--reference", reference], "made of|points|images"),
        (["--generated", text, "--reference", reference], "real.npy"),
        (["--generated", command.file("tiny.npy", made[:10]), "--reference", reference], "10 samples say nothing"),
        (["--generated", good, "--reference", command.file("pool.npy", real[:30])], "a pool of 30 real samples"),
        (["--generated", str(command.folder / "nothing"), "--reference", reference], "nothing"),
        (["--generated", good, "--reference", command.file("wide.npy", np.hstack([real, real]))], "2|4"),
    ):
        said = command.refused(*words)
        assert any(each in said for each in told.split("|")), said
