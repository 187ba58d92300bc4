"""Messages between two processes of one machine: a word and JSON, one a line, over a socket.

A message is a type with typed fields. What does not fit them is refused where it is sent; a line that is none of the
messages that the receiver knows is refused where it is received.
"""

import numbers
import socket
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from aigc_lab.errors import Failure


class Closed(Exception):
    """The other end is gone."""


def _number(value: Any) -> Any:
    """NumPy's numbers as Python's, and the words that stand for what JSON has no number for. A truth value and a
    tensor are no numbers.
    """
    if value in ("NaN", "Infinity", "-Infinity") if isinstance(value, str) else _real(value):
        return float(value)
    raise ValueError("it should be a number")


def _real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


#: a float that may be infinite, or not a number
Number = Annotated[float, BeforeValidator(_number)]


class Message(BaseModel):
    """The base of all messages. Raises `Failure` for a field of another type: nothing is guessed, so that a NumPy value
    or a path in the place of a Python one is met by who made it.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, ser_json_inf_nan="strings")

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, given: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(given)
        except ValidationError as error:
            raise Failure(_refused(cls.__name__, error)) from None


class Channel:
    """One end, which receives messages of the given kinds. `receive` returns None once the other end is gone, and
    `send` raises `Closed`.
    """

    def __init__(self, end: socket.socket, *kinds: type[Message]) -> None:
        self._socket = end
        self._lines = end.makefile("rb")
        self._kinds = {kind.__name__: kind for kind in kinds}

    def send(self, message: Message) -> None:
        line = f"{type(message).__name__} {message.model_dump_json()}\n"
        try:
            self._socket.sendall(line.encode())
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self) -> Message | None:
        """The next message. Raises `Failure` for a line that is none."""
        try:
            line = self._lines.readline()
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None  # it was being written when the other process died
        word, _, told = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
        if word not in self._kinds:
            known = ", ".join(self._kinds) or "nothing"
            raise Failure(f"a message that begins with {word[:40]!r} where {known} may come")
        try:
            return self._kinds[word].model_validate_json(told)
        except ValidationError as error:  # it is no JSON at all
            raise Failure(_refused(word, error)) from None

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def _refused(name: str, error: ValidationError) -> str:
    first = error.errors()[0]
    field = ", ".join([f"message {name}", ".".join(map(str, first["loc"]))]).removesuffix(", ")
    given = "" if first["type"] == "missing" else f", not {str(first['input'])[:60]} ({type(first['input']).__name__})"
    said = first["msg"].removeprefix("Value error, ")
    return f"{field}: {said[:1].lower()}{said[1:]}{given}"
