"""Tables of a report as CSV: raw numbers, units in the header, UTF-8, and no cell that a spreadsheet would compute."""

import base64
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aigc_lab.display.wording import assignments, spread, value_text
from aigc_lab.host import visible
from aigc_lab.registry.ranking import Comparison
from aigc_lab.statistics.planes import SCORES, UNITS

Json = dict[str, Any]
Cell = str | int | float | None

# A text that begins so is a formula to a spreadsheet, which runs it when the file is opened (OWASP, CSV injection).
# Among them are the wide forms of the four signs.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True)
class Table:
    """A table by the name of its file, without suffix."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def csv(self) -> str:
        """Lines that end in a line feed. A text that a spreadsheet would compute begins with an apostrophe."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(guarded, self.header))
        writer.writerows(map(guarded, row) for row in self.rows)
        return file.getvalue()

    @property
    def uri(self) -> str:
        """The file as the target of a link, which needs no network."""
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.csv.encode()).decode()}"


def guarded(cell: Cell) -> str | int | float:
    """The cell as it is written: numbers to the last digit, "" for none.

    >>> guarded(-0.5), guarded(None), guarded("=1+1"), guarded("dcgan")
    (-0.5, '', "'=1+1", 'dcgan')
    """
    if not isinstance(cell, str):
        return "" if cell is None else cell
    text = visible.text(cell)
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text


# ---- what a report has


def ranking(comparison: Comparison) -> Table:
    """One line a ranked row, in the order of the page."""
    header = [
        *("rank", "trial", "system", "configuration", "score", "better", "value", "low", "high", "low and high are"),
        *("confidence", "value on the reference", "n (samples)", "floor", "floor sd", "seeds", "fresh seeds"),
        *("time (s)", "state", "collapse (runs)", "stability (runs)", "marks", "signature"),
    ]
    kinds = {"SAMPLING": "sampling error of one run", "RANGE": "range of the seeds", "INTERVAL": "interval"}
    rows: list[list[Cell]] = []
    for row in comparison.rows:
        score = row["score"] or {}
        named = [score.get(key) for key in ("name", "better", "value", "low", "high")]
        sort = kinds.get(spread(row) or "") if score else None
        last = [score.get(key) for key in ("confidence", "reference", "n", "floor", "floor_sd")]
        judged = [counts_text(row["verdicts"].get(kind, {})) for kind in ("collapse", "stability")]
        rows.append(
            [
                *(row["rank"], row["trial"], row["system"], assignments(row["config"]), *named, sort, *last),
                *(row["seeds"], "yes" if row["confirmed"] else "no", row["seconds"], row["state"], *judged),
                *("; ".join(row["marks"]), score.get("signature")),
            ]
        )
    return Table("ranking", header, rows)


def counts_text(counts: Mapping[str, int]) -> str:
    """`2 NONE, 1 SEVERE`."""
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


_OF_RUN = ("run", "trial", "seed", "role", "system", "state")


def scores(runs: Sequence[Json]) -> Table:
    """One line a run and score, as the registry has them; a run without a score has a line too."""
    keys = ("name", "better", "value", "low", "high", "n", "floor", "floor_sd", "of_class", "split", "signature")
    header = [*_OF_RUN, "time (s)", "score", "better", "value", "low (95 %)", "high (95 %)", "n (samples)"]
    header += ["floor", "floor sd", "class", "split", "signature"]
    rows = [
        [*(run[key] for key in _OF_RUN), run["seconds"], *(score.get(key) for key in keys)]
        for run in runs
        for score in run["scores"] or [{}]
    ]
    return Table("scores", header, rows)


def verdicts(runs: Sequence[Json], judged: Mapping[str, Sequence[Json]]) -> Table:
    """One line a verdict: of every run, kind and step."""
    header = ["run", "kind", "step (training steps)", "verdict", "reason"]
    rows = [
        [run["run"], each["kind"], each["step"], each["verdict"], each["reason"]]
        for run in runs
        for each in judged.get(run["run"], [])
    ]
    return Table("verdicts", header, rows)


def objective(sweep: Json, histories: Mapping[str, Sequence[Json]], runs: Sequence[Json]) -> Table:
    """The objective on the reference split at every evaluation."""
    header = ["run", "step (training steps)", f"{sweep['objective']} ({sweep['better']} is better)"]
    rows = [
        [run["run"], each["step"], each["value"], each["low"], each["high"]]
        for run in runs
        for each in histories.get(run["run"], [])
    ]
    return Table("objective", [*header, "low (95 %)", "high (95 %)"], rows)


def trials(sweep: Json, comparison: Comparison) -> Table:
    """The chosen values of each trial, a column each, and its score."""
    names = list(dict.fromkeys(name for row in comparison.rows for name in row["config"]))
    rows: list[list[Cell]] = [
        [row["trial"], row["system"], *(_plain(row["config"].get(name)) for name in names), row["score"]["value"]]
        for row in comparison.rows
        if row["score"] is not None
    ]
    return Table("trials", ["trial", "system", *names, f"{sweep['objective']} ({sweep['better']} is better)"], rows)


def _plain(value: Any) -> Cell:
    return value if value is None or isinstance(value, str | int | float) else value_text(value)


def unfinished(runs: Iterable[Json]) -> Table:
    """Runs that did not finish, and why."""
    rows = [[run["run"], run["system"], run["state"], run["reason"]] for run in runs]
    return Table("unfinished", ["run", "system", "state", "reason"], rows)


def bins(runs: Iterable[Json]) -> Table:
    """How much of its real share each bin had, of runs that have `bins`."""
    rows = [
        [run["run"], step, name, ratio]
        for run in runs
        if (told := run.get("bins"))
        for name, ratios in zip(told["names"], told["ratios"], strict=True)
        for step, ratio in zip(told["steps"], ratios, strict=True)
    ]
    return Table("bins", ["run", "step (training steps)", "bin", "share (of its real share)"], rows)


def temperatures(runs: Iterable[Json]) -> Table:
    """Quality and diversity of language models by temperature, and of real sentences."""
    rows: list[list[Cell]] = []
    for run in runs:
        if told := run.get("temperature"):
            columns = [told["points"][key] for key in ("temperature", *SCORES)]
            rows += [[run["run"], *point, told["n"]] for point in zip(*columns, strict=True)]
            rows.append(["real sentences", None, *(told["real"][key] for key in SCORES), told["n"]])
    measured = [f"{key} ({UNITS[key]})" if key in UNITS else key for key in SCORES]
    header = ["run", "temperature", *measured, "n (sentences)"]
    return Table("quality-diversity", header, rows)


def curves(runs: Iterable[Json]) -> Table:
    """Every point of the training curves of runs that have `curves`."""
    rows = [
        [run["run"], name, step, value]
        for run in runs
        for name, curve in (run.get("curves") or {}).items()
        for step, value in zip(curve["step"], curve["value"], strict=True)
    ]
    return Table("curves", ["run", "scalar", "step (training steps)", "value"], rows)
