"""How a CAN channel is named in a plugin's settings."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from nexus_agent.plugin import Settings

SOCKETCAN: Final = "socketcan"
SLCAN: Final = "slcan"


class ChannelSettings(Settings):
    """One CAN channel."""

    interface: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")] = SOCKETCAN
    """What kind of adapter, as python-can names it: `socketcan`, `slcan`, `pcan`, `kvaser`, …"""
    channel: Annotated[str, Field(min_length=1, max_length=200)]
    """Which one: `can0`, or the device's path for `slcan`."""
    bitrate: Annotated[int, Field(ge=10_000, le=1_000_000)] | None = None
    """In bit/s. Null where it is set elsewhere, as with `ip link` for socketcan."""
    fd: bool = False
    """Whether CAN FD frames are taken, too; the adapter must be set up for them."""
    settle_s: Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)] = 0.0
    """Seconds that an adapter of `slcan` is given once its port is open. One that starts anew each
    time, as an Arduino does, needs 2."""
