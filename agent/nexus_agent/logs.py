"""Log lines: structlog on stderr, as JSON for machines or as text for people.

Shared by the agent and the console. Lines of libraries that use `logging` come out the same way.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog

from nexus_agent.settings import Section

Level = Literal["debug", "info", "warning", "error"]


class LogSettings(Section):
    """What `[log]` takes."""

    level: Level = "info"
    """The least important lines that are written."""
    format: Literal["json", "console", "auto"] = "auto"
    """`auto` is console on a terminal and JSON elsewhere."""


def configure(settings: LogSettings) -> None:
    """Set up logging for this process."""
    as_text = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    tail: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ)]
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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
