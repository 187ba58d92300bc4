"""Promoted models, and where their aliases pointed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "promotion",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mlflow_uri", sa.String(), nullable=False),
        sa.Column("mlflow_model_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("model", "version", name="pk_promotion"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_promotion_run"),
    )
    op.create_index("ix_promotion_run_id", "promotion", ["run_id"])
    op.create_table(
        "alias_event",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("model", "alias", "number", name="pk_alias_event"),
        sa.ForeignKeyConstraint(
            ["model", "version"], ["promotion.model", "promotion.version"], name="fk_alias_event_promotion"
        ),
    )
