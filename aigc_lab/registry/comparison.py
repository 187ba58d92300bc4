"""Comparing trials: the stored scores of their runs ranked."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, literal, select, tuple_

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.registry.columns import (
    BATCH,
    RANKED_OF_SCORE,
    VERDICT_UP_TO_CHECKPOINT,
    FinalCheckpoint,
    Json,
    checkpoint_of_verdict,
)
from aigc_lab.registry.database import repeated
from aigc_lab.registry.find import sweep_ids
from aigc_lab.registry.marks import doubts
from aigc_lab.registry.pairs import add_pairs, mark_leaders
from aigc_lab.registry.pooling import rank_pools
from aigc_lab.registry.races import mark_looks
from aigc_lab.registry.ranking import Comparison, rank
from aigc_lab.registry.signatures import require_common
from aigc_lab.registry.standings import Configuration, SeedOutcome
from aigc_lab.registry.states import RunState, is_nan_failure
from aigc_lab.registry.steering import SteeredTrials, steered_trials
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import Checkpoint, Run, Score, Sweep, Trial, Verdict
from aigc_lab.registry.trial_columns import TrialColumns

_TrialKey = tuple[str, int]  # a sweep and the number of a trial


@repeated
def compare_trials(
    registry: Registry,
    sweep: str | Sequence[str] | None = None,
    *,
    score: str | None = None,
    checkpoint: FinalCheckpoint = "last",
    most: int | None = None,
    by: str = "trial",
    where: str | None = None,
) -> Comparison:
    """The trials of one sweep, of several, or of all, ranked by `score` (default: the objective of each sweep) on the
    reference split, with its value on the holdout; all are ranked, and the first `most` are returned. A row's `marks`
    say what to know before it is taken for the best: a collapse verdict on its samples, or that it is not confirmed.
    `leaders` says whether it is one of the leaders within noise (`pairs.mark_leaders`), and `against` of the first
    group what it is beside those that rank after it (`pairs.add_pairs`).

    Only trials that `where` is true of are ranked (`conditions`). With `by`, a row is all trials of one system, of one
    sweep, or with one value of a parameter (`pooling`).

    Raises `UsageError` when runs have finished but none has a score of that name, for a `where` or `by` that names no
    column, and when several sweeps are named of which no two have a signature in common.
    """
    with registry.read() as connection:
        sweeps = sweep_ids(connection, sweep)
        condition = Sweep.c.id.is_not(None) if sweeps is None else Sweep.c.id.in_(sweeps)
        choosing = where is not None or by != "trial"
        configurations = _configurations(connection, condition, with_config=choosing)
        verdicts = _verdict_counts(connection, condition, checkpoint)
        columns = _trial_columns(connection, condition, configurations, verdicts) if choosing else None
        keep = None if columns is None or where is None else columns.keep(where)
        pooled = None if columns is None or by == "trial" else columns.by(by, _adaptive(connection, condition))
        name = Sweep.c.objective if score is None else literal(score)
        scored = _ScoredRuns(connection, name, checkpoint, _nan_failures(connection, condition))
        steered = steered_trials(connection, condition, checkpoint)
        for key in steered.marks.keys() & configurations.keys():
            configurations[key].violates = True
        if pooled is None and most is not None and most <= BATCH < len(configurations):
            scored.brief(configurations, condition)
            comparison = rank(configurations.values(), most, scored.whole, keep)
        else:
            scored.add(configurations, condition)
            trials = configurations.values()
            comparison = rank(trials, most, keep=keep) if pooled is None else rank_pools(trials, pooled, most, keep)
        if where is not None:
            comparison = replace(comparison, by_outcome=TrialColumns.by_outcome(where))
        if score is not None and not comparison.groups:
            _require_score(connection, score, checkpoint, condition)
        if sweeps is not None:
            require_common(connection, sweeps, comparison.groups, checkpoint)
        configs = {} if choosing else _configs(connection, condition, comparison)
    for row, members in zip(comparison.rows, comparison.members, strict=True):
        row["config"] = row["config"] if choosing else configs[row["sweep"], row["trial"]]
        row["verdicts"] = _added(verdicts.of(*member) for member in members)
    _mark(comparison, steered)
    mark_looks(registry, comparison.rows)
    mark_leaders(comparison)
    add_pairs(comparison)
    return comparison


def _mark(comparison: Comparison, steered: SteeredTrials) -> None:
    """Adds to the rows what speaks against taking them for the best, and of several objectives the medians on the
    reference split and whether these are on their sweep's front.
    """
    for row in comparison.rows:
        trial = row["sweep"], row["trial"]
        row["marks"] = doubts(row["verdicts"].get("collapse", {})) + row["marks"] + steered.marks.get(trial, [])
        if trial in steered.fronts:
            row["front"] = steered.fronts[trial]
            row["objectives"] = steered.objectives[trial]


# ---- what is compared


def _configurations(
    connection: Connection, condition: ColumnElement[bool], *, with_config: bool
) -> dict[_TrialKey, Configuration]:
    """The trials of the condition, in the order of their sweeps and numbers, without outcomes yet. Their chosen values
    take as long to read as all else, and are needed of all trials only to choose among these.
    """
    columns = [Trial.c.sweep_id, Trial.c.number, Trial.c.system, Trial.c.state, *([Trial.c.config] * with_config)]
    rows = connection.execute(
        select(*columns)
        .join(Sweep, Sweep.c.id == Trial.c.sweep_id)
        .where(condition)
        .order_by(Sweep.c.created_at, Trial.c.sweep_id, Trial.c.number)
        .execution_options(yield_per=BATCH)
    )
    trials = chain.from_iterable(rows.partitions())
    if not with_config:
        return {(trial[0], trial[1]): Configuration(*trial) for trial in trials}
    return {
        (sweep, number): Configuration(sweep, number, system, state, config=config)
        for sweep, number, system, state, config in trials
    }


def _nan_failures(connection: Connection, condition: ColumnElement[bool]) -> frozenset[str]:
    """The runs that failed by NaN or infinity of their own, as the reasons say."""
    failed = connection.execute(
        select(Run.c.id, Run.c.reason)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(condition, Run.c.state == RunState.FAILED.value)
    )
    return frozenset(run for run, reason in failed if is_nan_failure(reason))


def _trial_columns(
    connection: Connection,
    condition: ColumnElement[bool],
    configurations: dict[_TrialKey, Configuration],
    verdicts: "_VerdictCounts",
) -> TrialColumns:
    names = {sweep: name for sweep, name in connection.execute(select(Sweep.c.id, Sweep.c.name).where(condition))}
    return TrialColumns(
        configurations.values(),
        names,
        lambda standing: verdicts.of(*standing.members[0]),
        lambda name: connection.scalar(select(Score.c.name).where(Score.c.name == name).limit(1)) is not None,
    )


# Samplers that choose without a look at any score.
BLIND = ("random", "grid", "qmc")


def _adaptive(connection: Connection, condition: ColumnElement[bool]) -> frozenset[str]:
    """The sweeps whose sampler looks at the scores of earlier trials."""
    rows = connection.execute(select(Sweep.c.id, Sweep.c.experiment).where(condition))
    samplers = {sweep: (experiment.get("search") or {}).get("sampler", "tpe") for sweep, experiment in rows}
    return frozenset(sweep for sweep, sampler in samplers.items() if sampler not in BLIND)


class _ScoredRuns:
    """The outcomes of runs. Of a score on two splits the holdout's is shown, where nothing is chosen; the reference
    split's, by which the search chose too, ranks.
    """

    def __init__(
        self,
        connection: Connection,
        name: ColumnElement[str],
        checkpoint: FinalCheckpoint,
        nan_failures: frozenset[str],
    ) -> None:
        self._connection, self._name, self._checkpoint = connection, name, checkpoint
        self._nan_failures = nan_failures

    def add(self, configurations: dict[_TrialKey, Configuration], condition: ColumnElement[bool]) -> None:
        """Adds to each configuration the outcomes of its runs, with all that is known of them."""
        for row in self._rows(condition, Run.c.role, Run.c.state, *RANKED_OF_SCORE, Run.c.seconds):
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
        """Sweep, trial, the columns (role and state before all), the value on the reference split (NaN if not finite)
        and whether it failed by NaN, of every run.
        """
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
                    yield self._ended(run, shown, reference)
                run, shown, first, reference = row[0], row[1:-3], (split != "holdout", step), None
            elif (split != "holdout", step) < first:
                shown, first = row[1:-3], (split != "holdout", step)
            if split == "reference":
                reference = math.nan if value is None else value
        if run is not None:
            yield self._ended(run, shown, reference)

    def _ended(self, run: str, shown: Sequence[Any], reference: float | None) -> Sequence[Any]:
        if run in self._nan_failures:
            sweep, trial, role, _, *rest = shown
            return sweep, trial, role, RunState.DIVERGED.value, *rest, reference, True
        return *shown, reference, False


# ---- what is added to the ranked rows


class _VerdictCounts:
    """Kind -> verdict -> how many runs of a trial have it: on the samples of a checkpoint, and on the whole history."""

    def __init__(self) -> None:
        self._counts: dict[_TrialKey, dict[str, dict[str, dict[str, int]]]] = {}

    def add(self, sweep: str, trial: int, role: str, kind: str, verdict: str, count: int) -> None:
        of_role = self._counts.setdefault((sweep, trial), {}).setdefault(role, {})
        of_role.setdefault(kind, {})[verdict] = count

    def of(self, sweep: str, trial: int, role: str) -> dict[str, dict[str, int]]:
        """Of the runs of one role, the most frequent verdict first."""
        return _added([self._counts.get((sweep, trial), {}).get(role, {})])


def _added(parts: Iterable[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    """The sums of counts by kind and verdict, the most frequent verdict first."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for part in parts:
        for kind, counts in part.items():
            sums[kind].update(counts)
    return {kind: dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))) for kind, counts in sums.items()}


def _verdict_counts(
    connection: Connection, condition: ColumnElement[bool], checkpoint: FinalCheckpoint
) -> _VerdictCounts:
    """The last verdict of each kind of every run, counted."""
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
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(condition)  # said again: a server would read every verdict that there is
        .group_by(Run.c.sweep_id, Run.c.trial, Run.c.role, Verdict.c.kind, Verdict.c.verdict)
    )
    counts = _VerdictCounts()
    for row in rows:
        counts.add(*row)
    return counts


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
