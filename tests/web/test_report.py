"""The report of a sweep: numbers of `compare`, no text of a user as markup, no question to the network."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from aigc_lab.cli import app
from aigc_lab.display.ranking import caption
from aigc_lab.display.wording import ranked_score
from aigc_lab.errors import UsageError
from aigc_lab.pictures.drawing import png
from aigc_lab.pictures.view_captions import CAPTIONS
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.find import find_sweep
from aigc_lab.registry.records import StoredArtifact, StoredScore
from aigc_lab.registry.runs import list_runs
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import (
    artifacts_by_run,
    attempt_environments,
    list_sweeps,
    objective_histories,
    show_sweep,
)
from aigc_lab.registry.tables import Artifact
from aigc_lab.web import embedded_files, pages
from aigc_lab.web.exported import files_of
from aigc_lab.web.report import render_report
from aigc_lab.web.whiskers import scale, whisker

HOSTILE = "<img src=x onerror=alert(1)>"
BREAKOUT = "</script><script>alert(2)</script><!--"
SIGNATURE = 'fd|"n":500|<b>'


@dataclass
class Page(HTMLParser):
    """What a reader of the page meets: elements with their attributes, and the text of each kind of element."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("script", "style")).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> Any:
        text = next(text for tag, text in self.texts if tag == "script" and text.startswith("{"))
        return json.loads(text)


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


def scores(value: float, step: int) -> list[StoredScore]:
    about = [("last", "holdout", step, value), ("last", "reference", step, value + 1)]
    about += [("progress", "reference", at, value + step - at) for at in (step // 2, step)]
    return [
        StoredScore("fd", value, value - 0.5, value + 0.5, 500, 0.25, SIGNATURE, "lower", kind, at, split)  # type: ignore[arg-type]
        for kind, split, at, value in about
    ]


def files(folder: Path, steps: tuple[int, ...] = (0, 10, 20)) -> list[StoredArtifact]:
    folder.mkdir(parents=True)
    found = []
    for step in steps:
        path = folder / f"{step:06d}.png"
        path.write_bytes(png(np.full((4, 6, 3), step, np.uint8)))
        found.append(StoredArtifact(f"samples/{step:06d}", "image/png", str(path)))
    final = folder / "samples.png"
    final.write_bytes(png(np.zeros((4, 6, 3), np.uint8)))
    found.append(StoredArtifact("samples", "image/png", str(final)))
    curves = folder / "curves.json"
    curves.write_text(json.dumps({f"loss/{BREAKOUT}": {"step": [10, 20], "value": [1.5, None]}}))
    return [*found, StoredArtifact("curves", "application/json", str(curves))]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A hostile sweep: three trials of two systems, one confirmed, one run diverged, one still in the queue."""
    registry = Registry.open(f"sqlite:///{tmp_path / 'home' / 'registry.db'}")
    experiment = {"data": {"name": HOSTILE}, "training": {"steps": 20}}
    sweep = registry.sweep(HOSTILE, "0123456789abcdef", experiment, "fd", "lower")
    for trial, system in enumerate(("vae", "<i>gan</i>", "vae")):
        registry.trial(sweep, trial, system, {"lr": 0.1 * (trial + 1), "loss": BREAKOUT}, {})
        for seed in range(2):
            run = registry.run(sweep, trial, seed, "confirm" if seed and trial == 0 else "search")
            if (trial, seed) == (2, 1):
                continue
            about = {"device": "cpu", "threads": 1, "host": "secret-host", "versions": {"torch": "9.9"}}
            attempt = registry.begin(run, about)
            if (trial, seed) == (2, 0):
                registry.finish(run, attempt, RunState.DIVERGED, reason=f"loss is nan {HOSTILE}", seconds=1.0)
                continue
            made = files(tmp_path / f"{trial}.{seed}")
            registry.finish(
                run, attempt, RunState.FINISHED, seconds=2.0, scores=scores(5 + trial - seed, 20), artifacts=made
            )
    return registry


@pytest.fixture(autouse=True)
def plotly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is drawn, the 4.8 MB of Plotly need not be read by the parser of every test."""
    if "browser" not in request.node.name:
        monkeypatch.setitem(pages._environment().globals, "plotly", lambda: "")


def name_of(registry: Registry) -> str:
    return str(list_sweeps(registry)[0]["sweep"])


def test_the_numbers_are_those_of_compare(registry: Registry) -> None:
    page = read(render_report(registry, HOSTILE, detailed=12).html)
    comparison = compare_trials(registry, HOSTILE)
    cells = [text for tag, text in page.texts if tag == "td" and text.strip()]
    shown = [text for text in cells if "±" in text or "of 2 seeds" in text]
    assert shown == [ranked_score(row) for row in comparison.rows if row["score"]]
    assert shown == ["4 ± 0.5 sampling error", "5.5 (5–6 of 2 seeds)"]
    for line in caption(comparison.rows, SIGNATURE).splitlines():
        assert line in page.text
    assert [trial["value"] for trial in page.data["trials"]] == [4.0, 5.5]


def test_every_run_stands_in_the_figures_the_best_first(registry: Registry) -> None:
    runs = read(render_report(registry, HOSTILE, detailed=12).html).data["runs"]
    assert [run["label"] for run in runs] == ["0.1", "0.0", "1.1", "1.0", "2.0", "2.1"]
    assert runs[0]["history"] == {"step": [10, 20], "value": [14.0, 4.0], "low": [13.5, 3.5], "high": [14.5, 4.5]}
    assert runs[0]["curves"] == {f"loss/{BREAKOUT}": {"step": [10, 20], "value": [1.5, None]}}


def test_text_of_the_user_is_text(registry: Registry) -> None:
    page = read(render_report(registry, HOSTILE, detailed=12).html)
    assert HOSTILE in page.text
    assert BREAKOUT in page.text
    assert f"loss is nan {HOSTILE}" in page.text
    assert "<i>gan</i>" in page.text
    assert len(page.all("script")) == 3
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.all("img"))
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert page.data["runs"][2]["system"] == "<i>gan</i>"


def test_the_page_asks_nothing_of_the_network(registry: Registry) -> None:
    page = read(render_report(registry, HOSTILE, detailed=12).html)
    assert page.all("link") == []
    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            assert re.match(r"(data:(image/png|text/csv;charset=utf-8);base64,|#)", attributes.get(key) or "#")
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    # blob: is what the page itself has made, a figure that is being saved as a picture.
    assert policy == "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    assert not re.search(r"url\(|@import", next(text for tag, text in page.texts if tag == "style"))


def test_pictures_have_a_text_a_step_and_a_size(registry: Registry) -> None:
    page = read(render_report(registry, HOSTILE, detailed=12).html)
    strip = [figure["data-step"] for figure in page.all("figure") if "data-step" in figure]
    assert strip == ["0", "10", "20"] * 4
    images = page.all("img")
    # Of each run the last one among the seeds too, and the best run's at the top.
    assert len(images) == 12 + 4 + 1
    assert all(image["alt"] for image in images)
    assert {(image["width"], image["height"]) for image in images} == {("6", "4")}
    assert {th.get("scope") for th in page.all("th")} == {"col"}


def test_views_are_shown_at_their_newest_step_each_with_what_to_look_for(registry: Registry, tmp_path: Path) -> None:
    """Of the first run two views, of which one lacks its newest file; of all others none."""
    run = next(row["run"] for row in list_runs(registry, find_sweep(registry, HOSTILE)) if row["run"].endswith(".0.1"))
    names = ("traversals/000010", "traversals/000020", "traversals", "reconstructions/000020")
    with registry.write() as connection:
        for place, name in enumerate(names):
            path = tmp_path / "0.1" / f"view-{place}.png"
            path.write_bytes(png(np.full((4, 8 + place, 3), place, np.uint8)))
            row = {"run_id": run, "name": name, "kind": "image/png", "path": str(path)}
            connection.execute(insert(Artifact).values(**row))
    path.unlink()
    made = render_report(registry, HOSTILE, detailed=12)
    page = read(made.html)
    (image,) = [image for image in page.all("img") if image["alt"] == "traversals of run 0.1"]
    assert (image["width"], image["loading"]) == ("9", "lazy")
    runs = [figure.get("data-run") or "" for figure in page.all("figure")]
    assert [each for each in runs if each.endswith("s")] == [f"{run}-reconstructions", f"{run}-traversals"]
    for name in ("reconstructions", "traversals"):
        assert CAPTIONS[name].text in page.text
    assert CAPTIONS["classes"].text not in page.text and "latent" in [text for tag, text in page.texts if tag == "dt"]
    assert "reconstructions of run 0.1: missing" in made.html and made.pictures == 13
    written = [name for name, _ in files_of(made) if name.startswith(("traversals", "reconstructions"))]
    assert written == [f"traversals/{run}.png"]
    assert "traversals" not in read(render_report(registry, HOSTILE, detailed=0).html).text


def test_a_cap_is_of_ranked_trials_and_keeps_all_their_seeds(registry: Registry) -> None:
    made = render_report(registry, HOSTILE, detailed=1)
    page = read(made.html)
    assert [run["label"] for run in page.data["runs"] if run["curves"]] == ["0.1", "0.0"]
    assert made.pictures == 6
    assert "2 further trials are left out" in page.text
    assert "No pictures are embedded" in read(render_report(registry, HOSTILE, detailed=0).html).text


def test_a_file_that_is_missing_or_is_no_picture_leaves_a_placeholder(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "0.1" / "000020.png").unlink()
    (tmp_path / "1.0" / "000000.png").write_text("root:x:0:0")
    (tmp_path / "1.0" / "curves.json").write_text("[1")
    page = read(render_report(registry, HOSTILE, detailed=12).html)
    assert "000020.png: No such file or directory" in page.text
    assert "000000.png: not a PNG picture" in page.text
    assert "curves.json: not a file of curves" in page.text


def test_neither_host_nor_process_is_told(registry: Registry) -> None:
    page = read(render_report(registry, HOSTILE, detailed=12).html)
    assert "secret-host" not in page.text
    assert "torch 9.9" in page.text
    assert "6: 1 queued, 4 finished, 1 diverged" in page.text


@pytest.mark.parametrize("state", [None, RunState.QUEUED, RunState.FAILED])
def test_a_sweep_without_a_score_says_so(tmp_path: Path, state: RunState | None) -> None:
    registry = Registry.open(f"sqlite:///{tmp_path / 'registry.db'}")
    sweep = registry.sweep("empty", "0" * 16, {}, "fd", "lower")
    if state is not None:
        registry.trial(sweep, 0, "vae", {}, {})
        run = registry.run(sweep, 0, 0, "search")
        if state.ended:
            registry.finish(run, registry.begin(run, {}), state, reason="out of memory")
    text = read(render_report(registry, "empty", detailed=12).html).text
    assert ("No trials yet" if state is None else "No run has finished with a score yet") in text
    assert ("out of memory" in text) == (state is RunState.FAILED)


def test_several_signatures_are_several_tables(registry: Registry) -> None:
    sweep = name_of(registry)
    registry.trial(sweep, 3, "vae", {}, {})
    run = registry.run(sweep, 3, 0, "search")
    other = StoredScore("fd", 1.0, None, None, 500, None, "other|v2", "lower", "last", 20, "holdout")
    registry.finish(run, registry.begin(run, {}), RunState.FINISHED, scores=[other])
    page = read(render_report(registry, HOSTILE, detailed=12).html)
    # Two rankings, the trial without a score, and every score.
    assert len([table for table in page.all("table") if table.get("class") == "sortable"]) == 4
    assert compare_trials(registry, HOSTILE).note in page.text
    assert "signature: other|v2" in page.text
    assert page.data["floor"] is None


# ---- pieces


def row(
    value: float, low: float | None, high: float | None, floor: float | None = None, seeds: int = 1
) -> dict[str, Any]:
    score = {"value": value, "low": low, "high": high, "floor": floor, "confidence": 0.5}
    return {"score": score, "seeds": seeds, "states": {}}


def test_whiskers_share_a_scale() -> None:
    rows = [row(2.0, 1.0, 3.0), row(5.0, 4.0, None, seeds=2), row(3.0, None, None, floor=1.0)]
    on = scale(rows)
    assert (on.low, on.high, on.logarithmic) == (1.0, 5.0, False)
    first, diverged, bare = (whisker(each, on) for each in rows)
    assert (first.low, first.dot, first.high) == (0.0, 0.25, 0.5)
    assert (diverged.high, diverged.arrow_high, diverged.arrow_low) == (1.0, True, False)
    assert (bare.low, bare.dot, bare.high, bare.floor) == (0.5, 0.5, 0.5, 0.0)


def test_a_wide_range_is_logarithmic_where_it_can_be() -> None:
    on = scale([row(1.0, None, None), row(100.0, None, None)])
    assert on.logarithmic
    assert on.place(10.0) == pytest.approx(0.5)
    assert str(on) == "1 to 100, logarithmic"
    assert not scale([row(-1.0, None, None), row(100.0, None, None)]).logarithmic
    assert scale([row(7.0, None, None)]).place(7.0) == 0.5


def test_thinning_keeps_the_ends() -> None:
    assert embedded_files.thinned(range(5), 5) == [0, 1, 2, 3, 4]
    assert embedded_files.thinned(range(101), 5) == [0, 25, 50, 75, 100]


def test_a_closing_tag_inside_a_script_does_not_end_it() -> None:
    assert pages.inline('a = "</script>" + "</SCRIPT >"') == r'a = "<\/script>" + "<\/SCRIPT >"'
    assert read(f"<script>{pages.inline(pages.plotly())}</script>").texts[0][0] == "script"


def test_histories_and_files_are_those_of_the_sweep(registry: Registry) -> None:
    sweep = name_of(registry)
    registry.sweep("other", "f" * 16, {}, "fd", "lower")
    assert show_sweep(registry, HOSTILE)["digest"] == "0123456789abcdef"
    assert set(objective_histories(registry, sweep)) == {f"{sweep}.{label}" for label in ("0.0", "0.1", "1.0", "1.1")}
    assert next(file["name"] for file in artifacts_by_run(registry, sweep)[f"{sweep}.0.0"]) == "curves"
    assert len(attempt_environments(registry, sweep)) == 5
    other = find_sweep(registry, "other")
    assert objective_histories(registry, other) == artifacts_by_run(registry, other) == {}
    assert attempt_environments(registry, other) == []


# ---- the command


def command(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["report", *arguments, "--home", str(home)])


def test_the_command_writes_a_file_and_says_where(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    said = command(home, HOSTILE)
    assert said.exit_code == 0
    made = tmp_path / f"{name_of(registry)}.html"
    assert said.stdout.startswith(made.name)
    assert "12 pictures" in said.stdout
    again = command(home, HOSTILE, "-o", str(made), "--runs", "0")
    assert again.exit_code == 0
    assert "0 pictures" in again.stdout
    assert command(home, HOSTILE, "-o", "-", "--runs", "0").stdout_bytes == made.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.html")) == [made.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hostile",), "unknown sweep 'hostile'"),
        ((HOSTILE, "-o", "missing/report.html"), "there is no folder missing"),
        ((HOSTILE, "-o", "home"), "home is a folder"),
        ((HOSTILE, "-o", "/dev/null"), "not a file that can be replaced"),
    ],
)
def test_a_mistake_is_one_sentence(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    error = command(tmp_path / "home", *arguments).exception
    assert isinstance(error, UsageError)
    assert said in str(error)


def test_a_report_needs_neither_torch_nor_mlflow(registry: Registry, tmp_path: Path) -> None:
    code = (
        "import sys; from aigc_lab.registry.store import Registry; from aigc_lab.web.report import render_report;"
        f"render_report(Registry.open({registry.url!r}), {HOSTILE!r}, detailed=1);"
        "print(sorted({'torch', 'mlflow', 'optuna', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_browser_shows_the_page_and_runs_nothing_of_the_user(registry: Registry, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("no chromium")
    path = tmp_path / "report.html"
    path.write_text(render_report(registry, HOSTILE, detailed=12).html, "utf-8")
    seen: list[str] = []

    def dismiss(dialog: Any) -> None:
        seen.append(dialog.message)
        dialog.dismiss()

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("dialog", dismiss)
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("console", lambda message: seen.append(message.text))
        page.on("request", lambda request: seen.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        page.wait_for_selector("#history .legend")
        assert HOSTILE in page.inner_text("h1")
        assert "<i>gan</i>" in (page.text_content("#history .legend") or "")
        assert BREAKOUT in (page.text_content("#training") or "")
        browser.close()
    assert seen == []


def test_pairs_of_the_first_rows_stand_below_the_ranking(tmp_path: Path) -> None:
    registry = Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", home=tmp_path)
    sweep = registry.sweep("pairs", "0" * 16, {"data": {"name": "ring"}}, "fd", "lower")
    for trial, start in enumerate((1.0, 1.5, 30.0)):
        registry.trial(sweep, trial, "point_gan", {}, {})
        for seed in range(5):
            value = start + seed
            run = registry.run(sweep, trial, seed, "search")
            attempt = registry.begin(run, {})
            score = StoredScore("fd", value, value, value, 500, 0.25, "x", "lower", "last", 20, "holdout")
            registry.finish(run, attempt, RunState.FINISHED, seconds=1.0, scores=[score])
    page = read(render_report(registry, "pairs", detailed=0).html)
    cells = [text.strip() for tag, text in page.texts if tag == "td" and text.strip()]
    first = cells.index("0 point_gan")
    assert cells[first : first + 6] == [
        "0 point_gan",
        "1 point_gan",
        "0.60 [0.23, 0.90]",
        "0.69",
        "cannot tell",
        "> 100 each",
    ]
    assert cells.count("better") == 2 and "A against B" in page.text
    assert "exact rank test of 5 seeds each, Holm's correction for 3 pairs" in page.text
    assert "That is no proof that both are equally good" in page.text  # in the glossary
    assert [row["leaders"] for row in compare_trials(registry, "pairs").rows] == [True, True, False]
