"""Which runs were passed over when a version was promoted as the best run of its sweep."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("promotion", sa.Column("selection", sa.JSON(), nullable=True))
