"""The settings of the j1939 plugin."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nexus_plugins.canbus.settings import ChannelSettings

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class J1939Settings(ChannelSettings):
    """What `[plugins.j1939]` takes; times are seconds."""

    listen_only: bool = False
    """Whether nothing is ever sent. Otherwise the plugin sends while a scan runs, and only then."""
    address: Annotated[int, Field(ge=0x80, le=0xFD)] = 0xF9
    """The source address that a scan claims: 249 and 250 are those of diagnostic tools."""
    spn_method: Literal[1, 2, 3] | None = None
    """How codes are read that have the conversion method's bit set: by version 1, 2 or 3 of the
    method, as the maker says. Without it such codes are malformed; all others have version 4."""
    appear_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.5
    """Seconds that a fault must have been in DM1, and in two of them at least, before it is told;
    0 tells it at once."""
    gone_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 10.0
    """Seconds that DM1 must have been without a fault before it is told as gone."""
    silent_s: Seconds = 5.0
    """Seconds without a frame after which the channel, or a control unit, counts as silent."""
    listen_s: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] = 3.0
    """Seconds that a scan listens for DM1 and for who is there, before it asks."""
    answer_s: Annotated[float, Field(ge=0.2, le=60, allow_inf_nan=False)] = 1.25
    """Seconds that a control unit may take to begin its answer."""
    reconnect_max_s: Seconds = 30.0
    """Longest pause in seconds between two attempts to open a channel that is lost."""
