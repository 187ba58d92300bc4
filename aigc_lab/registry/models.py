"""Reading the promoted models: versions, the aliases that point at them, and the scores behind them."""

from collections import defaultdict

from sqlalchemy import ColumnElement, Connection, and_, select

from aigc_lab.registry.columns import OF_SCORE, TRIAL_OF_RUN, Json, json_row
from aigc_lab.registry.database import repeated
from aigc_lab.registry.store import Registry
from aigc_lab.registry.tables import AliasEvent, Promotion, Run, Score, Sweep, Trial

# The objective of the promoted checkpoint, on the split that chose nothing.
_PROMOTED_SCORE = and_(
    Score.c.run_id == Run.c.id,
    Score.c.name == Sweep.c.objective,
    Score.c.checkpoint == Promotion.c.checkpoint,
    Score.c.split == "holdout",
)


@repeated
def list_models(registry: Registry, name: str | None = None) -> list[Json]:
    """The versions of all promoted models, or of one, the newest first, each with the aliases that point at it now,
    the score that its sweep optimises (of the promoted checkpoint, on the holdout), and the history of its aliases.
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


def promotions_where(connection: Connection, condition: ColumnElement[bool] | None) -> list[Json]:
    """The promoted versions of the condition, or all, each with its aliases and its score; paths as they are stored."""
    promotions = (
        select(*Promotion.columns, Trial.c.system, Run.c.sweep_id.label("sweep"), Sweep.c.objective, *OF_SCORE)
        .join(Run, Run.c.id == Promotion.c.run_id)
        .join(Trial, TRIAL_OF_RUN)
        .join(Sweep, Sweep.c.id == Run.c.sweep_id)
        .outerjoin(Score, _PROMOTED_SCORE)
        .order_by(Promotion.c.model, Promotion.c.version.desc())
    )
    if condition is not None:
        promotions = promotions.where(condition)
    aliases: dict[tuple[str, int], list[str]] = defaultdict(list)
    for (model, alias), version in _aliases(connection).items():
        aliases[model, version].append(alias)
    keys = [column.name for column in OF_SCORE]
    rows = []
    for promotion in connection.execute(promotions).mappings():
        row = json_row(promotion)
        score = {key: row.pop(key) for key in keys}
        row["run"] = row.pop("run_id")
        row["score"] = score if score["name"] is not None else None
        row["aliases"] = sorted(aliases[row["model"], row["version"]])
        rows.append(row)
    return rows


def _aliases(connection: Connection) -> dict[tuple[str, str], int]:
    """(model, alias) -> the version that it points at, which is that of its newest event."""
    events = select(AliasEvent.c.model, AliasEvent.c.alias, AliasEvent.c.version).order_by(AliasEvent.c.number)
    return {(model, alias): version for model, alias, version in connection.execute(events)}
