"""What the status socket shows: the agent implements `Source`, the server only asks."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from nexus_agent.protocol import Stream

SCHEMA: Final = 1
"""`v` of every document."""


class QueryError(ValueError):
    """A request asks for what cannot be; its message is the answer, with status 400."""


class UnavailableError(Exception):
    """The agent cannot say at the moment; its message is the answer, with status 503."""


class PluginAction(enum.StrEnum):
    """What a person at the box may do with a plugin."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    ENABLE = "enable"
    DISABLE = "disable"


class Source(Protocol):
    """Answers about the running agent, as values that JSON can carry.

    Every method may raise UnavailableError. docs/reference has the keys of each document.
    """

    async def status(self) -> dict[str, Any]:
        """The whole box on one screen: `/v1/status`."""

    def plugins(self) -> dict[str, Any]:
        """Every plugin, also those that are switched off: `/v1/plugins`."""

    async def outbox(self) -> dict[str, Any]:
        """What waits for the console, stream by stream: `/v1/outbox`."""

    async def events(
        self, *, after: str | None, limit: int, event_type: str | None, stream: Stream | None
    ) -> dict[str, Any]:
        """Up to *limit* events of the local history, ascending, and `next` to go on from.

        *after* is the cursor of an event or a `next`, "" stands before the oldest event that is
        kept, and None asks for the newest *limit* events. QueryError where *after* is no cursor.
        """

    def follow(
        self, *, event_type: str | None, stream: Stream | None
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Every event that is committed while the block is open, as `events` shows it.

        The iterator bounds its own queue; for a reader that is too slow it ends.
        """

    async def metrics(self) -> str:
        """Prometheus text format 0.0.4, of the last line its newline too."""


class Control(Protocol):
    """What people at the box may change."""

    async def change_plugin(self, name: str, action: PluginAction, by: str) -> dict[str, Any]:
        """Do *action*; the plugin as `plugins` shows it then: `POST /v1/plugins/NAME/ACTION`.

        Raises QueryError where that cannot be.
        """

    def erase(self, vin: str, by: str) -> AsyncGenerator[dict[str, Any], None]:
        """Erase what the box keeps of the car with that VIN: `POST /v1/erase?vin=VIN`.

        Says again and again how far it has come; the last one has `done` true. Raises QueryError
        for what is no VIN.
        """
