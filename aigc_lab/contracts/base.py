"""What a contract is: a named check of a plugin, with one sentence on what goes wrong in a sweep when it is broken.

The tests run the contracts over every plugin that ships, `aigc-lab check` over a user's file: the same functions.
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
    """A contract does not hold. The message says in one line what was seen, with numbers, and the remedy."""


@dataclass(frozen=True)
class Contract(Generic[C]):
    """`check(case)` raises `Broken`, or whatever the plugin's own code raises.

    It is not checked when one that it `needs` is broken: it would only tell of the same fault again. With `once` it
    says nothing about a plugin's options, and the defaults are enough.
    """

    name: str
    why: str
    check: Check[C]
    needs: tuple[str, ...]
    once: bool


class Contracts(list[Contract[C]]):
    """The contracts of one kind of plugin, in the order in which they are checked."""

    def add(self, *needs: Check[Any], once: bool = False) -> Callable[[Check[C]], Check[C]]:
        """Makes a function a contract: its name is the contract's, and its docstring says why it matters."""

        def register(check: Check[C]) -> Check[C]:
            why = " ".join((check.__doc__ or "").split())
            self.append(Contract(_title(check), why, check, tuple(map(_title, needs)), once))
            return check

        return register


def borrow(contracts: Contracts[C], part: Callable[[C], D], needs: Check[Any], *checks: Check[D]) -> None:
    """Makes contracts of another kind of plugin, which a case has as its `part`, contracts of this one; each needs
    those before it.
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
    """What became of one contract; `case` names the options with which it broke."""

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
    """Every contract on every case, the first of which is the plugin as it comes; `file` is the plugin's own. `begin`
    is told of each contract before it is checked.
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
    """An error in one line."""
    text = next(iter(str(error).strip().splitlines()), "")
    return text if isinstance(error, Broken) else f"{type(error).__name__}: {text}"


def _where(error: BaseException, file: Path | None) -> Where | None:
    """The deepest line of the plugin's file that led to the error, or to its cause."""
    if file is None:
        return None
    found = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    if found and found[-1].lineno is not None:
        return Where(str(file), found[-1].lineno, found[-1].line or "")
    return _where(error.__cause__, file) if error.__cause__ else None


def _title(check: Check[C]) -> str:
    return str(getattr(check, "__name__", check)).replace("_", " ")
