"""The settings of the can_signals plugin."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from nexus_agent.plugin import Settings
from nexus_plugins.canbus.settings import ChannelSettings

MAX_CHANNELS: Final = 3
"""Each holds a worker thread; one of the four a plugin has is left for files."""
FORMATS: Final = (".asc", ".blf", ".log", ".mf4", ".trc")

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
PerSecond = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
DeadBand = Annotated[float, Field(ge=0, allow_inf_nan=False)]
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=300)]


class DbcFile(Settings):
    """A database of messages."""

    file: Path
    """The DBC file."""
    j1939: bool = False
    """Whether all its messages with a 29-bit identifier are J1939. Those that the file itself says
    so of (attribute `VFrameFormat`) are in any case."""


class SignalChannel(ChannelSettings):
    """What `[plugins.can_signals.channels.NAME]` takes."""

    dbc: Annotated[tuple[DbcFile, ...], Field(min_length=1)]
    """The databases of the messages on it: `dbc = [{ file = "/etc/nexus/truck.dbc" }]`. Of two that
    have the same identifier the first counts."""


class Replay(Settings):
    """What `[plugins.can_signals.replays.NAME]` takes."""

    file: Path
    """The log: `.asc`, `.blf`, `.trc`, candump's `.log`, or `.mf4` with the extra `mf4`."""
    speed: Literal["real", "fast"] = "real"
    """`real`: as it was recorded; `fast`: as fast as it goes."""
    repeat: bool = False
    """Whether it starts again when it has come to its end; not with `fast`."""
    dbc: Annotated[tuple[DbcFile, ...], Field(min_length=1)]
    """The databases of the messages in it."""

    @field_validator("file")
    @classmethod
    def _check_file(cls, file: Path) -> Path:
        if file.suffix.lower() not in FORMATS:
            raise ValueError(f"logs that can be read end in {', '.join(FORMATS)}, not {file.name}")
        return file

    @model_validator(mode="after")
    def _check_repeat(self) -> Self:
        if self.repeat and self.speed == "fast":
            raise ValueError('`repeat` needs `speed = "real"`: it would never rest')
        return self


class Rule(Settings):
    """How signals are told that match a pattern; what is not given here is as for all others."""

    match: Pattern
    """Shell pattern of `Message.Signal`, or of the signal's name alone."""
    dead_band: DeadBand | None = None
    """In the signal's unit: a value that differs by no more from the last told one is not told."""
    max_rate: PerSecond | None = None
    """Readings of one signal in a second, at most."""
    hold_s: Seconds | None = None
    """Seconds after which a value that does not change is told again."""


class Limits(NamedTuple):
    """How often a signal is told; see `CanSignalsSettings`. interval_s: between two readings."""

    dead_band: float
    interval_s: float
    hold_s: float


class CanSignalsSettings(Settings):
    """What `[plugins.can_signals]` takes."""

    channels: dict[SourceName, SignalChannel] = Field(default_factory=dict)
    """The channels to read, at most three: a table `[plugins.can_signals.channels.NAME]` for each,
    with `channel`, `dbc` and, where they are not as usual, `interface`, `bitrate`, `fd` and
    `settle_s`."""
    replays: dict[SourceName, Replay] = Field(default_factory=dict)
    """Logs to read instead of a channel: a table `[plugins.can_signals.replays.NAME]` for each,
    with `file`, `dbc` and, where they are not as usual, `speed` and `repeat`."""
    signals: tuple[Pattern, ...] = ("*",)
    """Shell patterns of the signals to tell: of `Message.Signal`, or of the signal's name alone."""
    dead_band: DeadBand = 0.0
    """In each signal's unit: a value that differs by no more from the last told one is not told."""
    max_rate: PerSecond = 1.0
    """Readings of one signal in a second, at most 10. A change that comes too soon is told when its
    time has come, if it still stands then."""
    hold_s: Seconds = 60.0
    """Seconds after which a value that does not change, but still comes, is told again."""
    absent_after_s: Seconds = 10.0
    """Seconds without a frame after which a channel is told to be silent, and a signal absent; for
    a signal five of its message's cycles, where those are longer."""
    rules: tuple[Rule, ...] = ()
    """Exceptions for single signals: tables `[[plugins.can_signals.rules]]` with `match` and any of
    `dead_band`, `max_rate` and `hold_s`. The first that matches counts."""
    reconnect_max_s: Seconds = 30.0
    """Longest pause in seconds between two attempts to open a lost channel."""

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        if not self.channels and not self.replays:
            raise ValueError(
                "give at least one `[plugins.can_signals.channels.NAME]` or "
                "`[plugins.can_signals.replays.NAME]`"
            )
        if len(self.channels) > MAX_CHANNELS:
            raise ValueError(f"at most {MAX_CHANNELS} channels are read")
        both = sorted(set(self.channels) & set(self.replays))
        if both:
            raise ValueError(f"{both[0]!r} is a channel and a replay: name one of them otherwise")
        return self

    def wants(self, message: str, signal: str) -> bool:
        """Whether the signal is one of `signals`."""
        return any(matches(pattern, message, signal) for pattern in self.signals)

    def limits_of(self, message: str, signal: str) -> Limits:
        """How often the signal is told."""
        own = next((rule for rule in self.rules if matches(rule.match, message, signal)), None)
        given = {} if own is None else own.model_dump(exclude_none=True)
        return Limits(
            dead_band=given.get("dead_band", self.dead_band),
            interval_s=1 / given.get("max_rate", self.max_rate),
            hold_s=given.get("hold_s", self.hold_s),
        )


def matches(pattern: str, message: str, signal: str) -> bool:
    """Whether a shell pattern means the signal; letters count as they are written."""
    return fnmatchcase(signal, pattern) or fnmatchcase(f"{message}.{signal}", pattern)
