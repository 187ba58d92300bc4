"""The package as a library: the same semantics as the commands."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from conftest import WriterHere

import aigc_lab
from aigc_lab import cli
from aigc_lab.data.ring import Ring
from aigc_lab.host.settings import Settings
from aigc_lab.registry.home import open_registry
from aigc_lab.registry.runs import show_run
from aigc_lab.tracking import writer

RING: dict[str, Any] = {
    "name": "mine",
    "data": {"name": "ring", "points": 2000},
    "system": {"name": "point_gan", "hidden": 16, "lr": {"log": [1e-4, 1e-2]}},
    "training": {"steps": 20, "batch_size": 32, "log_every": 10, "evaluate_every": 10, "threads": 1},
    "evaluation": {"name": "points", "samples": 400},
    "objective": {"minimize": "rkl"},
    "search": {"trials": 2},
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIGC_LAB_HOME", "AIGC_LAB_REGISTRY_URL", "AIGC_LAB_OPTUNA_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writer, "Writer", WriterHere)


def test_importing_is_light() -> None:
    heavy = "{'torch', 'mlflow', 'optuna', 'pandas', 'sqlalchemy', 'pydantic', 'rich', 'typer'}"
    code = f"import sys, aigc_lab; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_sweep_of_a_mapping(capsys: pytest.CaptureFixture[str]) -> None:
    table = aigc_lab.sweep(RING, trials=1)
    assert list(table["trial"]) == [0] and list(table["rank"]) == [1]
    assert {"sweep", "system", "state", "score", "value", "low", "high", "n", "floor", "signature"} <= set(table)
    assert 1e-4 <= table["config.lr"][0] <= 1e-2
    assert capsys.readouterr().out == "", "a table is returned, not printed"
    more = aigc_lab.sweep(RING, changes={"search.trials": 2})
    assert sorted(more["trial"]) == [0, 1] and set(more["sweep"]) == set(table["sweep"])
    same = aigc_lab.compare("mine")
    assert same.equals(more)
    assert aigc_lab.compare().equals(more)
    other = aigc_lab.compare("mine", score="hq")
    assert set(other["score"]) == {"hq"}

    numpys: Any = {"seed": np.int64(3), "changes": {"system.lr": np.float64(1e-3), "training.steps": np.int32(20)}}
    run = aigc_lab.train(RING, **numpys, home="elsewhere")
    assert run["run"].endswith(".0.3") and run["state"] == "FINISHED" and type(run["seed"]) is int
    points = aigc_lab.load(run["run"], home="elsewhere").sample(5)
    assert points.shape == (5, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: aigc_lab.sweep("digts"), "unknown experiment 'digts'; did you mean digits"),
        (lambda: aigc_lab.sweep(RING | {"name": "../up"}), "needs a name"),
        (lambda: aigc_lab.sweep(RING | {"name": None}), "needs a name"),
        (lambda: aigc_lab.sweep(RING | {"data": Path()}), "holds what YAML cannot"),
        (lambda: aigc_lab.sweep(RING | {"trainig": {}}), "trainig: unknown key; did you mean training"),
        (lambda: aigc_lab.train(RING), "train takes one configuration, and system.lr is still open"),
        (lambda: aigc_lab.train(RING, changes={"system.lrr": 1}), "system.lrr"),
        (
            lambda: aigc_lab.train(RING, changes={"data.path": object()}),
            "data.path: it holds what YAML cannot",
        ),
        (lambda: aigc_lab.train(RING, seed=1.5), "seed: it should be a whole number, not 1.5"),  # type: ignore[arg-type]
        (lambda: aigc_lab.sweep(RING, workers="two"), "workers: it should be a whole"),  # type: ignore[arg-type]
        (lambda: aigc_lab.compare("x"), "no registry at"),
    ],
)
def test_a_users_mistake_is_a_usage_error(call: Any, said: str) -> None:
    with pytest.raises(aigc_lab.UsageError, match=said):
        call()


# ---- from Python as from the command line


def example_of_the_readme() -> str:
    readme = (Path(aigc_lab.__file__).parents[1] / "README.md").read_text("utf-8")
    section = readme.partition("\n## From Python\n")[2].partition("\n## ")[0]
    return section.partition("```python\n")[2].partition("```")[0]


def test_what_the_readme_shows_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(example_of_the_readme(), "README.md", "exec"), names)
    score, verdict = names["scores"][0], names["verdict"]
    assert score.name == "fd_rand" and score.n == 400 and score.value > 10 * score.floor
    assert verdict.verdict == "UNMEASURABLE"
    assert capsys.readouterr().out == f"{score!r}\n{verdict!r}\n"
    runs = names["runs"]
    assert set(runs["system"]) == {"point_gan", "dirac"} and set(runs["sweep"]) == {
        *names["table"]["sweep"],
        names["run"]["run"].rpartition(".")[0].rpartition(".")[0],
    }
    assert names["points"].shape == (16, 1)
    assert names["ranking"].to_latex().count(r"\toprule") == len(set(names["table"]["signature"].dropna()))


def test_runs_are_flat_records() -> None:
    sweep = aigc_lab.sweep(RING)["sweep"][0]
    records = aigc_lab.runs(sweep)
    assert [(each["run"], each["trial"], each["seed"]) for each in records] == [
        (f"{sweep}.{trial}.0", trial, 0) for trial in (0, 1)
    ]
    assert not [value for each in records for value in each.values() if isinstance(value, dict | list)]
    table = pandas.DataFrame(records)
    for record in records:
        with open_registry(Settings.load(None)) as registry:
            shown = show_run(registry, record["run"])
        assert record["config.lr"] == shown["config"]["lr"]
        scores = {score["name"]: score for score in shown["scores"]}
        assert {name for name in record if name.count(".") == 1 and name.startswith("scores.")} == {
            f"scores.{name}" for name in scores
        }
        for name, score in scores.items():
            assert record[f"scores.{name}"] == score["value"]
            for key in ("low", "high", "n", "floor", "floor_sd", "signature"):
                assert record[f"scores.{name}.{key}"] == score[key]
        assert (record["state"], record["seconds"]) == (shown["state"], shown["seconds"])
        for kind in ("collapse", "stability"):
            said = [verdict["verdict"] for verdict in shown["verdicts"] if verdict["kind"] == kind]
            assert record[kind] == said[-1]
    assert table["scores.rkl"].dtype == float and (table["seconds"] > 0).all()
    assert [each["run"] for each in aigc_lab.runs(sweep, limit=1)] == [f"{sweep}.1.0"]
    assert aigc_lab.runs(sweep, state="failed") == []
    with pytest.raises(aigc_lab.UsageError, match="unknown state 'FAILD'; did you mean FAILED"):
        aigc_lab.runs(sweep, state="faild")


def test_a_run_is_scored_by_its_name(tmp_path: Path) -> None:
    """As many samples of it, drawn by the same seed, score the same as an array."""
    run = aigc_lab.train(RING | {"system": {"name": "point_gan", "hidden": 16}})["run"]
    options: dict[str, Any] = {"metrics": ["modes"], "device": "cpu"}
    named = aigc_lab.evaluate(run, samples=400, seed=3, **options)
    drawn = aigc_lab.load(run).system.generate(400, 3, "evaluate").values.numpy()
    ring = Ring(Ring.Config.model_validate({"points": 2000}), Path())
    assert named == aigc_lab.evaluate(drawn, (ring, "holdout"), **options)
    assert {score.n for score in named} == {400}
    np.save("drawn.npy", drawn)
    assert named == aigc_lab.evaluate(Path("drawn.npy"), (ring, "holdout"), **options)


def test_numbers_whose_range_is_not_clear_are_refused() -> None:
    fake = np.full((4, 3, 8, 8), 3.5)
    with pytest.raises(aigc_lab.UsageError, match="reference: float64 numbers from 3.5 to 3.5 may mean several things"):
        aigc_lab.evaluate(fake, fake, metrics=["fd"], features="random")
    with pytest.raises(aigc_lab.UsageError, match=r"are not signed \(-1 to 1\)"):
        aigc_lab.judge(fake, fake, numbers="signed")
    with pytest.raises(aigc_lab.UsageError, match=r"images are \[N, H, W\], \[N, C, H, W\] or \[N, H, W, C\]"):
        aigc_lab.evaluate(fake, np.zeros((2, 0, 8, 8)))


def test_lists_of_sentences_are_scored() -> None:
    made, real = ["a cat sat", "a dog sat"] * 10, ["a cat sat", "the dog ran", "a bird sang"] * 10
    (score,) = aigc_lab.evaluate(made, real, metrics=["unique"])
    assert score.value == 2 / 20 and score.n == 20
    with pytest.raises(aigc_lab.UsageError, match="--size: is for images, and these are files of sentences"):
        aigc_lab.evaluate(made, real, size=8)
    with pytest.raises(aigc_lab.UsageError, match="--tokenizer: is for sentences"):
        aigc_lab.judge(np.zeros((4, 2)), np.zeros((4, 2)), tokenizer="words")


def test_the_ranking_is_what_compare_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(aigc_lab.UsageError, match="no registry at"):
        aigc_lab.ranking()
    sweep = aigc_lab.sweep(RING)["sweep"][0]
    ranking = aigc_lab.ranking(sweep)
    assert [row["trial"] for row in ranking.rows] == list(aigc_lab.compare(sweep)["trial"])
    assert f"\n{sweep}\nrank  trial" in f"\n{ranking!r}" and "signature: " in repr(ranking)
    assert ranking._repr_html_().count("<tr>") == 1 + len(ranking.rows)
    for words, code in ((["--latex"], 0), (["--latex", "--json"], 2)):
        monkeypatch.setattr(sys, "argv", ["aigc-lab", "compare", sweep, *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == code
        told = capsys.readouterr()
        assert told.out == (ranking.to_latex() if code == 0 else "")
    assert "--json and --latex are two forms of the same; give one of them" in told.err


@pytest.mark.parametrize("name", ["evaluate", "runs"])
@pytest.mark.parametrize("first", ["", "import aigc_lab.NAME", "import aigc_lab.evaluate, aigc_lab.runs.run"])
def test_a_function_and_a_module_of_one_name_are_both_there(name: str, first: str) -> None:
    check = f"""
{first.replace("NAME", name)}
import sys, types
import aigc_lab
assert ("torch" in sys.modules) == {"evaluate" in first.replace("NAME", name)}
called = aigc_lab.{name}
assert callable(called) and isinstance(called, types.ModuleType) and "{name}" in dir(aigc_lab)
import aigc_lab.{name} as module
assert module is called is aigc_lab.{name} is sys.modules["aigc_lab.{name}"]
from aigc_lab.evaluate import evaluate, judge
import aigc_lab.runs.run
assert aigc_lab.runs.run.__name__ == "aigc_lab.runs.run" and aigc_lab.evaluate.judge is judge
try:
    aigc_lab.{name}(nothing=1)
except TypeError as error:
    assert "{name}() got an unexpected keyword argument 'nothing'" in str(error), error
try:
    aigc_lab.nothing
except AttributeError as error:
    assert str(error) == "module 'aigc_lab' has no attribute 'nothing'"
print("kept")
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.stdout == "kept\n", done.stderr
