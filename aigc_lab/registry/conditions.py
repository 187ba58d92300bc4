"""Conditions on rows: `lr < 1e-3 and system = dcgan`, read into a function of a row.

    condition  = conjunction { "or" conjunction }
    conjunction = negation { "and" negation }
    negation   = "not" negation | "(" condition ")" | comparison
    comparison = COLUMN ( "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | COLUMN [ "not" ] "in" "(" value { "," value } ")"
               | COLUMN                                             true where the column is true
    value      = number | "quoted" | 'quoted' | bare-word | true | false | null

A row may have several values of a column (the verdicts of its runs): a comparison is true if it is true of any of
them, and `!=` and `not in` where `=` and `in` are not. Every comparison with a column that the row lacks is false.
Numbers compare with numbers and texts with texts: of two kinds `<` is false and `!=` true.
"""

import operator
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name

Row = TypeVar("Row")
Value = bool | int | float | str | None

# Deeper than anybody writes, and far from what Python's stack holds.
_DEEPEST = 50

_TOKEN = re.compile(
    r"""\s*(?: (?P<quoted> "[^"]*" | '[^']*' )
        | (?P<sign> <= | >= | != | == | [=<>(),] )
        | (?P<word> [^\s<>=!(),'"]+ ) )""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)
_CONSTANTS: dict[str, Value] = {"true": True, "false": False, "null": None}
_KEYWORDS = ("and", "or", "not", "in")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """The values of a row in one column: none where the row lacks it. With `upper`, texts compare in any case: its
    values are in capitals. It may stand alone in a condition if it `decides`. Its texts are among the `words`, if there
    are any, and one that is `numeric` has none.
    """

    values: Callable[[Row], Sequence[Value]]
    upper: bool = False
    decides: bool = False
    words: Sequence[str] = ()
    numeric: bool = False


# ---- reading


class Comparison(NamedTuple):
    """One comparison: `sign` is `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, or `not in`, or `is` of a column alone."""

    column: str
    sign: str
    values: tuple[Value, ...]


class Junction(NamedTuple):
    """Conditions joined by `and`, `or`, or the negation `not` of one."""

    word: str
    parts: "tuple[Node, ...]"


Node = Comparison | Junction


class _Token(NamedTuple):
    kind: str  # quoted, sign, word or end
    text: str
    at: int

    @property
    def keyword(self) -> str:
        """The word in lower case where it is one of the language's own; else the sign."""
        lower = self.text.lower()
        return lower if self.kind == "word" and lower in _KEYWORDS else self.text if self.kind == "sign" else ""


def parse(text: str) -> Node:
    """The condition that a text says. Raises `UsageError` with the place where it is none."""
    return _Parser(text).whole()


class _Parser:
    """Recursive descent: a method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._place, self._depth = text, list(_tokens(text)), 0, 0

    def whole(self) -> Node:
        node = self._joined("or", lambda: self._joined("and", self._negation))
        if self._next.kind != "end":
            chained = self._next.keyword in ("=", "==", "!=", "<", "<=", ">", ">=")
            self._fail("write two comparisons and 'and' between them" if chained else "'and' or 'or' is expected")
        return node

    def _joined(self, word: str, part: Callable[[], Node]) -> Node:
        parts = [part()]
        while self._taken(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Junction(word, tuple(parts))

    def _negation(self) -> Node:
        negated = False
        while self._taken("not"):
            negated = not negated
        if self._taken("("):
            self._depth += 1
            if self._depth > _DEEPEST:
                self._fail(f"no more than {_DEEPEST} parentheses in one another can be read")
            node = self._joined("or", lambda: self._joined("and", self._negation))
            self._expect(")")
            self._depth -= 1
        else:
            node = self._comparison()
        return Junction("not", (node,)) if negated else node

    def _comparison(self) -> Node:
        column = self._next
        if column.kind not in ("quoted", "word") or column.keyword:
            self._fail("a column is expected")
        if _NUMBER.fullmatch(column.text):
            self._fail("begin with the column: lr < 1e-3")
        self._place += 1
        name, negated = _unquoted(column), self._taken("not")
        if negated or self._next.keyword == "in":
            self._expect("in")
            return Comparison(name, "not in" if negated else "in", self._list())
        sign = self._next.keyword
        if sign not in ("=", "==", "!=", "<", "<=", ">", ">="):
            return Comparison(name, "is", (True,))
        self._place += 1
        return Comparison(name, "=" if sign == "==" else sign, (self._value(),))

    def _list(self) -> tuple[Value, ...]:
        self._expect("(")
        values = [self._value()]
        while self._taken(","):
            values.append(self._value())
        self._expect(")")
        return tuple(values)

    def _value(self) -> Value:
        token = self._next
        if token.kind not in ("quoted", "word") or token.keyword:
            self._fail("a value is expected")
        self._place += 1
        if token.kind == "quoted":
            return _unquoted(token)
        if _NUMBER.fullmatch(token.text):
            whole = token.text.lstrip("+-").isdigit() and len(token.text) < 20
            return int(token.text) if whole else float(token.text)
        return _CONSTANTS.get(token.text.lower(), token.text)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _taken(self, keyword: str) -> bool:
        """Whether the next token is this one; it is passed then."""
        if self._next.keyword != keyword:
            return False
        self._place += 1
        return True

    def _expect(self, keyword: str) -> None:
        if not self._taken(keyword):
            self._fail(f"'{keyword}' is expected")

    def _fail(self, what: str) -> NoReturn:
        _fail(self._text, self._next.at, what, self._next.text)


def _tokens(text: str) -> Iterable[_Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            quote = text[at] in "'\""
            _fail(text, at, "this quote is not closed" if quote else "this means nothing here", text[at])
        kind = str(match.lastgroup)
        yield _Token(kind, match[kind], match.start(kind))
        at = match.end()
    yield _Token("end", "", len(text.rstrip()))


def _unquoted(token: _Token) -> str:
    return token.text[1:-1] if token.kind == "quoted" else token.text


def _fail(text: str, at: int, what: str, found: str) -> NoReturn:
    if not text.strip():
        raise UsageError("--where: the condition is empty; write one like lr < 1e-3 and system = dcgan")
    where = f"at character {at + 1}, '{found}'" if found else "at its end"
    raise UsageError(f"--where {text.strip()}: {where}: {what}")


# ---- what it names


def names(node: Node) -> list[str]:
    """The columns that a condition names, in their order."""
    if isinstance(node, Comparison):
        return [node.column]
    return list(dict.fromkeys(name for part in node.parts for name in names(part)))


def column_name(name: str, columns: Collection[str], option: str = "--where") -> str:
    """The column that is meant by its whole name or by the last part of a dotted one. Raises `UsageError` with the
    nearest names, or where several end so.
    """
    if name in columns:
        return name
    ending = sorted(each for each in columns if each.endswith(f".{name}"))
    if len(ending) > 1:
        raise UsageError(f"{option}: '{name}' may be {' or '.join(ending)}; write the whole name")
    if not ending:
        raise UsageError(f"{option}: {unknown_name('column', name, sorted(columns))}")
    return ending[0]


# ---- deciding


def predicate(node: Node, column: Callable[[str], Column[Row]]) -> Callable[[Row], bool]:
    """Whether a row fulfils the condition; `column` finds a column by its name."""
    if isinstance(node, Comparison):
        return _comparison(node, column(node.column))
    parts = [predicate(part, column) for part in node.parts]
    if node.word == "not":
        (only,) = parts
        return lambda row: not only(row)
    if node.word == "and":
        return lambda row: all(part(row) for part in parts)
    return lambda row: any(part(row) for part in parts)


def _comparison(node: Comparison, column: Column[Row]) -> Callable[[Row], bool]:
    values_of = column.values
    wanted = [value.upper() if column.upper and isinstance(value, str) else value for value in node.values]
    if node.sign == "is" and not column.decides:
        raise UsageError(f"--where: '{node.column}' alone is no condition; compare it, as in {node.column} = …")
    for text in (value for value in wanted if isinstance(value, str)):
        if column.numeric:
            raise UsageError(f"--where: {node.column} is a number, and '{text}' is none")
        if column.words and text not in column.words:
            raise UsageError(f"--where: {unknown_name(f'value of {node.column}', text, list(column.words))}")
    if node.sign in ("=", "in", "is"):
        return lambda row: any(_same(value, each) for value in values_of(row) for each in wanted)
    if node.sign in ("!=", "not in"):

        def differs(row: Row) -> bool:
            values = values_of(row)
            return len(values) > 0 and not any(_same(value, each) for value in values for each in wanted)

        return differs
    holds, bound = _ORDERS[node.sign], wanted[0]
    return lambda row: any(_ordered(value, bound) and holds(value, bound) for value in values_of(row))


_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _same(one: Value, other: Value) -> bool:
    return _kind(one) is _kind(other) and one == other


def _ordered(one: Value, other: Value) -> bool:
    """Whether one may stand before the other: two numbers, or two texts."""
    return _kind(one) is _kind(other) and isinstance(one, int | float | str) and not isinstance(one, bool)


def _kind(value: Value) -> type:
    """The type, one for whole numbers and others."""
    return float if type(value) is int else type(value)
