"""What `aigc-lab compare --csv` and `aigc_lab.compare` give: a comparison without anything nested in its rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from aigc_lab.display.wording import value_text
from aigc_lab.registry.ranking import Comparison
from aigc_lab.web.tables import Table, counts_text

Row = dict[str, Any]

_NESTED = ("score", "config", "verdicts", "states", "marks", "sweep", "sweeps")


def flat_rows(comparison: Comparison) -> list[Row]:
    """One flat record a row, in the order of the ranks, all with the same columns in the same order: what stands in the
    row, its score by parts, and `config.<key>` for each value that was chosen. A text names several verdicts, states or
    marks. What a row lacks is None.
    """
    rows = [_flat(row) for row in comparison.rows]
    parameters = dict.fromkeys(f"config.{name}" for row in comparison.rows for name in row["config"])
    columns = list(dict.fromkeys([*(name for row in rows for name in row if name not in parameters), *parameters]))
    return [{name: row.get(name) for name in columns} for row in rows]


def _flat(row: Mapping[str, Any]) -> Row:
    score = dict(row["score"] or dict.fromkeys(_OF_SCORE))
    facts = {name: value for name, value in row.items() if name not in _NESTED}
    return {
        "rank": facts.pop("rank"),
        "sweep": " ".join(row.get("sweeps", [row["sweep"]])),
        **facts,
        "states": counts_text(row["states"]),
        **{kind: counts_text(row["verdicts"].get(kind, {})) or None for kind in ("collapse", "stability")},
        "marks": "; ".join(row["marks"]),
        "score": score.pop("name"),
        **score,
        **{f"config.{name}": value for name, value in row["config"].items()},
    }


_OF_SCORE = (
    *("name", "value", "reference", "low", "high", "n", "floor", "floor_sd"),
    *("signature", "confidence", "better"),
)


def comparison_table(comparison: Comparison) -> Table:
    """The flat rows as a table that `Table.csv` writes. Of a comparison without rows there are no columns either."""
    rows = flat_rows(comparison)
    header: Sequence[str] = list(rows[0]) if rows else []
    return Table("comparison", header, [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: Any) -> Any:
    """The value as a cell holds it: a list or a mapping as JSON."""
    return value if value is None or isinstance(value, str | int | float) else value_text(value)
