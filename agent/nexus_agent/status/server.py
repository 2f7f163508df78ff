"""The status server: who may come in at the Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from pathlib import Path

from nexus_agent.status.callers import Accept, Callers
from nexus_agent.status.connection import Limits, Request, failure
from nexus_agent.status.listener import StatusError, listen
from nexus_agent.status.peer import (
    CHANGE_GROUP,
    READ_GROUP,
    Role,
    Rules,
    local_rules,
    name_of,
    peer_of,
)
from nexus_agent.status.routes import Answer, answer, change, scan
from nexus_agent.status.scanning import Scan
from nexus_agent.status.source import Control, Source

__all__ = ["Limits", "StatusError", "StatusServer"]


class StatusServer:
    """Answers on the Unix socket at *path* with what *source* says.

    control: does what a POST asks for; without it all can only be read. scans: scans the vehicle,
    which is reading it, and so for everybody who may read. strangers: processes that are answered
    nothing, though their user might ask.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        control: Control | None = None,
        scans: Scan | None = None,
        strangers: Callable[[], Container[int]] = frozenset,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._path = path
        self._strangers = strangers
        self._source = source
        self._control = control
        self._scan = scans
        self._rules = Rules(0, None, None)
        self._callers = Callers(self._respond, limits or Limits())
        self._started = asyncio.Event()

    async def started(self) -> None:
        """Return once callers can connect."""
        await self._started.wait()

    async def run(self) -> None:
        """Serve until cancelled; then no connection, task or socket file is left.

        Raises StatusError where the socket cannot be opened.
        """
        self._rules = await asyncio.to_thread(local_rules)
        listener = await asyncio.to_thread(listen, self._path, self._rules.read_gid)

        async def start(accept: Accept) -> asyncio.Server:
            return await asyncio.start_unix_server(accept, sock=listener.socket)

        try:
            await self._callers.serve(start, self._started.set)
        finally:
            listener.close()

    async def _respond(self, writer: asyncio.StreamWriter, request: Request) -> Answer:
        peer = peer_of(writer.get_extra_info("socket"))
        if peer.pid in self._strangers():
            return failure(403, "a plugin may not ask the agent: it has its context", close=True)
        if self._rules.role(peer.uid, peer.groups) < Role.READ:
            return failure(
                403,
                f"user {peer.uid} may not see this agent: only members of the group "
                f"{READ_GROUP!r} may",
                close=True,
            )
        if request.method == "POST" and self._scan is not None:
            steps = scan(self._scan, request)
            if steps is not None:
                return steps
        if request.method != "POST" or self._control is None:
            return await answer(self._source, request)
        if self._rules.role(peer.uid, peer.groups) < Role.CHANGE:
            text = (
                f"user {peer.uid} may only look: members of the group {CHANGE_GROUP!r} may change"
            )
            return failure(403, f"{text} things here")
        return await change(self._control, request, await asyncio.to_thread(name_of, peer.uid))
