"""What a report says of all seeds together: a square a verdict, and curves with the numbers of the statistics."""

import re
from pathlib import Path
from statistics import median

import pytest
from made_runs import a_run, random_search, stability

from aigc_lab.statistics.budget import best_of_budget
from aigc_lab.verdicts.seeds import kaplan_meier
from aigc_lab.web import pages, seed_figures


def test_the_matrix_follows_the_ranking_and_says_what_went_wrong() -> None:
    runs = [
        a_run(0, 0, collapse="TOTAL"),
        a_run(0, 1, collapse="UNMEASURABLE"),
        a_run(1, 0, collapse="NONE", stability=None, state="PRUNED", value=None),
    ]
    told = seed_figures.matrix(runs, [{"trial": 1}, {"trial": 0}])
    assert [row["trial"] for row in told["rows"]] == [1, 0]
    collapse, steady = told["rows"][1]["parts"]
    assert [(cell["letter"], cell["kind"]) for cell in collapse["cells"]] == [("T", "worst"), ("U", "open")]
    assert collapse["share"] == "1/1 [9%, 100%], 1 undecided"
    assert [cell["title"] for cell in steady["cells"]] == ["seed 0: STABLE", "seed 1: STABLE"]
    assert told["rows"][0]["parts"][1]["cells"][0] == {
        "letter": "p", "kind": "none", "title": "seed 0: not judged, pruned",
    }  # fmt: skip
    assert "Without a verdict: p pruned." in told["legend"]
    assert seed_figures.matrix([a_run(collapse=None, stability=None)], [])["rows"] == []


def test_every_kind_of_square_has_a_colour() -> None:
    style = pages.render("figure.html", title="", drawing="")
    for kind in ("good", "open", "none", "mild", "bad", "worst"):
        assert re.search(rf"\.matrix \.{kind} {{ background: #", style), kind


def test_survival_and_budget_are_those_of_the_statistics() -> None:
    runs = list(random_search(13, seeds=2, stability=stability(1.0, fails=True)))
    told = seed_figures.curves(runs, {"vae": 3})
    (lasting,), (found,) = told["survival"], told["budget"]
    truth = kaplan_meier([1200] * 26, [True] * 26)
    assert (lasting["n"], lasting["colour"], lasting["trials"]) == (26, 3, 13)
    assert lasting["share"][:2] == [1.0, truth.survival[0]] and lasting["watched"] == []
    values = [median(run.last for run in runs if run.trial == trial and run.last) for trial in range(1, 13)]
    best = best_of_budget(values, values)
    assert (found["median"], found["low"], found["expected"]) == (best.median, best.low, best.expected)
    lasting_table, found_table = seed_figures.tables_of(runs)
    assert lasting_table.rows == [["vae", 1200.0, 26, 26, 0.0, truth.low[0], truth.high[0]]]
    assert len(found_table.rows) == 12 and len(found_table.rows[0]) == len(found_table.header)


def test_files_of_what_the_runs_can_give() -> None:
    names = [name for name, content in seed_figures.pictures(list(random_search(13))) if content[:4] == b"\x89PNG"]
    assert names == ["seeds.png", "verdict-matrix.png", "survival.png", "budget.png"]
    bare = [a_run(0, seed, sampler="tpe", collapse=None, stability=None) for seed in range(3)]
    assert [name for name, _ in seed_figures.pictures(bare)] == ["seeds.png"]
    assert seed_figures.curves(bare, {}) == {"survival": [], "budget": []}


def test_the_script_writes_the_same_columns(pytestconfig: pytest.Config) -> None:
    script = (Path(pytestconfig.rootpath) / "dashboards" / "report.js").read_text("utf-8")
    for table in seed_figures.tables_of(list(random_search(13))):
        header = ", ".join(f'"{name}"' for name in table.header)
        assert f"{table.name}: () => [[{header}]" in script
