"""What `aigc-lab compare --csv` and `aigc_lab.compare` give: flat rows, with what their seeds say together."""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from aigc_lab.display.wording import value_text
from aigc_lab.registry.columns import FinalCheckpoint
from aigc_lab.registry.ranking import Comparison
from aigc_lab.registry.seed_evidence import RunEvidence, evidence_of
from aigc_lab.registry.store import Registry
from aigc_lab.web.tables import Table, counts_text

if TYPE_CHECKING:
    from aigc_lab.config import Better

Row = dict[str, Any]

_NESTED = (
    *("score", "config", "verdicts", "states", "marks", "sweep", "sweeps", "over_seeds", "objectives", "against"),
    "beside_likelihood",
)
_OF_SCORE = (
    *("name", "value", "reference", "low", "high", "n", "floor", "floor_sd"),
    *("signature", "confidence", "better"),
)
_CHANCE = ("low", "high", "wrong", "decided", "undecided")


# ---- what the seeds say


def add_statistics(
    registry: Registry, comparison: Comparison, score: str | None = None, checkpoint: FinalCheckpoint = "last"
) -> None:
    """Sets `over_seeds` of every row: what `verdicts.seeds` makes of its runs. `collapse` and `unstable` are
    probabilities with their intervals, `median_failure` is the step by which half of the runs had failed, `last` and
    `selected` are the spread of the score at these checkpoints, and `steps` the median of the steps to 1.1 × the best.

    A row of several trials is told of by its trials: the verdict on one is that of more than half of its runs, its
    score their median. Runs of one trial are no independent draws, and their number would promise too much.
    """
    for row, trials in zip(comparison.rows, evidence_of(registry, comparison, score, checkpoint), strict=True):
        alike = [[run for run in trial if _is_alike(run, row["score"], checkpoint)] for trial in trials]
        row["over_seeds"] = _statistics(alike, row["score"]["better"] if row["score"] else "lower")


def _is_alike(run: RunEvidence, score: Row | None, checkpoint: str) -> bool:
    """Whether a run belongs to the row of this score: it was not scored in another way."""
    return score is None or run.signatures.get(checkpoint, score["signature"]) == score["signature"]


def _statistics(trials: Sequence[Sequence[RunEvidence]], better: "Better") -> Row:
    from aigc_lab.verdicts.seeds import COLLAPSED, UNSTABLE, across_seeds, p_unstable, steps_or_none
    from aigc_lab.verdicts.stability import StabilityVerdict

    told = [trial for trial in trials if trial]
    runs = [run for trial in told for run in trial]
    units = [[run] for run in runs] if len(told) == 1 else told
    stories = [StabilityVerdict.of(run.stability | run.stability["evidence"]) for run in runs if run.stability]
    collapses = _unit_verdicts([[run.collapse for run in unit] for unit in units], COLLAPSED, "INCONCLUSIVE")
    unstable = _unit_verdicts(
        [[run.stability["verdict"] if run.stability else None for run in unit] for unit in units], UNSTABLE, "WITHHELD"
    )
    last, selected = ([_median(unit, kind) for unit in units] for kind in ("last", "selected"))
    statistics = across_seeds(stories, collapses, last=_known(last), selected=_known(selected))
    steps = _known(steps_or_none(run.history, better) for run in runs)
    chance = p_unstable(unstable) if unstable else None
    return {
        "runs": len(runs),
        "collapse": statistics["collapse"],
        "unstable": None if chance is None else vars(chance),
        **{name: statistics[name] for name in ("median_failure", "last", "selected")},
        "steps": median(steps) if steps else None,
    }


def _unit_verdicts(units: Sequence[Sequence[str | None]], wrong: Collection[str], undecided: str) -> list[str]:
    """The verdict on each unit that has any: that of its one run, else one that more than half of its runs agree in to
    be wrong or sound.
    """
    verdicts = []
    for unit in units:
        known = [verdict for verdict in unit if verdict is not None]
        if len(known) == 1:
            verdicts += known
        elif known:
            bad = [verdict for verdict in known if verdict in wrong]
            sound = [verdict for verdict in known if verdict in ("NONE", "STABLE")]
            most = max(bad, sound, key=len)
            verdicts.append(most[0] if 2 * len(most) > len(known) else undecided)
    return verdicts


def _median(unit: Sequence[RunEvidence], kind: str) -> float | None:
    """Median of a final score over the runs of a unit; None where more than half have none, as after a divergence."""
    values = [run.final.get(kind) for run in unit]
    middle = median(math.inf if value is None else value for value in values)
    return middle if math.isfinite(middle) else None


def _known(values: Any) -> list[float]:
    return [value for value in values if value is not None]


# ---- flat


def flat_rows(comparison: Comparison) -> list[Row]:
    """One flat record a row, in the order of the ranks, all with the same columns in the same order: what stands in the
    row, its score by parts, `objectives.<name>` where there are several, what its seeds say (`add_statistics`), and
    `config.<key>` for each value that was chosen. A text names several verdicts, states or marks. What a row lacks is
    None.
    """
    rows = [_flat(row) for row in comparison.rows]
    parameters = dict.fromkeys(f"config.{name}" for row in comparison.rows for name in row["config"])
    columns = list(dict.fromkeys([*(name for row in rows for name in row if name not in parameters), *parameters]))
    return [{name: row.get(name) for name in columns} for row in rows]


def _flat(row: Mapping[str, Any]) -> Row:
    score = dict(row["score"] or dict.fromkeys(_OF_SCORE))
    facts = {name: value for name, value in row.items() if name not in _NESTED}
    return {
        "rank": facts.pop("rank"),
        "sweep": " ".join(row.get("sweeps", [row["sweep"]])),
        **facts,
        "states": counts_text(row["states"]),
        **{kind: counts_text(row["verdicts"].get(kind, {})) or None for kind in ("collapse", "stability")},
        "marks": "; ".join(row["marks"]),
        "score": score.pop("name"),
        **score,
        **{f"objectives.{name}": value for name, value in row.get("objectives", {}).items()},
        **(_flat_statistics(row["over_seeds"]) if "over_seeds" in row else {}),
        **{f"config.{name}": value for name, value in row["config"].items()},
    }


def _flat_statistics(told: Mapping[str, Any]) -> Row:
    """`p_collapse` with its interval and the counts behind it, `p_unstable` likewise, `sd_last` and `sd_selected` with
    their intervals.
    """
    flat: Row = {}
    for kind in ("collapse", "unstable"):
        chance = told[kind] or {}
        flat[f"p_{kind}"] = chance.get("value")
        flat |= {f"p_{kind}_{name}": chance.get(name) for name in _CHANCE}
    flat["median_failure_step"] = told["median_failure"]
    for kind in ("last", "selected"):
        spread = told[kind] or {}
        flat[f"sd_{kind}"] = spread.get("sd")
        flat |= {f"sd_{kind}_{name}": spread.get(name) for name in ("low", "high")}
    return flat | {"steps_to_best": told["steps"]}


def comparison_table(comparison: Comparison) -> Table:
    """The flat rows as a table that `Table.csv` writes. Of a comparison without rows there are no columns either."""
    rows = flat_rows(comparison)
    header: Sequence[str] = list(rows[0]) if rows else []
    return Table("comparison", header, [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: Any) -> Any:
    """The value as a cell holds it: a list or a mapping as JSON."""
    return value if value is None or isinstance(value, str | int | float) else value_text(value)
