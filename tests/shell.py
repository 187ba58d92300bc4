"""Commands as they are typed, in this process, and something that happens while a sweep goes on."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple
from unittest import mock

import pytest

from aigc_lab import cli
from aigc_lab.sweeps import scheduler


class Told(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    output: str
    errors: str

    @property
    def why(self) -> str:
        """The one line that says what is wrong."""
        (line,) = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        assert self.errors.endswith(f"{line}\n")
        return line


def mistakes(errors: str) -> list[str]:
    """The lines of standard error but those that say what goes on, which end in three dots."""
    return [line for line in errors.splitlines() if not line.endswith(" …")]


def command(*words: str) -> Told:
    """A command in this process; whatever was wrong, it is no traceback."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["aigc-lab", *words]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as left,
    ):
        cli.main()
    told = Told(int(left.value.code or 0), output.getvalue(), errors.getvalue())
    assert "Traceback" not in told.errors, told.errors
    return told


@contextlib.contextmanager
def at(evaluation: int, happen: Callable[[], object]) -> Iterator[None]:
    """Something happens before this evaluation of those that come within is told."""
    scored, count = scheduler._Watcher.scored, 0

    def counted(watcher: scheduler._Watcher, step: int, value: float, **told: object) -> bool:
        nonlocal count
        count += 1
        if count == evaluation:
            happen()
        return scored(watcher, step, value, **told)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler._Watcher, "scored", counted)
        yield
    assert count >= evaluation
