"""What `aigc-lab judge` does: reads histories from files of other programs, and judges them without torch."""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from aigc_lab.content import unknown
from aigc_lab.errors import UsageError
from aigc_lab.files import is_file
from aigc_lab.verdicts.seeds import across_seeds, steps_to_best
from aigc_lab.verdicts.stability import Better, StabilityVerdict, judge

# What programs write in the place of a value that was not measured. NaN is a value, and one that diverged.
_NOTHING = ("", "na", "n/a", "null", "none")
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}


def stability_of_file(
    path: Path,
    value: str,
    step: str = "step",
    se: str | None = None,
    baseline: float | None = None,
    better: Better = "lower",
    *,
    floor: float | None = None,
    diverged_at: float | None = None,
) -> dict[str, Any]:
    """The stability verdict on a column of a file, as plain data: `judge`'s, on the columns `step`, `value` and `se`.

    The file is a table with a header, separated by commas, semicolons or tabs, or JSON: an object a line, or a list of
    them. `diverged_at` is a step at which a loss, gradient or parameter was not finite. An empty cell was not measured;
    NaN and inf have diverged.

    Raises `UsageError` naming file, line, column and value for what cannot be read.
    """
    wanted = [step, value] + ([se] if se is not None else [])
    rows = list(_rows(path, wanted))
    if not rows:
        raise UsageError(f"{path}: there is no row under the names of the columns; give one for each evaluation")
    steps, values, errors = zip(*rows, strict=True)
    try:
        verdict = judge(
            steps,
            values,
            None if se is None else errors,
            baseline=baseline,
            better=better,
            floor=floor,
            diverged_at=None if diverged_at is None else (diverged_at, "a loss, gradient or parameter was not finite"),
        )
    except ValueError as error:
        raise UsageError(f"--{str(error).replace('_', '-')}") from None
    return verdict.as_dict()


def collapse_of(
    generated: str, reference: str, labels: Path | None, *, device: str, home: Path | None, **options: Any
) -> dict[str, Any]:
    """The collapse verdict on samples, as plain data: of folders, arrays, datasets, runs, and files of sentences, for
    which vectors are made of the reference. `labels` is a file with a class for each reference sample.
    """
    from aigc_lab import text_scoring

    known = None if labels is None else _labels(labels)
    if text_scoring.concerns(generated, reference):
        from aigc_lab.settings import Settings

        cache = Settings.load(home).shared_cache
        verdict = text_scoring.collapse(generated, reference, known, device=device, home=home, cache=cache, **options)
    else:
        from aigc_lab.scoring import collapse

        verdict = collapse(generated, reference, known, device=device, home=home, **options)
    found: dict[str, Any] = verdict.as_dict()
    return found


def seeds_of(wanted: str, home: Path | None) -> list[dict[str, Any]]:
    """What the seeds of each configuration of a sweep say together, as plain data: `across_seeds` of those that ended
    by themselves, with `trial`, `system`, `config`, the `objective`, the median of the `steps` to 1.1 times the best,
    and how many were `pruned`, which would say too little of failures. Of a `confirmed` configuration the fresh seeds
    alone are counted: by the others it was chosen, and they flatter.
    """
    from aigc_lab.registry import queries
    from aigc_lab.registry.states import State
    from aigc_lab.registry.store import Registry
    from aigc_lab.settings import Settings

    settings = Settings.load(home)
    with Registry.open(settings.registry_url, home=settings.home, create=False) as registry:
        sweep = queries.sweep(registry, wanted)
        name = sweep["id"]
        verdicts, histories = queries.verdicts(registry, name), queries.histories(registry, name)
        finals = {each: queries.finals(registry, name, sweep["objective"], each) for each in ("last", "selected")}
        trials, runs = queries.trials(registry, name), queries.runs(registry, name)
    rows = []
    for trial in trials:
        every = [run for run in runs if run["trial"] == trial["trial"]]
        fresh = [run for run in every if run["role"] == "confirm"]
        confirmed = any(run["state"] in (State.FINISHED, State.DIVERGED) for run in fresh)
        mine = fresh if confirmed else [run for run in every if run["role"] != "confirm"]
        ended = [run["run"] for run in mine if run["state"] in (State.FINISHED, State.DIVERGED)]
        said: dict[str, list[Mapping[str, Any]]] = {"collapse": [], "stability": []}
        for run in ended:
            for kind in said:
                of_kind = [each for each in verdicts.get(run, []) if each["kind"] == kind]
                said[kind] += of_kind[-1:]
        stories = [StabilityVerdict.of(each | each["evidence"]) for each in said["stability"]]
        values = {kind: [found[run] for run in ended if run in found] for kind, found in finals.items()}
        steps = [_steps_to_best(histories.get(run, []), sweep["better"]) for run in ended]
        rows.append(
            {
                **{key: trial[key] for key in ("sweep", "trial", "system", "config")},
                "objective": sweep["objective"],
                **across_seeds(stories, [each["verdict"] for each in said["collapse"]], **values),
                "runs": len(ended),
                "confirmed": confirmed,
                "steps": median(known) if (known := [each for each in steps if each is not None]) else None,
                "pruned": sum(run["state"] == State.PRUNED for run in mine),
            }
        )
    return rows


def _steps_to_best(history: list[dict[str, Any]], better: Better) -> float | None:
    """None where the best is not above zero, for which a tenth means nothing."""
    values = [math.nan if each["value"] is None else each["value"] for each in history]
    try:
        return steps_to_best([each["step"] for each in history], values, better=better)
    except ValueError:
        return None


def _labels(path: Path) -> list[int] | list[str]:
    """The classes in a file: an array `.npy`, or text with one a line, which may be names."""
    if path.suffix == ".npy":
        import numpy as np

        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"--labels {path}: cannot be read as an array ({error})") from None
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise UsageError(f"--labels {path}: is {list(found.shape)} {found.dtype}, not one whole number a sample")
        return [int(each) for each in found]
    from aigc_lab.text.reading import read_lines

    lines, blank = read_lines(path, "--labels")
    if blank:
        raise UsageError(
            f"--labels {path}: {blank} lines are blank; write a class on each, in the order of the reference"
        )
    return lines


# ---- reading


class _Row(NamedTuple):
    step: float
    value: float | None
    error: float | None


def _rows(path: Path, wanted: list[str]) -> Iterator[_Row]:
    """Step, value and error of every row of a table or of JSON. What has neither step nor value is none."""
    text = _text(path)
    read = _objects if re.match(r"\s*(\{|\[\s*[\]{])", text) else _table
    for where, cells in read(path, text, wanted):
        places = [f"{path}, {where}, column {name}" for name in wanted]
        numbers = [_number(cells.get(name), place) for name, place in zip(wanted, places, strict=True)]
        step, value, error = (*numbers, None)[:3]
        if step is None and value is None:
            continue
        if step is None or not math.isfinite(step):
            shown = "" if step is None else f"{step} "
            raise UsageError(f"{places[0]}: {shown}is no step; number the evaluation, or remove it")
        if error is not None and error < 0:
            raise UsageError(f"{places[2]}: {error:g} is no standard error; it is 0 or more, or empty where unknown")
        yield _Row(step, value, error)


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


def _table(path: Path, text: str, wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The line and cells of each row, by the names in the header."""
    lines = text.split("\n")
    line = 1
    try:
        header, delimiter = _header(path, lines, wanted)
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, skipinitialspace=True, strict=True)
        named = False
        for row in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if not named:
                named = True
                continue
            if any(cell.strip() for cell in row[len(header) :]):
                remedy = f"quote a cell that holds a {_DELIMITERS[delimiter]}, and write numbers like 1234.5"
                raise UsageError(f"{path}, line {line}: {len(row)} cells, {len(header)} columns; {remedy}")
            yield f"line {line}", dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise UsageError(f"{path}, after line {line}: no table ({error}); save it as CSV again") from None


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
            raise UsageError(f"{path}, line 1: {unknown('column', name, header)}")
        if header.count(name) > 1:
            raise UsageError(f"{path}, line 1: {header.count(name)} columns are named {name}; rename the others")
    return header, delimiter


def _objects(path: Path, text: str, wanted: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place and cells of each object, of one a line or of a list; what one lacks was not measured there."""
    pieces: list[tuple[str, Any]] = []
    if text.lstrip().startswith("["):
        listed = _json(path, text, 1, "one list of objects")
        pieces = [(f"object {number}", each) for number, each in enumerate(listed, 1)]
    else:
        for number, line in enumerate(text.split("\n"), 1):
            pieces.append((f"line {number}", _json(path, line, number, "one object a line") if line.strip() else {}))
    names = []
    for where, cells in pieces:
        if not isinstance(cells, dict):
            shown = json.dumps(cells)[:40]
            raise UsageError(f"{path}, {where}: {shown} is no object; write one for each evaluation")
        names += [name for name in cells if name not in names]
    if not pieces:
        raise UsageError(f"{path}: the list is empty; write an object for each evaluation")
    if lacking := next((name for name in wanted if name not in names), None):
        raise UsageError(f"{path}: {unknown('column', lacking, names)}")
    yield from pieces


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
