"""Log lines: structlog on stderr, as JSON for machines or as text for people, or in the journal.

Shared by the agent and the console. Lines of libraries that use `logging` come out the same way.
A VIN in a line is replaced, whoever wrote it: the journal is read, kept and passed on by many.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from nexus_agent import journald
from nexus_agent.settings import Section

_STDERR: Final = 2
"""The descriptor; systemd made it what it is."""

_VIN: Final = re.compile(
    r"(?<![A-Za-z0-9])(?=[A-Z]*[0-9])(?=[0-9]*[A-Z])[A-HJ-NPR-Z0-9]{17}(?![A-Za-z0-9])",
    re.IGNORECASE,
)
"""What can be one (ISO 3779): 17 letters and digits without I, O and Q, at least one of each."""

Level = Literal["debug", "info", "warning", "error"]


class LogSettings(Section):
    """What `[log]` takes."""

    level: Level = "info"
    """The least important lines that are written."""
    format: Literal["json", "console", "auto"] = "auto"
    """`auto` is console on a terminal, entries with fields where stderr is systemd's journal, and
    JSON elsewhere."""


def configure(
    settings: LogSettings,
    identifier: str = "nexus-agent",
    *,
    environ: Mapping[str, str] = os.environ,
    journal: Path = journald.SOCKET,
) -> None:
    """Set up logging for this process, which the journal knows as *identifier*."""
    automatic = settings.format == "auto"
    as_text = settings.format == "console" or (automatic and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    tail: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and "NO_COLOR" not in environ)]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if automatic and journald.is_journal(_STDERR, environ):
        handler = journald.JournalHandler(
            identifier, journal, partial(journald.write_unless_full, _STDERR)
        )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *tail,
                _without_vins,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _without_vins(_logger: object, _method: str, line: Any) -> str:
    """The rendered *line*; what comes behind a renderer is a text."""
    return _VIN.sub("[vin]", line)
