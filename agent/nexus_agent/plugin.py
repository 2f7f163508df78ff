"""The plugin contract: a plugin sees this module and `nexus_agent.testing`, nothing else here.

A plugin is a class with a name, a model of its settings and one coroutine, `run`:

    class Thermometer(Plugin[ThermometerSettings]):
        name = "thermometer"
        version = "1.0"
        description = "Reads the workshop's thermometer."
        author = "You"
        settings_model = ThermometerSettings

        async def run(self) -> None:
            while True:
                await self.context.emit("workshop.temperature", {"value": 21.5, "unit": "°C"})
                await self.context.sleep(self.context.settings.interval_s)

It is registered under the entry-point group `nexus.plugins`, or lies in a bundle folder with a
manifest, and is switched on by `[plugins.<name>]`. The same code runs as a task of the agent or in
a process of its own, as the settings say.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Literal, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from nexus_agent.protocol import Quality, Stream, catalogue
from nexus_agent.protocol.catalogue import EventData

__all__ = [
    "NAME_PATTERN",
    "BusEvent",
    "Context",
    "EmitError",
    "EventData",
    "FatalError",
    "Logger",
    "NoArgs",
    "Overflow",
    "Plugin",
    "PluginError",
    "Progress",
    "Quality",
    "RetryError",
    "Safety",
    "ScanArgs",
    "Settings",
    "State",
    "StateError",
    "Stream",
    "Subscription",
    "catalogue",
    "command",
    "commands_of",
]

T = TypeVar("T")

NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,31}$"
"""What a plugin may be called."""


class PluginError(Exception):
    """Something that a plugin or its vehicle did; the message is shown to people as it is."""


class RetryError(PluginError):
    """It may go better later: the agent restarts the plugin after a backoff."""


class FatalError(PluginError):
    """Trying again cannot help (a wrong setting, say): the plugin stays down."""


class EmitError(PluginError):
    """The event was not taken and is not promised; nothing that was promised before is touched."""


class StateError(PluginError):
    """The value was not kept: it is no JSON, or the plugin's quota is full. The old one stays."""


class Settings(BaseModel):
    """Base of every plugin's settings. Validation must not do I/O."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Safety(enum.StrEnum):
    """What a command may do to a vehicle, mildest first. The agent decides what is allowed."""

    READ = "read"
    CLEAR = "clear"
    ACTUATE = "actuate"
    REPROGRAM = "reprogram"


class NoArgs(BaseModel):
    """Arguments of a command that takes none."""

    model_config = ConfigDict(extra="forbid")


class ScanArgs(BaseModel):
    """Arguments of a command that takes part in a scan of the vehicle; add your own."""

    model_config = ConfigDict(extra="forbid")

    phase: Literal["pre", "post"] | None = None
    """Before or after a repair."""
    scan_id: str = ""
    """Given by the agent; what else the plugin emits of the scan carries it."""


Progress = Callable[[str], None]
"""Told a short text while a command runs; it is shown where the command was given."""


class Logger(Protocol):
    """A structlog logger: an event text and key-value pairs."""

    def debug(self, event: str, **fields: Any) -> Any: ...
    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class BusEvent:
    """An event of any plugin here, as subscribers get it. time: ns since 1970."""

    source: str
    type: str
    stream: Stream
    time: int
    data: Any


class Overflow(enum.StrEnum):
    """What becomes of a subscription whose queue of 1,000 events is full."""

    DROP_OLDEST = "drop-oldest"
    """The oldest makes room: what is read is late, but ends with the newest."""
    DROP_NEWEST = "drop-newest"
    """What comes is not taken: what is read has no gap, until it ends."""
    LATEST = "latest"
    """Only the last event of each source and type is kept, always: for who wants to know how
    things are, not how they came to be."""


class Subscription(Protocol):
    """Events as they come: `async for event in subscription`."""

    @property
    def dropped(self) -> int:
        """How many were not handed out, for the queue was full."""

    def __aiter__(self) -> AsyncIterator[BusEvent]: ...


class State(Protocol):
    """Small JSON values that outlive restarts, private to one plugin, 1 MB in all."""

    async def get(self, key: str) -> Any:
        """The stored value, or None."""

    async def set(self, key: str, value: Any) -> None:
        """Store *value*, durable on return; None deletes the key. Raises StateError."""


S_co = TypeVar("S_co", bound=Settings, covariant=True)


class Context(Protocol[S_co]):
    """Everything that a plugin may ask of the agent."""

    @property
    def settings(self) -> S_co:
        """What is in force now. Read it again where you use it: `Plugin.live` says why."""

    @property
    def log(self) -> Logger: ...

    @property
    def state(self) -> State: ...

    async def emit(self, event_type: str, data: Any, *, stream: Stream = Stream.EVENT) -> None:
        """Return once the event is durable: from then on it is promised to reach the console.

        data: any JSON value, or a model (`nexus_agent.plugin.catalogue`). Raises EmitError when the
        event could not be made durable within the agent's deadline, and for a type that is neither
        in the catalogue nor in `Plugin.emits`, or data that does not fit its type.
        """

    async def emit_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        """`emit` for many (type, data) pairs; they keep their order."""

    def hand_over(self, event_type: str, data: Any, *, stream: Stream = Stream.TELEMETRY) -> None:
        """Pass an event on without waiting. It is promised only once its segment is committed.

        Raises EmitError when the box cannot take more at the moment.
        """

    def hand_over_many(
        self, events: Sequence[tuple[str, Any]], *, stream: Stream = Stream.TELEMETRY
    ) -> None:
        """`hand_over` for many (type, data) pairs: all are taken, in their order, or none."""

    def report(self, text: str) -> None:
        """Say in a few words how things are; people read it in the status."""

    def alive(self) -> None:
        """Say that all is well where there is nothing else to say; see `Plugin.deadline_s`."""

    async def sleep(self, seconds: float) -> bool:
        """Wait; True at once when the settings change meanwhile, False when the time is over."""

    def subscribe(
        self, *patterns: str, overflow: Overflow = Overflow.DROP_OLDEST
    ) -> AbstractAsyncContextManager[Subscription]:
        """Events of this box while the block is open, the plugin's own too.

        patterns: event types, with `*` for any part of one (`dtc.*`); all events, if none is given.
        """

    async def run_blocking(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function on one of the plugin's four worker threads.

        It waits while all are busy. A call that never returns keeps its thread: give it a timeout.
        """

    async def vehicle(self, vin: str) -> dict[str, str]:
        """How an event may name a car: always `vehicle_ref`, and `vin` where the shop allows it."""


S = TypeVar("S", bound=Settings)


class Plugin(ABC, Generic[S]):
    """Base of every plugin. One instance lives for one run; a restart makes a new one."""

    name: ClassVar[str]
    version: ClassVar[str]
    description: ClassVar[str]
    author: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    """Names of plugins that must run before this one is started."""
    emits: ClassVar[tuple[str | type[EventData], ...]] = ()
    """The types of the events that it emits; people and the console see them. Those of the
    catalogue are named. A type of its own is named as well, or stands here as the model of its
    data, which every event is then held to; what is not here and not in the catalogue is refused.
    """
    devices: ClassVar[tuple[str, ...]] = ()
    """Names of the settings, or of keys in them, that say which devices and folders it opens.
    A plugin in a process of its own can open the paths in its settings, and hardly any others."""
    settings_model: ClassVar[type[Settings]] = Settings
    live: ClassVar[frozenset[str]] = frozenset()
    """Names of settings that may change while it runs, since it reads them where it uses them.
    Any other change ends the run, and starts one with the new settings."""
    deadline_s: ClassVar[float | None] = None
    """Seconds without an event, `report` or `alive` after which it counts as hung and is restarted;
    None: it may be silent for ever."""

    def __init__(self, context: Context[S]) -> None:
        """Keep the context; no I/O here."""
        self.context = context

    @abstractmethod
    async def run(self) -> None:
        """The plugin's work, supervised.

        May be cancelled at any await and must then give back what it holds, within five seconds. To
        return means to be done: it is not restarted. RetryError and every unknown exception mean a
        restart after a backoff, FatalError none.
        """


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command of a plugin. name is local (`scan`); the console says `obd.scan`."""

    name: str
    args: type[BaseModel]
    safety: Safety
    timeout_s: float
    summary: str
    attribute: str
    scans: bool = False


_MARK: Final = "__nexus_command__"
Handler = Callable[[Any, Any, Progress], Awaitable[Any]]
H = TypeVar("H", bound=Handler)


def command(
    *,
    args: type[BaseModel] = NoArgs,
    safety: Safety = Safety.READ,
    timeout_s: float = 60.0,
    scans: bool = False,
) -> Callable[[H], H]:
    """Make a coroutine method of a plugin a command: `async def scan(self, args, progress)`.

    It runs while `run` runs and returns what JSON can carry. A PluginError is a failure whose
    message the operator reads. The first line of the docstring is its summary.

    scans: it takes part whenever the vehicle is scanned. Its arguments extend `ScanArgs` and need
    nothing else, it returns `catalogue.scans.Findings` as a document, and the agent makes one
    `scan.started`, `scan.completed` and `scan.diff` and each `dtc.observed` of all parts.
    """

    def mark(handler: H) -> H:
        name = handler.__name__
        summary = (handler.__doc__ or name).strip().splitlines()[0]
        setattr(handler, _MARK, CommandSpec(name, args, safety, timeout_s, summary, name, scans))
        return handler

    return mark


def commands_of(plugin: type[Plugin[Any]]) -> dict[str, CommandSpec]:
    """The commands of a plugin class by their local names."""
    found: dict[str, CommandSpec] = {}
    for attribute in dir(plugin):
        spec = getattr(getattr(plugin, attribute, None), _MARK, None)
        if spec is not None:
            found[attribute] = cast(CommandSpec, spec)
    return found
