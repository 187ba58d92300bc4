"""The words of a page that a reader may have to look up."""

from collections.abc import Sequence
from typing import Any

from aigc_lab.display.pairs import shown
from aigc_lab.display.ranking import rank_text
from aigc_lab.display.wording import spread
from aigc_lab.registry.pairs import pairs
from aigc_lab.registry.ranking import Comparison
from aigc_lab.registry.records import describing_scores
from aigc_lab.registry.states import RunState
from aigc_lab.statistics.wording import only_describes

Json = dict[str, Any]


def words_of(comparison: Comparison, runs: Sequence[Json], rows: Sequence[Json]) -> set[str]:
    """The words of the page that a glossary may explain."""
    scored = [row for row in comparison.rows if row["score"] is not None]
    spreads = {"SAMPLING": "sampling error", "RANGE": "range", "INTERVAL": "interval"}
    words = {"trial", "run", "seed"} if comparison.rows else set()
    words |= {"n", "signature", "holdout", "reference"} if scored else set()
    words |= {spreads[beside] for row in scored if (beside := spread(row))}
    if any(row["score"]["floor"] is not None for row in scored):
        words |= {"floor"} | (
            {"± of a floor"} if any(row["score"]["floor_sd"] is not None for row in scored) else set()
        )
    words |= {"fresh seed"} if any(row["confirmed"] for row in comparison.rows) else set()
    words |= set("".join(rank_text(row) for row in comparison.rows)) & {"!", "?", "~", "×", "^"}
    compared = shown(pairs(comparison))
    words |= {"P(A better)"} if compared else set()
    words |= {"cannot tell"} if any(not pair.told for pair in compared) else set()
    for kind in ("collapse", "stability"):
        found = {verdict for row in comparison.rows for verdict in row["verdicts"].get(kind, {})}
        found |= {run[kind] for run in runs if run[kind]}
        words |= {kind} | {f"{kind} {verdict}" for verdict in found} if found else set()
    words |= {f"state {state}" for run in runs if (state := run["state"]) != RunState.FINISHED}
    words |= {"latent"} if any(row["views"] for row in rows) else set()
    return words | ({"bin"} if any(row["bins"] for row in rows) else set())


def scores_of(comparison: Comparison, runs: Sequence[Json], environments: Sequence[Json]) -> dict[str, str | None]:
    """Name -> direction of every score on the page, the ranked ones first; None for one that describes a system, by
    what ships and by what the `environments` of the attempts hold of users' own metrics.
    """
    names = {group.name: group.better for group in comparison.groups}
    names |= {score["name"]: score["better"] for run in runs for score in run["scores"]}
    describing = {name for environment in environments for name in describing_scores(environment)}
    return {name: None if only_describes(name) or name in describing else better for name, better in names.items()}
