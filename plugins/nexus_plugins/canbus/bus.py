"""Opening a CAN channel, closing it, and words for what goes wrong with one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import can
from can.interfaces import BACKENDS

from nexus_agent.plugin import FatalError, RetryError
from nexus_plugins.canbus.settings import SLCAN, ChannelSettings

Filter = dict[str, Any]
"""`{"can_id": 0x7E8, "can_mask": 0x7FF, "extended": False}`, as python-can has it."""

_OWN_SLCAN: Final = "nexus_slcan"
BACKENDS[_OWN_SLCAN] = ("nexus_plugins.canbus.slcan", "SlcanBus")

# <asm-generic/socket.h>, <linux/sock_diag.h>
_SO_MEMINFO: Final = 55
_DROPS: Final = 8
_FIGURES: Final = struct.Struct("=9I")


def open_bus(settings: ChannelSettings, filters: Iterable[Filter] | None = None) -> can.BusABC:
    """Open the channel. Blocks, for `settle_s` at least: for a worker thread.

    Raises RetryError where the adapter is not there or does not work, FatalError where there is no
    such kind of adapter on this box or it does not know the channel's settings.
    """
    own = settings.interface == SLCAN
    try:
        # What python-can's own files and variables say of other channels is not meant here.
        return can.ThreadSafeBus(
            channel=settings.channel,
            interface=_OWN_SLCAN if own else settings.interface,
            ignore_config=True,
            can_filters=None if filters is None else list(filters),
            **_options(settings),
        )
    except NotImplementedError as error:
        raise FatalError(
            f"There is no CAN interface {settings.interface!r} here: {error}. Install its driver, "
            "or name another in `interface`."
        ) from error
    except (ValueError, TypeError) as error:
        raise FatalError(
            f"{settings.interface} does not know {settings.channel!r} with these settings: {error}."
        ) from error
    except (can.CanError, OSError) as error:
        raise RetryError(f"{settings.channel} cannot be opened: {error}.") from error


def _options(settings: ChannelSettings) -> dict[str, Any]:
    """Those that are set: many kinds of adapters refuse what they do not know."""
    options: dict[str, Any] = {}
    if settings.bitrate is not None:
        options["bitrate"] = settings.bitrate
    if settings.fd:
        options["fd"] = True
    if settings.interface == SLCAN:
        options["sleep_after_open"] = settings.settle_s
    return options


def close_bus(bus: can.BusABC) -> None:
    """Close the channel, also where its adapter has gone and cannot be told so any more."""
    with suppress(can.CanError, OSError):
        bus.shutdown()
    port = getattr(bus, "serialPortOrig", None)
    if port is not None:
        port.close()


def missed(bus: can.BusABC) -> int:
    """Frames that the kernel had no room for since the channel was opened: 0 where none tells."""
    line = getattr(bus, "socket", None)
    if not isinstance(line, socket.socket):
        return 0
    try:
        figures = line.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _FIGURES.size)
    except OSError:  # it has just been closed, or the kernel is older than 4.12
        return 0
    drops: int = _FIGURES.unpack(figures)[_DROPS]
    return drops
