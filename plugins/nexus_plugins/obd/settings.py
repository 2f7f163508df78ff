"""The settings of the obd plugin."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from nexus_agent.plugin import Settings
from nexus_plugins.obd.pids import PIDS
from nexus_plugins.obd.transport import BLE

DEFAULT_PIDS: Final = (0x0C, 0x0D, 0x05, 0x04)

SLOW: Final = {
    **dict.fromkeys((0x05, 0x0F, 0x1F, 0x46, 0x5C), 10.0),
    **dict.fromkeys((0x21, 0x2F, 0x31, 0x33), 60.0),
}
"""PID → seconds between two readings of what changes slowly: temperatures, the time that the engine
has run; distances, the fuel level, the weather."""

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
AdapterName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]

_BLE_TARGET: Final = re.compile(r"[^\s/](?:[ -~]{0,62}[^\s/])?")


def _check_port(port: str) -> str:
    if port.startswith("/"):
        return port
    if port.startswith(BLE) and _BLE_TARGET.fullmatch(port.removeprefix(BLE)):
        return port
    parts = urlsplit(port)
    try:
        if parts.scheme == "socket" and parts.hostname and parts.port and not parts.path:
            return port
    except ValueError:
        pass
    raise ValueError(
        f"use 'socket://host:port', 'ble://' and an address or a name, or the path of a serial "
        f"device, such as '/dev/ttyUSB0', not {port!r}"
    )


class Reading(Settings):
    """How one adapter is used; times are seconds."""

    baudrate: Annotated[int, Field(ge=1200, le=4_000_000)] = 38_400
    """Speed of a serial device, bit/s; ELM327 adapters leave the factory with 38400 or 115200."""
    interval_s: Seconds = 1.0
    """Seconds from one reading of a live value to the next, where `rates` has nothing else for it;
    what changes slowly is read every 10 s (temperatures) or 60 s (fuel level, distances), or as
    seldom as this."""
    pids: tuple[int, ...] = DEFAULT_PIDS
    """Live values to read; those that the vehicle does not support are never asked for."""
    rates: dict[int, Seconds] = Field(default_factory=dict)
    """Seconds from one reading to the next of single values, by PID: `0x05 = 30`."""
    batch: bool = True
    """Whether several values are asked for in one question where vehicle and adapter can do it."""
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
    clear_engine_off: bool = False
    """Whether `obd.clear` is refused unless every control unit says that the engine stands.
    Otherwise the control units alone judge whether the conditions are right."""

    @field_validator("pids")
    @classmethod
    def _check_pids(cls, pids: tuple[int, ...]) -> tuple[int, ...]:
        for pid in pids:
            _check_pid(pid)
        return tuple(dict.fromkeys(pids))

    @field_validator("rates", mode="before")
    @classmethod
    def _read_pids(cls, rates: Any) -> Any:
        """TOML's keys are texts: `0x05` as well as `5`."""
        if not isinstance(rates, dict):
            return rates
        return {_pid_of(key): seconds for key, seconds in rates.items()}

    @field_validator("rates")
    @classmethod
    def _check_rates(cls, rates: dict[int, float]) -> dict[int, float]:
        for pid in rates:
            _check_pid(pid)
        return rates

    def interval_of(self, pid: int) -> float:
        """Seconds from one reading of *pid* to the next."""
        return self.rates.get(pid) or max(self.interval_s, SLOW.get(pid, 0.0))


class AdapterSettings(Reading):
    """What `[plugins.obd.adapters.NAME]` takes."""

    port: str
    """Where the adapter is, as `port` of `[plugins.obd]`."""

    @field_validator("port")
    @classmethod
    def _check_port(cls, port: str) -> str:
        return _check_port(port)


class ObdSettings(Reading):
    """What `[plugins.obd]` takes."""

    port: str | None = None
    """Where the one adapter is: `socket://host:port`, a serial device such as `/dev/ttyUSB0`, or
    `ble://` and a Bluetooth address or name. Either this or `adapters` must be given."""
    adapters: dict[AdapterName, AdapterSettings] = Field(default_factory=dict)
    """Several adapters: a table `[plugins.obd.adapters.NAME]` for each, with its `port` and
    whichever of the other keys are to differ from those of `[plugins.obd]`. NAME is 1 to 32 of a-z,
    0-9, `_` and `-`."""

    @field_validator("port")
    @classmethod
    def _check_port(cls, port: str | None) -> str | None:
        return None if port is None else _check_port(port)

    @model_validator(mode="after")
    def _check_adapters(self) -> Self:
        if (self.port is None) is not bool(self.adapters):
            raise ValueError(
                "give `port` for one adapter, or `[plugins.obd.adapters.NAME]` with a `port` for "
                "each of several, and not both"
            )
        ports = [adapter.port for adapter in self.adapters.values()]
        for port in ports:
            if ports.count(port) > 1:
                raise ValueError(f"two adapters have the port {port!r}")
        return self

    def names(self) -> tuple[str, ...]:
        """The adapters' names: its port is that of an only one."""
        return tuple(self.adapters) if self.port is None else (self.port,)

    def of(self, name: str) -> AdapterSettings:
        """What is in force for the adapter *name*, one of `names`."""
        shared = {key: getattr(self, key) for key in Reading.model_fields}
        if self.port is not None:
            return AdapterSettings.model_construct(**shared, port=self.port)
        own = self.adapters[name]
        differing = {key: getattr(own, key) for key in own.model_fields_set}
        return AdapterSettings.model_construct(**shared | differing)


def _check_pid(pid: int) -> None:
    if pid not in PIDS:
        known = ", ".join(f"0x{number:02X}" for number in PIDS)
        raise ValueError(f"PID {pid:#04x} is not known; known are {known}")


def _pid_of(key: Any) -> Any:
    if not isinstance(key, str):
        return key
    try:
        return int(key, 0)
    except ValueError:
        raise ValueError(f"{key!r} is no PID; write it as `0x05`") from None
