"""Why a version was promoted in spite of what its collapse verdict says."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("promotion", sa.Column("reason", sa.Text(), nullable=True))
