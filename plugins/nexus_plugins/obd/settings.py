"""The settings of the obd plugin."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from nexus_agent.plugin import Settings
from nexus_plugins.obd.pids import PIDS

DEFAULT_PIDS = (0x0C, 0x0D, 0x05, 0x04)

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class ObdSettings(Settings):
    """What `[plugins.obd]` takes; times are seconds."""

    port: str
    """Where the adapter is: `socket://host:port`, or a serial device such as `/dev/ttyUSB0`."""
    baudrate: Annotated[int, Field(ge=1200, le=4_000_000)] = 38_400
    """Speed of a serial device, bit/s; ELM327 adapters leave the factory with 38400 or 115200."""
    interval_s: Seconds = 1.0
    """Seconds from the start of one round of live values to the start of the next."""
    pids: tuple[int, ...] = DEFAULT_PIDS
    """Live values to read; those that the vehicle does not support are never asked for."""
    timeout_s: Seconds = 2.0
    """Seconds that the adapter may take for one answer."""
    connect_timeout_s: Seconds = 5.0
    """Seconds that opening the port may take."""
    search_timeout_s: Seconds = 20.0
    """Seconds that the adapter may take while it says that it is searching for the protocol."""
    idle_after_s: Seconds = 60.0
    """Seconds that the engine must stand still before polling stops."""
    probe_interval_s: Seconds = 60.0
    """Seconds between two questions to a standing or missing vehicle."""
    reconnect_max_s: Seconds = 30.0
    """Longest pause in seconds between two attempts to reach a lost adapter."""

    @field_validator("port")
    @classmethod
    def _check_port(cls, port: str) -> str:
        if port.startswith("/"):
            return port
        parts = urlsplit(port)
        try:
            if parts.scheme == "socket" and parts.hostname and parts.port and not parts.path:
                return port
        except ValueError:
            pass
        raise ValueError(
            f"use 'socket://host:port' or the path of a serial device, "
            f"such as '/dev/ttyUSB0', not {port!r}"
        )

    @field_validator("pids")
    @classmethod
    def _check_pids(cls, pids: tuple[int, ...]) -> tuple[int, ...]:
        for pid in pids:
            if pid not in PIDS:
                known = ", ".join(f"0x{number:02X}" for number in PIDS)
                raise ValueError(f"PID {pid:#04x} is not known; known are {known}")
        return tuple(dict.fromkeys(pids))
