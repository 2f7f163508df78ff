"""One history per vehicle. It fills itself from the events that are there."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vehicle_facts",
        sa.Column("ref", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("clock", sa.SmallInteger(), nullable=False),
        sa.Column("scan_id", sa.String(length=64), nullable=True),
        sa.Column("vin", sa.String(length=17), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("ref", "device_id", "position", name=op.f("pk_vehicle_facts")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_vehicle_facts_clock"), "vehicle_facts", ["clock"])
    op.create_table(
        "vehicles",
        sa.Column("ref", sa.String(length=64), nullable=False),
        sa.Column("vin", sa.String(length=17), nullable=True),
        sa.Column("maker", sa.Text(), nullable=True),
        sa.Column("model_year", sa.Integer(), nullable=True),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_scan", sa.BigInteger(), nullable=True),
        sa.Column("present", sa.Integer(), nullable=False),
        sa.Column("unknown", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_vehicles")),
    )
    op.create_index(op.f("ix_vehicles_vin"), "vehicles", ["vin"])
    op.create_index(op.f("ix_vehicles_last_seen"), "vehicles", ["last_seen"])
    op.create_table(
        "vehicle_codes",
        sa.Column("ref", sa.String(length=64), nullable=False),
        sa.Column("ecu", sa.String(length=64), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("life", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("ref", "ecu", "code", name=op.f("pk_vehicle_codes")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "vehicle_marks",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("unreadable", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_vehicle_marks_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_vehicle_marks")),
    )
