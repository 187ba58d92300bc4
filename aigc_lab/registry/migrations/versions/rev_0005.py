"""Homes, and of each sweep the one that its files lie in: several homes may share a registry."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "home",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_home"),
    )
    op.add_column("sweep", sa.Column("home_id", sa.String(), nullable=True))
