"""Scores as they are shown: one line each, with what a number is to be read with."""

from dataclasses import replace

import pandas

from aigc_lab.statistics.score import Floor, Score, Scores

FD = Score("fd_clf", 7.9712, 7.05, 8.9, 400, Floor.of([0.9, 1.0, 1.1]), "clf:<digits>|n:400", "lower")


def test_a_score_is_one_line_with_interval_n_and_floor() -> None:
    assert repr(FD) == "Score(fd_clf 7.97 [7.05, 8.9], n 400, floor 1 ± 0.1, lower is better)"
    uneven = replace(FD, floor_n=150, at_floor=9.5, better="higher")
    assert repr(uneven) == "Score(fd_clf 7.97 [7.05, 8.9], n 400, floor 1 ± 0.1 (9.5 at 150), higher is better)"


def test_scores_are_a_list_and_say_what_is_left_out() -> None:
    scores = Scores([FD, replace(FD, name="kid")], {"fid": "needs 2,048 samples"})
    assert scores == [FD, replace(FD, name="kid")]
    first, second, left_out = repr(scores).splitlines()
    assert (first, second) == (f"[{FD!r},", f" {scores[1]!r}]")
    assert left_out == "left out: fid (needs 2,048 samples)"
    assert repr(Scores()) == "[]"


def test_a_notebook_shows_a_row_a_score_and_its_signature() -> None:
    shown = Scores([FD, replace(FD, name="a<b")], {"fid": "x < y"})._repr_html_()
    assert shown.count("<tr>") == 3
    assert "<td>fd_clf ↓</td><td>7.97 [7.05, 8.9]</td><td>400</td><td>1 ± 0.1</td>" in shown
    assert "fd_clf: clf:&lt;digits&gt;|n:400" in shown and "a&lt;b ↓" in shown and "fid (x &lt; y)" in shown
    assert FD._repr_html_() == Scores([FD])._repr_html_()


def test_a_frame_has_a_column_for_each_part() -> None:
    frame = pandas.DataFrame(Scores([FD]))
    assert list(frame["name"]) == ["fd_clf"] and list(frame["floor_sd"]) == [FD.floor_sd]


def test_a_score_that_only_describes_has_no_direction() -> None:
    """One that ships is known by its name, a user's by what its metric says."""
    kl, ink = replace(FD, name="kl"), replace(FD, name="ink")
    assert "is better" not in repr(kl) and "↓" not in kl._repr_html_() and "lower is better" in repr(FD)
    said = Scores([FD, kl, ink], describing=["ink"])
    assert repr(said).count("is better") == 1 and said._repr_html_().count("↓") == 1
    assert said._repr_html_().count("fd_clf ↓") == 1
