"""How far a floor goes from draw to draw of the real samples that it is a mean over."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("score", sa.Column("floor_sd", sa.Double(), nullable=True))
