"""Reading the registry. Everything returned is plain and ready for JSON: no NaN, times as ISO 8601 text."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from itertools import chain
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, func, literal, or_, select, tuple_

from aigc_lab.errors import UsageError
from aigc_lab.host.content import unknown_name
from aigc_lab.registry.marks import DOUBTFUL, doubts
from aigc_lab.registry.ranking import Comparison, Configuration, SeedOutcome, rank
from aigc_lab.registry.records import DESCRIBED
from aigc_lab.registry.states import RunState
from aigc_lab.registry.store import Registry, repeated
from aigc_lab.registry.tables import (
    AliasEvent,
    Artifact,
    Attempt,
    Checkpoint,
    Promotion,
    Run,
    ScalarSummary,
    Score,
    Sweep,
    Trial,
    Verdict,
)

Json = dict[str, Any]
Final = Literal["last", "selected"]

# So many rows are fetched, or asked for by their keys, at once.
_AT_ONCE = 1000

_RUN = (
    Run.c.id.label("run"),
    Run.c.sweep_id.label("sweep"),
    Run.c.trial,
    Run.c.seed,
    Run.c.role,
    Trial.c.system,
    Run.c.state,
    Run.c.seconds,
    Run.c.mlflow_run_id,
    Sweep.c.objective,
)
_TRIAL_OF_RUN = and_(Trial.c.sweep_id == Run.c.sweep_id, Trial.c.number == Run.c.trial)
_SCORE = (
    Score.c.name,
    Score.c.value,
    Score.c.low,
    Score.c.high,
    Score.c.n,
    Score.c.floor,
    Score.c.floor_sd,
    Score.c.signature,
    Score.c.better,
    Score.c.split,
)


# Of verdicts on samples, those up to the weights of a checkpoint: training may have gone on after them.
_OF_CHECKPOINT = or_(Verdict.c.kind != "collapse", Checkpoint.c.step.is_(None), Verdict.c.step <= Checkpoint.c.step)


# ---- finding what a user means


@repeated
def find_sweep(registry: Registry, wanted: str) -> str:
    """The sweep with this id, else the newest one of this name. Raises `UsageError` with the nearest."""
    with registry.read() as connection:
        return _find_sweep(connection, wanted)


def _find_sweep(connection: Connection, wanted: str) -> str:
    exact = connection.scalar(select(Sweep.c.id).where(Sweep.c.id == wanted))
    if exact is not None:
        return str(exact)
    newest = connection.scalar(
        select(Sweep.c.id).where(Sweep.c.name == wanted).order_by(Sweep.c.created_at.desc(), Sweep.c.id).limit(1)
    )
    if newest is not None:
        return str(newest)
    names = list(connection.scalars(select(Sweep.c.name).distinct()))
    if not names:
        raise UsageError(f"unknown sweep '{wanted}'; the registry is empty, run a sweep first")
    near = get_close_matches(wanted, list(connection.scalars(select(Sweep.c.id))), n=3, cutoff=0.8)
    raise UsageError(unknown_name("sweep", wanted, near or names))


@repeated
def find_run(registry: Registry, wanted: str) -> str:
    """The run with this id; `<name>.<trial>.<seed>` is one of the newest sweep of that name."""
    with registry.read() as connection:
        return _find_run(connection, wanted)


def _find_run(connection: Connection, wanted: str) -> str:
    if connection.scalar(select(Run.c.id).where(Run.c.id == wanted)) is not None:
        return wanted
    if connection.scalar(select(Sweep.c.id).where((Sweep.c.id == wanted) | (Sweep.c.name == wanted))) is not None:
        raise UsageError(f"{wanted} is a sweep, not a run; 'aigc-lab runs {wanted}' lists its runs")
    name, *rest = wanted.rsplit(".", 2)  # the name of a sweep may hold dots
    sweep = _find_sweep(connection, name)
    run = ".".join([sweep, *rest])
    if connection.scalar(select(Run.c.id).where(Run.c.id == run)) is not None:
        return run
    # The likely ones, not all: comparing texts takes its time. A trial's seeds first.
    trial = int(rest[0]) if len(rest) == 2 and re.fullmatch(r"[0-9]{1,9}", rest[0]) else 0
    of_sweep = select(Run.c.id).where(Run.c.sweep_id == sweep)
    known = list(connection.scalars(of_sweep.order_by(Run.c.trial != trial, Run.c.trial, Run.c.seed).limit(_AT_ONCE)))
    near = get_close_matches(run, known, n=3, cutoff=0.8)
    count = connection.scalar(select(func.count()).select_from(of_sweep.subquery()))
    hint = f"did you mean {' or '.join(near)}?" if near else f"'aigc-lab runs {sweep}' lists its {count} runs"
    raise UsageError(f"unknown run '{wanted}'; {hint}")


# ---- runs


@repeated
def runs(registry: Registry, sweep: str | None = None) -> list[Json]:
    """One row a run, with its final scores of the last checkpoint and the last value of every training scalar."""
    return [row for part in newest_runs(registry, sweep).parts for row in part]


@dataclass(frozen=True)
class Runs:
    """The newest runs of `total`, in the order in which they were made; `parts` reads them as it goes."""

    total: int
    shown: int
    parts: Iterator[list[Json]]


@repeated
def newest_runs(
    registry: Registry, sweep: str | None = None, *, state: RunState | None = None, most: int | None = None
) -> Runs:
    """The rows of `runs`: of those in a `state`, and no more than `most`, the newest ones."""
    with registry.read() as connection:
        wanted = _of_sweep(connection, sweep)
        if state is not None:
            wanted = and_(wanted, Run.c.state == state.value)
        of_sweeps = select(Run.c.id).join(Sweep, Sweep.c.id == Run.c.sweep_id).where(wanted)
        newest = of_sweeps.order_by(
            Sweep.c.created_at.desc(), Run.c.sweep_id.desc(), Run.c.trial.desc(), Run.c.seed.desc()
        )
        total = connection.scalar(select(func.count()).select_from(of_sweeps.subquery())) or 0
        ids = list(connection.scalars(newest.limit(most)))[::-1]
    return Runs(total, len(ids), (_runs(registry, ids[at : at + _AT_ONCE]) for at in range(0, len(ids), _AT_ONCE)))


@repeated
def _runs(registry: Registry, ids: Sequence[str]) -> list[Json]:
    """The rows of these runs."""
    with registry.read() as connection:
        rows = {row["run"]: row for row in _run_rows(connection, Run.c.id.in_(ids))}
        scores = _final_scores(connection, "last", ids)
        scalars: dict[str, Json] = defaultdict(dict)
        found = connection.execute(
            select(ScalarSummary.c.run_id, ScalarSummary.c.name, ScalarSummary.c.last)
            .where(ScalarSummary.c.run_id.in_(ids))
            .order_by(ScalarSummary.c.run_id, ScalarSummary.c.name)
        )
        for run, name, last in found:
            scalars[run][name] = last
        said = _last_verdicts(connection, Run.c.id.in_(ids))
    return [
        rows[run]
        | {"scores": scores.get(run, []), "scalars": scalars.get(run, {})}
        | {kind: said.get(run, {}).get(kind) for kind in ("collapse", "stability")}
        for run in ids
        if run in rows
    ]


def _last_verdicts(
    connection: Connection, wanted: ColumnElement[bool], checkpoint: Final = "last"
) -> dict[str, dict[str, str]]:
    """Run -> kind -> what is said of it: of the samples of a checkpoint, and of the whole history."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for run, kind, verdict in connection.execute(
        select(Verdict.c.run_id, Verdict.c.kind, Verdict.c.verdict)
        .join(Run, Run.c.id == Verdict.c.run_id)
        .outerjoin(Checkpoint, and_(Checkpoint.c.run_id == Verdict.c.run_id, Checkpoint.c.kind == checkpoint))
        .where(wanted, _OF_CHECKPOINT)
        .order_by(Verdict.c.step)
    ):
        said[run][kind] = verdict
    return said


@repeated
def said_of_runs(registry: Registry, sweep: str) -> dict[str, dict[str, str]]:
    """Run -> kind -> its verdict, for every run of a sweep: on the samples of its result, and on its whole history."""
    with registry.read() as connection:
        return _last_verdicts(connection, Run.c.sweep_id == sweep)


@repeated
def doubt(registry: Registry, run: str, checkpoint: Final = "last") -> str | None:
    """What the collapse verdict says of a checkpoint's samples, with its reason, where a score says little of such
    samples: they are UNMEASURABLE, or the collapse is SEVERE or TOTAL. None where all is well, or nothing was judged.
    """
    with registry.read() as connection:
        found = connection.execute(
            select(Verdict.c.verdict, Verdict.c.reason)
            .outerjoin(Checkpoint, and_(Checkpoint.c.run_id == Verdict.c.run_id, Checkpoint.c.kind == checkpoint))
            .where(Verdict.c.run_id == run, Verdict.c.kind == "collapse", _OF_CHECKPOINT)
            .order_by(Verdict.c.step.desc())
            .limit(1)
        ).first()
    return f"{found[0]}: {found[1]}" if found is not None and found[0] in DOUBTFUL else None


def _verdicts(connection: Connection, wanted: Any) -> dict[str, list[Json]]:
    """Run -> its verdicts with their evidence, by kind and step."""
    found: dict[str, list[Json]] = defaultdict(list)
    for row in connection.execute(
        select(Verdict).where(wanted).order_by(Verdict.c.run_id, Verdict.c.kind, Verdict.c.step)
    ).mappings():
        found[row["run_id"]].append({key: value for key, value in row.items() if key != "run_id"})
    return found


@repeated
def verdicts(registry: Registry, sweep: str) -> dict[str, list[Json]]:
    """Run -> all its verdicts with their evidence, for every run of a sweep."""
    with registry.read() as connection:
        ids = select(Run.c.id).where(Run.c.sweep_id == sweep)
        return _verdicts(connection, Verdict.c.run_id.in_(ids))


@repeated
def show(registry: Registry, run: str) -> Json:
    """Everything that is known of one run; `doubt` as the function of that name has it."""
    with registry.read() as connection:
        run = _find_run(connection, run)
        this = Run.c.id == run
        (row,) = _run_rows(connection, this)
        more = connection.execute(
            select(Run.c.reason, Run.c.created_at, Run.c.finished_at, Trial.c.config, Sweep.c.mlflow_experiment_id)
            .join(Trial, _TRIAL_OF_RUN)
            .join(Sweep, Sweep.c.id == Run.c.sweep_id)
            .where(this)
        ).one()
        progress = connection.execute(
            select(Score.c.step, *_SCORE)
            .where(Score.c.run_id == run, Score.c.checkpoint == "progress")
            .order_by(Score.c.step, Score.c.name)
        )
        attempts = connection.execute(
            select(*_columns(Attempt)).where(Attempt.c.run_id == run).order_by(Attempt.c.number)
        ).mappings()
        scalars = connection.execute(
            select(ScalarSummary.c.name, ScalarSummary.c.last)
            .where(ScalarSummary.c.run_id == run)
            .order_by(ScalarSummary.c.name)
        )
        row |= _json(more._mapping) | {  # noqa: SLF001 -- SQLAlchemy's name for a row as a mapping
            "scores": _final_scores(connection, "last", [run]).get(run, []),
            "scores_selected": _final_scores(connection, "selected", [run]).get(run, []),
            "scalars": {name: last for name, last in scalars},
            "progress": [_json(entry) for entry in progress.mappings()],
            "verdicts": _verdicts(connection, Verdict.c.run_id == run).get(run, []),
            "attempts": [_attempt(attempt) for attempt in attempts],
        }
        checkpoints = select(*_columns(Checkpoint)).where(Checkpoint.c.run_id == run).order_by(Checkpoint.c.kind)
        artifacts = select(*_columns(Artifact)).where(Artifact.c.run_id == run).order_by(Artifact.c.name)
        promoted = _promotions(connection, Promotion.c.run_id == run)
        row["promotions"] = [
            {key: version[key] for key in ("model", "version", "checkpoint", "aliases")} for version in promoted
        ]
        for name, wanted in (("checkpoints", checkpoints), ("artifacts", artifacts)):
            files = connection.execute(wanted).mappings()
            row[name] = [dict(file) | {"path": registry.located(file["path"])} for file in files]
    row["environment"] = row["attempts"][-1]["environment"] if row["attempts"] else {}
    row["doubt"] = doubt(registry, run)
    return row


@repeated
def trials(registry: Registry, sweep: str) -> list[Json]:
    """The configurations of a sweep, as the search left them."""
    with registry.read() as connection:
        sweep = _find_sweep(connection, sweep)
        found = connection.execute(
            select(
                Trial.c.sweep_id.label("sweep"),
                Trial.c.number.label("trial"),
                Trial.c.system,
                Trial.c.config,
                Trial.c.params,
                Trial.c.state,
                Trial.c.value,
            )
            .where(Trial.c.sweep_id == sweep)
            .order_by(Trial.c.number)
        )
        return [dict(row) for row in found.mappings()]


@repeated
def outcomes(registry: Registry, sweep: str) -> list[Json]:
    """Trial, seed, state, reason, and the objective of the last weights on the reference split, for every run of a
    sweep: what the search sees. The holdout is kept from it, so that comparisons there are not biased by selection.
    """
    on_reference = and_(
        Score.c.run_id == Run.c.id,
        Score.c.name == Sweep.c.objective,
        Score.c.checkpoint == "last",
        Score.c.split == "reference",
    )
    with registry.read() as connection:
        found = connection.execute(
            select(Run.c.id.label("run"), Run.c.trial, Run.c.seed, Run.c.state, Run.c.reason, Score.c.value)
            .join(Sweep, Sweep.c.id == Run.c.sweep_id)
            .outerjoin(Score, on_reference)
            .where(Run.c.sweep_id == sweep)
            .order_by(Run.c.trial, Run.c.seed)
        )
        return [dict(row) for row in found.mappings()]


@repeated
def best_run(registry: Registry, sweep: str, checkpoint: Final = "last") -> Json | None:
    """The run of the trial that `compare` ranks first with the best final score on the reference split, the path of its
    samples, the `marks` of its trial, and its `doubt`. The holdout chooses neither trial nor run: what it says of them
    is unbiased.
    """
    first = next((row for row in compare(registry, sweep, checkpoint=checkpoint).rows if row["rank"] == 1), None)
    if first is None:
        return None
    name, role = first["score"]["name"], "confirm" if first["confirmed"] else "search"
    with registry.read() as connection:
        better = connection.scalar(select(Sweep.c.better).where(Sweep.c.id == first["sweep"]))
        value = Score.c.value if better == "lower" else Score.c.value.desc()
        found = connection.execute(
            select(Run.c.id.label("run"), Artifact.c.path.label("samples"))
            .join(Score, and_(Score.c.run_id == Run.c.id, Score.c.name == name))
            .outerjoin(Artifact, and_(Artifact.c.run_id == Run.c.id, Artifact.c.name == "samples"))
            .where(Run.c.sweep_id == first["sweep"], Run.c.trial == first["trial"], Run.c.role == role)
            .where(Score.c.checkpoint == checkpoint, Score.c.value.is_not(None))
            .where(Run.c.state == RunState.FINISHED.value)  # one that failed after its training has scores too
            .order_by(Score.c.split != "reference", value)
            .limit(1)
        )
        row = found.mappings().first()
        if row is None:
            return None
        samples = row["samples"] and registry.located(row["samples"])
    return dict(row) | {
        "samples": samples,
        "marks": first["marks"],
        "doubt": doubt(registry, row["run"], checkpoint),
    }


@repeated
def sweeps(registry: Registry) -> list[Json]:
    """All sweeps, the newest first."""
    columns = (
        Sweep.c.id.label("sweep"),
        Sweep.c.name,
        Sweep.c.objective,
        Sweep.c.better,
        Sweep.c.created_at,
        Sweep.c.mlflow_experiment_id,
    )
    with registry.read() as connection:
        found = connection.execute(select(*columns).order_by(Sweep.c.created_at.desc(), Sweep.c.id))
        return [_json(row) for row in found.mappings()]


# ---- a whole sweep, for its page


@repeated
def sweep(registry: Registry, wanted: str) -> Json:
    """What was run: id, name, digest, the experiment as resolved, objective, when. Raises `UsageError` like
    `find_sweep`.
    """
    with registry.read() as connection:
        found = connection.execute(select(*Sweep.columns).where(Sweep.c.id == _find_sweep(connection, wanted)))
        return _json(found.mappings().one())


@repeated
def histories(registry: Registry, sweep: str) -> dict[str, list[Json]]:
    """Run -> step, value, low, high, signature of the objective on the way (on the reference split), by step. A run has
    them when it has ended.
    """
    return _by_run(
        registry,
        select(Score.c.run_id, Score.c.step, Score.c.value, Score.c.low, Score.c.high, Score.c.signature)
        .join(Run, Run.c.id == Score.c.run_id)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(Run.c.sweep_id == sweep, Score.c.checkpoint == "progress", Score.c.name == Sweep.c.objective)
        .order_by(Score.c.run_id, Score.c.step),
    )


@repeated
def finals(registry: Registry, sweep: str, name: str, checkpoint: Final) -> dict[str, float]:
    """Run -> a score of a checkpoint, for every run of a sweep that has it."""
    with registry.read() as connection:
        ids = list(connection.scalars(select(Run.c.id).where(Run.c.sweep_id == sweep)))
        found = [
            (run, score)
            for part in range(0, len(ids), _AT_ONCE)
            for run, scores in _final_scores(connection, checkpoint, ids[part : part + _AT_ONCE]).items()
            for score in scores
        ]
    return {run: score["value"] for run, score in found if score["name"] == name and score["value"] is not None}


@repeated
def files(registry: Registry, sweep: str) -> dict[str, list[Json]]:
    """Run -> name, kind and path of its artifacts, by name."""
    found = _by_run(
        registry,
        select(Artifact)
        .join(Run, Run.c.id == Artifact.c.run_id)
        .where(Run.c.sweep_id == sweep)
        .order_by(Artifact.c.run_id, Artifact.c.name),
    )
    return {run: [file | {"path": registry.located(file["path"])} for file in files] for run, files in found.items()}


@repeated
def environments(registry: Registry, sweep: str) -> list[Json]:
    """The environment of every attempt of a sweep, in the order in which they started."""
    with registry.read() as connection:
        found = connection.scalars(
            select(Attempt.c.environment)
            .join(Run, Run.c.id == Attempt.c.run_id)
            .where(Run.c.sweep_id == sweep)
            .order_by(Attempt.c.started_at, Attempt.c.run_id)
        )
        return list(found)


@repeated
def _by_run(registry: Registry, query: Select[Any]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = defaultdict(list)
    with registry.read() as connection:
        for row in connection.execute(query).mappings():
            entry = _json(row)
            found[entry.pop("run_id")].append(entry)
    return dict(found)


# ---- promoted models


@repeated
def models(registry: Registry, name: str | None = None) -> list[Json]:
    """The versions of all promoted models, or of one, the newest first, each with the aliases that point at it now,
    the score that its sweep optimises (of the promoted checkpoint, on the holdout), and the history of its aliases.
    """
    with registry.read() as connection:
        found = _promotions(connection, Promotion.c.model == name if name is not None else None)
        history: dict[tuple[str, int], list[Json]] = defaultdict(list)
        for event in connection.execute(select(AliasEvent).order_by(AliasEvent.c.at, AliasEvent.c.number)).mappings():
            told = _json({key: event[key] for key in ("alias", "at", "by")})
            history[event["model"], event["version"]].append(told)
    return [
        row | {"path": registry.located(row["path"]), "alias_history": history[row["model"], row["version"]]}
        for row in found
    ]


def _promotions(connection: Connection, condition: ColumnElement[bool] | None) -> list[Json]:
    final = and_(
        Score.c.run_id == Run.c.id,
        Score.c.name == Sweep.c.objective,
        Score.c.checkpoint == Promotion.c.checkpoint,
        Score.c.split == "holdout",
    )
    wanted = (
        select(*Promotion.columns, Trial.c.system, Run.c.sweep_id.label("sweep"), Sweep.c.objective, *_SCORE)
        .join(Run, Run.c.id == Promotion.c.run_id)
        .join(Trial, _TRIAL_OF_RUN)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .outerjoin(Score, final)
        .order_by(Promotion.c.model, Promotion.c.version.desc())
    )
    aliases: dict[tuple[str, int], list[str]] = defaultdict(list)
    for (model, alias), version in _aliases(connection).items():
        aliases[model, version].append(alias)
    keys = [column.name for column in _SCORE]
    rows = []
    for found in connection.execute(wanted if condition is None else wanted.where(condition)).mappings():
        row = _json(found)
        score = {key: row.pop(key) for key in keys}
        row["run"] = row.pop("run_id")
        row["score"] = score if score["name"] is not None else None
        row["aliases"] = sorted(aliases[row["model"], row["version"]])
        rows.append(row)
    return rows


def _aliases(connection: Connection) -> dict[tuple[str, str], int]:
    """(model, alias) -> the version that it points at: that of its newest event."""
    events = select(AliasEvent.c.model, AliasEvent.c.alias, AliasEvent.c.version).order_by(AliasEvent.c.number)
    return {(model, alias): version for model, alias, version in connection.execute(events)}


# ---- comparing


@repeated
def compare(
    registry: Registry,
    sweep: str | None = None,
    *,
    score: str | None = None,
    checkpoint: Final = "last",
    most: int | None = None,
) -> Comparison:
    """The trials of one sweep, or of all, ranked by `score` (default: the objective of each sweep) on the reference
    split, with its value on the holdout; all are ranked, and the first `most` are returned. A row's `marks` say what to
    know before it is taken for the best: a collapse verdict on its samples, or that it is not confirmed.

    Raises `UsageError` when runs have finished but none has a score of that name.
    """
    with registry.read() as connection:
        of_sweep = _of_sweep(connection, sweep)
        configurations = _configurations(connection, of_sweep)
        name = Sweep.c.objective if score is None else literal(score)
        scored = _ScoredRuns(connection, name, checkpoint)
        whole = None
        if most is not None and most <= _AT_ONCE < len(configurations):
            scored.brief(configurations, of_sweep)
            whole = scored.whole
        else:
            scored.add(configurations, of_sweep)
        comparison = rank(configurations.values(), most, whole)
        if score is not None and not comparison.groups:
            _require_score(connection, score, checkpoint, of_sweep)
        configs = _configs(connection, of_sweep, comparison)
        judged = _judged(connection, of_sweep, comparison, checkpoint)
        for row in comparison.rows:
            row["config"] = configs[row["sweep"], row["trial"]]
            row["verdicts"] = judged.get((row["sweep"], row["trial"]), {})
            row["marks"] = doubts(row["verdicts"].get("collapse", {})) + row["marks"]
    return comparison


def _judged(
    connection: Connection, of_sweep: ColumnElement[bool], comparison: Comparison, checkpoint: Final
) -> dict[tuple[str, int], dict[str, dict[str, int]]]:
    """Trial -> kind -> how many of its runs have which verdict: on the samples of this checkpoint, and on the whole
    history. Of the runs that its score is of, which are those with fresh seeds where it was confirmed.
    """
    newest = (
        select(Verdict.c.run_id, Verdict.c.kind, func.max(Verdict.c.step).label("step"))
        .join(Run, Run.c.id == Verdict.c.run_id)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .outerjoin(Checkpoint, and_(Checkpoint.c.run_id == Verdict.c.run_id, Checkpoint.c.kind == checkpoint))
        .where(of_sweep, _OF_CHECKPOINT)
        .group_by(Verdict.c.run_id, Verdict.c.kind)
        .subquery()
    )
    of_newest = and_(
        Verdict.c.run_id == newest.c.run_id, Verdict.c.kind == newest.c.kind, Verdict.c.step == newest.c.step
    )
    wanted = (
        select(Run.c.sweep_id, Run.c.trial, Run.c.role, Verdict.c.kind, Verdict.c.verdict, func.count())
        .join(Verdict, Verdict.c.run_id == Run.c.id)
        .join(newest, of_newest)
        .group_by(Run.c.sweep_id, Run.c.trial, Run.c.role, Verdict.c.kind, Verdict.c.verdict)
        .order_by(func.count().desc(), Verdict.c.verdict)
    )
    shown = {(row["sweep"], row["trial"]): bool(row["confirmed"]) for row in comparison.rows}
    found: dict[tuple[str, int], dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for sweep, trial, role, kind, verdict, count in connection.execute(wanted):
        confirmed = shown.get((sweep, trial))
        if confirmed is False or (confirmed and role == "confirm"):
            counts = found[sweep, trial][kind]
            counts[verdict] = counts.get(verdict, 0) + count
    return {trial: {kind: dict(counts) for kind, counts in kinds.items()} for trial, kinds in found.items()}


def _configurations(connection: Connection, of_sweep: ColumnElement[bool]) -> dict[tuple[str, int], Configuration]:
    found = connection.execute(
        select(Trial.c.sweep_id, Trial.c.number, Trial.c.system, Trial.c.state)
        .join(Sweep, Sweep.c.id == Trial.c.sweep_id)
        .where(of_sweep)
        .order_by(Sweep.c.created_at, Trial.c.sweep_id, Trial.c.number)
        .execution_options(yield_per=_AT_ONCE)
    )
    trials = chain.from_iterable(found.partitions())
    return {(trial[0], trial[1]): Configuration(*trial) for trial in trials}


class _ScoredRuns:
    """The outcomes of runs. Of a score on two splits the holdout's is shown, where nothing is chosen; the reference
    split's, by which the search chose too, ranks.
    """

    def __init__(self, connection: Connection, name: ColumnElement[str], checkpoint: Final) -> None:
        self._connection, self._name, self._checkpoint = connection, name, checkpoint

    def add(self, configurations: dict[tuple[str, int], Configuration], condition: ColumnElement[bool]) -> None:
        """To each of the configurations those of its runs, with all that is known of them."""
        for row in self._found(condition, Run.c.role, Run.c.state, *_SCORE[:-1], Run.c.seconds):
            configurations[row[0], row[1]].outcomes.append(SeedOutcome._make(row[2:]))

    def brief(self, configurations: dict[tuple[str, int], Configuration], condition: ColumnElement[bool]) -> None:
        """The same, with only what ranking needs: a value that is fetched costs as much as what is done with it."""
        columns = Run.c.role, Run.c.state, Score.c.value, Score.c.signature, Score.c.better, self._name
        for row in self._found(condition, *columns):
            configurations[row[0], row[1]].outcomes.append(SeedOutcome.brief(*row[2:]))

    def whole(self, some: list[Configuration]) -> Iterable[Configuration]:
        """The same configurations, with all that is known of their runs."""
        again = {each.key: replace(each, outcomes=[]) for each in some}
        self.add(again, tuple_(Run.c.sweep_id, Run.c.trial).in_(list(again)))
        return again.values()

    def _found(self, condition: ColumnElement[bool], *columns: ColumnElement[Any]) -> Iterator[Sequence[Any]]:
        """Sweep, trial, the columns and the value on the reference split (NaN if not finite) of every run."""
        of_run = and_(Score.c.run_id == Run.c.id, Score.c.checkpoint == self._checkpoint, Score.c.name == self._name)
        found = self._connection.execute(
            select(Run.c.id, Run.c.sweep_id, Run.c.trial, *columns, Score.c.split, Score.c.step, Score.c.value)
            .join(Sweep, Sweep.c.id == Run.c.sweep_id)
            .outerjoin(Score, of_run)
            .where(condition)
            .order_by(Run.c.sweep_id, Run.c.trial, Run.c.seed)  # and no further: so far there is an index
            .execution_options(yield_per=_AT_ONCE)
        )
        rows = chain.from_iterable(found.partitions())  # parts of many rows: fetching them one by one takes longer
        run: str | None = None
        kept: Sequence[Any] = ()
        first, reference = (False, 0), None
        for row in rows:
            *_, split, step, value = row
            if row[0] != run:
                if run is not None:
                    yield *kept, reference
                run, kept, first, reference = row[0], row[1:-3], (split != "holdout", step), None
            elif (split != "holdout", step) < first:
                kept, first = row[1:-3], (split != "holdout", step)
            if split == "reference":
                reference = math.nan if value is None else value
        if run is not None:
            yield *kept, reference


def _configs(
    connection: Connection, of_sweep: ColumnElement[bool], comparison: Comparison
) -> dict[tuple[str, int], Json]:
    """(sweep, trial) -> the values that were chosen; of the trials that are shown, where these are few."""
    wanted = select(Trial.c.sweep_id, Trial.c.number, Trial.c.config)
    shown = [(row["sweep"], row["trial"]) for row in comparison.rows]
    if len(shown) <= _AT_ONCE:
        wanted = wanted.where(tuple_(Trial.c.sweep_id, Trial.c.number).in_(shown))
    else:
        wanted = wanted.join(Sweep, Sweep.c.id == Trial.c.sweep_id).where(of_sweep)
    found = connection.execute(wanted.execution_options(yield_per=_AT_ONCE))
    return {(in_sweep, trial): config for in_sweep, trial, config in found}


def _require_score(connection: Connection, score: str, checkpoint: str, of_sweep: ColumnElement[bool]) -> None:
    known = connection.scalars(
        select(Score.c.name)
        .distinct()
        .join(Run, Run.c.id == Score.c.run_id)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .where(of_sweep, Score.c.checkpoint == checkpoint)
    )
    names = list(known)
    if names:
        raise UsageError(unknown_name("score", score, names))


# ---- pieces


def _json(row: Mapping[Any, Any]) -> Json:
    return {str(key): value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}


def _attempt(row: Mapping[Any, Any]) -> Json:
    """An attempt, its environment without what is MLflow's."""
    facts = {key: value for key, value in row["environment"].items() if key != DESCRIBED}
    return _json(row) | {"environment": facts}


def _columns(table: Table) -> list[Any]:
    """All but the run, which the row already names."""
    return [column for column in table.columns if column.name != "run_id"]


def _of_sweep(connection: Connection, sweep: str | None) -> ColumnElement[bool]:
    """The condition for "runs of this sweep", or of any."""
    return Sweep.c.id.is_not(None) if sweep is None else Sweep.c.id == _find_sweep(connection, sweep)


def _run_rows(connection: Connection, condition: ColumnElement[bool]) -> list[Json]:
    found = connection.execute(
        select(*_RUN).join(Trial, _TRIAL_OF_RUN).join(Sweep, Sweep.c.id == Run.c.sweep_id).where(condition)
    )
    return [dict(row) for row in found.mappings()]


def _final_scores(connection: Connection, checkpoint: Final, runs: Sequence[str]) -> dict[str, list[Json]]:
    """Run -> its scores. Where a score stands on two splits, only that of the holdout is shown."""
    found = connection.execute(
        select(Score.c.run_id, *_SCORE)
        .where(Score.c.run_id.in_(runs), Score.c.checkpoint == checkpoint)
        .order_by(Score.c.run_id, Score.c.name)
    )
    scores: dict[str, dict[str, Json]] = defaultdict(dict)
    keys = [column.name for column in _SCORE]
    for run, *values in found:
        if values[0] not in scores[run] or values[-1] == "holdout":
            scores[run][values[0]] = dict(zip(keys, values, strict=True))
    return {run: list(named.values()) for run, named in scores.items()}
