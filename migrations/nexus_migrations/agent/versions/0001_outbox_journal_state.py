"""The first schema: sealed segments, epochs and positions, command journal, plugin state."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
compatible_from = "0001"


def upgrade() -> None:
    for stream in ("alert", "event", "telemetry", "log"):
        op.create_table(
            f"segment_{stream}",
            sa.Column("id", sa.Integer(), primary_key=True),
            sa.Column("last", sa.Integer(), nullable=False),
            sa.Column("count", sa.Integer(), nullable=False),
            sa.Column("first_time", sa.BigInteger(), nullable=False),
            sa.Column("last_time", sa.BigInteger(), nullable=False),
            sa.Column("crc", sa.BigInteger(), nullable=False),
            sa.Column("payload", sa.LargeBinary(), nullable=False),
        )
    op.create_table(
        "epoch",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("opened", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_table(
        "position",
        sa.Column("epoch", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("stream", sa.Text(), primary_key=True),
        sa.Column("acknowledged", sa.Integer(), nullable=False),
        sa.Column("final", sa.Integer(), nullable=True),
    )
    op.create_table(
        "plugin_state",
        sa.Column("plugin", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_table(
        "command",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("counter", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("finished", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
    )
    op.create_index("ix_command_state", "command", ["state"])
