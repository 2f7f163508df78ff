"""How a CAN channel is named in a plugin's settings."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from nexus_agent.plugin import Settings

SOCKETCAN: Final = "socketcan"


class ChannelSettings(Settings):
    """One CAN channel."""

    interface: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")] = SOCKETCAN
    """What kind of adapter, as python-can names it: `socketcan`, `slcan`, `pcan`, `kvaser`, …"""
    channel: Annotated[str, Field(min_length=1, max_length=200)]
    """Which one: `can0`, or the device's path for `slcan`."""
    bitrate: Annotated[int, Field(ge=10_000, le=1_000_000)] | None = None
    """In bit/s. Null where it is set elsewhere, as with `ip link` for socketcan."""
