"""Messages between two processes of one machine: a type's name and JSON, one message a line, over a socket.

A message is a type with typed fields. Values that do not fit are refused by the sender, and lines that are none of the
messages a receiver accepts are refused by the receiver.
"""

import numbers
import socket
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from aigc_lab.errors import Failure


class Closed(Exception):
    """The other end of the channel is gone."""


def _number(value: Any) -> Any:
    """Float of a real number (NumPy's included) or of JSON's words for NaN and infinities. Raises `ValueError` for
    booleans, tensors and everything else.
    """
    if value in ("NaN", "Infinity", "-Infinity") if isinstance(value, str) else _real(value):
        return float(value)
    raise ValueError("it should be a number")


def _real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


#: a float that may be infinite, or not a number
Number = Annotated[float, BeforeValidator(_number)]


class Message(BaseModel):
    """Base of all messages. Raises `Failure` for a field of another type: nothing is coerced, so that a NumPy value or
    a path in the place of a Python one is met where the message is made.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, ser_json_inf_nan="strings")

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, value: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(value)
        except ValidationError as error:
            raise Failure(_refused(cls.__name__, error)) from None


class Channel:
    """One end of a connection, which accepts messages of the given kinds."""

    def __init__(self, end: socket.socket, *kinds: type[Message]) -> None:
        self._socket = end
        self._lines = end.makefile("rb")
        self._kinds = {kind.__name__: kind for kind in kinds}

    def send(self, message: Message) -> None:
        """Sends a message. Raises `Closed` when the other end is gone."""
        # JSON escapes line ends, so a message is one line.
        line = f"{type(message).__name__} {message.model_dump_json()}\n"
        try:
            self._socket.sendall(line.encode())
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self) -> Message | None:
        """Next message, or None when the other end is gone. Raises `Failure` for a line that is not an accepted
        message.
        """
        try:
            line = self._lines.readline()
        except OSError:
            return None
        if not line.endswith(b"\n"):
            return None  # it was being written when the other process died
        word, _, content = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
        if word not in self._kinds:
            kinds = ", ".join(self._kinds) or "nothing"
            raise Failure(f"a message that begins with {word[:40]!r} where {kinds} may come")
        try:
            return self._kinds[word].model_validate_json(content)
        except ValidationError as error:  # it is no JSON at all
            raise Failure(_refused(word, error)) from None

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def _refused(name: str, error: ValidationError) -> str:
    first = error.errors()[0]
    field = ", ".join([f"message {name}", ".".join(map(str, first["loc"]))]).removesuffix(", ")
    actual = "" if first["type"] == "missing" else f", not {str(first['input'])[:60]} ({type(first['input']).__name__})"
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message[:1].lower()}{message[1:]}{actual}"
