"""How often the verdicts err, in a small form of what `evaluation/calibrate.py` runs."""

import pytest
from conftest import program


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["stability", "--n", "480", "--seed", "1"], "24 of 24 promises kept"),
        (["collapse", "--data", "ring", "--n", "40", "--others", "3"], "9 of 9 promises kept"),
    ],
)
def test_promises_are_kept(arguments: list[str], kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = program("calibrate").main(arguments)
    printed = capsys.readouterr().out
    assert code == 0 and kept in printed, printed


def test_a_promise_that_is_not_kept_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate = program("calibrate")
    broken = program("calibration.bounds").Bound("honest: PARTIAL or worse", 0.02, most=0.01)
    monkeypatch.setattr(calibrate, "stability", lambda count, seed: [broken])
    assert calibrate.main(["stability"]) == 1
    printed = capsys.readouterr().out
    assert "NOT KEPT" in printed and "0 of 1 promises kept" in printed


def test_intervals_of_masses_and_of_seeds_hold() -> None:
    import numpy as np

    intervals = program("calibration.intervals")
    random = np.random.default_rng(0)
    bounds = [*intervals.of_masses(200, random), *intervals.of_seeds(300, random)]
    assert len(bounds) == 17 and all(bound.kept for bound in bounds), "\n".join(map(str, bounds))
