"""Our scores beside the reference implementations: the small form of `evaluation/crosscheck.py`."""

import pytest
from conftest import crosscheck


def test_all_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert crosscheck().main(["--count", "60", "--dims", "128"]) == 0, capsys.readouterr().out
    assert "18 of 18 within their bounds" in capsys.readouterr().out


def test_a_difference_is_seen() -> None:
    program = crosscheck()
    assert not program.Row("a", "b", 1.0, 1.001, 1e-4).kept
    assert program.Row("a", "b", 1.0, 1.00001, 1e-4).kept
    assert not program.Row("a", "b", 1e-3, 0.0, 1e-4, absolute=True).kept
    assert not program.Row("a", "b", float("nan"), 0.0, 1e-4, absolute=True).kept
