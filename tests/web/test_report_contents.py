"""What a report shows: real samples of the dataset, every seed, the registry's numbers, and what its words mean."""

import base64
import csv
import html
import io
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from test_report import HOSTILE, Page, files, plotly, read  # noqa: F401 -- a fixture
from test_report import registry as hostile  # noqa: F401
from typer.testing import CliRunner

from aigc_lab.cli import app
from aigc_lab.data.digits import Digits
from aigc_lab.data.oracle import OracleText
from aigc_lab.display.meaning import Commands, stored_meaning
from aigc_lab.errors import UsageError
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.records import StoredScore, StoredVerdict
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.tracking.description import RunDescription
from aigc_lab.web import tables
from aigc_lab.web.report import Report, render_report

DIGITS = {"data": {"name": "digits"}, "system": {"name": "dcgan", "width": 8}, "evaluation": "image-small"}
TEXT = {
    "data": {"name": "oracle", "words": 20, "length": 5, "train": 100, "scored": 100},
    "system": {"name": "lstm_lm"},
    "evaluation": "text-oracle",
}
RING = {"data": {"name": "ring"}, "system": {"name": "point_gan"}, "evaluation": "points"}
DIRAC = {"data": {"name": "dirac"}, "system": {"name": "dirac"}, "evaluation": "dirac"}
# The values of the seeds of two trials, as they are stored: seed 3 of the first diverged.
VALUES: dict[int, list[float | None]] = {0: [7.25, 5.125, 9.0, None, 6.5], 1: [20.0 / 3.0, 30.1]}


def rest(experiment: Mapping[str, Any]) -> dict[str, Any]:
    return {**experiment, "training": {"steps": 20}, "objective": {"minimize": "fd"}}


def stored(folder: Path, experiment: Mapping[str, Any], system: str, signature: str = "fd|n:500") -> Registry:
    """A sweep in the registry of the home `folder`, of which nothing was trained."""
    registry = Registry.open(f"sqlite:///{folder / 'registry.db'}", home=folder)
    sweep = registry.sweep("made", "0123456789abcdef", rest(experiment), "fd", "lower")
    for trial, values in VALUES.items():
        registry.trial(sweep, trial, system, {"lr": 0.1}, {})
        for seed, value in enumerate(values):
            run = registry.run(sweep, trial, seed, "search")
            attempt = registry.begin(run, {})
            made = files(folder / f"{trial}.{seed}")
            if value is None:
                registry.finish(run, attempt, RunState.DIVERGED, reason="loss is nan", seconds=1.0, artifacts=made)
                continue
            score = StoredScore(
                "fd", value, value - 0.5, value + 0.1, 500, 0.25, signature, "lower", "last", 20, "holdout"
            )
            registry.finish(run, attempt, RunState.FINISHED, seconds=2.0, scores=[score], artifacts=made)
    return registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def reported(home: Path, *options: str) -> tuple[Page, Any]:
    """The page that the command writes, and what it said."""
    said = CliRunner().invoke(app, ["report", "made", "-o", str(home / "page.html"), "--home", str(home), *options])
    assert said.exit_code == 0, said.output
    return read((home / "page.html").read_text("utf-8")), said


def picture(uri: str | None) -> np.ndarray[Any, Any]:
    assert uri is not None and uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def of_class(page: Page, name: str) -> list[dict[str, str | None]]:
    return [attributes for attributes in page.all("figure") if name in (attributes.get("class") or "").split()]


# ---- real samples


def test_the_real_grid_holds_pixels_of_the_holdout(home: Path) -> None:
    stored(home, DIGITS, "dcgan")
    page, _ = reported(home)
    (image,) = page.all("image")
    grid = picture(image["href"])
    # 8 × 8 tiles of 16 pixels, each pixel three wide, with a gap of 2.
    assert grid.shape == (8 * 50 + 2, 8 * 50 + 2, 3)
    places = [2 + 50 * number for number in range(8)]
    tiles = {grid[top : top + 48 : 3, left : left + 48 : 3, 0].tobytes() for top in places for left in places}
    dataset = Digits(Digits.Config(), home)
    splits = {
        split: {each.tobytes() for each in dataset.load(split).values[:, 0].numpy()} for split in ("train", "holdout")
    }
    assert len(tiles) == 64 and tiles <= splits["holdout"] and not tiles & splits["train"]
    # Once in the page, used beside every row, its strips and at the top; as large as it is.
    assert len(page.all("use")) == len(of_class(page, "real-samples")) == 1 + 2 + 4
    assert {use["href"] for use in page.all("use")} == {f"#{image['id']}"}
    assert (image["width"], image["height"]) == ("402", "402")
    assert "64 real pictures of digits" in page.text


def test_real_sentences_are_those_of_the_holdout(home: Path) -> None:
    stored(home, TEXT, "lstm_lm")
    page, _ = reported(home)
    config = {key: value for key, value in TEXT["data"].items() if key != "name"}  # type: ignore[attr-defined]
    held_out = set(OracleText(OracleText.Config(**config), home / "data").load("holdout").sentences())
    shown = [text for tag, text in page.texts if tag == "li"]
    count = len(of_class(page, "real-samples"))
    assert count == 1 + 2 + 4 and len(shown) == 20 * count and set(shown) <= held_out


def test_real_points_lie_on_the_ring(home: Path) -> None:
    stored(home, RING, "point_gan")
    (image,) = reported(home)[0].all("image")
    pixels = picture(image["href"])
    rows, columns = np.nonzero((pixels == (31, 119, 180)).all(2))
    # The square is 1.35 times as wide as the ring of radius 1, with 8 modes of σ = 0.01.
    places = np.stack([columns / 200 - 1, 1 - rows / 200], 1) * 1.35
    angles = 2 * np.pi * np.arange(8) / 8
    centres = np.stack([np.cos(angles), np.sin(angles)], 1)
    away = np.linalg.norm(places[:, None] - centres, axis=2)
    assert away.min(1).max() < 6 * 0.01 + 1.35 / 200
    assert set(away.argmin(1)) == set(range(8))


def test_a_picture_that_is_no_sample_has_no_real_ones_beside_it(home: Path) -> None:
    stored(home, DIRAC, "dirac")
    assert of_class(reported(home)[0], "real-samples") == []


def test_an_absent_dataset_is_said_and_not_downloaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        asked.append(True)
        raise OSError("no network")

    asked: list[bool] = []
    monkeypatch.delenv("AIGC_LAB_DATA_DIR", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    stored(home, DIGITS | {"data": {"name": "mnist"}}, "dcgan")
    page, said = reported(home)
    assert "No real samples are shown: the dataset mnist is absent from this machine" in page.text
    assert page.all("image") == [] and str(home) not in re.sub(r"data:\S+", "", page.text)
    assert "no usable files" in said.stderr
    assert asked == []


def test_other_data_than_were_scored_are_not_shown(home: Path) -> None:
    stored(home, DIGITS, "dcgan", signature="fd|data:digits:00000000|n:500")
    page, _ = reported(home)
    assert "are others than those that the scores are of" in page.text
    assert page.all("image") == []


def test_the_data_that_were_scored_are_shown(home: Path) -> None:
    digest = Digits(Digits.Config(), home).digest
    stored(home, DIGITS, "dcgan", signature=f"fd|data:digits:{digest[:8]}|n:500")
    assert len(reported(home)[0].all("image")) == 1


def test_real_samples_can_be_left_out_and_are_the_same_each_time(home: Path) -> None:
    stored(home, DIGITS, "dcgan")
    (first,), (second,) = (reported(home)[0].all("image") for _ in range(2))
    assert first == second
    page, _ = reported(home, "--no-real")
    assert page.all("image") == [] and "real pictures" not in page.text


# ---- seeds


def seeds_of(report: Report) -> list[str | None]:
    return [figure["data-run"] for figure in of_class(read(report.html), "seed")]


def test_every_seed_of_every_ranked_row_is_there_from_the_best_to_the_worst(home: Path) -> None:
    report = render_report(stored(home, DIGITS, "dcgan"), "made", detailed=2)
    sweep = report.sweep
    # The second trial's median is 18.4, the first's 7.25 of 5, 6.5, 7.25, 9 and the one that diverged.
    expected = [f"{sweep}.0.{seed}" for seed in (1, 4, 0, 2, 3)] + [f"{sweep}.1.{seed}" for seed in (0, 1)]
    assert seeds_of(report) == expected
    marks = re.findall(r'seed (\d+) <em class="(best|worst)">', report.html)
    assert marks == [("1", "best"), ("3", "worst"), ("0", "best"), ("1", "worst")]


def test_runs_limits_rows_and_not_seeds(home: Path) -> None:
    report = render_report(stored(home, DIGITS, "dcgan"), "made", detailed=1)
    assert seeds_of(report) == [f"{report.sweep}.0.{seed}" for seed in (1, 4, 0, 2, 3)]
    assert [run["label"] for run in read(report.html).data["runs"]] == ["0.1", "0.4", "0.0", "0.2", "0.3", "1.0", "1.1"]
    assert {row["run"] for row in rows_of(report, "scores")} == {row["run"] for row in list_runs_of(home)}


def test_a_seed_of_the_search_does_not_count_beside_fresh_ones(hostile: Registry) -> None:  # noqa: F811
    report = render_report(hostile, HOSTILE, detailed=1)
    figures = [figure for figure in of_class(read(report.html), "seed") if "uncounted" in (figure["class"] or "")]
    assert [(figure["data-run"] or "")[-4:] for figure in figures] == [".0.0"]
    assert "of the search, not counted" in report.html


# ---- tables as files


def list_runs_of(home: Path) -> list[Any]:
    return list_runs(Registry.open(f"sqlite:///{home / 'registry.db'}", home=home))


def rows_of(report: Report, name: str) -> list[dict[str, str]]:
    """The lines of the file that a link of the page holds."""
    (link,) = [each for each in read(report.html).all("a") if (each.get("download") or "").endswith(f"-{name}.csv")]
    kind, _, content = (link["href"] or "").partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    return list(csv.DictReader(io.StringIO(base64.b64decode(content).decode("utf-8"), newline="")))


def test_the_scores_are_those_of_the_registry_to_the_last_digit(home: Path) -> None:
    report = render_report(stored(home, DIGITS, "dcgan"), "made", detailed=0)
    told = {row["run"]: row for row in rows_of(report, "scores")}
    expected = {
        f"{report.sweep}.{trial}.{seed}": value for trial, values in VALUES.items() for seed, value in enumerate(values)
    }
    assert {run: float(row["value"]) if row["value"] else None for run, row in told.items()} == expected
    for run, value in expected.items():
        if value is not None:
            numbers = [float(told[run][key]) for key in ("low (95 %)", "high (95 %)", "n (samples)", "floor")]
            assert numbers == [value - 0.5, value + 0.1, 500, 0.25]
    assert {row["time (s)"] for row in told.values()} == {"1.0", "2.0"}


def test_the_ranking_is_that_of_compare(home: Path) -> None:
    registry = stored(home, DIGITS, "dcgan")
    told = rows_of(render_report(registry, "made", detailed=0), "ranking")
    expected = compare_trials(registry, "made").rows
    assert [int(row["trial"]) for row in told] == [row["trial"] for row in expected] == [0, 1]
    assert [float(row["value"]) for row in told] == [row["score"]["value"] for row in expected]
    assert float(told[0]["value"]) == 7.25
    assert told[0]["low and high are"] == "range of the seeds"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\uff1d"])
def test_no_text_is_a_formula(start: str) -> None:
    text = f'{start}HYPERLINK("http://x")'
    table = tables.Table("t", ["a", text], [[text, -1.5]])
    head, row = csv.reader(io.StringIO(table.csv, newline=""))
    # Control characters are written as escapes.
    assert {head[1][0], row[0][0]} <= set("'\\") and row[1] == "-1.5"


def test_a_system_with_the_name_of_a_formula_is_text_in_the_file(home: Path) -> None:
    report = render_report(stored(home, DIGITS, "=1+1"), "made", detailed=0)
    assert {row["system"] for row in rows_of(report, "scores")} == {"'=1+1"}


# ---- words


def test_what_it_means_is_said_first_in_the_terminals_own_sentences(home: Path) -> None:
    registry = stored(home, DIGITS, "dcgan")
    sweep = registry.sweep("made", "0123456789abcdef", rest(DIGITS), "fd", "lower")
    registry.trial(sweep, 2, "dcgan", {"lr": 0.2}, {})
    for trial, verdict, bins in ((1, "PARTIAL", []), (2, "SEVERE", [{"name": "class 7", "state": "missing"}])):
        run = registry.run(sweep, trial, 8, "search")
        score = StoredScore("fd", 9.0, 8.0, 10.0, 500, 0.25, "fd|n:500", "lower", "last", 20, "holdout")
        well = [{"name": "3", "n": 40, "state": "drawn", "variety": "varied", "drawn": 0.99}]
        said = StoredVerdict("collapse", 20, verdict, "class 3 hardly varies", {"bins": bins, "asked": well}, "")
        registry.finish(run, registry.begin(run, {}), RunState.FINISHED, scores=[score], verdicts=[said])
    run = registry.run(sweep, 0, 9, "search")
    score = StoredScore("fd", 7.25, 7.0, 7.5, 500, 0.25, "fd|n:500", "lower", "last", 20, "holdout")
    row = {"name": "3", "n": 40, "state": "another", "variety": "varied", "mostly": "8", "mostly_share": 0.95}
    reason, rows = "every bin is there; asked for 3 it draws 8 (95% of 40)", [row]
    said = StoredVerdict("collapse", 20, "NONE", reason, {"bins": [], "asked": rows}, "")
    registry.finish(run, registry.begin(run, {}), RunState.FINISHED, scores=[score], verdicts=[said])
    page = read(render_report(registry, "made", detailed=0).html)
    told = " ".join(stored_meaning(registry, compare_trials(registry, sweep), Commands(samples="")).sentences)
    assert told.startswith("Trial 0 (dcgan) leads with fd 7.25")
    assert "Trial 0 (dcgan): asked for 3 it draws 8 (95% of 40)." in told and "asked for is drawn" not in told
    assert "class 7" in told and "collapsed in part (PARTIAL): class 3 hardly varies" in told
    assert told in page.text
    assert page.text.index(told) < page.text.index("configuration")


def test_the_glossary_has_the_words_of_the_page_and_no_others(home: Path) -> None:
    page = read(render_report(stored(home, DIGITS, "dcgan"), "made", detailed=0).html)
    words = [text for tag, text in page.texts if tag == "dt"]
    assert {"fd", "floor", "n", "signature", "range", "holdout", "DIVERGED"} <= set(words)
    assert not {"interval", "sampling error", "fresh seed", "SEVERE", "STABLE", "bin", "PRUNED", "?"} & set(words)


def test_a_score_that_describes_has_neither_arrow_nor_direction(home: Path) -> None:
    """`kl` ships so; `brightness` is a user's own, of which the attempt says it; `glow` is one with a direction."""
    registry = stored(home, DIGITS, "dcgan")
    sweep = registry.sweep("made", "0123456789abcdef", rest(DIGITS), "fd", "lower")
    run = registry.run(sweep, 0, 9, "search")
    attempt = registry.begin(run, {})
    registry.describe(run, attempt, RunDescription({}, None, None, ("brightness",)).dump())
    given = [
        StoredScore(name, 1.0, 0.5, 1.5, 500, 0.25, "s|n:500", "higher", "last", 20, "holdout")
        for name in ("fd", "kl", "brightness", "glow")
    ]
    registry.finish(run, attempt, RunState.FINISHED, seconds=2.0, scores=given)
    page = read(render_report(registry, "made", detailed=0).html)
    heads = {text.strip() for tag, text in page.texts if tag == "th"}
    assert {"kl", "brightness", "glow ↑"} <= heads
    words = [text for tag, text in page.texts if tag in ("dt", "dd")]
    told = dict(zip(words[::2], words[1::2], strict=True))
    assert "is better" not in told["kl"] + told["brightness"] and "Higher is better" in told["glow"]


# ---- --files


def test_every_table_and_figure_is_written(home: Path, tmp_path: Path) -> None:
    stored(home, DIGITS, "dcgan")
    curve = home / "0.1" / "curves.json"
    curve.write_text(json.dumps({"loss/$x": {"step": list(range(1, 1001)), "value": [0.5] * 1000}}))
    folder = tmp_path / "files"
    reported(home, "--files", str(folder))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    sweep = next(iter(list_runs_of(home)))["sweep"]
    samples = {
        f"samples/{sweep}.{trial}.{seed}.png" for trial, values in VALUES.items() for seed, _ in enumerate(values)
    }
    expected = {
        "ranking.csv",
        "scores.csv",
        "trials.csv",
        "unfinished.csv",
        "curves.csv",
        "curves-loss.png",
        "real.png",
        "seeds.png",
    }
    assert found == expected | samples
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            image.verify()
    assert (folder / f"samples/{sweep}.0.1.png").read_bytes() == (home / "0.1" / "000020.png").read_bytes()
    with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
        points = [row for row in csv.DictReader(file) if row["run"] == f"{sweep}.0.1"]
    assert [int(row["step (training steps)"]) for row in points] == list(range(1, 1001))


def test_the_course_of_the_objective_is_drawn_and_written(hostile: Registry) -> None:  # noqa: F811
    from aigc_lab.web.exported import files_of

    made = dict(files_of(render_report(hostile, HOSTILE, detailed=12)))
    assert made["objective.png"].startswith(b"\x89PNG")
    lines = list(csv.reader(io.StringIO(made["objective.csv"].decode(), newline="")))
    assert [float(cell) for cell in lines[1][1:]] == [10, 14.0, 13.5, 14.5]
    assert all("/" not in name.removeprefix("samples/") for name in made)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: (folder.mkdir(), (folder / "mine.txt").write_text("")), "there are files in it already"),
        (lambda folder: folder.write_text(""), "it is a file"),
    ],
)
def test_nothing_of_a_users_is_replaced(home: Path, tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    stored(home, DIGITS, "dcgan")
    make(tmp_path / "files")
    options = ["--files", str(tmp_path / "files"), "-o", str(tmp_path / "page.html")]
    result = CliRunner().invoke(app, ["report", "made", "--home", str(home), *options])
    assert isinstance(result.exception, UsageError) and said in str(result.exception)
    assert not (tmp_path / "page.html").exists()


# Clicks on every button that saves, and says in the page what would have been saved.
PROBE = """<script>
const saved = [];
HTMLAnchorElement.prototype.click = function () {
  saved.push([this.download, this.href]);
  const told = document.getElementById("told") || document.body.appendChild(document.createElement("pre"));
  told.id = "told";
  told.textContent = JSON.stringify(saved);
};
setTimeout(() => document.querySelectorAll(".save").forEach((button) => button.click()), 500);
</script></body>"""


def shown(page: Path, chromium: str) -> str:
    """The document as the browser leaves it."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    command = [chromium, *flags, f"--user-data-dir={page.parent}", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def said_by(probe: str, report: Report, folder: Path) -> Any:
    """What a script at the end of the page writes into its element `told`, as JSON."""
    chromium = shutil.which("chromium") or pytest.skip("no chromium")
    page, (head, _, tail) = folder / "page.html", report.html.rpartition("</body>")
    page.write_text(head.replace("<head>", f"<head>{MEDIA}", 1) + probe + tail, "utf-8")
    told = re.search(r'<pre id="told">(.*?)</pre>', shown(page, chromium), re.DOTALL)
    assert told is not None
    return json.loads(html.unescape(told[1]))


# Keeps what the page asks of its medium, so that a probe can say that it changed.
MEDIA = """<script>
const media = [], asked = window.matchMedia.bind(window);
window.matchMedia = (query) => { media.push(asked(query)); return media.at(-1); };
</script>"""
# Chooses the other scale, then lets every medium change; says the scale of the axis before, chosen and after.
SCALE = """<script>
setTimeout(() => {
  const box = document.getElementById("history"), toggle = document.getElementById("history-log");
  const scales = [box.layout.yaxis.type];
  toggle.click();
  scales.push(box.layout.yaxis.type);
  for (const each of media) {
    each.dispatchEvent(new Event("change"));
    scales.push(box.layout.yaxis.type);
  }
  const told = document.body.appendChild(document.createElement("pre"));
  told.id = "told";
  told.textContent = JSON.stringify(scales);
}, 500);
</script></body>"""


def test_a_browser_keeps_the_chosen_scale_on_paper_and_in_the_dark(hostile: Registry, tmp_path: Path) -> None:  # noqa: F811
    first, chosen, *after = said_by(SCALE, render_report(hostile, HOSTILE, detailed=12), tmp_path)
    assert {first, chosen} == {"linear", "log"} and len(after) >= 2
    assert set(after) == {chosen}


def test_a_browser_saves_every_figure_without_a_network(hostile: Registry, tmp_path: Path) -> None:  # noqa: F811
    report = render_report(hostile, HOSTILE, detailed=12)
    saved = {name.removeprefix(f"{report.sweep}-"): uri for name, uri in said_by(PROBE, report, tmp_path)}
    assert picture(saved["objective.png"]).shape[2] in (3, 4) and picture(saved["curves.png"]).size
    assert picture(saved[f"{report.sweep}.0.1.png"]).shape == (4, 6, 3)
    lines = list(csv.reader(io.StringIO(unquote(saved["objective.csv"].partition(",")[2]), newline="")))
    assert lines[0][1] == "step (training steps)" and [float(cell) for cell in lines[1][1:]] == [10, 14.0, 13.5, 14.5]
    written = {table.name: list(csv.reader(io.StringIO(table.csv, newline=""))) for table in report.tables}
    assert [line[0] for line in lines] == [line[0] for line in written["objective"]]
    curves = list(csv.reader(io.StringIO(unquote(saved["curves.csv"].partition(",")[2]), newline="")))
    assert {line[0] for line in curves[1:]} <= {run["run"] for run in report.runs} and len(curves) > 1
