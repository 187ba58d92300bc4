"""`aigc-lab compare` over several sweeps, with conditions, and in its forms: CSV and Markdown read back."""

import io
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas
import pytest
from markdown_it import MarkdownIt
from registries import Lab

import aigc_lab
from aigc_lab import cli
from aigc_lab.commands.judge import seeds_of
from aigc_lab.display.markdown import escaped
from aigc_lab.host import visible
from aigc_lab.registry.records import StoredVerdict
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.verdicts.seeds import wilson
from aigc_lab.verdicts.stability import judge

HOSTILE = "a|b_c*d`e<f>[g](h)\\~~i~~ $x$ &amp; @j #1\n|k|\x1b"


class Ended(NamedTuple):
    code: object
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command on a home with two sweeps that compare and one that does not."""
    for name in ("AIGC_LAB_REGISTRY_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIGC_LAB_HOME", str(tmp_path))
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        lab = Lab(registry)
        one, two, other = lab.sweep("one"), lab.sweep("two"), lab.sweep("other", "kid")
        for trial, (system, loss) in enumerate([("vae", "hinge"), ("=1+1", HOSTILE), ("dcgan", "wgan-gp")]):
            config = {"lr": 10.0 ** -(trial + 1) / 3, "loss": loss, "betas": [0.5, 0.9], "ema": trial == 1}
            for seed in range(2):
                of_run = lab.run(one, trial, seed, trial + seed / 3, system=system, config=config)
                registry.rejudge(of_run, said("NONE" if seed else "PARTIAL", seed))
        lab.run(one, 3, 0, state=RunState.FAILED, reason="ValueError: nan", config={}, system="vae")
        lab.run(one, 3, 1, state=RunState.FAILED, reason="out of memory", config={}, system="vae")
        lab.run(two, 0, 0, 0.5, low=0.25, high=0.75)
        lab.run(other, 0, 0, 0.1, name="kid", signature="kid|n:1000")

    def command(*words: str, columns: int = 200) -> Ended:
        monkeypatch.setattr(sys, "argv", ["aigc-lab", "compare", *words])
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return Ended(ended.value.code, told.out, told.err)

    return command


def said(collapse: str, seed: int) -> list[StoredVerdict]:
    """A collapse verdict, and the stability verdict on a history that goes well for the first seed alone."""
    values: list[float] = [9.0, 5.0, 3.0, *([2.0] * 9)] if seed == 0 else [9.0, 5.0, 2.0, 2.0, *range(3, 11)]
    stable = judge(range(0, 120, 10), values, baseline=10.0).as_dict()
    of_history = {key: value for key, value in stable.items() if key not in ("verdict", "reason", "signature")}
    return [
        StoredVerdict("collapse", 10, collapse, "why", {}, "signature"),
        StoredVerdict("stability", 110, stable["verdict"], stable["reason"], of_history, stable["signature"]),
    ]


# ---- CSV, and the same as a DataFrame


@pytest.mark.parametrize("words", [["one", "two"], ["one", "--by", "system"], ["--where", "lr < 0.2"]])
def test_csv_and_dataframe_are_the_same(run: Run, words: list[str]) -> None:
    done = run(*words, "--csv")
    assert done.code == 0
    read = pandas.read_csv(io.StringIO(done.out))
    names = [word for word in words if word in ("one", "two")]
    options: dict[str, Any] = {words[-2][2:]: words[-1]} if words[-2].startswith("--") else {}
    frame = aigc_lab.compare(*names, **options)
    assert list(read.columns) == list(frame.columns) and len(read) == len(frame) > 1
    for name in ("rank", "value", "low", "high", "seeds", "seconds", "config.lr", "units", "nan_failures"):
        assert read[name].to_list() == pytest.approx(frame[name].to_list(), rel=0, abs=0, nan_ok=True), name
    assert read["signature"].dropna().tolist() == frame["signature"].dropna().tolist()
    texts = {text.replace("'=", "=") for text in read["system"].dropna()}  # a formula is guarded
    assert texts == set(frame["system"].dropna())


def test_the_flat_columns(run: Run) -> None:
    row = aigc_lab.compare(["one", "two"], where="trial = 1").iloc[0]
    assert (
        row["collapse"] == "1 NONE, 1 PARTIAL"
        and row["stability"] == "1 REGRESSED, 1 STABLE"
        and row["states"] == "2 FINISHED"
    )
    assert row["config.loss"] == HOSTILE and row["config.betas"] == [0.5, 0.9] and row["score"] == "fd"
    dead = aigc_lab.compare("one", where="trial = 3").iloc[0]
    assert (dead["state"], dead["states"], dead["nan_failures"]) == ("DIVERGED", "1 DIVERGED, 1 FAILED", 1)
    assert pandas.isna(dead["value"])
    cells = pandas.read_csv(io.StringIO(run("one", "--csv").out))
    assert json.loads(cells["config.betas"][0]) == [0.5, 0.9]


def test_no_rows_are_an_empty_table(run: Run) -> None:
    done = run("--where", "lr > 9", "--csv")
    assert (done.code, done.out.strip()) == (0, "") and "--where leaves 6 trials out" in done.err
    assert aigc_lab.compare(where="lr > 9").empty
    assert "no trial matches --where: 6 trials left out" in run("--where", "lr > 9").out
    assert json.loads(run("--where", "lr > 9", "--json").out) == []


# ---- what the seeds say


def test_what_seeds_say_is_what_judge_seeds_says(run: Run) -> None:
    frame = aigc_lab.compare("one", where="trial < 3").set_index("trial")
    for told in seeds_of("one", None):
        if told["trial"] == 3:
            continue
        row = frame.loc[told["trial"]]
        assert [row[f"p_collapse{each}"] for each in ("", "_low", "_high", "_wrong", "_decided")] == [
            told["collapse"][each] for each in ("value", "low", "high", "wrong", "decided")
        ]
        assert row["p_unstable"] == told["unstable"]["value"] == 0.5
        assert row["median_failure_step"] == told["median_failure"] > 0
        assert [row["sd_last"], row["sd_last_low"]] == [told["last"]["sd"], told["last"]["low"]]
    alone = json.loads(run("one", "--by", "system", "--where", "trial = 1", "--json").out)
    assert alone[0]["over_seeds"]["collapse"]["value"] == 0.5
    assert "over_seeds" not in json.loads(run("one", "--json").out)[0]


def test_of_several_trials_each_counts_once(run: Run, tmp_path: Path) -> None:
    """Three of five runs collapsed, and they are of one trial: that is one of two trials, not three of five draws."""
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        lab = Lab(registry)
        sweep = lab.sweep("clustered", experiment={"search": {"sampler": "random"}})
        for trial, verdicts in enumerate([["TOTAL", "TOTAL", "SEVERE", "NONE"], ["NONE"], ["NONE", "TOTAL"]]):
            for seed, verdict in enumerate(verdicts):
                lab.run(sweep, trial, seed, float(trial + seed), verdicts=[("collapse", verdict)])
    (row,) = json.loads(run("clustered", "--by", "system", "--json").out)
    told = row["over_seeds"]
    assert [told["collapse"][key] for key in ("wrong", "decided", "undecided", "value")] == [1, 2, 1, 0.5]
    assert told["collapse"]["low"] == wilson(1, 3)[0] and told["collapse"]["high"] == wilson(2, 3)[1]
    assert told["last"]["sd"] == pytest.approx(statistics.stdev([1.5, 1.0, 2.5]))
    assert told["runs"] == 7


# ---- Markdown


def cells(text: str) -> list[list[str]]:
    """The cells of the tables of a Markdown text, as a reader of CommonMark with GitHub's tables understands it."""
    table: list[list[str]] = []
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    for token in tokens:
        if token.type == "tr_open":
            table.append([])
        if token.type == "inline" and token.level > 3 and table:
            assert token.children is not None and {child.type for child in token.children} <= {"text", "text_special"}
            table[-1].append("".join(child.content for child in token.children))
    return table


def test_markdown_shows_what_the_rows_hold(run: Run) -> None:
    done = run("one", "--md")
    assert done.code == 0 and done.err == ""
    every = cells(done.out)
    table, against = every[:5], every[5:]
    assert table[0][:5] == ["rank", "trial", "system", "configuration", "fd ↓"]
    assert against[0][:3] == ["A", "B", "P(A better)"] and len(against) == 1 + 3
    assert [row[:3] for row in table[1:]] == [
        ["1", "0", "vae"],
        ["2", "1", "=1+1"],
        ["3", "2", "dcgan"],
        ["", "3", "vae"],
    ]
    assert len({len(row) for row in table}) == 1
    assert f"loss={visible.line(HOSTILE)}" in " ".join(table[2][3].split(" ")).replace("\u00a0", " ")
    assert aigc_lab.ranking("one").to_markdown() == done.out


@pytest.mark.parametrize("text", [HOSTILE, "".join(map(chr, range(33, 127))), "1. x", "- x", "# x", "***", "---"])
def test_every_text_is_shown_as_it_is(text: str) -> None:
    shown = visible.line(text)
    assert cells(f"| a |\n| --- |\n| {escaped(text)} |\n") == [["a"], [shown]]


# ---- several sweeps, and what is refused


def test_a_table_of_several_sweeps_names_them(run: Run) -> None:
    done = run("one", "two", columns=80)
    assert done.code == 0 and max(map(len, done.out.splitlines())) <= 80
    assert "one-one" in done.out and "two-two" in done.out
    assert "DIVERGED: 1 run (1 of them FAILED by NaN or infinity of their own) counted as the worst" in " ".join(
        done.out.split()
    )
    assert "left out: 1 FAILED (not by NaN or infinity of their own)" in " ".join(done.out.split())


def test_a_table_by_a_value(run: Run) -> None:
    done = run("one", "two", "--by", "system", columns=400)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["rank", "system", "sweep", "trials", "configuration"]
    (vae,) = (line.split() for line in lines if line.lstrip().startswith(("1 ^  vae", "2 ^  vae", "3 ^  vae")))
    assert vae[3:6] == ["2", "sweeps", "3"]
    assert "of 3 trials" in done.out and "^ no claim is made of it: an adaptive sampler chose its trials" in done.out
    assert "the values of a row are its trials, each the median over its seeds; where there is one trial" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "lrr < 1"], "error: --where: unknown column 'lrr'; did you mean lr?"),
        (["--where", "lr <"], "error: --where lr <: at its end: a value is expected"),
        (["--where", "import os"], "error: --where import os: at character 8, 'os': 'and' or 'or' is expected"),
        (["--where", "collapse = partal"], "--where: unknown value of collapse 'PARTAL'; did you mean PARTIAL?"),
        (["--where", "stability in (STABEL)"], "--where: unknown value of stability 'STABEL'; did you mean STABLE?"),
        (["--where", "state != DONE"], "--where: unknown value of state 'DONE'; there are: DIVERGED, FAILED, FINISHED"),
        (["--where", "system = dc-gan"], "--where: unknown value of system 'dc-gan'; did you mean dcgan?"),
        (["--where", "lr < abc"], "--where: lr is a number, and 'abc' is none"),
        (["--where", "trial = one"], "--where: trial is a number, and 'one' is none"),
        (["--where", "fd < 1"], "--where: 'fd' is a score; only these columns will do: trial, system, sweep, state, "),
        (["--by", "sistem"], "error: --by: unknown column 'sistem'; did you mean system?"),
        (["one", "other"], "have no signature in common, so their scores do not compare: they differ in fd / kid"),
        (["one", "tow"], "error: unknown sweep 'tow'; did you mean two?"),
        (["--csv", "--md"], "error: --csv and --md are two forms of the same; give one of them"),
        (["--json", "--csv", "--latex"], "error: --json and --csv are two forms of the same; give one of them"),
    ],
)
def test_a_mistake_is_one_line(run: Run, words: list[str], said: str) -> None:
    done = run(*words)
    assert done.code == 2 and done.out == ""
    assert said in done.err and done.err.count("\n") == 1
