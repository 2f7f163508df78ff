"""The birth document: what the box says of itself and its outbox whenever it comes up."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from nexus_agent import __version__
from nexus_agent.clock import Clock
from nexus_agent.protocol import Presence, Stream, catalogue, format_time
from nexus_agent.store.outbox import Outbox


async def birth(
    outbox: Outbox, clock: Clock, session: str, *, interval_s: int, plugins: Mapping[str, str]
) -> Presence:
    """The document of *session* as things stand now. plugins: their states by name.

    Raises StoreError where the outbox cannot be read.
    """
    oldest = await outbox.oldest()
    storage = await outbox.storage()
    return introduction(clock, session, interval_s, storage.trouble).model_copy(
        update={
            "epoch": outbox.epoch,
            "next": {stream: outbox.position(stream)[1] for stream in Stream},
            "released": {stream: outbox.position(stream)[0] for stream in Stream},
            "oldest": None if oldest is None else format_time(oldest),
            "closed": outbox.positions.told() or None,
            "closed_released": outbox.positions.told_released() or None,
            "plugins": dict(plugins),
        }
    )


def introduction(clock: Clock, session: str, interval_s: int, trouble: str | None) -> Presence:
    """A birth without the streams: all that can be said while the outbox cannot be opened.

    trouble: why the box cannot write, if so.
    """
    now = clock.stamp()
    seconds, rest = divmod(now.mono, 1_000_000_000)
    return Presence(
        online=True,
        session=session,
        time=format_time(now.wall),
        mono=f"{seconds}.{rest // 1000:06d}",
        synced=now.synced,
        agent=__version__,
        boot=clock.boot,
        hostname=socket.gethostname(),
        interval=interval_s,
        storage=trouble,
        catalogue=catalogue.VERSION,
    )
