"""Which process works on an attempt and how far it is; who runs a sweep."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name, kind in (
        ("host", sa.String()),
        ("boot", sa.String()),
        ("pid", sa.BigInteger()),
        ("process_started", sa.String()),
        ("heartbeat_at", sa.DateTime(timezone=True)),
        ("chain", sa.BigInteger()),
        ("from_step", sa.BigInteger()),
        ("step", sa.BigInteger()),
        ("stored_step", sa.BigInteger()),
        ("crashed", sa.Boolean()),
    ):
        op.add_column("attempt", sa.Column(name, kind))
    for name in ("source", "command"):
        op.add_column("sweep", sa.Column(name, sa.String()))
    op.create_index("ix_attempt_state", "attempt", ["state"])
    op.create_table(
        "supervisor",
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("boot", sa.String(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("process_started", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("wanted", sa.String()),
        sa.PrimaryKeyConstraint("sweep_id", name="pk_supervisor"),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name="fk_supervisor_sweep", ondelete="CASCADE"),
    )
