"""An empty value means nothing anywhere: `-o ''` is a variable of the shell that was not set, not this folder."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from aigc_lab import cli
from aigc_lab.cli.options import _MAY_BE_EMPTY
from aigc_lab.errors import UsageError


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def values() -> Iterator[tuple[str, list[str]]]:
    """Every option that takes a value, and every argument, as words of a command line in which it is empty."""
    for words, command in commands(get_command(cli.app)):
        before = 0
        for parameter in command.params:
            if not parameter.opts[0].startswith("-"):
                yield parameter.name, [*words, *["x"] * before, ""]
                before += 1
            elif not getattr(parameter, "is_flag", False) and parameter.name not in ("help", *_MAY_BE_EMPTY):
                yield parameter.name, [*words, parameter.opts[0], ""]
                yield parameter.name, [*words, max(parameter.opts, key=len), " "]


EVERY = [words for _, words in values()]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_an_empty_value_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^[\w|-]+ '': is empty; give a value, or leave it out$"):
        get_command(cli.app)(words, standalone_mode=False)


def test_every_command_is_among_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(EVERY) > 150
    for words in (["init", ""], ["evaluate", "--generated", "", "--reference", "x"], ["cache", "list", "--home", ""]):
        monkeypatch.setattr(sys, "argv", ["aigc-lab", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(UsageError, match="no registry at"):
        get_command(cli.app)(["sample", "toy", "--prefix", "", "--home", "/nowhere"], standalone_mode=False)
