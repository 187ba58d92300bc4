r"""LaTeX of a ranking: what a compiler needs, checked by its structure, and by pdfLaTeX where there is one."""

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rankings import SIGNATURE, compared, comparison, row, score

from aigc_lab.display.latex import comparison_latex, escaped
from aigc_lab.registry.ranking import Comparison

HOSTILE: dict[str, Any] = {
    "path": r"C:\a_b&c%d#e$f{g}~h^i`j|k<l>" + "m\"n'o--p---q[r]*",
    "名": "日本é\x1b\u202e\n",
    "lr": 1e-5,
    "end": r"\end{document}",
}


def hostile() -> Comparison:
    """Trials with one and several seeds, a diverged one, none, a hostile configuration and names, two signatures."""
    rows = [
        (row(0, [7.9, 8.2], confirmed=True, marks=["collapse SEVERE"]), [7.9, 8.2]),
        (row(1, [9.0], config=HOSTILE, system="dc_gan&co", sweep="a_b&c%"), [9.0]),
        (row(2, [1.0, 2.0, 3.0, 4.0, 5.0, math.inf]), [1.0, 2.0, 3.0, 4.0, 5.0, math.inf]),
        (row(3, [0.5], score=score([0.5], name="k_i&d", better="higher", signature="x|%\n\\input{y}")), [0.5]),
        (row(4, []), []),
    ]
    return comparison(*rows)


def unescaped(text: str, letter: str) -> int:
    """How often LaTeX would obey a letter."""
    return len(re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(letter)}", text))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50% of a_b & #1 $", r"50\% of a\_b \& \#1 \$"),
        ("{x}", r"\{x\}"),
        ("\\", r"\textbackslash{}"),
        ("a~b^c`d", r"a\textasciitilde{}b\textasciicircum{}c\textasciigrave{}d"),
        ("<|>", r"\textless{}\textbar{}\textgreater{}"),
        ("fd ↓ kid ↑ ±∞", r"fd $\downarrow$ kid $\uparrow$ $\pm$$\infty$"),
        ("1e-05 --set a---b", r"1e-05 -{}-set a-{}-{}-b"),
        ("1–2", "1--2"),
        ("Zoë 日", r"Zoë \textbackslash{}u65e5"),
        ("a\nb\x1b\u202e", r"a\textbackslash{}nb\textbackslash{}x1b\textbackslash{}u202e"),
        ("", ""),
    ],
)
def test_what_latex_would_obey_is_escaped(text: str, written: str) -> None:
    assert escaped(text) == written


def test_every_line_has_as_many_cells_as_columns() -> None:
    text = comparison_latex(hostile())
    tables = re.findall(
        r"\\begin\{tabular\}\{([^\n]*)\}\n\\toprule\n(.*?)\\bottomrule\n\\end\{tabular\}", text, re.DOTALL
    )
    assert len(tables) == text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    for kinds, body in tables:
        count = len(re.sub(r"p\{[^}]*\}", "p", kinds))
        head, rows = body.split("\\midrule\n")
        lines = [*head.splitlines(), *rows.splitlines()]
        assert len(lines) > 1 and all(line.endswith(r" \\") for line in lines)
        assert {unescaped(line, "&") for line in lines} == {count - 1}
        # A bracket behind the end of a line would be read as its spacing, a star as its mark.
        assert not [line for line in lines if line.startswith(("[", "*"))]


def test_braces_and_dollars_are_balanced_and_nothing_is_a_comment() -> None:
    text = comparison_latex(hostile())
    printed = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("%"))
    assert unescaped(printed, "{") == unescaped(printed, "}")
    assert unescaped(printed, "$") % 2 == 0
    assert unescaped(printed, "%") == unescaped(printed, "#") == unescaped(printed, "~") == 0
    assert r"\input" not in printed and printed.count(r"\end{document}") == 0
    assert [line for line in text.splitlines() if line.startswith("%")] == [
        r"% \usepackage{booktabs}",
        f"% signature: {SIGNATURE}",
        r"% signature: x|%\n\input{y}",
    ]


def test_a_small_table_reads_as_in_the_terminal() -> None:
    text = comparison_latex(compared([7.9, 8.2]))
    assert (
        r"rank & trial & system & configuration & fd\_clf $\downarrow$ & n & floor & seeds \\" + "\n"
        r"\midrule" + "\n"
        r"1 & 0 & dcgan & loss=nonsaturating lr=0.0004389 & 8.05 (7.9--8.2 of 2 seeds) & 400 & 0.959 $\pm$ 0.352 & 2 \\"
    ) in text
    assert r"\caption{sweep digits-dbeb81dd; fd\_clf: median (lowest--highest of its seeds); floor: " in text


def test_nothing_is_a_comment() -> None:
    assert comparison_latex(comparison()) == "% \\usepackage{booktabs}\n% no trials yet\n"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles(tmp_path: Path) -> None:
    letters = "".join(map(chr, [*range(33, 127), *range(0xC0, 0x100)]))
    tables = comparison_latex(hostile()) + comparison_latex(compared([1.0], config={"letters": letters}))
    page = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{tables}\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(page, "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, said[-2000:]
    assert (tmp_path / "page.pdf").is_file() and "Missing character" not in said
