"""What can go wrong with a delivery, told to a console as boxes tell it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tests.integration.console_messages import (
    Store,
    damaged,
    message,
    presence,
    run,
    sealed,
)

from nexus_agent.protocol import Loss, Stream, format_time, parse_time
from nexus_console.db.engine import Database
from nexus_console.rollups import Rollups

_MINUTE: Final = 60_000_000_000


def fill(path: Path, now: int) -> None:
    """Make the console's database at *path*: bay-1's disk has failed it, bay-2's clock is wrong.

    now: ns since 1970. bay-2 has recorded its events a minute before, bay-3 its readings forty days
    before, and sends them only now.
    """
    database = Database(f"sqlite:///{path}")
    database.prepare()
    try:
        store = Store(database)
        _bad_disk(store, now)
        _wrong_clock(store, now)
        _late_readings(store, now)
        for _ in Rollups(database).turn():
            pass
    finally:
        database.close()


def _bad_disk(store: Store, now: int) -> None:
    telemetry, event = Stream.TELEMETRY, Stream.EVENT
    losses = [
        _loss(telemetry, 101, 107, "disk quota", "2020-01-02T03:04:05Z", "2020-01-02T03:07:09Z"),
        _loss(telemetry, 151, 190, "disk quota", *_ago(now, 30, 22)),
        _loss(Stream.LOG, 1, 3, "lost with the database"),
    ]
    store.take(
        message(run(1, 40, stream=event)),
        message(run(1, 500, stream=telemetry)),
        message(
            sealed(
                1,
                *losses,
                stream=Stream.ALERT,
                epoch=2,
                event_type="delivery.loss",
                time=now,
            )
        ),
        message(run(1, 100, stream=telemetry, epoch=2)),
        message(run(108, 150, stream=telemetry, epoch=2)),
        message(run(191, 300, stream=telemetry, epoch=2)),
        message(run(315, 320, stream=telemetry, epoch=2)),
        message(run(1, 20, stream=event, epoch=2)),
        message(damaged(run(21, 30, stream=event, epoch=2))),
        message(sealed(5, "other", "content", stream=event, epoch=2), received=now),
        message(run(4, 12345, stream=Stream.LOG, epoch=2)),
    )
    store.take(
        presence(
            online=True,
            session="s1",
            time=format_time(now),
            received=now,
            interval=3600,
            hostname="shop-1",
            epoch=2,
            next={Stream.ALERT: 4, event: 31, telemetry: 321, Stream.LOG: 12346},
            released={Stream.ALERT: 3, event: 30, telemetry: 300, Stream.LOG: 12345},
            closed={1: {event: 40, telemetry: 520}},
            storage="database or disk is full",
        )
    )


def _loss(
    stream: Stream,
    first: int,
    last: int,
    cause: str,
    first_time: str | None = None,
    last_time: str | None = None,
) -> dict[str, Any]:
    loss = Loss(
        stream=stream,
        epoch=2,
        first=first,
        last=last,
        first_time=first_time,
        last_time=last_time,
        cause=cause,
    )
    return loss.model_dump(mode="json")


def _ago(now: int, *minutes: int) -> list[str]:
    return [format_time(now - past * _MINUTE) for past in minutes]


def _wrong_clock(store: Store, now: int) -> None:
    said = parse_time("2016-01-01T00:03:00Z")
    up = 180 * 1_000_000_000
    box = "bay-2"
    boot = "7b1d4d2c-0b8f-4a53-9f4e-1f2d3c4b5a69"
    known = sealed(1, "retimed", device=box, time=said, mono=up, boot=boot, synced=False)
    other = sealed(2, "unset", device=box, time=said, boot="another", synced=False)
    store.take(
        presence(
            device=box,
            online=True,
            session="s1",
            received=now,
            time=format_time(said + _MINUTE),
            mono="240.000000",
            synced=False,
            boot=boot,
            epoch=1,
        ),
        message(known, device=box, received=now),
        message(other, device=box, received=now),
    )


def _late_readings(store: Store, now: int) -> None:
    box = "bay-3"
    recorded = now - 40 * 24 * 60 * _MINUTE
    messages = [presence(device=box, online=True, session="s1", received=now, interval=3600)]
    for n in range(60):
        speed = {"ecu": "7E8", "unit": "rpm", "quality": "ok", "value": 800 + 30 * (n * 7 % 25)}
        segment = sealed(
            n + 1,
            {"name": "engine_speed", **speed},
            stream=Stream.TELEMETRY,
            event_type="telemetry.pid",
            device=box,
            time=recorded + n * _MINUTE // 4 + (n // 30) * 10 * _MINUTE,
        )
        messages.append(message(segment, device=box, received=now))
    store.take(*messages)
