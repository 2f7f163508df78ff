"""Questions to the control units of an open link, and to a single one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nexus_agent.plugin import Context, Quality
from nexus_plugins.uds.client import Client
from nexus_plugins.uds.link import LinkError
from nexus_plugins.uds.reply import Reply
from nexus_plugins.uds.settings import LinkOptions, UdsSettings

_SILENCES_MOST: Final = 2
"""A control unit that has not answered so many questions in a row is asked nothing else."""


class Talk:
    """One open link. One that is lost on the way leaves every further question unanswered.

    ecu: how events name a target. lost: told when the link is lost. gone: why it was, or None.
    """

    def __init__(
        self,
        name: str,
        ecu: Callable[[int], str],
        settings: LinkOptions,
        client: Client,
        context: Context[UdsSettings],
        lost: Callable[[LinkError], Awaitable[None]],
    ) -> None:
        self.name = name
        self.ecu = ecu
        self.settings = settings
        self.gone: str | None = None
        self._client = client
        self._context = context
        self._lost = lost

    async def ask(self, target: int, request: bytes, echo: int) -> Reply:
        """As `Client.ask`, which does not raise here."""
        if self.gone is None:
            try:
                return await self._context.run_blocking(self._client.ask, target, request, echo)
            except LinkError as error:
                self.gone = f"the link is lost: {error}"
                await self._lost(error)
        return Reply(Quality.ABSENT, detail=self.gone, there=False, lost=True)

    def module(self, target: int) -> Module:
        return Module(self, target)


class Module:
    """One control unit while it is examined."""

    def __init__(self, talk: Talk, target: int) -> None:
        self.ecu = talk.ecu(target)
        self._talk = talk
        self._target = target
        self._silences = 0
        self._given_up: str | None = None

    async def ask(self, request: bytes, echo: int) -> Reply:
        """As `Talk.ask`; one that has stopped answering is left alone."""
        if self._given_up is not None:
            return Reply(Quality.ABSENT, detail=self._given_up, there=False)
        reply = await self._talk.ask(self._target, request, echo)
        self._silences = self._silences + 1 if reply.quality is Quality.ABSENT else 0
        if reply.lost or self._silences >= _SILENCES_MOST:
            self._given_up = f"not asked any more: {reply.detail}"
        return reply
