"""A queue of runs, the workers that do them, and what these report of runs under way."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "opening",
        sa.Column("sweep_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_opening_sweep", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", name="pk_opening"),
    )
    op.create_table(
        "queued_run",
        sa.Column("run_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("claim", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_queued_run_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", name="pk_queued_run"),
    )
    op.create_index("ix_queued_run_sweep_id_state_position", "queued_run", ["sweep_id", "state", "position"])
    op.create_table(
        "evaluation",
        sa.Column("run_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("error", sa.Double(), nullable=True),
        sa.Column("collapse", sa.String(), nullable=True),
        sa.Column("stop", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_evaluation_run", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "step", name="pk_evaluation"),
    )
    op.create_index("ix_evaluation_sweep_id_stop", "evaluation", ["sweep_id", "stop"])
    op.create_table(
        "worker",
        sa.Column("id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("boot", sa.String(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("process_started", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("joined", sa.Boolean(), nullable=False),
        sa.Column("shares", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=True),
        sa.Column("wanted", sa.String(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_worker_sweep", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_worker"),
    )
    op.create_index("ix_worker_sweep_id", "worker", ["sweep_id"])
