"""Comparisons made up for tests: a ranked row in a line."""

import math
from statistics import median
from typing import Any

from aigc_lab.registry.ranking import Comparison, Group
from aigc_lab.registry.standings import median_interval

SIGNATURE = "clf:digits:2a4368e2|d:32|se:infinitesimal-jackknife|data:digits:38a6d334|ref:holdout:400|n:400|v:2"


def row(trial: int, values: list[float], **changes: Any) -> dict[str, Any]:
    """A row of a trial whose seeds have these values; of none, one without a score."""
    facts: dict[str, Any] = {
        "rank": trial + 1 if values else None,
        "sweep": "digits-dbeb81dd",
        "trial": trial,
        "system": "dcgan",
        "config": {"loss": "nonsaturating", "lr": 0.0004389},
        "seeds": sum(map(math.isfinite, values)),
        "states": {"FINISHED": len(values)},
        "state": "FINISHED",
        "confirmed": False,
        "marks": [],
        "seconds": 120.0,
        "verdicts": {},
        "score": score(values) if values else None,
    }
    return {"role": "confirm" if changes.get("confirmed") else "search"} | facts | changes


def score(values: list[float], **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": "fd_clf", "value": median(values), "better": "lower", "signature": SIGNATURE}
    facts |= {"reference": None, "n": 400, "floor": 0.959, "floor_sd": 0.352, "low": None, "high": None}
    if len(values) == 1:
        facts |= {"low": values[0] - 0.5, "high": values[0] + 0.5, "confidence": 0.95}
    else:
        low, high, confidence = median_interval(values)
        facts |= {"low": low if math.isfinite(low) else None, "high": high if math.isfinite(high) else None}
        facts["confidence"] = confidence
    return facts | changes


def comparison(*rows: tuple[dict[str, Any], list[float]], total: int | None = None) -> Comparison:
    """Rows with what their scores are the median of, in the order of their ranks."""
    scores = [row["score"] for row, _ in rows if row["score"]]
    keys = [(score["name"], score["better"], score["signature"]) for score in scores]
    groups = [Group(*key, keys.count(key)) for key in dict.fromkeys(keys)]
    return Comparison([row for row, _ in rows], groups, "", len(rows) if total is None else total, [v for _, v in rows])


def compared(*values: list[float], **changes: Any) -> Comparison:
    """Trials 0, 1, … whose seeds have these values."""
    return comparison(*((row(trial, each, **changes), each) for trial, each in enumerate(values)))
