"""The seeds of a ranked row, each with its last samples: the best first, the worst last of those that count."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aigc_lab.display.ranking import rank_text
from aigc_lab.display.wording import Row, ranked_score, state_text
from aigc_lab.registry.states import RunState

Json = dict[str, Any]

# What a run is of whose role is not that of the row.
_CHOSEN = {"search": "of the search", "confirm": "of the confirmation", "report": "of the report"}


def first_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """The first `most` rows, one of each trial: runs that were scored in two ways make two."""
    by_trial: dict[int, Row] = {}
    for row in rows:
        by_trial.setdefault(row["trial"], row)
    return list(by_trial.values())[:most]


def marked(row: Row, runs: Sequence[Json]) -> list[Json]:
    """The runs of a row's trial with `mark`: of those that its score is the median of `best`, `worst` or ""; of
    others why they do not count. `runs` have the best first.
    """
    counted = [run for run in runs if _counts(row, run)]
    # Values first, the best of them first; then those that diverged, which count as the worst.
    counted.sort(key=lambda run: run["state"] == RunState.DIVERGED)
    several = len(counted) > 1 and any(run["state"] == RunState.FINISHED for run in counted)
    marks = {run["run"]: "" for run in counted}
    if several:
        marks |= {counted[-1]["run"]: "worst", counted[0]["run"]: "best"}
    others = [run for run in runs if run["run"] not in marks]
    return [run | {"mark": marks[run["run"]], "counts": True} for run in counted] + [
        run | {"mark": _why_not(row, run), "counts": False} for run in others
    ]


def _counts(row: Row, run: Json) -> bool:
    if run["role"] != row["role"]:
        return False
    if run["state"] == RunState.DIVERGED:
        return True
    score = run["score"]
    return (
        run["state"] == RunState.FINISHED
        and score is not None
        and row["score"] is not None
        and score["signature"] == row["score"]["signature"]
    )


def _why_not(row: Row, run: Json) -> str:
    if run["state"] != RunState.FINISHED:
        return str(run["state"]).lower()
    if run["role"] != row["role"]:
        return f"{_CHOSEN[run['role']]}, not counted"
    return "not counted"


def with_strips(seeds: Sequence[Json]) -> set[str]:
    """The runs of a row whose samples are shown over all steps: the best and the worst; where there are two, both."""
    return {run["run"] for run in seeds if run["mark"] in ("best", "worst") or len(seeds) <= 2 or run is seeds[0]}


def cards(
    rows: Sequence[Row], seeds: Mapping[int, Sequence[Json]], shown: Mapping[str, Json], colours: Mapping[str, int]
) -> Iterator[Json]:
    """What the page shows of each row: its rank, system, score and seeds, with the evidence `shown` of each run."""
    for row in rows:
        yield {
            "place": rank_text(row),
            "trial": row["trial"],
            "system": row["system"],
            "colour": colours[row["system"]],
            "config": row["config"],
            "shown": ranked_score(row) if row["score"] else state_text(row).lower(),
            "seeds": [
                shown[run["run"]] | {"mark": run["mark"], "counts": run["counts"]} for run in seeds[row["trial"]]
            ],
        }
