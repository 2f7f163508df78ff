"""Opening a CAN channel, and words for what goes wrong with one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import can

from nexus_agent.plugin import FatalError, RetryError
from nexus_plugins.canbus.settings import ChannelSettings

Filter = dict[str, Any]
"""`{"can_id": 0x7E8, "can_mask": 0x7FF, "extended": False}`, as python-can has it."""


def open_bus(settings: ChannelSettings, filters: Iterable[Filter] | None = None) -> can.BusABC:
    """Open the channel. Blocks: for a worker thread.

    Raises RetryError where the adapter is not there or does not work, FatalError where there is no
    such kind of adapter on this box.
    """
    options: dict[str, Any] = {"can_filters": None if filters is None else list(filters)}
    if settings.bitrate is not None:
        options["bitrate"] = settings.bitrate
    try:
        return can.ThreadSafeBus(channel=settings.channel, interface=settings.interface, **options)
    except can.CanInterfaceNotImplementedError as error:
        raise FatalError(
            f"There is no CAN interface {settings.interface!r} here: {error}. Install its driver, "
            "or name another in `interface`."
        ) from error
    except (can.CanError, OSError, ValueError) as error:
        raise RetryError(f"{settings.channel} cannot be opened: {error}.") from error
