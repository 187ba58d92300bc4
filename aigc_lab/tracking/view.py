"""View in which MLflow's pages open on a sweep: columns, order of the runs, and order of the charts.

MLflow keeps a view that somebody shares as a tag of its experiment, and opens it by a link with the view's key. The
tag's format is MLflow 3.17's own and not documented; a page that does not know a part of it leaves that part out.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

from aigc_lab.errors import Failure, UsageError
from aigc_lab.pictures.view_captions import CAPTIONS
from aigc_lab.registry.store import Registry
from aigc_lab.registry.sweeps import artifacts_by_run, show_sweep
from aigc_lab.tracking.base import SAMPLES, image_key
from aigc_lab.tracking.mlflow import MlflowTracker

_LOG = logging.getLogger(__name__)

KEY = "aigc-lab"
TAG = f"mlflow.sharedViewState.{KEY}"
# Width in pixels of the column of each tag, in their order: what a reader needs beside the objective.
_TAGS = {"floor": 135, "collapse": 130, "stability": 105, "state": 90, "system": 90, "role": 75}
# MLflow's own columns that stand first, whatever is selected.
_FIRST = {"attributes.`Run Name`": 150, "runDateAndNestInfo": 130}


def column(kind: str, name: str) -> str:
    """MLflow's name of a column; `kind` is `metrics`, `params`, `tags` or `attributes`."""
    return f"{kind}.`{name}`"


def ordering(objective: str, better: str) -> dict[str, Any]:
    """Order of the runs: the best value of the objective on the reference split first, which ranks them here too."""
    return {"orderByKey": column("metrics", f"score/{objective}"), "orderByAsc": better == "lower"}


def view(objective: str, better: str, step: int = 0, views: Sequence[str] = ()) -> str:
    """Value of the tag, JSON of the state of MLflow's page, for runs whose `objective` is `better` "lower" or "higher".
    Samples, and the pictures of `views` below them, are shown as they were at `step`.

    >>> json.loads(view("fd_clf", "lower"))["selectedColumns"][:2]
    ['metrics.`score/fd_clf`', 'metrics.`score/fd_clf_holdout`']
    """
    widths = {column("metrics", f"score/{name}"): 115 for name in (objective, f"{objective}_holdout")}
    widths |= {column("tags", name): width for name, width in _TAGS.items()}
    widths |= {column("attributes", "Models"): 120}
    # Each section in the order given here, and not in that of the alphabet.
    section = {"display": True, "isReordered": True, "deleted": False}
    wide = {"columns": 1, "cardHeight": 480} | section
    families = [SAMPLES, *views]
    state = ordering(objective, better) | {
        "selectedColumns": list(widths),
        "columnOrder": [*_FIRST, *widths],
        "columnWidths": _FIRST | widths,
        "compareRunCharts": _charts(objective, step, families),
        "compareRunSections": [
            {"uuid": "score", "name": "score"} | section,
            *({"uuid": family, "name": family} | wide for family in families),
        ],
        "isAccordionReordered": True,
    }
    return json.dumps(state)


def _charts(objective: str, step: int, families: Sequence[str]) -> list[dict[str, Any]]:
    """The first charts: the curve of the objective, its value on the holdout, and the pictures. MLflow adds one of each
    other metric below them.
    """
    return [
        _chart("LINE", "score", metricKey=f"score/{objective}", selectedMetricKeys=[f"score/{objective}"], **_LINE),
        _chart("BAR", "score", metricKey=f"score/{objective}_holdout", displayName=f"{objective}_holdout"),
        # Not the parameters of each run: they would leave no room for its picture.
        *(_chart("IMAGE", each, imageKeys=[image_key(each)], step=step, showRunParams=False) for each in families),
    ]


def _chart(kind: str, section: str, **facts: Any) -> dict[str, Any]:
    common = {"type": kind, "uuid": f"{KEY}-{kind}-{section}", "metricSectionId": section, "deleted": False}
    return common | {"isGenerated": False, "runsCountToCompare": 100} | facts


# Keys that the page reads of every curve.
_LINE: dict[str, Any] = {
    "lineSmoothness": 0,
    "xAxisScaleType": "linear",
    "scaleType": "linear",
    "range": {},
    "xAxisKey": "step",
    "selectedXAxisMetricKey": "",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "ignoreOutliers": False,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}


def keep_view(tracker: MlflowTracker, registry: Registry, sweep: str, experiment: str) -> None:
    """Stores the view of a sweep with its experiment, with those pictures that its runs have so far. A store that
    refuses it is reported in the log: what a sweep has to show does not wait for it.
    """
    try:
        row = show_sweep(registry, sweep)
        training = row["experiment"].get("training")
        steps = training.get("steps") if isinstance(training, dict) else None
        last = steps if isinstance(steps, int) else 0  # the search may choose it
        names = {file["name"] for files in artifacts_by_run(registry, sweep).values() for file in files}
        views = [name for name in CAPTIONS if any(each.startswith(f"{name}/") for each in names)]
        tracker.mark(experiment, {TAG: view(row["objective"], row["better"], last, views)})
    except (UsageError, Failure) as error:  # a sweep that was deleted meanwhile; a store that fails
        _LOG.warning("%s: MLflow's pages open without its columns: %s", sweep, error)
