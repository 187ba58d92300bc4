"""The schema. Generic types only: the same tables live in SQLite and in PostgreSQL.

Tables of SQLAlchemy's Core: importing its ORM would take a third of the time that `aigc-lab compare` has.

A change here needs a new file in `migrations/versions` and a new `SCHEMA`; a test compares the two.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

# The newest migration. Opening a database that is up to date compares this and needs no Alembic.
SCHEMA = "0010"


class Moment(TypeDecorator[datetime]):
    """A UTC time. SQLite forgets the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# Named constraints: later migrations can address them on both databases.
METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _key(name: str, kind: Any = String, *references: ForeignKey) -> Column[Any]:
    return Column(name, kind, *references, primary_key=True, autoincrement=False)


def _must(name: str, kind: Any = String) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _may(name: str, kind: Any = String) -> Column[Any]:
    return Column(name, kind, nullable=True)


def _of_run() -> Column[Any]:
    """The first part of the key of everything that belongs to a run and goes with it."""
    return _key("run_id", String, ForeignKey("run.id", ondelete="CASCADE"))


# A home that writes here: its id, which stands in a file in it, and where it lay when it last wrote (`homes`).
Home = Table("home", METADATA, _key("id"), _must("path"), _must("host"))

# One execution of an experiment. `id` is the name and the first 8 digits of the experiment's digest, `source` the file
# that the experiment was read from, `command` who began it: "sweep" or "train". `home_id` is the home that its files
# lie in; none of a sweep that was recorded before homes were.
Sweep = Table(
    "sweep",
    METADATA,
    _key("id"),
    _must("name"),
    _must("digest"),
    _must("experiment", JSON),
    _must("objective"),
    _must("better"),
    _must("created_at", Moment),
    _may("mlflow_experiment_id"),
    _may("source"),
    _may("command"),
    _may("home_id"),
    Index(None, "name", "created_at"),
)

# One configuration. `config` are the chosen values of the experiment's holes, `params` Optuna's own.
Trial = Table(
    "trial",
    METADATA,
    _key("sweep_id", String, ForeignKey("sweep.id", ondelete="CASCADE")),
    _key("number", BigInteger),
    _must("system"),
    _must("config", JSON),
    _must("params", JSON),
    _must("state"),
    _may("value", Double),
)

# One trial with one seed. `id` is `<sweep>.<trial>.<seed>`.
Run = Table(
    "run",
    METADATA,
    _key("id"),
    _must("sweep_id"),
    _must("trial", BigInteger),
    _must("seed", BigInteger),
    _must("role"),
    _must("state"),
    _may("reason", Text),
    _may("seconds", Double),
    _may("mlflow_run_id"),
    _must("created_at", Moment),
    _may("finished_at", Moment),
    UniqueConstraint("sweep_id", "trial", "seed"),
    ForeignKeyConstraint(["sweep_id", "trial"], ["trial.sweep_id", "trial.number"], ondelete="CASCADE"),
)

# One process that worked on a run. A run that crashed has several; only the newest may finish it (`run_lifecycle`).
#
# `host`, `boot`, `pid` and `process_started` name the process (`host/processes.py`), which renews `heartbeat_at` and
# `step`, the step it is at. It began at `from_step`, and its newest checkpoint is of `stored_step`. Attempts of one
# `chain`, the number of the first of them, went on from one another and are one run in MLflow. It `crashed` if it died
# of itself: the process that had started it lived, or the kernel was out of memory. `environment` is what
# `host/environment.py` says of it, and under `records.DESCRIBED` what MLflow is told of the run.
Attempt = Table(
    "attempt",
    METADATA,
    _of_run(),
    _key("number", BigInteger),
    _must("state"),
    _must("started_at", Moment),
    _may("ended_at", Moment),
    _may("reason", Text),
    _must("environment", JSON),
    _may("host"),
    _may("boot"),
    _may("pid", BigInteger),
    _may("process_started"),
    _may("heartbeat_at", Moment),
    _may("chain", BigInteger),
    _may("from_step", BigInteger),
    _may("step", BigInteger),
    _may("stored_step", BigInteger),
    _may("crashed", Boolean),
    Index(None, "state"),
)

# The process that runs a sweep now, or that ran it last and was lost: one that ends in order removes its row. `wanted`
# is what somebody asked of it: "checkpoint" (stop now) or "finish" (stop when the runs under way have ended).
Supervisor = Table(
    "supervisor",
    METADATA,
    _key("sweep_id", String, ForeignKey("sweep.id", ondelete="CASCADE")),
    _must("host"),
    _must("boot"),
    _must("pid", BigInteger),
    _must("process_started"),
    _must("started_at", Moment),
    _must("heartbeat_at", Moment),
    _may("wanted"),
)

# What a worker needs to do runs of a sweep, as the process that runs it has it (`runs/opening.py`).
Opening = Table(
    "opening",
    METADATA,
    _key("sweep_id", String, ForeignKey("sweep.id", ondelete="CASCADE")),
    _must("content", JSON),
)

# A run that is to be done, is being done, or was (`queue_entry` says what may follow what). `position` orders those
# that wait; `claim` counts the claims, and only who holds the newest may begin the run.
QueuedRun = Table(
    "queued_run",
    METADATA,
    _of_run(),
    _must("sweep_id"),
    _must("position", BigInteger),
    _must("state"),
    _must("claim", BigInteger),
    _may("worker_id"),
    Index(None, "sweep_id", "state", "position"),
)

# What a run under way has reported of an evaluation, and the answer: whether to `stop`. None while it is not answered.
Evaluation = Table(
    "evaluation",
    METADATA,
    _of_run(),
    _key("step", BigInteger),
    _must("sweep_id"),
    _may("value", Double),
    _may("error", Double),
    _may("collapse"),
    _may("stop", Boolean),
    Index(None, "sweep_id", "stop"),
)

# A process that does runs of a sweep, one after the other: which it does now, how far it is, and what somebody wants of
# it: "stop", or "leave" after its run. One that has `joined` outlives the process that runs the sweep; others are its
# children. Several may share a GPU. One that leaves in order removes its row, or leaves the `error` that ended it.
Worker = Table(
    "worker",
    METADATA,
    _key("id"),
    Column("sweep_id", String, ForeignKey("sweep.id", ondelete="CASCADE"), nullable=False),
    _must("host"),
    _must("boot"),
    _must("pid", BigInteger),
    _must("process_started"),
    _must("device"),
    _must("joined", Boolean),
    _must("shares", Boolean),
    _must("started_at", Moment),
    _must("heartbeat_at", Moment),
    _must("ready", Boolean),
    _may("run_id"),
    _may("progress", JSON(none_as_null=True)),
    _may("wanted"),
    _may("error", JSON(none_as_null=True)),
    Index(None, "sweep_id"),
)

# One score of one checkpoint. The index answers "this score of these runs" without touching the others.
Score = Table(
    "score",
    METADATA,
    _of_run(),
    _key("checkpoint"),
    _key("step", BigInteger),
    _key("split"),
    _key("name"),
    _may("value", Double),
    _may("low", Double),
    _may("high", Double),
    _must("n", BigInteger),
    _may("floor", Double),
    _may("floor_sd", Double),
    _must("signature", Text),
    _must("better"),
    _may("of_class"),
    Index(None, "checkpoint", "name", "run_id"),
)

# What was judged of a run: `kind` is "collapse" (of the samples at a step) or "stability" (of the history so far); the
# last step of each is what is said of the run. `evidence` are the numbers behind it.
Verdict = Table(
    "verdict",
    METADATA,
    _of_run(),
    _key("kind"),
    _key("step", BigInteger),
    _must("verdict"),
    _must("reason", Text),
    _must("evidence", JSON),
    _must("signature", Text),
)

# How a training scalar ended and how far it went; its curve is in MLflow.
ScalarSummary = Table(
    "scalar_summary",
    METADATA,
    _of_run(),
    _key("name"),
    _may("last", Double),
    _may("minimum", Double),
    _may("maximum", Double),
    _must("step", BigInteger),
)

Checkpoint = Table(
    "checkpoint",
    METADATA,
    _of_run(),
    _key("kind"),
    _must("step", BigInteger),
    _must("path"),
    _must("sha256"),
    _must("bytes", BigInteger),
)

Artifact = Table(
    "artifact",
    METADATA,
    _of_run(),
    _key("name"),
    _must("kind"),
    _must("path"),
)

# One version of a promoted model: weights of a run under a name. `version` is MLflow's number too. `digest` identifies
# the model (weights, configuration, code), `sha256` its weights, and `path` our own copy of them.
Promotion = Table(
    "promotion",
    METADATA,
    _key("model"),
    _key("version", BigInteger),
    # No cascade: a run whose model is in use is not deleted.
    Column("run_id", String, ForeignKey("run.id"), nullable=False),
    _must("checkpoint"),
    _must("digest"),
    _must("sha256"),
    _must("path"),
    _must("created_at", Moment),
    _must("mlflow_uri"),
    _must("mlflow_model_id"),
    # Why it was promoted in spite of its verdicts, or of being worse than what it replaced.
    _may("reason", Text),
    # As the best run of its sweep: its rank, and the runs that were passed over (`best.Selection`). None where the run
    # was named.
    _may("selection", JSON(none_as_null=True)),
    Index(None, "run_id"),
)

# Who pointed an alias where, and when: the newest of (model, alias) is where it points now. MLflow has no such history.
AliasEvent = Table(
    "alias_event",
    METADATA,
    _key("model"),
    _key("alias"),
    _key("number", BigInteger),
    _must("version", BigInteger),
    _must("at", Moment),
    _must("by"),
    ForeignKeyConstraint(["model", "version"], ["promotion.model", "promotion.version"]),
)
