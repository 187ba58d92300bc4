"""The commands that read, as a user runs them: in a process of their own, but for those that list plugins."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shell import command

from aigc_lab import __version__
from aigc_lab.registry.records import StoredArtifact, StoredCheckpoint, StoredScalar, StoredScore
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry

LAB = [sys.executable, "-c", "from aigc_lab.cli import main; main()"]
READ = (["runs"], ["compare"], ["show", "digits.0.0"], ["status"], ["status", "digits"])


def lab(home: Path, *arguments: str, code: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIGC_LAB_") and k != "COLUMNS"}
    env |= {"AIGC_LAB_HOME": str(home)} | environment
    done = subprocess.run([*LAB, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trials, one of them unlucky."""
    home = tmp_path_factory.mktemp("home")
    with Registry.open(f"sqlite:///{home / 'registry.db'}") as registry:
        sweep = registry.sweep("digits", "0123456789", {}, "fd", "lower")
        for trial in range(3):
            registry.trial(sweep, trial, "dcgan", {"lr": 0.0002 + trial, "loss": "[red]hinge[/nothing]"}, {})
            for seed in range(2):
                run = registry.run(sweep, trial, seed, "search")
                attempt = registry.begin(run, {"host": "here", "threads": 2})
                if (trial, seed) == (2, 1):
                    registry.finish(run, attempt, RunState.DIVERGED, reason="loss is nan", seconds=1.0)
                    continue
                final = [("last", 20, "holdout", 10.0 + trial + seed), ("selected", 10, "holdout", 9.0)]
                final += [("progress", step, "reference", 20.0 - step) for step in (5, 10)]
                scores = [
                    StoredScore("fd", value, 9.0, 15.0, 5000, 0.4, "fd|n:5000", "lower", kind, step, split)  # type: ignore[arg-type]
                    for kind, step, split, value in final
                ]
                registry.finish(
                    run,
                    attempt,
                    RunState.FINISHED,
                    seconds=12.5,
                    scores=scores,
                    scalars={"loss/critic": StoredScalar(1.0, 0.5, 2.0, 20)},
                    checkpoints=[StoredCheckpoint("last", 20, "checkpoints/x", "ab" * 32, 10)],
                    artifacts=[StoredArtifact("samples", "image", "artifacts/samples.png")],
                )
    return home


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# ---- what the commands print


@pytest.mark.parametrize("arguments", READ)
def test_json_is_all_there_is_on_stdout(home: Path, arguments: list[str]) -> None:
    done = lab(home, *arguments, "--json")
    assert strict(done.stdout)
    assert done.stderr == ""


def test_the_rows_of_compare(home: Path) -> None:
    rows = strict(lab(home, "compare", "digits", "--json").stdout)
    assert [(row["rank"], row["trial"], row["state"]) for row in rows] == [
        (1, 0, "FINISHED"),
        (2, 1, "FINISHED"),
        (None, 2, "DIVERGED"),
    ]
    assert rows[0]["score"]["confidence"] == 0.5
    selected = strict(lab(home, "compare", "--checkpoint", "selected", "--json").stdout)
    assert [row["score"] and row["score"]["value"] for row in selected] == [9.0, 9.0, None]


def test_the_table_names_everything_that_a_number_means(home: Path) -> None:
    shown = lab(home, "compare").stdout
    for text in (
        "fd ↓",
        "10.5 (10–11 of 2 seeds)",
        "5000",
        "0.4",
        "signature: fd|n:5000",
        "fd: median (lowest–highest of its seeds)",
        "DIVERGED",
    ):
        assert text in shown
    assert "lr=0.0002 loss=[red]hinge[/nothing]" in shown  # text of the user is not markup


def test_what_a_comparison_means_stands_below_it(home: Path) -> None:
    lines = lab(home, "compare", "--home", str(home), AIGC_LAB_HOME="elsewhere", COLUMNS="200").stdout.splitlines()
    told = lines[lines.index("What it means") + 1 :]
    assert told == [
        "Trial 0 (dcgan) leads with fd 10.5 (lower is better), 1 ahead of trial 1 (dcgan) with 11.5; real samples "
        "score 0.4 (the floor), 10.1 better than the first.",
        "Whether the difference is more than chance cannot be told yet: with 2 and 2 seeds no result could tell; "
        "about 12 more seeds each would tell.",
        f"To look at the samples: aigc-lab report digits-01234567 --home {home}",
    ]


@pytest.mark.parametrize("arguments", READ)
def test_tables_fit_80_columns(home: Path, arguments: list[str]) -> None:
    shown = lab(home, *arguments, COLUMNS="80").stdout
    assert max(map(len, shown.splitlines())) <= 80


def test_run_ids_are_never_cut(home: Path, tmp_path: Path) -> None:
    for columns in ("80", "40"):
        shown = lab(home, "runs", COLUMNS=columns).stdout
        assert all(f"digits-01234567.{trial}.{seed}" in shown for trial in range(3) for seed in range(2))
    with Registry.open(f"sqlite:///{tmp_path / 'registry.db'}") as registry:
        sweep = registry.sweep("a" * 120, "0123456789", {}, "fd", "lower")
        registry.trial(sweep, 0, "vae", {}, {})
        run = registry.run(sweep, 0, 0, "search")
    for words in (["runs"], ["show", run]):
        assert run in lab(tmp_path, *words).stdout
        assert run in lab(tmp_path, *words, COLUMNS="80").stdout


def test_the_page_of_a_run(home: Path) -> None:
    shown = lab(home, "show", "digits.0.0").stdout
    for text in ("digits-01234567.0.0", "scores on the way", "selected checkpoint", "threads", "artifacts/samples.png"):
        assert text in shown
    assert "DIVERGED: loss is nan" in lab(home, "show", "digits.2.1").stdout


PLUGINS = [
    *("systems", "datasets", "metrics", "penalties", "augmentations", "pruners", "optimizers"),
    *("executors", "modalities"),
]
KINDS = [*PLUGINS, "experiments", "protocols"]


def listed(home: Path, *words: str) -> str:
    """What `list` tells, in this process: to import the plugins anew would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIGC_LAB_HOME", str(home))
        told = command("list", *words)
    assert told.code == 0, told.errors
    return told.output


@pytest.mark.parametrize("kind", KINDS)
def test_list_needs_no_registry(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = strict(listed(tmp_path, kind, "--json"))
    assert all(row.keys() == {"name", "description"} for row in rows)
    shown = listed(tmp_path, kind)
    assert all(row["name"] in shown for row in rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", PLUGINS)
def test_list_tells_papers_and_knobs(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = strict(listed(tmp_path, kind, "--verbose", "--json"))
    assert [row["name"] for row in rows] == [row["name"] for row in strict(listed(tmp_path, kind, "--json"))]
    for row in rows:
        assert row.keys() == {"name", "description", "paper", "about", "knobs"}
        assert all(knob.keys() == {"name", "default", "values", "description"} for knob in row["knobs"])
    if kind == "systems":
        papers = {row["name"]: row["paper"] for row in rows}
        assert all(papers.values()), "every system names its paper"
        assert papers["wgan_gp"] == "Gulrajani et al. 2017" and papers["dcgan"] == "Radford, Metz & Chintala 2016"
        (gan,) = (row for row in rows if row["name"] == "wgan_gp")
        knobs = {knob["name"]: knob for knob in gan["knobs"]}
        assert knobs["n_critic"] == {
            "name": "n_critic",
            "default": 5,
            "values": "whole number ≥ 1",
            "description": "critic updates for one of the generator",
        }
        assert knobs["clip"]["values"] == "number | null > 0" and knobs["beta1"]["values"] == "number ≥ 0 < 1"
        assert knobs["critic_norm"]["values"] == "batch | layer | spectral | none"
        assert knobs["penalty"]["values"].startswith("none | consensus | consistency | dragan")
    shown = listed(tmp_path, kind, "--verbose")
    assert all(row["description"] in shown for row in rows)


def test_list_verbose_is_of_plugins(tmp_path: Path) -> None:
    refused = lab(tmp_path, "list", "experiments", "--verbose", code=2)
    assert "systems, datasets, metrics" in refused.stderr


def test_version(tmp_path: Path) -> None:
    assert lab(tmp_path, "--version").stdout == f"aigc-lab {__version__}\n"


def test_a_limit_says_what_it_keeps_back(home: Path) -> None:
    assert "… and 4 more; --limit 0 shows all" in lab(home, "runs", "--limit", "2").stdout
    assert "… and 2 more; --limit 0 shows all" in lab(home, "compare", "--limit", "1").stdout
    newest = lab(home, "runs", "--limit", "2", "--json")
    assert [(row["trial"], row["seed"]) for row in strict(newest.stdout)] == [(2, 0), (2, 1)]
    assert newest.stderr == "… and 4 more; --limit 0 shows all\n"
    whole = lab(home, "runs", "--limit", "0", "--json").stdout
    assert whole == json.dumps(strict(whole), indent=2) + "\n"  # as if it had been written at once
    diverged = strict(lab(home, "runs", "--state", "diverged", "--json").stdout)
    assert [row["run"] for row in diverged] == ["digits-01234567.2.1"]
    assert lab(home, "runs", "--state", "FAILED", "--json").stdout == "[]\n"
    assert "did you mean FAILED" in lab(home, "runs", "--state", "faild", code=2).stderr


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "digit"], "error: unknown sweep 'digit'; did you mean digits?"),
        (["compare", "--score", "df"], "error: unknown score 'df'; did you mean fd?"),
        (["show", "digits.9.9"], "error: unknown run 'digits.9.9'; "),
        (["list", "dataset"], "error: unknown kind 'dataset'; did you mean datasets?"),
        (["runs", "--home", "/nowhere"], "error: no registry at sqlite:////nowhere/registry.db; run a sweep first"),
    ],
)
def test_a_mistake_is_one_line(home: Path, arguments: list[str], message: str) -> None:
    done = lab(home, *arguments, code=2)
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compre"], "Did you mean 'compare'"),
        (["compare", "--checkpoint", "best"], "'last', 'selected'"),
        (["compare", "--jsn"], "No such option: --jsn"),
        (["show"], "Missing argument"),
    ],
)
def test_wrong_usage_exits_2(home: Path, arguments: list[str], message: str) -> None:
    done = lab(home, *arguments, code=2)
    assert message in done.stderr
    assert done.stdout == ""


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    for arguments in (*READ, ["runs", "--json"]):
        process = subprocess.Popen(
            [*LAB, *arguments],
            env=os.environ | {"AIGC_LAB_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.close()  # nobody reads from the first byte on
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.wait(60)


ENDS = """
import aigc_lab.cli as cli
from aigc_lab.errors import Failure
@cli.app.command()
def fails() -> None:
    raise Failure("the disk\\nis full")
@cli.app.command()
def waits() -> None:
    raise KeyboardInterrupt
cli.main()
"""


@pytest.mark.parametrize(
    ("command", "code", "line"), [("fails", 1, "error: the disk is full\n"), ("waits", 130, "interrupted\n")]
)
def test_how_commands_end(command: str, code: int, line: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS, command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (code, line, "")


def test_a_terminal_without_unicode_gets_a_table(home: Path) -> None:
    assert "10.5 (10?11 of 2 seeds)" in lab(home, "compare", PYTHONIOENCODING="ascii").stdout


# ---- what the commands import

IMPORTED = """
import sys
from aigc_lab.cli import main
try:
    main()
finally:
    print("IMPORTED", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
HEAVY = {"torch", "mlflow", "pandas", "numpy", "optuna", "alembic", "scipy", "sklearn"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], set()),
        (["compare", "--help"], set()),
        (["list", "systems"], set()),
        (["compare"], {"sqlalchemy"}),
        (["compare", "--json"], {"sqlalchemy"}),
        (["runs"], {"sqlalchemy"}),
        (["show", "digits.0.0"], {"sqlalchemy"}),
        (["status", "digits"], {"sqlalchemy"}),
    ],
)
def test_reading_imports_nothing_heavy(home: Path, arguments: list[str], needed: set[str]) -> None:
    command = [sys.executable, "-c", IMPORTED, *arguments]
    env = os.environ | {"AIGC_LAB_HOME": str(home)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    imported = set(done.stderr.partition("IMPORTED")[2].split())
    assert imported & (HEAVY | {"sqlalchemy"}) == needed
