"""The lines of events in blocks. Those that are there stay in their rows."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("events", sa.Column("block", sa.BigInteger(), nullable=True))
    op.create_table(
        "blocks",
        sa.Column("device_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stream", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "stream", "first", name=op.f("pk_blocks")),
    )
