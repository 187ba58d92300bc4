"""The best run of a sweep: the first one down the ranking whose verdicts do not speak against its weights.

Trials come in the order of their ranks, which puts confirmed ones before all others, and the runs of a trial in the
order of their scores on the reference split. The holdout chooses neither, so that what it says of them is unbiased. A
run is passed over where its samples collapsed or its training was unstable: `marks.UNSOUND` lists the verdicts. One
without verdicts is not.

`promote`, `sample`, `evaluate` and the page of a sweep all mean this run, and so does the last line of `sweep`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, select, tuple_

from aigc_lab.registry.columns import OF_SCORE, FinalCheckpoint, Json
from aigc_lab.registry.comparison import compare_trials
from aigc_lab.registry.database import repeated
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Artifact, Run, Score
from aigc_lab.registry.verdicts import collapse_doubt, objections_where

_TrialKey = tuple[str, int]  # a sweep and the number of a trial
Rows = Sequence[Mapping[str, Any]]

# Trials whose runs are read at once: the first of them decides, in most sweeps.
_AT_ONCE = 20
# Runs that were passed over and are recorded one by one.
RECORDED = 20


@dataclass(frozen=True)
class RankedRun:
    """A finished run of a ranked trial: its `score` on the holdout (on the reference split where it has no other), and
    the `objections` to its weights. `rank` and `marks` are its trial's, and so is `confirmed`: its seed is fresh.
    """

    run: str
    trial: _TrialKey
    score: Json
    reference: float | None
    samples: str | None = None
    rank: int = 0
    confirmed: bool = False
    marks: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()

    def as_json(self) -> Json:
        """Plain data: what it is, where it ranks, and the `reasons` to pass it over."""
        return {"run": self.run, "rank": self.rank, "score": self.score, "reasons": list(self.objections)}


@dataclass(frozen=True)
class Selection:
    """Runs in the order of the ranking, up to the first that nothing speaks against; where there is none, all of them.
    `confirmed_trials` counts those in the ranking.
    """

    runs: tuple[RankedRun, ...]
    confirmed_trials: int = 0

    @property
    def sound(self) -> bool:
        """Whether a run was found that nothing speaks against."""
        return not self.runs[-1].objections

    @property
    def best(self) -> RankedRun:
        """The run that was found; where there is none, the first in the ranking."""
        return self.runs[-1 if self.sound else 0]

    @property
    def passed_over(self) -> tuple[RankedRun, ...]:
        """Runs that rank before the best one; none where the best is the first."""
        return self.runs[:-1] if self.sound else ()

    def as_json(self) -> Json:
        """Plain data: the best run, its rank and confirmation, and of those passed over the first with the reasons."""
        return {
            "run": self.best.run,
            "rank": self.best.rank,
            "confirmed": self.best.confirmed,
            "confirmed_trials": self.confirmed_trials,
            "passed_over": [each.as_json() for each in self.passed_over[:RECORDED]],
            "passed_over_more": max(len(self.passed_over) - RECORDED, 0),
        }


@repeated
def best_run(registry: Registry, sweep: str, checkpoint: FinalCheckpoint = "last") -> Json | None:
    """The best run of a sweep with the path of its samples, the `marks` of its trial, its `collapse_doubt`, and the
    `selection` that it is of; None where no trial has a rank.
    """
    selection = select_run(registry, compare_trials(registry, sweep, checkpoint=checkpoint).rows, checkpoint)
    if selection is None:
        return None
    best = selection.best
    return {
        "run": best.run,
        "samples": best.samples,
        "marks": list(best.marks),
        "doubt": collapse_doubt(registry, best.run, checkpoint),
        "selection": selection,
    }


def select_run(registry: Registry, rows: Rows, checkpoint: FinalCheckpoint = "last") -> Selection | None:
    """The selection from the rows of a comparison, which are of one sweep and ranked by its objective. Of several
    signatures the first counts, which most trials have: the others do not compare with it.
    """
    ranked = [row for row in rows if row["rank"] is not None]
    ranked = [row for row in ranked if row["score"]["signature"] == ranked[0]["score"]["signature"]]
    return first_sound(ranked, lambda some: _runs_of(registry, some, checkpoint))


def first_sound(ranked: Rows, runs_of: Callable[[Rows], Mapping[_TrialKey, Iterable[RankedRun]]]) -> Selection | None:
    """The selection from ranked rows, in their order; `runs_of` returns the runs of some of them by trial. None where
    there is no run.
    """
    looked_at = []
    for each in _in_order(ranked, runs_of):
        looked_at.append(each)
        if not each.objections:
            break
    if not looked_at:
        return None
    return Selection(tuple(looked_at), sum(bool(row["confirmed"]) for row in ranked))


def _in_order(ranked: Rows, runs_of: Callable[[Rows], Mapping[_TrialKey, Iterable[RankedRun]]]) -> Iterator[RankedRun]:
    """Runs of the rows, trial after trial, each with the best on the reference split first."""
    for first in range(0, len(ranked), _AT_ONCE):
        some = ranked[first : first + _AT_ONCE]
        runs = runs_of(some)
        for row in some:
            sign = 1 if row["score"]["better"] == "lower" else -1
            facts = {"rank": row["rank"], "confirmed": bool(row["confirmed"]), "marks": tuple(row["marks"])}
            for each in sorted(runs.get((row["sweep"], row["trial"]), ()), key=lambda run: _place(run, sign)):
                yield replace(each, **facts)


def _place(run: RankedRun, sign: int) -> tuple[bool, float]:
    """Place of a run among those of its trial: scored on the reference split first, and in that by value."""
    value = run.score["value"] if run.reference is None else run.reference
    return run.reference is None, sign * value


@repeated
def _runs_of(registry: Registry, rows: Rows, checkpoint: FinalCheckpoint) -> dict[_TrialKey, list[RankedRun]]:
    """Trial -> its finished runs that its score is of, with a finite value of that score."""
    name, shown = rows[0]["score"]["name"], {(row["sweep"], row["trial"]): row for row in rows}
    query = (
        select(Run.c.id, Run.c.sweep_id, Run.c.trial, Run.c.role, Artifact.c.path.label("samples"), *OF_SCORE)
        .join(Score, and_(Score.c.run_id == Run.c.id, Score.c.name == name, Score.c.checkpoint == checkpoint))
        .outerjoin(Artifact, and_(Artifact.c.run_id == Run.c.id, Artifact.c.name == "samples"))
        .where(tuple_(Run.c.sweep_id, Run.c.trial).in_(list(shown)), Score.c.value.is_not(None))
        .where(Run.c.state == RunState.FINISHED.value)  # one that failed after its training has scores too
        .order_by(Run.c.sweep_id, Run.c.trial, Run.c.seed, Score.c.step)
    )
    with registry.read() as connection:
        scores: dict[str, list[Json]] = defaultdict(list)
        for found in connection.execute(query).mappings():
            row = shown[found["sweep_id"], found["trial"]]
            if found["role"] == row["role"]:
                scores[found["id"]].append(dict(found))
        objections = objections_where(connection, Run.c.id.in_(list(scores)), checkpoint)
    runs: dict[_TrialKey, list[RankedRun]] = defaultdict(list)
    for run, found_scores in scores.items():
        each = _ranked_run(registry, found_scores, tuple(objections.get(run, ())))
        if each.score["signature"] == shown[each.trial]["score"]["signature"]:
            runs[each.trial].append(each)
    return runs


def _ranked_run(registry: Registry, scores: Sequence[Json], objections: tuple[str, ...]) -> RankedRun:
    """A run of its scores, one a split."""
    shown = next((each for each in scores if each["split"] == "holdout"), scores[0])
    reference = next((each["value"] for each in scores if each["split"] == "reference"), None)
    return RankedRun(
        shown["id"],
        (shown["sweep_id"], shown["trial"]),
        {column.name: shown[column.name] for column in OF_SCORE},
        reference,
        shown["samples"] and registry.located(shown["samples"]),
        objections=objections,
    )
