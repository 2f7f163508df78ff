"""What console.toml may say."""

from __future__ import annotations

from typing import Final

from pydantic import Field, field_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from nexus_agent.broker import BrokerAddress
from nexus_agent.logs import LogSettings
from nexus_agent.settings import Section

_SQLITE: Final = "sqlite:////absolute/path.db"
_POSTGRESQL: Final = "postgresql+psycopg://user@host/name"


class ServerSettings(Section):
    """`[server]`: where people's browsers and scripts reach the console."""

    listen: str = "127.0.0.1:8080"
    """`host:port` that the console listens at, plain HTTP."""
    behind_proxy: bool = False
    """Believe X-Forwarded-For and -Proto of a reverse proxy on this machine."""

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"must be host:port, such as 127.0.0.1:8080, not {listen!r}")
        return listen

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class DatabaseSettings(Section):
    """`[database]`: SQLite for one machine, PostgreSQL for more."""

    url: str
    """`sqlite:////absolute/path.db`, or `postgresql+psycopg://user@host/name`."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = make_url(url)
        except (ArgumentError, ValueError):
            raise ValueError(f"must be {_SQLITE} or {_POSTGRESQL}") from None
        if parts.drivername == "sqlite":
            if not (parts.database or "").startswith("/"):
                raise ValueError(f"must name an absolute path: {_SQLITE}")
        elif parts.drivername != "postgresql+psycopg":
            raise ValueError(f"must be {_SQLITE} or {_POSTGRESQL}")
        return url


class BrokerSettings(BrokerAddress):
    """`[broker]`: the address, and how this console shows itself there."""

    client_id: str = Field(default="console", pattern=r"^[A-Za-z0-9-]{1,64}$")
    """Names the session that the broker keeps while the console is away: each console has one of
    its own. 1 to 64 letters, digits and `-`."""
    keepalive_s: int = Field(default=60, ge=5, le=3600)
    """MQTT keep-alive in seconds."""
    session_expiry_s: int = Field(default=86_400, ge=60, le=0xFFFF_FFFE)
    """How many seconds the broker keeps that session while the console is away."""


class RetentionSettings(Section):
    """`[retention]`: how many days things are kept; 0 is for ever."""

    raw_days: int = Field(default=30, ge=0, le=36_500)
    """Days that telemetry and log events stay as they came, counted from when they came here. 0 is
    for ever. Readings live on as sums of a minute and of an hour."""
    event_days: int = Field(default=400, ge=0, le=36_500)
    """The same for the event and alert streams."""
    minute_days: int = Field(default=400, ge=0, le=36_500)
    """Days that sums of a minute stay, counted from that minute. 0 is for ever."""
    hour_days: int = Field(default=0, ge=0, le=36_500)
    """Days that sums of an hour stay, counted from that hour. 0 is for ever."""


class ConsoleSettings(Section):
    """The whole file."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings
    broker: BrokerSettings
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
