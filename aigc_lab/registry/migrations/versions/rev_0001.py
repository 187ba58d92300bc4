"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "sweep",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("experiment", sa.JSON(), nullable=False),
        sa.Column("objective", sa.String(), nullable=False),
        sa.Column("better", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mlflow_experiment_id", sa.String()),
        sa.PrimaryKeyConstraint("id", name="pk_sweep"),
    )
    op.create_index("ix_sweep_name_created_at", "sweep", ["name", "created_at"])
    op.create_table(
        "trial",
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.PrimaryKeyConstraint("sweep_id", "number", name="pk_trial"),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_trial_sweep", ondelete="CASCADE"),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("trial", sa.BigInteger(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("seconds", sa.Double()),
        sa.Column("mlflow_run_id", sa.String()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sa.UniqueConstraint("sweep_id", "trial", "seed", name="uq_run_sweep_id_trial_seed"),
        sa.ForeignKeyConstraint(
            ["sweep_id", "trial"], ["trial.sweep_id", "trial.number"], name="fk_run_trial", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "attempt",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.Text()),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_attempt"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_attempt_run", ondelete="CASCADE"),
    )
    op.create_table(
        "score",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("low", sa.Double()),
        sa.Column("high", sa.Double()),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("floor", sa.Double()),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("better", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "checkpoint", "step", "split", "name", name="pk_score"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_score_run", ondelete="CASCADE"),
    )
    op.create_index("ix_score_checkpoint_name_run_id", "score", ["checkpoint", "name", "run_id"])
    op.create_table(
        "scalar_summary",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("last", sa.Double()),
        sa.Column("minimum", sa.Double()),
        sa.Column("maximum", sa.Double()),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "name", name="pk_scalar_summary"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_scalar_summary_run", ondelete="CASCADE"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "kind", name="pk_checkpoint"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_checkpoint_run", ondelete="CASCADE"),
    )
    op.create_table(
        "artifact",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "name", name="pk_artifact"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_artifact_run", ondelete="CASCADE"),
    )
