"""What a promotion puts in the place of what: two versions compared by their scores, as far as these can be compared.

Both scores are of stored weights, so that their sampling errors are all that stands between them and the truth. Scores
of unlike signatures are never compared, nor is the score of samples of which a score says little: those that lack most
of what is real, or are like nothing real.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aigc_lab.errors import UsageError
from aigc_lab.registry.marks import DOUBTFUL
from aigc_lab.statistics.intervals import difference_interval

Json = dict[str, Any]
Judgement = Literal["better", "worse", "cannot be told", "unlike", "the same"]

REMEDY = "promote another, or this one all the same: --force --reason WHY"


@dataclass(frozen=True)
class Replacement:
    """The version behind an alias before (its row as `list_models` returns it), and how the new one compares with it.

    `difference` is new − old with its 95 % interval (`low`, `high`); None where the scores cannot be compared. `why`
    says what keeps a score from saying anything, where its samples do.
    """

    old: Json
    judgement: Judgement
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""

    def as_json(self) -> Json:
        """Plain data, with `version`, `run` and `score` of the old version."""
        fields = asdict(self)
        old = fields.pop("old")
        return {key: old[key] for key in ("version", "run", "score", "verdicts")} | fields


def compare(new: Json, old: Json) -> Replacement:
    """Comparison of two versions, or of a run that may become one, by the `score` of each: `value`, `low` and `high` (a
    95 % interval), `signature`, and which way is `better`. A value that is not finite is worse than any that is.

    >>> score = {"value": 9.0, "low": 8.0, "high": 10.0, "signature": "fd|n:500", "better": "lower"}
    >>> compare({"score": score | {"value": 4.0, "low": 3.0, "high": 5.0}}, {"score": score}).judgement
    'better'
    >>> compare({"score": score | {"signature": "fd|n:50"}}, {"score": score}).judgement
    'unlike'
    """
    if new.get("version") == old.get("version") and new.get("model") == old.get("model") and "version" in new:
        return Replacement(old, "the same")
    if silent := [_silent(name, row) for name, row in (("the new one", new), (_version(old), old)) if _doubtful(row)]:
        return Replacement(old, "cannot be told", why=" and ".join(silent))
    one, other = new["score"], old["score"]
    if one is None or other is None:
        return Replacement(old, "cannot be told")
    if one["signature"] != other["signature"]:
        return Replacement(old, "unlike")
    if one["value"] is None or other["value"] is None:
        if one["value"] is other["value"]:
            return Replacement(old, "cannot be told")
        return Replacement(old, "worse" if one["value"] is None else "better")
    difference = one["value"] - other["value"]
    low, high = difference_interval(*_ends(one), *_ends(other))
    if not math.isfinite(high - low):
        return Replacement(old, "cannot be told", difference)
    if low <= 0 <= high:
        return Replacement(old, "cannot be told", difference, low, high)
    return Replacement(old, "better" if (high < 0) == (one["better"] == "lower") else "worse", difference, low, high)


def refuse(candidate: Json, name: str, replaced: Replacement | None) -> None:
    """Raises `UsageError` for weights that verdicts speak against (`objections`), since an exploded generator may rank
    first by some score; and for a model that is worse than the one whose place it would take.
    """
    if candidate["objections"]:
        raise UsageError(f"{name}: {'; '.join(candidate['objections'])}; {REMEDY}")
    if replaced is None:
        return
    if replaced.judgement == "worse":
        score, old = candidate["score"], replaced.old
        values = " and ".join(f"{_shown(each['value'])}" for each in (score, old["score"]))
        raise UsageError(
            f"{name}: it is worse than version {old['version']} of {old['model']}, whose place it would take:"
            f" {score['name']} {values} ({score['better']} is better; {difference_text(replaced)}); {REMEDY}"
        )


def difference_text(replaced: Replacement) -> str:
    """`the difference is -3.2 [-5.9, -0.5]`, or why there is none."""
    if replaced.difference is None:
        return "one of the values is not finite"
    ends = "" if replaced.low is None else f" [{replaced.low:.3g}, {replaced.high:.3g}]"
    return f"the difference is {replaced.difference:.3g}{ends}"


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _ends(score: Json) -> tuple[float, float, float]:
    low, high = (math.nan if score[key] is None else score[key] for key in ("low", "high"))
    return score["value"], low, high


def _doubtful(row: Json) -> bool:
    """Whether a score says little of the samples of a version."""
    return row.get("verdicts", {}).get("collapse") in DOUBTFUL


def _version(row: Json) -> str:
    return f"version {row.get('version')}"


def _silent(name: str, row: Json) -> str:
    return f"the score of {name} says little, its samples are {row['verdicts']['collapse']}"
