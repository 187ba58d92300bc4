"""The ranking in terminals of several widths: lines fit, words and numbers stay whole, nothing is left out."""

import io
import re
from typing import Any

import pytest
from rankings import SIGNATURE, compared, comparison, row, score
from rich.console import Console

from aigc_lab.display.meaning import Meaning
from aigc_lab.display.ranking import compare_table, comparison_page
from aigc_lab.registry.ranking import Comparison

WIDTHS = [60, 80, 100, 140, 10_000]


def printed(renderable: Any, width: int, **options: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False, **options)
    console.print(renderable, crop=False)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def sweep_of(sweeps: int = 1) -> Comparison:
    """Rows of one run, of two seeds and of seven, one pruned, with verdicts, a reference and a mark."""
    rows = []
    for trial, values in enumerate(([7.43, 8.21], [9.02], [float(each) for each in range(20, 27)], [])):
        verdicts = {"collapse": {"INCONCLUSIVE": max(1, len(values))}, "stability": {"WITHHELD": 1}}
        facts: dict[str, Any] = {"verdicts": verdicts, "confirmed": trial == 0, "seconds": 19.0 + trial}
        facts |= {"config": {"likelihood": "bernoulli", "beta": 0.5 + trial, "layers": [64, 128], "lr": 0.001419}}
        facts["sweep"] = f"digits-dbeb81d{trial % sweeps}"
        if values:
            facts["score"] = score(values, reference=70.5 + trial)
        else:
            facts |= {"state": "PRUNED", "states": {"PRUNED": 1}}
        if trial == 2:
            facts |= {"marks": ["collapse SEVERE"], "verdicts": {"collapse": {"SEVERE": 6, "NONE": 1}}}
        rows.append((row(trial, values, **facts), values))
    return comparison(*rows)


def pieces(shown: str) -> str:
    return re.sub(r"\s+", " ", shown)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("sweeps", [1, 2])
def test_lines_fit_and_every_value_is_there_whole(width: int, sweeps: int) -> None:
    of = sweep_of(sweeps)
    lines = printed(compare_table(of), width)
    assert max(map(len, lines)) <= width
    shown = pieces("\n".join(lines))
    for wanted in (
        *("7.82 (7.43–8.21 of 2 seeds)", "9.02 ± 0.5 sampling error", "23 [20, 26]", "0.959 ± 0.352", "3 !", "2*"),
        *("70.5", "71.5", "72.5", "400", "19 s", "20 s", "21 s", "22 s", "PRUNED", "6 SEVERE, 1 NONE", "WITHHELD"),
        *("likelihood=bernoulli beta=0.5 layers=[64, 128] lr=0.001419", "beta=3.5", "INCONCLUSIVE"),
        *("digits-dbeb81d0", "fd_clf ↓", "dcgan", f"digits-dbeb81d{sweeps - 1}"),
    ):
        assert wanted in shown, wanted
    assert SIGNATURE in "".join(lines[-9:]).replace("signature: ", "")  # in parts, without a gap


@pytest.mark.parametrize("width", WIDTHS)
def test_words_are_those_of_a_pipe(width: int) -> None:
    """Whatever stands in one line in a pipe is made of the same words in a terminal."""

    def words(of: int) -> set[str]:
        shown = " ".join(printed(compare_table(sweep_of()), of)).replace(SIGNATURE, "")
        return {word for word in shown.split() if "─" not in word and "|" not in word and word not in SIGNATURE}

    labels = {"n", "reference", "floor", "seeds", "time", "collapse", "stability", "state"}
    assert words(width) - labels == words(10_000) - labels - {"configuration"} | (words(width) & {"configuration"})


@pytest.mark.parametrize("width", [140, 10_000])
def test_a_row_is_one_line_where_the_width_holds_it(width: int) -> None:
    lines = printed(compare_table(compared([7.43, 8.21], [9.02])), width)
    headings = "rank trial system configuration fd_clf ↓ n floor seeds time"
    assert " ".join(lines[1].split()) == headings
    first = "1 0 dcgan loss=nonsaturating lr=0.0004389 7.82 (7.43–8.21 of 2 seeds) 400 0.959 ± 0.352 2 2.0 min"
    assert pieces(lines[3]).strip() == first and lines[4].lstrip().startswith("2      1")


def test_at_80_columns_configuration_and_verdicts_stand_below() -> None:
    verdicts = {"collapse": {"NONE": 2}, "stability": {"STABLE": 2}}
    lines = printed(compare_table(compared([7.43, 8.21], [9.02], verdicts=verdicts)), 80)
    assert lines[1].split() == ["rank", "trial", "system", "fd_clf", "↓", "floor", "seeds", "time"]
    assert pieces(lines[3]).strip() == "1 0 dcgan 7.82 (7.43–8.21 of 2 seeds) 0.959 ± 0.352 2 2.0 min"
    assert lines[4].strip() == "loss=nonsaturating lr=0.0004389  n 400  collapse NONE  stability STABLE"
    assert lines[4].startswith("      l")


def test_a_word_wider_than_the_terminal_stays_whole() -> None:
    lines = printed(compare_table(compared([9.02], config={"path": "/pictures/" + "x" * 90})), 60)
    assert "      path=/pictures/" + "x" * 90 in lines


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([[1.0]], "fd_clf: one run ± its sampling error (95 %)"),
        ([[1.0, 2.0]], "fd_clf: median (lowest–highest of its seeds)"),
        ([[1.0] * 5], "fd_clf: median (lowest–highest of its seeds)"),
        ([[1.0] * 6], "fd_clf: median [its interval of at least 95 % over the seeds]"),
        ([[1.0], [2.0, 3.0]], "fd_clf: one run ± its sampling error (95 %), median (lowest–highest of its seeds)"),
    ],
)
def test_one_line_says_what_stands_in_the_column(values: list[list[float]], line: str) -> None:
    lines = printed(compare_table(compared(*values)), 10_000)
    assert [each for each in lines if each.startswith("fd_clf:")] == [line]
    assert "floor: what real samples score ± one standard deviation" in lines


def test_no_colour_is_fixed() -> None:
    """Bold and dim alone are set, which terminals show on light and on dark."""
    shown = "\n".join(printed(compare_table(sweep_of()), 80, force_terminal=True, color_system="truecolor"))
    assert set(re.findall(r"\x1b\[([\d;]*)m", shown)) <= {"0", "1", "2"}
    assert "\x1b[1m" in shown and "\x1b[2m" in shown


def test_the_command_below_the_sentences_is_one_line() -> None:
    command = "aigc-lab sweep digits --set confirm.top=2 --set confirm.seeds=4 --home /a/long/way/to/a/home"
    told = Meaning(["One.", "Two."], "To find out", command)
    lines = printed(comparison_page(sweep_of(), told), 60)
    table = printed(compare_table(sweep_of()), 60)
    assert lines == [*table, "", "What it means", "One.", "Two.", f"To find out: {command}"]
    assert printed(comparison_page(sweep_of(), Meaning([])), 60) == table
