"""Histories of scores as other programs write them: tables (CSV) and JSON, read without torch and without pandas."""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.host.files import is_file

Nan = Literal["missing", "diverged"]
Cells = Mapping[str, Any]

# What programs write in the place of a value that was not measured. NaN may mean that too, or that the run diverged.
_NOTHING = ("", "na", "n/a", "null", "none")
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
# 1234,5 and 1.234,5, as half of the world writes them; only where the comma separates no cells.
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")
# network-snapshot-000200.pkl, checkpoint-500
_NUMBERED_FILE = re.compile(r"\D*[A-Za-z_]\D*?(\d+)(\.[A-Za-z]\w*)?")
# The share of the gaps between values that must be equal for evaluations to have been due at regular steps.
_REGULAR = 0.8


class Row(NamedTuple):
    """One evaluation; a value or a standard error of None was not measured."""

    step: float
    value: float | None
    error: float | None


def read_history(
    path: Path,
    value: str,
    step: str = "step",
    se: str | None = None,
    where: Sequence[str] = (),
    nan: Nan | None = None,
) -> tuple[list[Row], list[str]]:
    """The rows of a history in the order of the file, and what was assumed in reading them.

    The file is a table with a header, separated by commas, semicolons or tabs (then also with decimal commas), or JSON:
    an object a line, a list of objects, or one object that holds such a list (`trainer_state.json`) or a list for each
    column. `results.fid50k_full` is a column inside another. A step may be the number in a file's name. `where` keeps
    the rows of which a column has a value (`metric=score/fid`). An empty cell was not measured. `nan` says what NaN
    means; unless told, it diverged, but in a column that is mostly NaN, with values at regular steps, NaN between them
    was not evaluated.

    Raises `UsageError` naming file, line, column and value for what cannot be read, and the column by which the rows
    are those of several histories.
    """
    wanted = [step, value] + ([se] if se is not None else [])
    conditions = [_condition(each) for each in where]
    found = list(_found(path, wanted, conditions))
    kept = [each for each in found if all(_meets(each[1], *condition) for condition in conditions)]
    if found and not kept:
        raise UsageError(f"{path}: no row has {' and '.join(where)}; {_held(found, conditions[0][0])}")
    rows, cells = [], []
    for place, each in kept:
        row = _row(f"{path}, {place}", each, wanted)
        if row is not None:
            rows.append(row)
            cells.append(each)
    if not rows:
        raise UsageError(f"{path}: there is no row under the names of the columns; give one for each evaluation")
    _refuse_several(path, rows, cells, {*wanted} | {name for name, _ in conditions})
    return _evaluated(rows, nan)


# ---- which rows


def _condition(text: str) -> tuple[str, str]:
    name, equals, wanted = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--where {text!r} is no condition; write COLUMN=VALUE, such as metric=score/fid")
    return name.strip(), wanted.strip()


def _meets(cells: Cells, name: str, wanted: str) -> bool:
    held = _text_of(_cell(cells, name))
    if held == wanted:
        return True
    try:
        return float(held) == float(wanted)
    except ValueError:
        return False


def _held(found: list[tuple[str, Cells]], name: str) -> str:
    held = sorted({_text_of(_cell(cells, name)) for _, cells in found})
    return f"column {name} holds {', '.join(map(repr, held[:5]))}{' …' if len(held) > 5 else ''}"


def _refuse_several(path: Path, rows: list[Row], cells: list[Cells], used: set[str]) -> None:
    """Raises `UsageError` where steps go back or repeat because the rows are those of several runs or metrics: another
    column tells them apart, and the steps rise within each of its values.
    """
    steps = [row.step for row in rows]
    if _rises(steps) or _rises(steps[::-1]):
        return
    for name in dict.fromkeys(name for each in cells for name in each if name not in used):
        groups: dict[str, list[float]] = {}
        for step, each in zip(steps, cells, strict=True):
            groups.setdefault(_text_of(each.get(name)), []).append(step)
        if 1 < len(groups) <= len(rows) / 2 and all(_rises(each) or _rises(each[::-1]) for each in groups.values()):
            shown = ", ".join(map(repr, list(groups)[:3])) + (" …" if len(groups) > 3 else "")
            remedy = (
                f"choose one with --where '{name}={next(iter(groups))}', or remove the column if they are one history"
            )
            raise UsageError(f"{path}: column {name} says that these are {len(groups)} histories ({shown}); {remedy}")


def _rises(steps: list[float]) -> bool:
    return all(earlier < later for earlier, later in pairwise(steps))


def _evaluated(rows: list[Row], nan: Nan | None) -> tuple[list[Row], list[str]]:
    """The rows with NaN as it is meant, and the words for it where that is not plain."""
    missing = [place for place, row in enumerate(rows) if row.value is not None and math.isnan(row.value)]
    if not missing or nan == "diverged":
        return rows, []
    if nan == "missing":
        return _without(rows, missing), [
            f"NaN in {len(missing)} of {len(rows)} rows is taken for not evaluated, as told"
        ]
    valued = [place for place, row in enumerate(rows) if row.value is not None and not math.isnan(row.value)]
    gaps = Counter(later - earlier for earlier, later in pairwise(valued))
    (every, times), *_ = gaps.most_common(1) or [(0, 0)]
    if len(missing) < len(rows) / 2 or every < 2 or times < _REGULAR * sum(gaps.values()):
        return rows, []
    # A value that was due after the last one, and is NaN, diverged.
    between = [place for place in missing if place < valued[-1] + every]
    said = f"NaN in {len(between)} of {len(rows)} rows is taken for not evaluated, for every {every}th row has a value"
    return _without(rows, between), [f"{said}; --nan diverged takes it for a score that was not finite"]


def _without(rows: list[Row], missing: list[int]) -> list[Row]:
    """The rows, and no value where it is missing; those at the end are no evaluations."""
    gone = {*missing}
    rows = [row._replace(value=None) if place in gone else row for place, row in enumerate(rows)]
    while rows and len(rows) - 1 in gone:
        rows.pop()
    return rows


# ---- what a row says


def _row(place: str, cells: Cells, wanted: list[str]) -> Row | None:
    """Step, value and error; None for what has neither step nor value."""
    places = [f"{place}, column {name}" for name in wanted]
    read = [_step, _number, _number]
    numbers = [kind(_cell(cells, name), where) for kind, name, where in zip(read, wanted, places, strict=False)]
    step, value, error = (*numbers, None)[:3]
    if step is None and value is None:
        return None
    if step is None or not math.isfinite(step):
        shown = "" if step is None else f"{step} "
        raise UsageError(f"{places[0]}: {shown}is no step; number the evaluation, or remove it")
    if error is not None and error < 0:
        raise UsageError(f"{places[2]}: {error:g} is no standard error; it is 0 or more, or empty where unknown")
    return Row(step, value, error)


def _step(cell: Any, place: str) -> float | None:
    numbered = _NUMBERED_FILE.fullmatch(cell.strip()) if isinstance(cell, str) else None
    return float(numbered[1]) if numbered else _number(cell, place)


def _number(cell: Any, place: str) -> float | None:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _NOTHING):
        return None
    try:
        if isinstance(cell, bool):
            raise TypeError
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        remedy = "write a number like 1234.5, nan where it diverged, or nothing where it was not measured"
        raise UsageError(f"{place}: {str(cell)[:40]!r} is no number; {remedy}") from None


def _cell(cells: Cells, name: str) -> Any:
    """The cell of a column; of `a.b`, what `b` is of the object in column `a`."""
    if name in cells:
        return cells[name]
    for at in (match.start() for match in re.finditer(r"\.", name)):
        inner = cells.get(name[:at])
        if isinstance(inner, dict):
            return _cell(inner, name[at + 1 :])
    return None


def _text_of(cell: Any) -> str:
    return "" if cell is None else cell.strip() if isinstance(cell, str) else json.dumps(cell)


# ---- tables and JSON


def _found(path: Path, wanted: list[str], conditions: list[tuple[str, str]]) -> Iterator[tuple[str, Cells]]:
    """The place and the cells of every row of a file that has all these columns."""
    text = _text(path)
    names = [*wanted, *(name for name, _ in conditions if name not in wanted)]
    if re.match(r"\s*(\{|\[\s*[\]{])", text):
        return _objects(path, text, names, wanted)
    return _table(path, text, names)


def _table(path: Path, text: str, wanted: list[str]) -> Iterator[tuple[str, Cells]]:
    """The line and cells of each row, by the names in the header; a header that comes again is none."""
    lines = text.split("\n")
    line = 1
    try:
        header, delimiter = _header(path, lines, wanted)
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True, strict=True)
        for row in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in row) or [cell.strip() for cell in row] == header:
                continue
            if any(cell.strip() for cell in row[len(header) :]):
                remedy = f"quote a cell that holds a {_DELIMITERS[delimiter]}, and write numbers like 1234.5"
                raise UsageError(f"{path}, line {line}: {len(row)} cells, {len(header)} columns; {remedy}")
            cells = row if delimiter == "," else [_with_point(cell) for cell in row]
            yield f"line {line}", dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise UsageError(f"{path}, after line {line}: no table ({error}); save it as CSV again") from None


def _with_point(cell: str) -> str:
    if _DECIMAL_COMMA.fullmatch(cell.strip()):
        return cell.replace(".", "").replace(",", ".")
    return cell


def _header(path: Path, lines: list[str], wanted: list[str]) -> tuple[list[str], str]:
    """The names of the columns and what separates them: that by which the wanted ones are found, else most."""
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise UsageError(f"{path}: is empty; write the names of the columns, and below them a line an evaluation")

    def names(delimiter: str) -> list[str]:
        return [name.strip() for name in next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))]

    def fit(delimiter: str) -> tuple[int, int]:
        return len({*wanted} & {*names(delimiter)}), len(names(delimiter))

    delimiter = max(_DELIMITERS, key=fit)
    header = names(delimiter)
    for name in wanted:
        if name not in header:
            raise UsageError(f"{path}, line 1: {unknown_name('column', name, header)}")
        if header.count(name) > 1:
            raise UsageError(f"{path}, line 1: {header.count(name)} columns are named {name}; rename the others")
    return header, delimiter


def _objects(path: Path, text: str, names: list[str], wanted: list[str]) -> Iterator[tuple[str, Cells]]:
    """The place and cells of each object, of one a line or of a list; what one lacks was not measured there."""
    pieces: list[tuple[str, Any]] = []
    whole = _whole(path, text, wanted)
    if whole is not None:
        pieces = [(f"object {number}", each) for number, each in enumerate(whole, 1)]
    else:
        for number, line in enumerate(text.split("\n"), 1):
            pieces.append((f"line {number}", _json(path, line, number, "one object a line") if line.strip() else {}))
    known: dict[str, None] = {}
    for place, cells in pieces:
        if not isinstance(cells, dict):
            shown = json.dumps(cells)[:40]
            raise UsageError(f"{path}, {place}: {shown} is no object; write one for each evaluation")
        known |= dict.fromkeys(cells)
    if not pieces:
        raise UsageError(f"{path}: the list is empty; write an object for each evaluation")
    for name in names:
        if name not in known and all(_cell(cells, name) is None for _, cells in pieces):
            raise UsageError(f"{path}: {unknown_name('column', name, _columns(pieces))}")
    # Other objects of a log tell of other things: losses, the time.
    yield from ((place, cells) for place, cells in pieces if _cell(cells, names[1]) is not None or whole is None)


def _whole(path: Path, text: str, wanted: list[str]) -> list[Any] | None:
    """The objects of a file that is one list, or one object with the list in it; None for an object a line."""
    if text.lstrip().startswith("["):
        listed: list[Any] = _json(path, text, 1, "one list of objects")
        return listed
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    columns = [told[name] for name in wanted if isinstance(told.get(name), list)]
    if len(columns) == len(wanted):
        if len({*map(len, columns)}) > 1:
            lengths = ", ".join(f"{name} {len(each)}" for name, each in zip(wanted, columns, strict=True))
            raise UsageError(f"{path}: the lists differ in length ({lengths}); write a value for each step")
        return [dict(zip(wanted, cells, strict=True)) for cells in zip(*columns, strict=True)]
    lists = [each for each in told.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    fitting = [each for each in lists if any(isinstance(row, dict) and wanted[1] in row for row in each)]
    return next(iter(fitting or lists), None)


def _columns(pieces: list[tuple[str, Any]]) -> list[str]:
    """The names that could have been asked for, those inside others as `a.b`."""
    names: dict[str, None] = {}
    for _, cells in pieces:
        for name, cell in cells.items():
            names |= dict.fromkeys((f"{name}.{inner}" for inner in cell) if isinstance(cell, dict) else [name])
    return [*names]


def _json(path: Path, text: str, line: int, wanted: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        told = f"{path}, line {line + error.lineno - 1}: no JSON ({error.msg}, column {error.colno})"
        raise UsageError(f"{told}; write {wanted}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits; lists within lists
        raise UsageError(f"{path}, line {line}: no JSON that can be read ({error}); write {wanted}") from None


def _text(path: Path) -> str:
    if not is_file(path):
        raise UsageError(f"{path}: there is no such file; give a table of evaluations, like history.csv")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"{path}: is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {line}: is not UTF-8; save it as UTF-8 (iconv -f LATIN1 -t UTF-8)") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UsageError(f"{path}, line {line}: holds a zero byte: a binary file, and no table")
    return text
