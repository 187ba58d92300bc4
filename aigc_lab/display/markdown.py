r"""A ranking as Markdown: tables as GitHub shows them, and what their numbers mean below each.

Names come from files: every character that Markdown or HTML would obey is escaped.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from aigc_lab.display import pairs as against
from aigc_lab.display.ranking import columns, explanations, notes, nothing, sections, several_sweeps, shown_pairs
from aigc_lab.host import visible

if TYPE_CHECKING:
    from aigc_lab.registry.ranking import Comparison

# A backslash takes the meaning of these; of the others, which GitHub reads before Markdown, only a character's code.
_OBEYED = re.compile(r"[\\`*_\[\]<>|~]")
_CODES = {"&": "&amp;", "$": "&#36;", "@": "&#64;", "#": "&#35;"}


def escaped(text: str) -> str:
    r"""Text that Markdown shows as it is, in one line and one cell.

    >>> print(escaped("a|b_c *d* <e> & $f$"))
    a\|b\_c \*d\* \<e\> &amp; &#36;f&#36;
    """
    shown = visible.line(text)
    return "".join(_CODES.get(letter) or _OBEYED.sub(r"\\\g<0>", letter) for letter in shown)


def comparison_markdown(comparison: "Comparison") -> str:
    """A table for each signature of a comparison with its leading rows one against another, and one for trials without
    a score; a sentence without trials.
    """
    if not comparison.rows:
        return f"{escaped(nothing(comparison))}\n"
    several = several_sweeps(comparison.rows)
    parts, compared = [], shown_pairs(comparison)
    for group, rows in sections(comparison):
        name, better = (group.name, group.better) if group else ("score", "")
        told = [] if several else [f"sweep {rows[0]['sweep']}"]
        told += [*explanations(rows), f"signature: {group.signature}"] if group else []
        shown = columns(rows, several, name, better)
        ends = ["---:" if each.right else "---" for each in shown]
        parts.append(
            _table([each.heading for each in shown], ends, ([each.whole(row) for each in shown] for row in rows))
        )
        parts.append(_listed(told))
        if group and (pairs := against.written(compared[group])):
            parts += [f"{against.TITLE}:\n", _table(pairs.headings, ["---"] * len(pairs.headings), pairs.rows)]
            parts.append(_listed(pairs.caption))
    parts.append("".join(f"{escaped(line)}\n\n" for line in notes(comparison)))
    return "\n".join(filter(None, parts)).rstrip("\n") + "\n"


def _listed(lines: Iterable[str]) -> str:
    return "".join(f"- {escaped(line)}\n" for line in lines)


def _table(headings: Iterable[str], ends: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_line(map(escaped, headings)), _line(ends), *(_line(map(escaped, row)) for row in rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
