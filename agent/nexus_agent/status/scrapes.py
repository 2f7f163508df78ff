"""The metrics on a loopback address: for Prometheus, which asks no Unix socket."""

from __future__ import annotations

import asyncio
import os
from typing import Final

import structlog

from nexus_agent.plugin import Logger
from nexus_agent.status.callers import Accept, Callers
from nexus_agent.status.connection import Limits, Request
from nexus_agent.status.routes import METRICS_ONLY, Answer, answer
from nexus_agent.status.source import Source

RETRY_S: Final = 10.0
"""A port that somebody else has is asked for again after so long."""

Address = tuple[str, int]
"""Host and port."""


class MetricsServer:
    """Answers `GET /metrics` at *address*, at none if that is None, with what *source* says."""

    def __init__(
        self, address: Address | None, source: Source, *, limits: Limits | None = None
    ) -> None:
        self._address = address
        self._callers = Callers(self._respond, limits or Limits())
        self._source = source
        self._moved = asyncio.Event()
        self._tried = asyncio.Event()
        self._log: Logger = structlog.get_logger("metrics")
        self.trouble: str | None = None
        """Why nobody can ask; None where all is well, or nothing is to listen."""

    async def tried(self) -> None:
        """Return once Prometheus can ask, or `trouble` says why not."""
        await self._tried.wait()

    def move(self, address: Address | None) -> None:
        """Listen at another address from now on, or not at all."""
        self._address = address
        self._tried.clear()
        self._moved.set()

    async def run(self) -> None:
        """Serve until cancelled. An address that cannot be had is tried again."""
        while True:
            self._moved.clear()
            self.trouble = None
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self._stay(), name="metrics:serve")
                await self._moved.wait()
                serving.cancel()

    async def _stay(self) -> None:
        if self._address is None:
            self._tried.set()
            return
        host, port = self._address

        async def start(accept: Accept) -> asyncio.Server:
            return await asyncio.start_server(accept, host, port)

        def started() -> None:
            self.trouble = None
            self._tried.set()
            self._log.info("metrics_served", host=host, port=port)

        while True:
            try:
                await self._callers.serve(start, started)
            except* OSError as group:
                where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                self._say(f"{where} cannot be listened at: {_reason(group)}")
            await asyncio.sleep(RETRY_S)

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self._log.warning("metrics_not_served", error=trouble)
        self.trouble = trouble
        self._tried.set()

    async def _respond(self, _writer: asyncio.StreamWriter, request: Request) -> Answer:
        return await answer(self._source, request, METRICS_ONLY)


def _reason(group: BaseExceptionGroup[OSError]) -> str:
    """The words of the first error in *group*."""
    first = group.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return _reason(first)
    return os.strerror(first.errno).lower() if first.errno else str(first)
