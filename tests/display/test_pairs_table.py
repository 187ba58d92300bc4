"""A against B as a page, a caption and a notebook show it: lines fit, and say what the pairs are."""

import re
from dataclasses import replace
from typing import Any

import pytest
from rankings import compared, comparison, row
from test_rows_table import printed

from aigc_lab.display.latex import comparison_latex
from aigc_lab.display.markdown import comparison_markdown
from aigc_lab.display.ranking import compare_table
from aigc_lab.display.ranking_views import Ranking
from aigc_lab.registry.pairs import mark_leaders, pairs
from aigc_lab.registry.ranking import Comparison


def three(n: int = 5, **changes: Any) -> Comparison:
    """Two trials that overlap, and one that is worse than either."""
    of = compared(*([start + seed for seed in range(n)] for start in (0.0, 0.5, 30.0)), **changes)
    mark_leaders(of)
    return of


def against(of: Comparison, width: int = 80) -> list[str]:
    """The lines from the heading on."""
    lines = printed(compare_table(of), width)
    return lines[lines.index("A against B") :] if "A against B" in lines else []


def test_at_80_columns_a_pair_is_a_line_and_what_its_columns_mean_stands_below() -> None:
    assert against(three()) == [
        "A against B",
        "A        B        P(A better)        p      A is         more seeds",
        "───────────────────────────────────────────────────────────────────",
        "0 dcgan  1 dcgan  0.60 [0.23, 0.90]  0.69   cannot tell  > 100 each",
        "0 dcgan  2 dcgan  1.00 [0.66, 1.00]  0.024  better",
        "1 dcgan  2 dcgan  1.00 [0.66, 1.00]  0.024  better",
        "P(A better): that a seed of A is better than one of B, with its 95 % interval",
        "p: exact rank test of 5 seeds each, Holm's correction for 3 pairs; below 0.05 A",
        "is better or worse",
        "more seeds: about so many would tell, in 80 % of cases, if P is right",
    ]


def test_where_all_is_told_no_seeds_are_asked_for() -> None:
    lines = against(compared([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]))
    assert lines[1].split() == ["A", "B", "P(A", "better)", "p", "A", "is"] and "0.029  better" in lines[3]
    assert not any("more seeds" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_lines_fit_and_names_of_several_sweeps_are_whole(width: int) -> None:
    rows = [
        (row(trial, values, sweep=f"a-long-name-{trial}", system="transformer_lm"), values)
        for trial, values in enumerate([[1.0, 2.0, 3.0, 4.0], [3.5, 4.5, 5.5, 6.5]])
    ]
    lines = against(comparison(*rows), width)
    assert all(f"a-long-name-{trial} {trial} transformer_lm" in " ".join(lines) for trial in (0, 1))
    assert max(map(len, lines)) <= max(width, 100)
    assert "cannot tell" in " ".join(lines) and "each" in " ".join(lines)


def test_leaders_within_noise_are_marked_beside_their_rank_and_explained() -> None:
    lines = printed(compare_table(three()), 140)
    assert [line.split()[:2] for line in lines[3:6]] == [["1", "~"], ["2", "~"], ["3", "2"]]
    assert any(line.startswith("~ leaders within noise") for line in lines)
    apart = compared(*([start + seed for seed in range(5)] for start in (0.0, 30.0)))
    mark_leaders(apart)
    assert not any("~" in line for line in printed(compare_table(apart), 140))


def test_rows_of_one_system_are_named_by_what_differs() -> None:
    """`lr` tells all four apart, `layers` only two pairs of them; what is too long is cut."""

    def names(*configs: dict[str, Any], system: str = "dcgan") -> list[str]:
        of = compared(*([trial + 0.1, trial + 1.0] for trial in range(len(configs))))
        for trial, config in enumerate(configs):
            of.rows[trial] |= {"config": config, "system": system if trial else "dcgan"}
        lines = [line for line in comparison_markdown(of).splitlines() if "cannot tell" in line]
        return [lines[0].split(" | ")[0][2:], *(line.split(" | ")[1] for line in lines[: len(configs) - 1])]

    rates = [{"loss": "hinge", "layers": 1 + (t > 1), "lr": 0.0005314 * (1 + t)} for t in range(4)]
    assert names(*rates) == ["0 lr=0.000531", "1 lr=0.00106", "2 lr=0.00159", "3 lr=0.00213"]
    assert names({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 2}) == ["0 a=1 b=2", "1 a=1 b=3", "2 a=2 b=2"]
    assert names({}, {"lr": 0.1}) == ["0 lr not set", "1 lr=0.1"]
    assert names({"text": "a" * 40}, {"text": "b"})[0] == f"0 text={'a' * 18}…"
    assert names({"lr": 0.1}, {"lr": 0.2}, system="vae") == ["0 dcgan", "1 vae"]


def test_variants_of_one_system_among_others_are_told_apart() -> None:
    """By the words in which they differ; not by numbers, nor by what a row of another system has."""
    of = compared(*([trial + 0.1, trial + 1.0] for trial in range(4)))
    ways: list[dict[str, str]] = [{"conditional": way} for way in ("concat", "projection")]
    ways += [{}, {"conditional": "auxiliary"}]
    for trial, way in enumerate(ways):
        of.rows[trial] |= {"config": {"lr": 0.1 * trial, "ema": None} | way, "system": "vae" if trial == 3 else "dcgan"}
    text = " ".join(against(of, 10_000))
    assert "0 dcgan conditional=concat" in text and "1 dcgan conditional=projection" in text
    assert "2 dcgan  " in text and "3 vae  " in text and "lr=" not in text


def test_with_two_or_three_seeds_the_table_says_that_they_tell_nothing() -> None:
    lines = against(three(3))
    assert "p" not in lines[1].split()
    assert "fewer than 4 seeds tell nothing" in lines
    assert sum("cannot tell" in line for line in lines) == 3 and not any("p:" in line for line in lines)


def test_rows_of_one_seed_have_no_table() -> None:
    assert against(compared([1.0], [2.0])) == []


def test_looks_and_trials_are_said() -> None:
    of = three(8, unit="trial", units=8, trials=8, looks=3, by="lr", by_value=0.001)
    text = " ".join(against(of, 10_000))
    assert "exact rank test of 8 trials each, Holm's correction for 3 pairs, times 3 looks" in text
    assert "lr=0.001  lr=0.001" in text and "that a trial of A is better" in text and "more trials" in text


def test_a_caption_says_the_pairs_in_words() -> None:
    caption = next(line for line in comparison_latex(three()).splitlines() if line.startswith(r"\caption"))
    assert (
        "; 0 dcgan and 1 dcgan not told apart (p = 0.69), 0 dcgan better than 2 dcgan (p = 0.024), 1 dcgan better than "
        "2 dcgan (p = 0.024); exact rank test of 5 seeds each, Holm's correction for 3 pairs}"
    ) in caption
    assert "better than" not in comparison_latex(compared([1.0], [2.0]))


def test_a_notebook_shows_them_as_a_table_of_their_own() -> None:
    html = Ranking(three())._repr_html_()
    assert html.count("<table") == 2 and "cannot tell" in html
    assert html.count("<tr>") == 1 + 3 + 1 + len(pairs(three()))
    assert re.sub(r"\s+", " ", repr(Ranking(three()))).count("cannot tell") == 1


def test_every_form_says_what_a_condition_left_out_and_who_is_better() -> None:
    chosen = replace(compared([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]), filtered=2, by_outcome=True)
    shown = Ranking(chosen)
    for text in (shown.to_latex(), shown.to_markdown(), shown._repr_html_(), repr(shown)):
        words = " ".join(text.replace("-{}-", "--").split())
        assert "--where leaves 2 trials out, chosen by how their runs ended, which no p-value allows for" in words
        assert "better" in words and "0.029" in words
