r"""A ranking as LaTeX for a paper: booktabs' rules, and what its numbers mean as the caption.

It compiles with pdfLaTeX and `\usepackage{booktabs}`. Names come from files: every character that LaTeX would obey is
escaped, and one that its fonts lack is written as its code.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aigc_lab.display.pairs import sentence
from aigc_lab.display.ranking import (
    columns,
    explanations,
    left_out,
    nothing,
    pooled,
    sections,
    several_sweeps,
    shown_pairs,
)
from aigc_lab.display.rows_table import Column
from aigc_lab.display.wording import Row
from aigc_lab.host import visible

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison

# What pdfLaTeX would obey, or show by its own fonts as something else.
_WRITTEN = {
    **{each: f"\\{each}" for each in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "∞": r"$\infty$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "σ": r"$\sigma$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
}
# Columns without which the table fits the width of a page.
_LEFT_OUT = ("reference", "time", "state", "collapse", "stability")


def escaped(text: str) -> str:
    r"""Text that LaTeX prints as it is, in one line.

    >>> print(escaped("50% of a_b & c ↓"))
    50\% of a\_b \& c $\downarrow$
    """
    shown = visible.line(text)
    letters = map(_letter, shown)
    # Two hyphens in a row would become one dash.
    return "".join(f"{each}{{}}" if two == "--" else each for each, two in zip(letters, _pairs(shown), strict=True))


def _pairs(text: str) -> Iterable[str]:
    """Each letter with the one behind it."""
    return (text[place : place + 2] for place in range(len(text)))


def _letter(letter: str) -> str:
    if letter in _WRITTEN:
        return _WRITTEN[letter]
    # Letters of Western Europe have a place in every font, but for Iceland's; 日 has none.
    known = letter.isascii() or ("À" <= letter <= "ÿ" and letter not in "ÐÞðþ")
    return letter if known else rf"\textbackslash{{}}u{ord(letter):04x}"


def comparison_latex(comparison: "Comparison") -> str:
    """A `table` for each signature of a comparison, and one for trials without a score; a comment without trials."""
    several = several_sweeps(comparison.rows)
    tables = []
    compared = shown_pairs(comparison)
    for group, rows in sections(comparison):
        name, better = (group.name, group.better) if group else ("score", "")
        shown = [each for each in columns(rows, several, name, better) if each.heading not in _LEFT_OUT]
        notes = [] if several else [f"sweep {rows[0]['sweep']}"]
        notes += (
            [*explanations(rows), sentence(compared[group]), left_out(comparison), pooled(comparison)] if group else []
        )
        signature = f"% signature: {visible.line(group.signature)}\n" if group else ""
        tables.append(signature + _table(shown, rows, notes))
    head = "% \\usepackage{booktabs}\n"
    return head + ("\n".join(tables) if tables else f"% {visible.line(nothing(comparison))}\n")


def _table(shown: Sequence[Column], rows: Iterable[Row], notes: Sequence[str]) -> str:
    kinds = "".join(
        r"p{0.25\linewidth}" if each.heading == "configuration" else "r" if each.right else "l" for each in shown
    )
    lines = [_line(escaped(each.heading) for each in shown), r"\midrule"]
    lines += [_line(escaped(each.whole(row)) for each in shown) for row in rows]
    parts = [
        r"\begin{table}",
        r"\centering\small\tabcolsep=4pt",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        *([rf"\caption{{{escaped('; '.join(filter(None, notes)))}}}"] if any(notes) else []),
        r"\end{table}",
    ]
    return "".join(f"{part}\n" for part in parts)


def _line(cells: Iterable[str]) -> str:
    return re.sub(" +", " ", " & ".join(cells)) + r" \\"
