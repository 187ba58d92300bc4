"""Pruners replayed over histories, as `evaluation/pruners.py` does: what is saved, and what is kept of the best."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import program
from registries import Lab, url_in

from aigc_lab import plugins
from aigc_lab.config import Better
from aigc_lab.pruners.base import Curve, Pruner
from aigc_lab.registry.records import StoredScore, StoredVerdict
from aigc_lab.registry.runs import show_run
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry

STEPS = range(10, 101, 10)


class Always(Pruner):
    def stops(self, run: Curve, others: Sequence[Curve], better: Better) -> bool:
        return True


def runs(module: Any) -> list[Any]:
    """A good run, one that is judged TOTAL from step 30 on, and one that is TOTAL at the end alone."""
    verdicts = [{step: "TOTAL" if step >= since else "NONE" for step in STEPS} for since in (999, 30, 100)]
    values = [{step: level + 1 / step for step in STEPS} for level in (1.0, 2.0, 3.0)]
    return [
        module.Recorded(f"r{n}", n, "gan", Curve(values[n], True, {}, verdicts[n], n)) for n in range(len(verdicts))
    ]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("none", (300, 0, 0, True, True)), ("collapse", (100 + 40 + 100, 1, 1, True, True)), (Always, (30, 3, 2, 0, 0))],
)
def test_a_pruner_is_replayed(kind: Any, expected: tuple[int, ...]) -> None:
    module = program("pruners")
    found: Any = plugins.find(Pruner, kind) if isinstance(kind, str) else kind
    assert module.replay(runs(module), found, "lower", 100) == expected


def test_histories_are_read_from_a_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").mkdir()
    lab = Lab(Registry.open(url_in(tmp_path / "home")))
    sweep = lab.registry.sweep("mine", "mine____" * 2, {"training": {"steps": 100}}, "fd", "lower")
    for trial, verdict in enumerate(("NONE", "TOTAL")):
        run = lab.run(sweep, trial, 0, state=RunState.RUNNING)
        (attempt,) = show_run(lab.registry, run)["attempts"]
        scores = [
            StoredScore("fd", trial + 1 / step, 0.9, 1.1, 100, None, "fd|n", "lower", "progress", step, "reference")
            for step in STEPS
        ]
        verdicts = [StoredVerdict("collapse", step, verdict, "why", {}, "s") for step in STEPS]
        lab.registry.finish(run, attempt["number"], RunState.FINISHED, seconds=1.0, scores=scores, verdicts=verdicts)
    program("pruners").main(str(tmp_path / "home"), "mine", "none", "collapse")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(printed[0]) == "mine: 2 runs, 200 steps; 1 end SEVERE or TOTAL"
    assert printed[2][:6] == ["none", "0", "0", "of", "1", "0%"]
    assert printed[3] == ["collapse", "1", "1", "of", "1", "30%", "kept,", "kept"]
