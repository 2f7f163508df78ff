"""What a box tells of itself, its plugins and its delivery."""

from __future__ import annotations

import enum
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from nexus_agent.protocol.catalogue.base import EventData, Measured, Moment, Name, OneOf, Text, why
from nexus_agent.protocol.names import MAX_EPOCH, MAX_SEQUENCE, ProtocolError, Stream

Epoch = Annotated[int, Field(ge=1, le=MAX_EPOCH)]
Sequence1 = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]

PLUGIN_STATES: Final = (
    "disabled",
    "blocked",
    "waiting",
    "starting",
    "running",
    "backoff",
    "quarantined",
    "stopped",
    "failed",
    "stuck",
)


class HostMetrics(EventData):
    """How the box is doing. Each key names one figure, such as `cpu` or `disk_root_free`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Measured]

    type: ClassVar[str] = "host.metrics"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.TELEMETRY,)
    rate: ClassVar[str] = "each `interval_s` of the plugin `host`: 60 s"

    @property
    def figures(self) -> dict[str, Measured]:
        """Name → figure."""
        return self.__pydantic_extra__

    @classmethod
    def read(cls, data: Any) -> Self:
        # Its keys are names, and none of them is to be left aside.
        if not isinstance(data, dict):
            return super().read(data)
        known = Measured.model_fields
        trimmed = {
            name: {key: figure[key] for key in known if key in figure}
            if isinstance(figure, dict)
            else figure
            for name, figure in data.items()
        }
        try:
            return cls.model_validate(trimmed)
        except ValidationError as error:
            raise ProtocolError(why(cls.type, error)) from None


class PluginState(EventData):
    """A plugin has another state than before."""

    type: ClassVar[str] = "plugin.state"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.EVENT, Stream.ALERT)
    rate: ClassVar[str] = "at each change"

    plugin: Name
    state: Annotated[str, OneOf(*PLUGIN_STATES)]
    recoverable: bool
    """Whether the agent tries again by itself."""
    reason: Text | None
    """For people; null where there is none."""
    isolation: Annotated[str, OneOf("task", "process")]


class Loss(EventData):
    """Events that the box will never send."""

    type: ClassVar[str] = "delivery.loss"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.ALERT,)
    rate: ClassVar[str] = "once a range"

    stream: Stream
    epoch: Epoch
    first: Sequence1
    last: Sequence1
    """The last one that is lost."""
    first_time: Moment | None = None
    """Wall time of the first, where the box still knows it."""
    last_time: Moment | None = None
    cause: Text = "not stated"
    """For people."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.first > self.last:
            raise ValueError("first is after last")
        return self


class CommandState(enum.StrEnum):
    """A command's life as its results tell it; the last four are terminal."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        return self not in (CommandState.ACCEPTED, CommandState.RUNNING)


class CommandResult(EventData):
    """How far a command has come."""

    type: ClassVar[str] = "command.result"
    rate: ClassVar[str] = "at each step of a command"

    id: str
    name: str
    state: CommandState
    progress: Text | None = None
    result: Any = None
    """What it returned, where it succeeded."""
    error: Text | None = None


class StorageAlarm(EventData):
    """Events were refused because the box could not write; told when it can again."""

    type: ClassVar[str] = "storage.alarm"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.ALERT,)
    rate: ClassVar[str] = "once a disturbance"

    reason: Text
    since: Moment
    until: Moment
    refused_events: Annotated[int, Field(ge=0)]


class AgentCrashed(EventData):
    """The agent ended and nobody had stopped it; told at its next start."""

    type: ClassVar[str] = "agent.crashed"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.ALERT,)
    rate: ClassVar[str] = "once a crash"

    at: Text
    """By the box's clock; without a trace, when it was last known to live."""
    version: Name
    """Of the agent that ended."""
    kind: Annotated[str, OneOf("error", "signal", "killed", "power")]
    reason: Text
    service: Name | None = None
    """The part of the agent that failed."""
    plugin: Name | None = None
    """Whose code was at work."""
    stack: tuple[Text, ...] = ()
    """`file:line in function`, without values."""


class AgentRolledBack(EventData):
    """The package has switched an upgrade back."""

    type: ClassVar[str] = "agent.rolled_back"
    streams: ClassVar[tuple[Stream, ...]] = (Stream.ALERT,)
    rate: ClassVar[str] = "once an upgrade"

    failed: Annotated[Name, Field(alias="from")]
    restored: Annotated[Name, Field(alias="to")]
    reason: Text
    at: Text


class ConfigReported(EventData):
    """Which configuration the box runs with."""

    type: ClassVar[str] = "config.reported"
    rate: ClassVar[str] = "at each revision that the box was given, and at each change of its state"

    revision: Annotated[int, Field(ge=0)] | None
    """Null where the box was never given one."""
    hash: Text
    state: Annotated[str, OneOf("applied", "unchanged", "rejected", "rolled back")]
    reason: Text | None = None
