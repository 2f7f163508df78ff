"""Crash reports: why an agent ended that nobody stopped. `crashes/` in the state folder has them.

`running.json` stands there while an agent runs, and is found by the next one if it was killed.
`stacks.txt` is open from the start on, so that the stacks of all threads can be written into it
when there is no time for more (faulthandler). A report is `<time>-<pid>.json`, and
`<time>-<pid>.told.json` once its event is promised. A disk that refuses any of this is no reason to
stop.
"""

from __future__ import annotations

import enum
import faulthandler
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nexus_agent import __version__, traces
from nexus_agent.protocol import format_time

FOLDER: Final = "crashes"
RUNNING: Final = "running.json"
STACKS: Final = "stacks.txt"
KEPT: Final = 10
"""Reports that stay, the newest; those that were told go first."""
REPORT_BYTES: Final = 64 * 1024
_TOLD: Final = ".told.json"

log = structlog.get_logger("crashes")


class Kind(enum.StrEnum):
    """How it ended."""

    ERROR = "error"
    """An exception that nobody expected, or that no version can go on after."""
    SIGNAL = "signal"
    """It received a signal such as SIGSEGV, or SIGABRT from systemd's watchdog."""
    KILLED = "killed"
    """It left no trace, and the machine went on."""
    POWER = "power"
    """It left no trace, and the machine was started again."""


_REASONS: Final = {
    Kind.KILLED: "ended without a trace: by SIGKILL, as when memory runs out or a stop takes long",
    Kind.POWER: "the machine lost its power or was reset",
}
_CAUSES: Final = {"SIGABRT": ", as systemd's watchdog sends when the event loop stands still"}


class Report(BaseModel):
    """One death, as the event `agent.crashed` tells of it.

    at: when, RFC 3339 by the box's clock; without a trace, when it was last known to live. version:
    of the agent that died. stack: lines as `nexus_agent.traces` makes them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: str
    version: str
    kind: Kind
    reason: str
    service: str | None = None
    plugin: str | None = None
    stack: tuple[str, ...] = ()


class Running(BaseModel):
    """What a running agent leaves for the next one. plugins: where the code of each is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: int
    boot: str
    version: str
    plugins: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Untold:
    """A report whose event is to be emitted; file: None if the disk did not take it."""

    report: Report
    file: Path | None


class Crashes:
    """The reports of one state folder, whose lock its user holds.

    boot: the kernel's boot id; plugins: where the code of each is, see `place_of`. service: the one
    that died, set by who knows.
    """

    def __init__(self, state_dir: Path, boot: str, plugins: Mapping[str, str]) -> None:
        self._state_dir = state_dir
        self._folder = state_dir / FOLDER
        self._running = Running(
            pid=os.getpid(), boot=boot, version=__version__, plugins=dict(plugins)
        )
        self._stacks: BinaryIO | None = None
        self._unwritten: list[Report] = []
        self.service: str | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Report the death of this process within the block, and that of the one before."""
        self._note_left_behind()
        with ExitStack() as end:
            end.callback(self.ended)
            try:
                self._begin()
            except OSError as error:
                log.warning("crashes_unseen", folder=str(self._folder), error=error.strerror)
            with self.seeing():
                yield

    @contextmanager
    def seeing(self) -> Iterator[None]:
        """Report an error that leaves the block: it ends the process."""
        with ExitStack() as end:
            end.push(self._saw)
            yield

    def _saw(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):  # neither an interrupt nor a wanted exit
            self.died(error)

    def died(self, error: BaseException) -> None:
        """Keep a report of *error*, which ends the process."""
        report = Report(
            at=format_time(time.time_ns()),
            version=__version__,
            kind=Kind.ERROR,
            reason=traces.reason_of(error),
            service=self.service,
            plugin=traces.plugin_among(traces.files_of(error), self._running.plugins),
            stack=tuple(traces.stack_of(error)),
        )
        self._keep(report, os.getpid())

    def ended(self) -> None:
        """Leave no trace of this process but the reports: whoever calls this ends it at once."""
        faulthandler.disable()
        if self._stacks is not None:
            self._stacks.close()
            self._stacks = None
        with suppress(OSError):
            (self._folder / STACKS).unlink(missing_ok=True)
            # Where the report had no room, the next start finds at least that there was a death.
            if not self._unwritten:
                (self._folder / RUNNING).unlink(missing_ok=True)
            _sync(self._folder)

    # -- telling -----------------------------------------------------------------------------

    def untold(self) -> list[Untold]:
        """The reports whose event is still to be emitted, oldest first."""
        found = [Untold(report, None) for report in self._unwritten]
        for file in self._reports():
            if file.name.endswith(_TOLD):
                continue
            try:
                with file.open("rb") as source:
                    report = Report.model_validate_json(source.read(REPORT_BYTES))
            except (OSError, ValidationError) as error:
                log.warning("crash_report_unreadable", file=str(file), error=str(error))
                continue
            found.append(Untold(report, file))
        return sorted(found, key=lambda item: item.report.at)

    def told(self, item: Untold) -> None:
        """Its event is promised: never tell it again."""
        if item.file is None:
            self._unwritten.remove(item.report)
            return
        try:
            item.file.rename(item.file.with_suffix(_TOLD))
        except OSError as error:
            log.warning("crash_told_again", file=str(item.file), error=error.strerror)

    # -- files -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._folder.mkdir(mode=0o750, exist_ok=True)
        _replace(self._folder / RUNNING, self._running.model_dump_json())
        # Room that a full disk cannot take away: whoever writes here can do nothing else any more.
        stacks = (self._folder / STACKS).open("wb")
        with suppress(OSError):
            os.posix_fallocate(stacks.fileno(), 0, REPORT_BYTES)
        faulthandler.enable(stacks)
        self._stacks = stacks

    def _note_left_behind(self) -> None:
        """Make a report of what the process before left, if it did not end in peace."""
        try:
            text = (self._folder / RUNNING).read_bytes()
        except OSError:
            return
        try:
            last = Running.model_validate_json(text)
        except ValidationError:
            last = Running(pid=0, boot=self._running.boot, version=__version__)
        self._keep(self._stacks_of(last) or self._traceless(last), last.pid)

    def _stacks_of(self, last: Running) -> Report | None:
        """What faulthandler wrote for the process before; None if it wrote nothing."""
        file = self._folder / STACKS
        try:
            with file.open("rb") as source:
                dump = source.read(REPORT_BYTES).rstrip(b"\0")
            at = file.stat().st_mtime_ns
        except OSError:
            return None
        if not dump:
            return None
        name, stack, files = traces.read_dump(dump.decode("utf-8", "replace"))
        return Report(
            at=format_time(at),
            version=last.version,
            kind=Kind.SIGNAL,
            reason=name + _CAUSES.get(name, ""),
            plugin=traces.plugin_among(files, last.plugins),
            stack=tuple(stack),
        )

    def _traceless(self, last: Running) -> Report:
        kind = Kind.KILLED if last.boot == self._running.boot else Kind.POWER
        # Whatever it wrote last, mostly the database: it was alive then.
        times = [_modified(file) for file in self._state_dir.iterdir()]
        at = format_time(max(times, default=0))
        return Report(at=at, version=last.version, kind=kind, reason=_REASONS[kind])

    def _keep(self, report: Report, pid: int) -> None:
        """Write the report down, and let the oldest go for it."""
        while len((text := report.model_dump_json()).encode()) > REPORT_BYTES and report.stack:
            report = report.model_copy(update={"stack": report.stack[: len(report.stack) // 2]})
        moment = re.sub(r"[-:.]", "", report.at)
        file = self._folder / f"{moment}-{pid}.json"
        try:
            self._folder.mkdir(mode=0o750, exist_ok=True)
            _replace(file, text)
        except OSError as error:
            log.warning("crash_not_kept", file=str(file), error=error.strerror)
            self._unwritten.append(report)
            return
        others = [other for other in self._reports() if other != file]
        others.sort(key=lambda other: not other.name.endswith(_TOLD))
        for old in others[: max(len(others) + 1 - KEPT, 0)]:
            with suppress(OSError):
                old.unlink()

    def _reports(self) -> list[Path]:
        """Every report, told or not, oldest first by the clocks of their time."""
        return sorted(self._folder.glob("[0-9]*.json"))


def place_of(plugin: type) -> str:
    """Where the code of a plugin is: the folder of its package, with a slash, or its only file."""
    module = sys.modules[plugin.__module__]
    file = Path(module.__file__ or "")
    return f"{file.parent}/" if module.__package__ else str(file)


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _replace(file: Path, text: str) -> None:
    """Put *text* into *file*; it is durable on return. Raises OSError, and leaves nothing then."""
    new = file.with_suffix(".new")
    try:
        with new.open("w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        new.replace(file)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
    _sync(file.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
