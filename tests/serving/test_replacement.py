"""Whether one version is better than another, told by intervals of scores of like signature; and what is refused."""

import io
import math
from typing import Any

import pytest
from rich.console import Console, RenderableType

from aigc_lab.display.tables import models_table, promotion_page
from aigc_lab.errors import UsageError
from aigc_lab.serving.replacement import Replacement, compare, refuse
from aigc_lab.statistics.intervals import Z95, difference_interval


def version(number: int, value: float | None, error: float | None = 1.0, **facts: Any) -> dict[str, Any]:
    """A row of `list_models`, its interval `value` ± `error`."""
    ends = (None, None) if value is None or error is None else (value - error, value + error)
    score = {"name": "fd", "value": value, "low": ends[0], "high": ends[1], "n": 500, "signature": "fd|n:500"}
    score |= {"better": "lower", "floor": None, "floor_sd": None, "split": "holdout"} | facts
    row = {"model": "toy", "version": number, "run": f"r{number}", "checkpoint": "last", "score": score}
    return (
        row
        | {"verdicts": {"collapse": "NONE"}, "sha256": "ab", "reason": None, "system": "vae", "objections": []}
        | {"selection": None}
    )


def printed(page: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    console.print(page)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_interval_of_a_difference_is_that_of_normal_values() -> None:
    """Of errors 3 and 4 the difference has the error 5."""
    ends = difference_interval(7.0, 7 - 3 * Z95, 7 + 3 * Z95, 2.0, 2 - 4 * Z95, 2 + 4 * Z95)
    assert ends == pytest.approx((5 - 5 * Z95, 5 + 5 * Z95))
    # To the lower side counts how far the first may be below, and the second above.
    assert difference_interval(0, -3, 100, 0, -100, 4) == pytest.approx((-5.0, 100 * math.sqrt(2)))


@pytest.mark.parametrize(
    ("new", "old", "better", "judgement"),
    [
        (5.0, 9.0, "lower", "better"),
        (9.0, 5.0, "lower", "worse"),
        (9.0, 5.0, "higher", "better"),
        (5.0, 9.0, "higher", "worse"),
        # √2 is the error of a difference of two values with the error 1: intervals may overlap and yet tell.
        (5.0, 6.4, "lower", "cannot be told"),
        (5.0, 6.5, "lower", "better"),
        (None, 5.0, "lower", "worse"),
        (5.0, None, "lower", "better"),
        (None, None, "lower", "cannot be told"),
    ],
)
def test_versions_are_compared_by_their_intervals(
    new: float | None, old: float | None, better: str, judgement: str
) -> None:
    assert compare(version(2, new, better=better), version(1, old, better=better)).judgement == judgement


def test_what_cannot_be_compared_is_not() -> None:
    assert compare(version(2, 5.0), version(1, 500.0, signature="fd|n:50")).judgement == "unlike"
    assert compare(version(2, 5.0, error=None), version(1, 500.0)).judgement == "cannot be told"
    assert compare(version(2, 5.0) | {"score": None}, version(1, 5.0)).judgement == "cannot be told"
    assert compare(version(1, 5.0), version(1, 5.0)).judgement == "the same"


def test_what_is_worse_or_collapsed_is_refused_and_nothing_else() -> None:
    old = version(1, 5.0)
    with pytest.raises(UsageError, match=r"run r: it is worse than version 1 of toy.*fd 9 and 5 \(lower is .*WHY"):
        refuse(version(2, 9.0), "run r", compare(version(2, 9.0), old))
    against = ["collapse SEVERE: half is missing", "stability REGRESSED: it was better"]
    with pytest.raises(UsageError, match=f"run r: {'; '.join(against)}; promote another.* --force --reason WHY"):
        refuse(version(2, 1.0) | {"objections": against}, "run r", None)
    for new in (version(2, 1.0), version(2, 5.5), version(2, 900.0, signature="other")):
        refuse(new, "run r", compare(new, old))


@pytest.mark.parametrize("verdict", ["UNMEASURABLE", "SEVERE", "TOTAL", "MILD", None])
def test_a_better_score_of_samples_that_are_like_nothing_real_keeps_nobody_out(verdict: str | None) -> None:
    """A collapsed model was forced in; the way back to the one before it needs no force."""
    old = version(2, 1.0) | {"verdicts": {} if verdict is None else {"collapse": verdict}}
    back = compare(version(1, 9.0), old)
    if verdict in ("UNMEASURABLE", "SEVERE", "TOTAL"):
        assert (back.judgement, back.difference) == ("cannot be told", None)
        refuse(version(1, 9.0), "toy version 1", back)
        row = version(1, 9.0) | {"alias": "champion", "before": 2, "created": False, "chosen": ""}
        page = printed(promotion_page(row | {"replaced": back.as_json()}, []))
        assert f"not with version 2: the score of version 2 says little, its samples are {verdict}" in page
        assert "worse" not in page
        # Nor does it speak for what is forced in now.
        new = compare(old, version(1, 9.0))
        assert (new.judgement, new.why) == (
            "cannot be told",
            f"the score of the new one says little, its samples are {verdict}",
        )
    else:
        assert back.judgement == "worse"
        with pytest.raises(UsageError, match="it is worse than version 2"):
            refuse(version(1, 9.0), "toy version 1", back)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (version(2, 1.0), "better than version 1: fd is 4 lower; the difference is -4 [-5.41, -2.59], lower is better"),
        (version(2, 9.0), "worse than version 1: fd is 4 higher; the difference is 4 [2.59, 5.41], lower is better"),
        (version(2, 5.5), "cannot be told: 0.5 higher than version 1, which may be chance"),
        (version(2, 1.0, signature="fd|n:50"), "not with version 1: its score has another signature"),
        (version(2, None), "worse than version 1: a value is not finite"),
    ],
)
def test_a_promotion_says_what_it_replaces(new: dict[str, Any], said: str) -> None:
    replaced = compare(new, version(1, 5.0))
    row = new | {"alias": "champion", "before": 1, "created": True, "chosen": "", "replaced": replaced.as_json()}
    page = printed(promotion_page(row, []))
    assert said in page and "version 1, run r1: fd 5 [4, 6], n 500" in page
    assert ("its signature" in page) == (replaced.judgement == "unlike")


def test_models_show_the_verdict_and_the_way_of_each_alias() -> None:
    rows = [
        version(number, 5.0) | {"aliases": [], "created_at": "2026-01-01", "alias_history": history}
        for number, history in (
            (2, [{"alias": "champion", "at": "2026-01-02", "by": "b@h"}]),
            (1, [{"alias": "champion", "at": f"2026-01-0{day}", "by": "a@h"} for day in (1, 3)]),
        )
    ]
    page = printed(models_table(rows))
    assert "NONE" in page and "toy@champion: 1 → 2 → 1 (2026-01-03, a@h)" in page


def test_a_replacement_is_plain_data() -> None:
    plain = Replacement(version(1, 5.0), "worse", 4.0, 2.0, 6.0).as_json()
    assert {key: plain[key] for key in ("version", "run", "judgement", "difference", "low", "high")} == {
        "version": 1,
        "run": "r1",
        "judgement": "worse",
        "difference": 4.0,
        "low": 2.0,
        "high": 6.0,
    }
