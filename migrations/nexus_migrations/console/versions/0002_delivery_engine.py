"""Type spans instead of two indexes, clocks, rollups, cloned disks, the times of losses."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SPAN = 1000
"""Positions that one type span of the events that are there covers."""


def upgrade() -> None:
    _add_columns()
    op.drop_index(op.f("ix_events_device_id_type_position"), table_name="events")
    op.drop_index(op.f("ix_events_device_id_type_time"), table_name="events")
    _create_tables()
    op.execute(
        "UPDATE streams SET sealed = CASE WHEN high_water > coalesce("
        "(SELECT max(last) FROM ranges WHERE stream_id = streams.id), 0) THEN high_water ELSE "
        "(SELECT max(last) FROM ranges WHERE stream_id = streams.id) END"
    )
    synced: sa.BindParameter[str] = sa.bindparam("synced", '%"synced":true,"data":%')
    op.execute(sa.text("UPDATE events SET clock = 0 WHERE line LIKE :synced").bindparams(synced))
    op.execute(
        "INSERT INTO type_spans "  # noqa: S608 - our own number
        "(device_id, type, stream, first, last, count, first_time, last_time) "
        "SELECT device_id, type, stream, min(position), max(position), count(*), "
        f"min(time), max(time) FROM events GROUP BY device_id, type, stream, position / {_SPAN}"
    )


def _add_columns() -> None:
    for table, column in (
        ("streams", sa.Column("sealed", sa.BigInteger(), nullable=False, server_default="0")),
        ("losses", sa.Column("first_time", sa.BigInteger(), nullable=True)),
        ("losses", sa.Column("last_time", sa.BigInteger(), nullable=True)),
        ("segments", sa.Column("position", sa.BigInteger(), nullable=True)),
        ("segments", sa.Column("last_time", sa.BigInteger(), nullable=False, server_default="0")),
        ("events", sa.Column("clock", sa.SmallInteger(), nullable=False, server_default="1")),
    ):
        op.add_column(table, column)


def _create_tables() -> None:
    op.create_table(
        "type_spans",
        sa.Column("device_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("stream", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_time", sa.BigInteger(), nullable=False),
        sa.Column("last_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "type", "stream", "first", name=op.f("pk_type_spans")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "boots",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("basis", sa.String(length=16), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_boots_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", "boot", name=op.f("pk_boots")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "untimed",
        sa.Column("device_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("boot", sa.String(length=64), nullable=False),
        sa.Column("stream", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("mono", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "boot", "stream", "position", name=op.f("pk_untimed")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "remarks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_remarks_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remarks")),
    )
    op.create_index(op.f("ix_remarks_device_id"), "remarks", ["device_id"], unique=False)
    _create_rollups()


def _create_rollups() -> None:
    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ecu", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_series_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint(
            "device_id",
            "type",
            "name",
            "ecu",
            "unit",
            name=op.f("uq_series_device_id_type_name_ecu_unit"),
        ),
    )
    for name in ("series_minute", "series_hour"):
        op.create_table(
            name,
            sa.Column("series_id", sa.Integer(), nullable=False),
            sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
            sa.Column("ok", sa.BigInteger(), nullable=False),
            sa.Column("absent", sa.BigInteger(), nullable=False),
            sa.Column("refused", sa.BigInteger(), nullable=False),
            sa.Column("malformed", sa.BigInteger(), nullable=False),
            sa.Column("minimum", sa.Double(), nullable=True),
            sa.Column("maximum", sa.Double(), nullable=True),
            sa.Column("total", sa.Double(), nullable=True),
            sa.ForeignKeyConstraint(
                ["series_id"], ["series.id"], name=op.f(f"fk_{name}_series_id_series")
            ),
            sa.PrimaryKeyConstraint("series_id", "start", name=op.f(f"pk_{name}")),
            sqlite_with_rowid=False,
        )
    op.create_table(
        "rollup_marks",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_rollup_marks_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_rollup_marks")),
    )


def downgrade() -> None:
    for table in (
        "rollup_marks",
        "series_hour",
        "series_minute",
        "series",
        "remarks",
        "untimed",
        "boots",
        "type_spans",
    ):
        op.drop_table(table)
    for table, column in (
        ("streams", "sealed"),
        ("losses", "first_time"),
        ("losses", "last_time"),
        ("segments", "position"),
        ("segments", "last_time"),
        ("events", "clock"),
    ):
        op.drop_column(table, column)
    op.create_index(
        op.f("ix_events_device_id_type_position"), "events", ["device_id", "type", "position"]
    )
    op.create_index(op.f("ix_events_device_id_type_time"), "events", ["device_id", "type", "time"])
