"""Stores that go away: for how long they are waited for, and what is said of it."""

import itertools

import pytest

from aigc_lab.host import outage
from aigc_lab.host.outage import StoreAway


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("AIGC_LAB_STORE_PATIENCE", "0.3")
    monkeypatch.setattr(outage, "_FIRST", 0.02)
    return []


def away(error: Exception) -> str | None:
    return str(error) if isinstance(error, ConnectionError) else None


def test_a_server_that_connects_and_then_fails_is_given_up(said: list[str]) -> None:
    """A question within a question is answered each time: the store is away all the same, and is said to be once."""
    tries = itertools.count()

    def work() -> None:
        outage.ask("registry", lambda: "connected", away)
        assert next(tries) < 200, "it is waited for without an end"
        raise ConnectionError("terminated")

    with (
        outage.reported_to(said.append),
        pytest.raises(StoreAway, match=r"registry is away \(terminated\), and was waited for 0.3 s"),
    ):
        outage.ask("registry", work, away)
    assert said == ["registry is away (terminated); waiting up to 0.3 s"]


def test_what_comes_back_is_said_to_be_back(said: list[str]) -> None:
    answers = iter([ConnectionError("gone"), ConnectionError("gone"), None])

    def work() -> str:
        outage.ask("registry", lambda: None, away)
        if (error := next(answers)) is not None:
            raise error
        return "answer"

    with outage.reported_to(said.append):
        assert outage.ask("registry", work, away) == "answer"
        assert outage.ask("registry", lambda: 1, away) == 1
    assert said == ["registry is away (gone); waiting up to 0.3 s", "registry is back"]
