"""Comparing trials: the stored scores of their runs ranked, and the run that comes first."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, literal, select, tuple_

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.registry.columns import (
    BATCH,
    OF_SCORE,
    VERDICT_UP_TO_CHECKPOINT,
    FinalCheckpoint,
    Json,
    checkpoint_of_verdict,
)
from aigc_lab.registry.database import repeated
from aigc_lab.registry.find import of_sweep
from aigc_lab.registry.marks import doubts
from aigc_lab.registry.pairs import mark_leaders
from aigc_lab.registry.ranking import Comparison, Configuration, SeedOutcome, rank
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Artifact, Checkpoint, Run, Score, Sweep, Trial, Verdict
from aigc_lab.registry.verdicts import collapse_doubt

_TrialKey = tuple[str, int]  # a sweep and the number of a trial


@repeated
def compare_trials(
    registry: Registry,
    sweep: str | None = None,
    *,
    score: str | None = None,
    checkpoint: FinalCheckpoint = "last",
    most: int | None = None,
) -> Comparison:
    """The trials of one sweep, or of all, ranked by `score` (default: the objective of each sweep) on the reference
    split, with its value on the holdout; all are ranked, and the first `most` are returned. A row's `marks` say what to
    know before it is taken for the best: a collapse verdict on its samples, or that it is not confirmed. `leaders` says
    whether it is one of the leaders within noise (`pairs.mark_leaders`).

    Raises `UsageError` when runs have finished but none has a score of that name.
    """
    with registry.read() as connection:
        condition = of_sweep(connection, sweep)
        configurations = _configurations(connection, condition)
        name = Sweep.c.objective if score is None else literal(score)
        scored = _ScoredRuns(connection, name, checkpoint)
        whole = None
        if most is not None and most <= BATCH < len(configurations):
            scored.brief(configurations, condition)
            whole = scored.whole
        else:
            scored.add(configurations, condition)
        comparison = rank(configurations.values(), most, whole)
        if score is not None and not comparison.groups:
            _require_score(connection, score, checkpoint, condition)
        configs = _configs(connection, condition, comparison)
        verdicts = _verdict_counts(connection, condition, comparison, checkpoint)
        for row in comparison.rows:
            row["config"] = configs[row["sweep"], row["trial"]]
            row["verdicts"] = verdicts.get((row["sweep"], row["trial"]), {})
            row["marks"] = doubts(row["verdicts"].get("collapse", {})) + row["marks"]
    mark_leaders(comparison)
    return comparison


@repeated
def best_run(registry: Registry, sweep: str, checkpoint: FinalCheckpoint = "last") -> Json | None:
    """The run of the trial that `compare_trials` ranks first with the best final score on the reference split, the path
    of its samples, the `marks` of its trial, and its `collapse_doubt`; None where no trial has a rank. The holdout
    chooses neither trial nor run, so that what it says of them is unbiased.
    """
    rows = compare_trials(registry, sweep, checkpoint=checkpoint).rows
    first = next((row for row in rows if row["rank"] == 1), None)
    if first is None:
        return None
    name, role = first["score"]["name"], "confirm" if first["confirmed"] else "search"
    with registry.read() as connection:
        better = connection.scalar(select(Sweep.c.better).where(Sweep.c.id == first["sweep"]))
        value = Score.c.value if better == "lower" else Score.c.value.desc()
        best = connection.execute(
            select(Run.c.id.label("run"), Artifact.c.path.label("samples"))
            .join(Score, and_(Score.c.run_id == Run.c.id, Score.c.name == name))
            .outerjoin(Artifact, and_(Artifact.c.run_id == Run.c.id, Artifact.c.name == "samples"))
            .where(Run.c.sweep_id == first["sweep"], Run.c.trial == first["trial"], Run.c.role == role)
            .where(Score.c.checkpoint == checkpoint, Score.c.value.is_not(None))
            .where(Run.c.state == RunState.FINISHED.value)  # one that failed after its training has scores too
            .order_by(Score.c.split != "reference", value)
            .limit(1)
        )
        row = best.mappings().first()
    if row is None:
        return None
    return dict(row) | {
        "samples": row["samples"] and registry.located(row["samples"]),
        "marks": first["marks"],
        "doubt": collapse_doubt(registry, row["run"], checkpoint),
    }


# ---- what is compared


def _configurations(connection: Connection, condition: ColumnElement[bool]) -> dict[_TrialKey, Configuration]:
    """The trials of the condition, in the order of their sweeps and numbers, without outcomes yet."""
    rows = connection.execute(
        select(Trial.c.sweep_id, Trial.c.number, Trial.c.system, Trial.c.state)
        .join(Sweep, Sweep.c.id == Trial.c.sweep_id)
        .where(condition)
        .order_by(Sweep.c.created_at, Trial.c.sweep_id, Trial.c.number)
        .execution_options(yield_per=BATCH)
    )
    trials = chain.from_iterable(rows.partitions())
    return {(trial[0], trial[1]): Configuration(*trial) for trial in trials}


class _ScoredRuns:
    """The outcomes of runs. Of a score on two splits the holdout's is shown, where nothing is chosen; the reference
    split's, by which the search chose too, ranks.
    """

    def __init__(self, connection: Connection, name: ColumnElement[str], checkpoint: FinalCheckpoint) -> None:
        self._connection, self._name, self._checkpoint = connection, name, checkpoint

    def add(self, configurations: dict[_TrialKey, Configuration], condition: ColumnElement[bool]) -> None:
        """Adds to each configuration the outcomes of its runs, with all that is known of them."""
        for row in self._rows(condition, Run.c.role, Run.c.state, *OF_SCORE[:-1], Run.c.seconds):
            configurations[row[0], row[1]].outcomes.append(SeedOutcome._make(row[2:]))

    def brief(self, configurations: dict[_TrialKey, Configuration], condition: ColumnElement[bool]) -> None:
        """As `add`, with only what ranking needs: a value that is fetched costs as much as what is done with it."""
        columns = Run.c.role, Run.c.state, Score.c.value, Score.c.signature, Score.c.better, self._name
        for row in self._rows(condition, *columns):
            configurations[row[0], row[1]].outcomes.append(SeedOutcome.brief(*row[2:]))

    def whole(self, some: list[Configuration]) -> Iterable[Configuration]:
        """The same configurations, with all that is known of their runs."""
        again = {each.key: replace(each, outcomes=[]) for each in some}
        self.add(again, tuple_(Run.c.sweep_id, Run.c.trial).in_(list(again)))
        return again.values()

    def _rows(self, condition: ColumnElement[bool], *columns: ColumnElement[Any]) -> Iterator[Sequence[Any]]:
        """Sweep, trial, the columns and the value on the reference split (NaN if not finite) of every run."""
        of_run = and_(Score.c.run_id == Run.c.id, Score.c.checkpoint == self._checkpoint, Score.c.name == self._name)
        scores = self._connection.execute(
            select(Run.c.id, Run.c.sweep_id, Run.c.trial, *columns, Score.c.split, Score.c.step, Score.c.value)
            .join(Sweep, Sweep.c.id == Run.c.sweep_id)
            .outerjoin(Score, of_run)
            .where(condition)
            .order_by(Run.c.sweep_id, Run.c.trial, Run.c.seed)  # and no further: so far there is an index
            .execution_options(yield_per=BATCH)
        )
        rows = chain.from_iterable(scores.partitions())  # parts of many rows: fetching them one by one takes longer
        run: str | None = None
        shown: Sequence[Any] = ()
        first, reference = (False, 0), None
        for row in rows:
            *_, split, step, value = row
            if row[0] != run:
                if run is not None:
                    yield *shown, reference
                run, shown, first, reference = row[0], row[1:-3], (split != "holdout", step), None
            elif (split != "holdout", step) < first:
                shown, first = row[1:-3], (split != "holdout", step)
            if split == "reference":
                reference = math.nan if value is None else value
        if run is not None:
            yield *shown, reference


# ---- what is added to the ranked rows


def _verdict_counts(
    connection: Connection, condition: ColumnElement[bool], comparison: Comparison, checkpoint: FinalCheckpoint
) -> dict[_TrialKey, dict[str, dict[str, int]]]:
    """Trial -> kind -> verdict -> how many of its runs have it: on the samples of this checkpoint, and on the whole
    history. Only runs that the trial's score is of are counted: those with fresh seeds where it was confirmed.
    """
    newest = (
        select(Verdict.c.run_id, Verdict.c.kind, func.max(Verdict.c.step).label("step"))
        .join(Run, Run.c.id == Verdict.c.run_id)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .outerjoin(Checkpoint, checkpoint_of_verdict(checkpoint))
        .where(condition, VERDICT_UP_TO_CHECKPOINT)
        .group_by(Verdict.c.run_id, Verdict.c.kind)
        .subquery()
    )
    of_newest = and_(
        Verdict.c.run_id == newest.c.run_id, Verdict.c.kind == newest.c.kind, Verdict.c.step == newest.c.step
    )
    rows = connection.execute(
        select(Run.c.sweep_id, Run.c.trial, Run.c.role, Verdict.c.kind, Verdict.c.verdict, func.count())
        .join(Verdict, Verdict.c.run_id == Run.c.id)
        .join(newest, of_newest)
        .group_by(Run.c.sweep_id, Run.c.trial, Run.c.role, Verdict.c.kind, Verdict.c.verdict)
        .order_by(func.count().desc(), Verdict.c.verdict)
    )
    confirmed_trials = {(row["sweep"], row["trial"]): bool(row["confirmed"]) for row in comparison.rows}
    counts: dict[_TrialKey, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for sweep, trial, role, kind, verdict, count in rows:
        confirmed = confirmed_trials.get((sweep, trial))
        if confirmed is False or (confirmed and role == "confirm"):
            of_kind = counts[sweep, trial][kind]
            of_kind[verdict] = of_kind.get(verdict, 0) + count
    return {trial: {kind: dict(of_kind) for kind, of_kind in kinds.items()} for trial, kinds in counts.items()}


def _configs(connection: Connection, condition: ColumnElement[bool], comparison: Comparison) -> dict[_TrialKey, Json]:
    """Trial -> the values that were chosen; of the trials that are shown, where these are few."""
    query = select(Trial.c.sweep_id, Trial.c.number, Trial.c.config)
    shown = [(row["sweep"], row["trial"]) for row in comparison.rows]
    if len(shown) <= BATCH:
        query = query.where(tuple_(Trial.c.sweep_id, Trial.c.number).in_(shown))
    else:
        query = query.join(Sweep, Sweep.c.id == Trial.c.sweep_id).where(condition)
    rows = connection.execute(query.execution_options(yield_per=BATCH))
    return {(sweep, trial): config for sweep, trial, config in rows}


def _require_score(connection: Connection, score: str, checkpoint: str, condition: ColumnElement[bool]) -> None:
    """Raises `UsageError` where runs have scores of this checkpoint, since none of them has this name."""
    names = connection.scalars(
        select(Score.c.name)
        .distinct()
        .join(Run, Run.c.id == Score.c.run_id)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(condition, Score.c.checkpoint == checkpoint)
    )
    choices = list(names)
    if choices:
        raise UsageError(unknown_name("score", score, choices))
