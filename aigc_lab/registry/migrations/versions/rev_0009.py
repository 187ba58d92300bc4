"""Which class a score of the worst class is of."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("score", sa.Column("of_class", sa.String(), nullable=True))
