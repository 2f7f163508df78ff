"""The loss ledger, the traffic counted by day, and whether a segment's times can be trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
compatible_from = "0002"

_STREAMS = ("alert", "event", "telemetry", "log")


def upgrade() -> None:
    for stream in _STREAMS:
        _rebuild(stream)
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


def _rebuild(stream: str) -> None:
    """Put `synced` before the payload: behind it every look would walk the payload's pages."""
    old, new = f"segment_{stream}", f"segment_{stream}_new"
    op.create_table(
        new,
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("last", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_time", sa.BigInteger(), nullable=False),
        sa.Column("last_time", sa.BigInteger(), nullable=False),
        sa.Column("synced", sa.Integer(), nullable=False),
        sa.Column("crc", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
    )
    # Nobody noted it of the segments that are there: their times prove nothing.
    op.execute(
        f"INSERT INTO {new} "  # noqa: S608 - our own names
        f"SELECT id, last, count, first_time, last_time, 0, crc, payload FROM {old} ORDER BY id"
    )
    op.drop_table(old)
    op.rename_table(new, old)


def downgrade() -> None:
    op.drop_table("traffic")
    op.drop_table("loss")
    for stream in _STREAMS:
        op.drop_column(f"segment_{stream}", "synced")
