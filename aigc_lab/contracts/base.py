"""Contracts: named checks of a plugin, each with one sentence on what goes wrong in a sweep when it is broken.

The tests run them over every plugin that ships, and `aigc-lab check` over a user's file.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

C = TypeVar("C")
D = TypeVar("D")
Check = Callable[[C], None]
Begin = Callable[[str], None]


class Broken(Exception):
    """A contract does not hold. The message is one line: the observation, with numbers, and the remedy."""


@dataclass(frozen=True)
class Contract(Generic[C]):
    """A check of a case: it raises `Broken`, or whatever the plugin's own code raises.

    `needs` are the titles of contracts without which it would repeat their fault: it is skipped when one of them is
    broken. With `once` it does not depend on a plugin's options, and only the first case is checked.
    """

    name: str
    why: str
    check: Check[C]
    needs: tuple[str, ...]
    once: bool


class Contracts(list[Contract[C]]):
    """The contracts of one kind of plugin, in the order in which they are checked."""

    def add(self, *needs: Check[Any], once: bool = False) -> Callable[[Check[C]], Check[C]]:
        """A decorator that adds a function: its name becomes the title, its docstring the reason why it matters."""

        def register(check: Check[C]) -> Check[C]:
            why = " ".join((check.__doc__ or "").split())
            self.append(Contract(_title(check), why, check, tuple(map(_title, needs)), once))
            return check

        return register


def borrow(contracts: Contracts[C], part: Callable[[C], D], needs: Check[Any], *checks: Check[D]) -> None:
    """Adds contracts of another kind of plugin to `contracts`, checked on a `part` of each case: a penalty's case has a
    GAN, whose contracts it shares. The first needs `needs`, and each needs those before it.
    """
    for number, check in enumerate(checks):

        def held(case: C, check: Check[D] = check) -> None:
            check(part(case))

        contracts.add(needs, *checks[:number])(wraps(check)(held))


class Where(NamedTuple):
    """A line of a plugin's file."""

    file: str
    line: int
    code: str


@dataclass(frozen=True)
class ContractResult:
    """The outcome of one contract; `case` names the options with which it is broken, "" for the defaults."""

    contract: str
    state: Literal["kept", "broken", "not checked"]
    why: str
    message: str = ""
    case: str = ""
    where: Where | None = None


def examine(
    contracts: Sequence[Contract[C]],
    cases: Mapping[str, C],
    file: Path | None,
    begin: Begin = lambda contract: None,
) -> Iterator[ContractResult]:
    """Checks every contract on every case and yields the results in order. `cases` are named by their options; the
    first has the defaults. `file` is the plugin's, of which broken lines are quoted. `begin` is called with the title
    of each contract before it is checked.
    """
    lost: dict[str, str] = {}  # what is not known to be kept -> the broken contract behind it
    for contract in contracts:
        first = next((lost[need] for need in contract.needs if need in lost), None)
        if first is None:
            begin(contract.name)
            result = _result(contract, cases, file)
        else:
            result = ContractResult(contract.name, "not checked", contract.why, f"first repair: {first}")
        if result.state != "kept":
            lost[contract.name] = first or contract.name
        yield result


def _result(contract: Contract[C], cases: Mapping[str, C], file: Path | None) -> ContractResult:
    for label, case in list(cases.items())[: 1 if contract.once else None]:
        try:
            contract.check(case)
        except Exception as error:  # noqa: BLE001 -- whatever a plugin raises is said with its line
            return ContractResult(contract.name, "broken", contract.why, say(error), label, _where(error, file))
    return ContractResult(contract.name, "kept", contract.why)


def say(error: BaseException) -> str:
    """The first line of an error's message, after the name of its class unless it is `Broken`."""
    text = next(iter(str(error).strip().splitlines()), "")
    return text if isinstance(error, Broken) else f"{type(error).__name__}: {text}"


def _where(error: BaseException, file: Path | None) -> Where | None:
    """The innermost line of the plugin's file in the traceback of the error, or of its cause; None if there is none."""
    if file is None:
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if frames and frames[-1].lineno is not None:
        return Where(str(file), frames[-1].lineno, frames[-1].line or "")
    return _where(error.__cause__, file) if error.__cause__ else None


def _title(check: Check[C]) -> str:
    return str(getattr(check, "__name__", check)).replace("_", " ")
