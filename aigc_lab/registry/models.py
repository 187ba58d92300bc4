"""Reading the promoted models: versions, the aliases that point at them, and the scores behind them."""

from collections import defaultdict
from typing import get_args

from sqlalchemy import ColumnElement, Connection, and_, literal, select

from aigc_lab.registry.columns import BATCH, OF_SCORE, TRIAL_OF_RUN, FinalCheckpoint, Json, json_row
from aigc_lab.registry.database import repeated
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import AliasEvent, Promotion, Run, Score, Sweep, Trial
from aigc_lab.registry.verdicts import last_verdicts_where

_OF_WEIGHTS = (Trial.c.system, Run.c.sweep_id.label("sweep"), Sweep.c.objective)


def _promoted_score(checkpoint: ColumnElement[str]) -> ColumnElement[bool]:
    """The objective of a checkpoint, on the split that chose nothing."""
    of_objective = and_(Score.c.run_id == Run.c.id, Score.c.name == Sweep.c.objective)
    return and_(of_objective, Score.c.checkpoint == checkpoint, Score.c.split == "holdout")


@repeated
def list_models(registry: Registry, name: str | None = None) -> list[Json]:
    """The versions of all promoted models, or of one, the newest first, each with the aliases that point at it now,
    the score that its sweep optimises (of the promoted checkpoint, on the holdout), its verdicts by kind, and the
    history of its aliases.
    """
    with registry.read() as connection:
        rows = promotions_where(connection, Promotion.c.model == name if name is not None else None)
        history: dict[tuple[str, int], list[Json]] = defaultdict(list)
        for event in connection.execute(select(AliasEvent).order_by(AliasEvent.c.at, AliasEvent.c.number)).mappings():
            entry = json_row({key: event[key] for key in ("alias", "at", "by")})
            history[event["model"], event["version"]].append(entry)
    return [
        row | {"path": registry.located(row["path"]), "alias_history": history[row["model"], row["version"]]}
        for row in rows
    ]


@repeated
def candidate(registry: Registry, run: str, checkpoint: FinalCheckpoint) -> Json:
    """What `list_models` would say of the weights of a run if they were promoted: run, sweep, system, objective, score
    and verdicts.
    """
    promoted = _promoted_score(literal(checkpoint))
    query = (
        select(*_OF_WEIGHTS, *OF_SCORE)
        .join(Trial, TRIAL_OF_RUN)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .outerjoin(Score, promoted)
        .where(Run.c.id == run)
    )
    with registry.read() as connection:
        row = _with_score(json_row(connection.execute(query).mappings().one()))
        verdicts = last_verdicts_where(connection, Run.c.id == run, checkpoint).get(run, {})
    return row | {"run": run, "checkpoint": checkpoint, "verdicts": dict(verdicts)}


def promotions_where(connection: Connection, condition: ColumnElement[bool] | None) -> list[Json]:
    """The promoted versions of the condition, or all, each with its aliases and its score; paths as they are stored."""
    promotions = (
        select(*Promotion.columns, *_OF_WEIGHTS, *OF_SCORE)
        .join(Run, Run.c.id == Promotion.c.run_id)
        .join(Trial, TRIAL_OF_RUN)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .outerjoin(Score, _promoted_score(Promotion.c.checkpoint))
        .order_by(Promotion.c.model, Promotion.c.version.desc())
    )
    if condition is not None:
        promotions = promotions.where(condition)
    aliases: dict[tuple[str, int], list[str]] = defaultdict(list)
    for (model, alias), version in _aliases(connection).items():
        aliases[model, version].append(alias)
    rows = [_with_score(json_row(promotion)) for promotion in connection.execute(promotions).mappings()]
    verdicts = _verdicts(connection, rows)
    for row in rows:
        row["run"] = row.pop("run_id")
        row["verdicts"] = verdicts.get((row["run"], row["checkpoint"]), {})
        row["aliases"] = sorted(aliases[row["model"], row["version"]])
    return rows


def _with_score(row: Json) -> Json:
    """The row with the columns of its score as one value; None where there is no score."""
    score = {column.name: row.pop(column.name) for column in OF_SCORE}
    return row | {"score": score if score["name"] is not None else None}


def _verdicts(connection: Connection, rows: list[Json]) -> dict[tuple[str, str], dict[str, str]]:
    """(run, checkpoint) -> kind -> verdict, of the promotions in the rows."""
    verdicts: dict[tuple[str, str], dict[str, str]] = {}
    for checkpoint in get_args(FinalCheckpoint):
        runs = [row["run_id"] for row in rows if row["checkpoint"] == checkpoint]
        for first in range(0, len(runs), BATCH):
            condition = Run.c.id.in_(runs[first : first + BATCH])
            found = last_verdicts_where(connection, condition, checkpoint)
            verdicts |= {(run, checkpoint): dict(kinds) for run, kinds in found.items()}
    return verdicts


def _aliases(connection: Connection) -> dict[tuple[str, str], int]:
    """(model, alias) -> the version that it points at, which is that of its newest event."""
    events = select(AliasEvent.c.model, AliasEvent.c.alias, AliasEvent.c.version).order_by(AliasEvent.c.number)
    return {(model, alias): version for model, alias, version in connection.execute(events)}
