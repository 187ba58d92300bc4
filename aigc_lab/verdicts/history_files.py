"""Files of histories of scores by other programs: tables (CSV) and JSON, read without torch and without pandas."""

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

# Cells that programs write for a value that was not measured. NaN may mean that too, or that the run diverged.
_NOTHING = ("", "na", "n/a", "null", "none")
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
# 1234,5 and 1.234,5, as half of the world writes them; only where the comma separates no cells.
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?")
# network-snapshot-000200.pkl, checkpoint-500
_NUMBERED_FILE = re.compile(r"\D*[A-Za-z_]\D*?(\d+)(\.[A-Za-z]\w*)?")
# The share of the gaps between values that must be equal for evaluations to have been due at regular steps.
_REGULAR = 0.8


class Row(NamedTuple):
    """Evaluation of a history; a value or a standard error that was not measured is None."""

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
    """Rows of a history in the order of the file, and notes on what was assumed in reading them.

    The file is a table with a header, separated by commas, semicolons or tabs (then also with decimal commas), or JSON:
    an object a line, a list of objects, or one object that holds such a list (`trainer_state.json`) or a list for each
    column. `results.fid50k_full` is a column inside another. A step may be the number in a file's name. `where` selects
    rows by the value of a column (`metric=score/fid`). An empty cell was not measured. `nan` says whether NaN means
    "missing" or "diverged"; by default it diverged, except in a column that is mostly NaN with values at regular steps.

    Raises `UsageError` naming file, line, column and value for what cannot be read, and the column that tells several
    histories apart.
    """
    columns = [step, value] + ([se] if se is not None else [])
    conditions = [_condition(each) for each in where]
    entries = list(_entries(path, columns, conditions))
    matching = [each for each in entries if all(_meets(each[1], *condition) for condition in conditions)]
    if entries and not matching:
        raise UsageError(f"{path}: no row has {' and '.join(where)}; {_values_in(entries, conditions[0][0])}")
    rows, cells = [], []
    for place, each in matching:
        row = _row(f"{path}, {place}", each, columns)
        if row is not None:
            rows.append(row)
            cells.append(each)
    if not rows:
        raise UsageError(f"{path}: there is no row under the names of the columns; give one for each evaluation")
    _refuse_several(path, rows, cells, {*columns} | {name for name, _ in conditions})
    return _evaluated(rows, nan)


# ---- which rows


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--where {text!r} is no condition; write COLUMN=VALUE, such as metric=score/fid")
    return name.strip(), value.strip()


def _meets(cells: Cells, name: str, value: str) -> bool:
    text = _text_of(_cell(cells, name))
    if text == value:
        return True
    try:
        return float(text) == float(value)
    except ValueError:
        return False


def _values_in(entries: list[tuple[str, Cells]], name: str) -> str:
    values = sorted({_text_of(_cell(cells, name)) for _, cells in entries})
    return f"column {name} holds {', '.join(map(repr, values[:5]))}{' …' if len(values) > 5 else ''}"


def _refuse_several(path: Path, rows: list[Row], cells: list[Cells], used: set[str]) -> None:
    """Raises `UsageError` if the rows are those of several runs or metrics: steps go back or repeat, but rise within
    each value of another column.
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
    """Rows with NaN as it is meant, and a note if that was assumed."""
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
    note = f"NaN in {len(between)} of {len(rows)} rows is taken for not evaluated, for every {every}th row has a value"
    return _without(rows, between), [f"{note}; --nan diverged takes it for a score that was not finite"]


def _without(rows: list[Row], missing: list[int]) -> list[Row]:
    """Rows with None for the missing values; missing ones at the end are dropped."""
    gone = {*missing}
    rows = [row._replace(value=None) if place in gone else row for place, row in enumerate(rows)]
    while rows and len(rows) - 1 in gone:
        rows.pop()
    return rows


# ---- what a row says


def _row(place: str, cells: Cells, columns: list[str]) -> Row | None:
    """Step, value and error of a row; None if it has neither step nor value."""
    places = [f"{place}, column {name}" for name in columns]
    read = [_step, _number, _number]
    numbers = [kind(_cell(cells, name), where) for kind, name, where in zip(read, columns, places, strict=False)]
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
    """Cell of a column; for `a.b`, the entry `b` of the object in column `a`."""
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


def _entries(path: Path, columns: list[str], conditions: list[tuple[str, str]]) -> Iterator[tuple[str, Cells]]:
    """Place and cells of every row of a file that has all the columns."""
    text = _text(path)
    names = [*columns, *(name for name, _ in conditions if name not in columns)]
    if re.match(r"\s*(\{|\[\s*[\]{])", text):
        return _objects(path, text, names, columns)
    return _table(path, text, names)


def _table(path: Path, text: str, columns: list[str]) -> Iterator[tuple[str, Cells]]:
    """Line and cells of each row, by the names in the header; repeated headers are skipped."""
    lines = text.split("\n")
    line = 1
    try:
        header, delimiter = _header(path, lines, columns)
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


def _header(path: Path, lines: list[str], columns: list[str]) -> tuple[list[str], str]:
    """Names of the columns and the delimiter: the one that yields most of the wanted columns, then most columns."""
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise UsageError(f"{path}: is empty; write the names of the columns, and below them a line an evaluation")

    def names(delimiter: str) -> list[str]:
        return [name.strip() for name in next(csv.reader([first], delimiter=delimiter, skipinitialspace=True))]

    def fit(delimiter: str) -> tuple[int, int]:
        return len({*columns} & {*names(delimiter)}), len(names(delimiter))

    delimiter = max(_DELIMITERS, key=fit)
    header = names(delimiter)
    for name in columns:
        if name not in header:
            raise UsageError(f"{path}, line 1: {unknown_name('column', name, header)}")
        if header.count(name) > 1:
            raise UsageError(f"{path}, line 1: {header.count(name)} columns are named {name}; rename the others")
    return header, delimiter


def _objects(path: Path, text: str, names: list[str], columns: list[str]) -> Iterator[tuple[str, Cells]]:
    """Place and cells of each object, one a line or of a list; a key that one lacks was not measured there."""
    pieces: list[tuple[str, Any]] = []
    whole = _whole(path, text, columns)
    if whole is not None:
        pieces = [(f"object {number}", each) for number, each in enumerate(whole, 1)]
    else:
        for number, line in enumerate(text.split("\n"), 1):
            pieces.append((f"line {number}", _json(path, line, number, "one object a line") if line.strip() else {}))
    keys: dict[str, None] = {}
    for place, cells in pieces:
        if not isinstance(cells, dict):
            shown = json.dumps(cells)[:40]
            raise UsageError(f"{path}, {place}: {shown} is no object; write one for each evaluation")
        keys |= dict.fromkeys(cells)
    if not pieces:
        raise UsageError(f"{path}: the list is empty; write an object for each evaluation")
    for name in names:
        if name not in keys and all(_cell(cells, name) is None for _, cells in pieces):
            raise UsageError(f"{path}: {unknown_name('column', name, _columns(pieces))}")
    # Other objects of a log tell of other things: losses, the time.
    yield from ((place, cells) for place, cells in pieces if _cell(cells, names[1]) is not None or whole is None)


def _whole(path: Path, text: str, columns: list[str]) -> list[Any] | None:
    """Objects of a file that is one list, or one object with the list in it; None for an object a line."""
    if text.lstrip().startswith("["):
        listed: list[Any] = _json(path, text, 1, "one list of objects")
        return listed
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    arrays = [document[name] for name in columns if isinstance(document.get(name), list)]
    if len(arrays) == len(columns):
        if len({*map(len, arrays)}) > 1:
            lengths = ", ".join(f"{name} {len(each)}" for name, each in zip(columns, arrays, strict=True))
            raise UsageError(f"{path}: the lists differ in length ({lengths}); write a value for each step")
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*arrays, strict=True)]
    lists = [each for each in document.values() if isinstance(each, list) and each and isinstance(each[0], dict)]
    fitting = [each for each in lists if any(isinstance(row, dict) and columns[1] in row for row in each)]
    return next(iter(fitting or lists), None)


def _columns(pieces: list[tuple[str, Any]]) -> list[str]:
    """Names that could have been asked for, nested ones as `a.b`."""
    names: dict[str, None] = {}
    for _, cells in pieces:
        for name, cell in cells.items():
            names |= dict.fromkeys((f"{name}.{inner}" for inner in cell) if isinstance(cell, dict) else [name])
    return [*names]


def _json(path: Path, text: str, line: int, form: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"{path}, line {line + error.lineno - 1}: no JSON ({error.msg}, column {error.colno})"
        raise UsageError(f"{problem}; write {form}") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits; lists within lists
        raise UsageError(f"{path}, line {line}: no JSON that can be read ({error}); write {form}") from None


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
