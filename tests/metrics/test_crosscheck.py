"""Our scores beside the reference implementations: the small form of `evaluation/crosscheck.py`."""

import pytest
from conftest import program


def test_all_agree(capsys: pytest.CaptureFixture[str]) -> None:
    code = program("crosscheck").main(["--count", "30", "--dims", "64"])
    printed = capsys.readouterr().out
    assert code == 0 and "16 of 16 within their bounds" in printed, printed


def test_a_difference_is_seen() -> None:
    row = program("crosscheck").Row
    assert not row("a", "b", 1.0, 1.001, 1e-4).kept
    assert row("a", "b", 1.0, 1.00001, 1e-4).kept
    assert not row("a", "b", 1e-3, 0.0, 1e-4, absolute=True).kept
    assert not row("a", "b", float("nan"), 0.0, 1e-4, absolute=True).kept
