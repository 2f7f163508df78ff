"""The agent's settings: every section of agent.toml, and the plugins' own sections behind it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nexus_agent import protocol, settings
from nexus_agent.broker import BrokerAddress
from nexus_agent.logs import LogSettings
from nexus_agent.plugin import Safety
from nexus_agent.sections import PluginSection, own_keys, read_section
from nexus_agent.settings import Section


def _hostname_as_id() -> str:
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")[:63]


class AgentSection(Section):
    """What `[agent]` takes."""

    id: str = Field(default_factory=_hostname_as_id)
    """The box's name in the fleet: 1 to 63 of a-z, 0-9 and `-`, not `console`; the host's name if
    none is given."""
    state_dir: Path = Path("/var/lib/nexus")
    """Where the database and the keys are."""
    socket: Path = Path("/run/nexus/agent.sock")
    """The status socket."""
    upgrade_dir: Path = Path("/var/lib/nexus-upgrade")
    """Where the package notes that it has rolled back an upgrade; the agent only reads it."""

    bundles: Path = Path("/usr/local/lib/nexus/plugins")
    """Where folders with plugins of others are, each with its `plugin.toml`."""

    @field_validator("id")
    @classmethod
    def _check_id(cls, device: str) -> str:
        return protocol.check_device_id(device)


class BrokerSection(BrokerAddress):
    """What `[broker]` takes."""

    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 60
    """MQTT keep-alive in seconds."""
    presence_interval_s: Annotated[int, Field(ge=10, le=86_400)] = 1800
    """Longest silence in seconds that an online box allows itself."""
    ack: Literal["console", "broker"] = "console"
    """Who has to have an event before it is released. `broker` is for brokers with no console
    behind them: what the broker loses is then lost."""


class PrivacySection(Section):
    """What `[privacy]` takes."""

    vin: Literal["reference", "plain"] = "reference"
    """Whether a VIN may leave the box, or only a keyed reference to it."""


class SafetySection(Section):
    """What `[safety]` takes."""

    allow: tuple[Safety, ...] = (Safety.READ,)
    """Classes of commands that may be done on this box when the console asks."""


Megabytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Hours = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TimeToLive(Section):
    """What `[outbox.ttl_hours]` takes: when events that could not be delivered are given up.

    Only a synchronised clock may say that an event is too old. Each drop is declared to the
    console. 0 is never.
    """

    alert: Hours = 0.0
    """Hours after which an undelivered alert is dropped; 0 is never."""
    event: Hours = 0.0
    """The same for events."""
    telemetry: Hours = 0.0
    """The same for telemetry."""
    log: Hours = 336.0
    """The same for logs."""

    def of(self, stream: protocol.Stream) -> float:
        hours: float = getattr(self, stream)
        return hours


class OutboxSection(Section):
    """What `[outbox]` takes."""

    quota_mb: Annotated[float, Field(ge=16, allow_inf_nan=False)] = 1024.0
    """Megabytes that the database, its write-ahead log and the reserve may take together. When they
    are used up, history goes first, then logs, telemetry, events and, last, alerts, each oldest
    first; what was not delivered yet is declared to the console."""
    emit_deadline_s: Annotated[float, Field(ge=0.1, le=600)] = 10.0
    """Seconds that a plugin waits for a disk that does not take its event, before it is told."""
    ttl_hours: TimeToLive = Field(default_factory=TimeToLive)


class TrafficBudget(Section):
    """Megabytes that may be sent; 0 is no limit. Alerts are counted and never held back."""

    total: Megabytes = 0.0
    """Megabytes of all streams together; 0 is no limit. Alerts are counted and never held back."""
    event: Megabytes = 0.0
    """Megabytes of events; 0 is no limit."""
    telemetry: Megabytes = 0.0
    """Megabytes of telemetry; 0 is no limit."""
    log: Megabytes = 0.0
    """Megabytes of logs; 0 is no limit."""

    def of(self, stream: protocol.Stream) -> float:
        """The stream's own limit in megabytes, 0 for none; alerts have none."""
        return float(getattr(self, stream, 0.0))


class LinkSection(Section):
    """What `[link]` takes: how the line may be used. Everything waits safely meanwhile."""

    metered: bool = False
    """The line is paid by volume: only alerts are sent."""
    quiet_hours: tuple[
        Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")], ...
    ] = ()
    """Times of day in which only alerts are sent, in the box's own time zone, such as `08:00-12:00`
    or `22:00-06:00`."""
    day_mb: TrafficBudget = Field(default_factory=TrafficBudget)
    month_mb: TrafficBudget = Field(default_factory=TrafficBudget)


class HistorySection(Section):
    """What `[history]` takes: how long delivered events stay on the box for people here."""

    hours: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 72.0
    """How long delivered events stay on the box, for people here and for a console that was
    restored from a backup; 0 keeps none."""
    megabytes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 64.0
    """And how much of them; 0 keeps none."""


class MetricsSection(Section):
    """What `[metrics]` takes. The status socket has the metrics always."""

    listen: str | None = None
    """`host:port` on this machine where Prometheus may ask too, over HTTP and without a password:
    a loopback address such as `127.0.0.1:9464` or `[::1]:9464`. Off if not given."""

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str | None) -> str | None:
        if listen is not None:
            _loopback(listen)
        return listen

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port, or None where nothing listens."""
        return None if self.listen is None else _loopback(self.listen)


def _loopback(listen: str) -> tuple[str, int]:
    """Host and port of `host:port`. ValueError for what other machines could reach."""
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdigit() else 0
    except ValueError:
        address, number = None, 0
    if address is None or not 0 < number < 65_536:
        raise ValueError(f"must be an address and a port such as 127.0.0.1:9464, not {listen!r}")
    if not address.is_loopback:
        raise ValueError(
            f"must be a loopback address such as 127.0.0.1: other machines could reach {address}, "
            "and nobody is asked for a password there"
        )
    return str(address), number


class SupervisorSection(Section):
    """What `[supervisor]` takes: how plugins that fail are treated."""

    restarts: Annotated[int, Field(ge=0)] = 10
    """More restarts than this within `window_s` mean quarantine."""
    window_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds over which restarts are counted."""
    quarantine_s: Annotated[float, Field(gt=0)] = 900.0
    """Seconds that a plugin in quarantine rests before it gets another chance."""
    backoff_s: Annotated[float, Field(gt=0)] = 1.0
    """Seconds before the first restart; they double with each, half of them at random."""
    backoff_cap_s: Annotated[float, Field(gt=0)] = 60.0
    """The longest of these pauses."""
    stall_s: Annotated[float, Field(ge=0.1)] = 1.0
    """A plugin that blocks the agent's event loop this long commits an offence."""
    stalls: Annotated[int, Field(ge=1)] = 3
    """With so many offences within an hour it goes on in a process of its own."""


class AgentConfig(Section):
    """agent.toml as a whole."""

    agent: AgentSection = Field(default_factory=AgentSection)
    broker: BrokerSection
    log: LogSettings = Field(default_factory=LogSettings)
    privacy: PrivacySection = Field(default_factory=PrivacySection)
    safety: SafetySection = Field(default_factory=SafetySection)
    history: HistorySection = Field(default_factory=HistorySection)
    outbox: OutboxSection = Field(default_factory=OutboxSection)
    link: LinkSection = Field(default_factory=LinkSection)
    metrics: MetricsSection = Field(default_factory=MetricsSection)
    supervisor: SupervisorSection = Field(default_factory=SupervisorSection)
    plugins: dict[str, dict[str, Any]] = Field(default_factory=dict)


def load_config(file: Path, environ: Mapping[str, str]) -> AgentConfig:
    """Read and check agent.toml; of the plugins' sections what is the agent's own in them.

    Raises SettingsError.
    """
    config = settings.load(AgentConfig, file, environ)
    for name, section in config.plugins.items():
        own_keys(name, section, str(file), environ)
    return config


def plugin_sections(
    config: AgentConfig, source: str, environ: Mapping[str, str] = MappingProxyType({})
) -> list[PluginSection]:
    """What every `[plugins.<name>]` asks for. Raises SettingsError for the agent's own keys."""
    return [
        read_section(name, section, config.agent.bundles, source, environ)
        for name, section in config.plugins.items()
    ]
