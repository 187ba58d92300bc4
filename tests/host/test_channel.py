"""What crosses a process boundary, or is stored: typed where it is sent, checked where it is received."""

import json
import math
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import torch
from pydantic import JsonValue

from aigc_lab.errors import Failure
from aigc_lab.host.channel import Channel, Closed, Message, Number
from aigc_lab.metrics.base import Score
from aigc_lab.registry.states import RunState
from aigc_lab.runs.record import Record


class Ready(Message):
    """Nothing but its name."""


class Answer(Message):
    stop: bool


class Scored(Message):
    step: int
    value: Number
    error: Number
    collapse: str | None


class Progressed(Message):
    step: int
    scalars: dict[str, Number]
    seconds: Number
    samples_per_second: Number


class Ended(Message):
    state: RunState
    value: Number | None
    reason: str | None


class Work(Message):
    run: str
    role: Literal["search", "confirm"]
    values: dict[str, JsonValue]


KINDS: list[type[Message]] = [Ready, Answer, Scored, Progressed, Ended, Work]
WORK: dict[str, Any] = {"run": "s.0.0", "role": "search"}
PROGRESS: dict[str, Any] = {"step": 1, "seconds": 1.0, "samples_per_second": 2.0}


class Ends(NamedTuple):
    here: Channel
    there: Channel
    raw: socket.socket  # there, without the channel


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    ends = Ends(Channel(ours, *KINDS), Channel(theirs, *KINDS), theirs)
    yield ends
    ends.here.close()
    ends.there.close()


@pytest.mark.parametrize(
    "message",
    [
        Answer(stop=True),
        Scored(step=3, value=math.inf, error=0.25, collapse="TOTAL"),
        Ended(state=RunState.PRUNED, value=None, reason="two\nlines, and \u2028 one"),
        Progressed(**PROGRESS, scalars={"loss/critic/total": -math.inf, "x": 1e-300}),
        Work(**WORK, values={"on": True, "few": 3, "lr": 1e-4, "whole": 3.0, "loss": "hinge", "none": None}),
        Work(**WORK, values={"system": {"choice": [{"name": "vae"}, {"lr": {"log": [1e-4, 1.0]}}]}}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was_sent(ends: Ends, message: Message) -> None:
    ends.here.send(message)
    found = ends.there.receive()
    assert found == message and repr(found) == repr(message)  # 3.0 is not 3, and True is not 1


def test_numpys_numbers_arrive_as_pythons(ends: Ends) -> None:
    ends.here.send(Scored(step=1, value=np.float32(0.5), error=np.float32(0.25), collapse=None))  # type: ignore[arg-type]
    ends.here.send(Progressed(**PROGRESS, scalars={"x": np.float64(0.25), "nan": math.nan}))
    scored, progress = ends.there.receive(), ends.there.receive()
    assert isinstance(scored, Scored) and type(scored.value) is float and (scored.value, scored.error) == (0.5, 0.25)
    assert isinstance(progress, Progressed) and type(progress.scalars["x"]) is float
    assert math.isnan(progress.scalars["nan"])


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        (Answer, {"stop": np.bool_(True)}, r"message Answer, stop: .*boolean, not True \(bool"),
        (Answer, {"stop": 1}, "message Answer, stop: "),
        (Scored, {"step": 1, "value": torch.tensor(1.0)}, "message Scored, value: it should be a number"),
        (Scored, {"step": 1, "value": np.bool_(True)}, "message Scored, value: "),
        (Scored, {"step": 1, "value": "0.5"}, "message Scored, value: "),
        (Scored, {"step": np.int64(1), "value": 1.0}, r"message Scored, step: .*integer, not 1 \(int64\)"),
        (Scored, {"step": 1}, "message Scored, value: field required$"),
        (Scored, {"step": 1, "value": 1.0, "error": 0.1, "collapse": None, "stop": True}, "message Scored, stop: "),
        (Progressed, PROGRESS | {"scalars": {"loss": None}}, "message Progressed, scalars.loss: "),
        (Ended, {"state": "FINISHED", "value": None, "reason": None}, "message Ended, state: "),
        (Work, WORK | {"values": {"lr": np.float32(0.1)}}, "message Work, values.lr"),
        (Work, WORK | {"values": {"on": np.bool_(True)}}, "message Work, values.on"),
        (Work, WORK | {"role": "other", "values": {}}, "message Work, role: "),
        (Work, WORK | {"run": Path("h"), "values": {}}, r"message Work, run: .*\(PosixPath\)"),
        (Work, WORK | {"values": {"a": {"b": [Path("h")]}}}, "message Work, values"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_sent(kind: type[Message], fields: dict[str, Any], told: str) -> None:
    with pytest.raises(Failure, match=told) as caught:
        kind(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"\n", "a message that begins with ''"),
        (b"Hello {}\n", "a message that begins with 'Hello' where Ready, "),
        (b"\xff\xfe\x00 {}\n", "a message that begins with "),
        (b"{}\n", "a message that begins with '{}'"),
        (b"Answer\n", "message Answer: invalid JSON"),
        (b"Answer [true]\n", "message Answer: "),
        (b'Answer {"stop": 1}\n', r"message Answer, stop: .*boolean, not 1 \(int\)"),
        (b'Answer {"stop": true, "go": 1}\n', "message Answer, go: "),
        (b"Answer {}\n", "message Answer, stop: field required"),
        (b'Scored {"step": 1, "value": null}\n', "message Scored, value: it should be a number"),
        (b'Ended {"state": "ASLEEP", "value": null, "reason": null}\n', "message Ended, state: "),
    ],
)
def test_a_line_that_is_no_message_is_refused(ends: Ends, line: bytes, told: str) -> None:
    ends.raw.sendall(line)
    with pytest.raises(Failure, match=told) as caught:
        ends.here.receive()
    assert "\n" not in str(caught.value)
    ends.there.send(Ready())
    assert ends.here.receive() == Ready(), "what follows it is read"


def test_a_line_that_a_kill_cut_off_is_the_end(ends: Ends) -> None:
    ends.raw.sendall(b'Answer {"stop": tr')
    ends.raw.shutdown(socket.SHUT_RDWR)
    assert ends.here.receive() is None
    ends.raw.close()
    ends.there.close()
    with pytest.raises(Closed):
        ends.here.send(Ready())


def test_what_plugins_give_is_stored_as_pythons_numbers(tmp_path: Path) -> None:
    """Of NumPy's, a database takes some as bytes, and JSON none."""
    given: Any = np.float32(0.5)
    whole: Any = np.int64(400)
    score = Score("mine", given, given, torch.tensor(0.5), whole, np.float64(0), "s", "lower")  # type: ignore[arg-type]
    told = [type(each) for each in vars(score).values() if each is not None]
    assert told == [str, float, float, float, int, float, str, str]
    spread = Score("mine", given, given, given, whole, given, "s", "lower", given, whole, given)
    assert [type(each) for each in (spread.floor_sd, spread.floor_n, spread.at_floor)] == [float, int, float]
    record = Record(tmp_path)
    record.score([score], "progress", 10, "reference")
    scalars: dict[str, Any] = {"numpy": given, "torch": torch.tensor(0.25), "python": 1.0}
    record.scalar(10, scalars)
    assert json.loads(json.dumps(record.dump()))["curves"]["torch"] == {"step": [10], "value": [0.25]}
    record.close()
    with pytest.raises(ValueError, match="score mine: low should be a number, not None"):
        Score("mine", given, None, given, whole, given, "s", "lower")  # type: ignore[arg-type]
