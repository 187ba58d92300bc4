"""A ranking as a value: text in a terminal, a table in a notebook, LaTeX in a paper, Markdown on GitHub."""

from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from aigc_lab.display import pairs as against
from aigc_lab.display.latex import comparison_latex
from aigc_lab.display.markdown import comparison_markdown
from aigc_lab.display.ranking import (
    columns,
    compare_table,
    explanations,
    left_out,
    nothing,
    sections,
    several_sweeps,
    shown_pairs,
)
from aigc_lab.host import notebook
from aigc_lab.registry.pairs import pairs

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison

# The width at which a table without a terminal breaks its rows.
_WIDTH = 120


@dataclass(frozen=True, repr=False)
class Ranking:
    """Ranked trials; `comparison.rows` are what `aigc-lab compare --json` prints."""

    comparison: "Comparison"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a trial, in the order of the ranks."""
        return self.comparison.rows

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """The leading rows of each table one against another, as `against` of the rows has those of the first table."""
        return [pair.as_dict() for pair in pairs(self.comparison)]

    def to_latex(self) -> str:
        r"""Tables that compile with `\usepackage{booktabs}`, as `aigc-lab compare --latex` prints them."""
        return comparison_latex(self.comparison)

    def to_markdown(self) -> str:
        """Tables as GitHub shows them, as `aigc-lab compare --md` prints them."""
        return comparison_markdown(self.comparison)

    def __repr__(self) -> str:
        from rich.console import Console

        page = StringIO()
        Console(file=page, width=_WIDTH, highlight=False, markup=False, emoji=False).print(
            compare_table(self.comparison)
        )
        return page.getvalue().rstrip("\n")

    def _repr_html_(self) -> str:
        several = several_sweeps(self.rows)
        parts = []
        compared, caveat = shown_pairs(self.comparison), left_out(self.comparison)
        for group, rows in sections(self.comparison):
            shown = columns(rows, several, *((group.name, group.better) if group else ("score", "")))
            notes = [*explanations(rows), f"signature: {group.signature}"] if group else []
            notes += [caveat] if group and caveat else []
            cells = [[each.whole(row) for each in shown] for row in rows]
            parts.append(notebook.table([each.heading for each in shown], cells, notes))
            if group and (table := against.written(compared[group])):
                parts.append(notebook.table(*table))
        return "".join(parts) or notebook.lines(nothing(self.comparison), "")
