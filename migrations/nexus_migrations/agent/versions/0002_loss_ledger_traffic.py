"""The loss ledger, the traffic counted by day, and whether a segment's times can be trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STREAMS = ("alert", "event", "telemetry", "log")


def upgrade() -> None:
    for stream in _STREAMS:
        # Nobody noted it of the segments that are there: their times prove nothing.
        op.add_column(
            f"segment_{stream}",
            sa.Column("synced", sa.Integer(), nullable=False, server_default="0"),
        )
    op.create_table(
        "loss",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("first_time", sa.BigInteger(), nullable=True),
        sa.Column("last_time", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("reported", sa.Integer(), nullable=True),
    )
    op.create_table(
        "traffic",
        sa.Column("day", sa.Text(), primary_key=True),
        sa.Column("stream", sa.Text(), primary_key=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("traffic")
    op.drop_table("loss")
    for stream in _STREAMS:
        op.drop_column(f"segment_{stream}", "synced")
