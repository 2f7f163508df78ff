"""One link of the settings: says whether it can be reached, and opens it for a command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from nexus_agent.plugin import Context, FatalError, PluginError, catalogue
from nexus_plugins.uds.client import Client, Timing
from nexus_plugins.uds.doip_link import DoipLink
from nexus_plugins.uds.link import LinkError
from nexus_plugins.uds.settings import LinkOptions, UdsSettings
from nexus_plugins.uds.talk import Talk

_KEEP_S: Final = 0.5
"""An open link is looked at this often: control units and gateways give up after seconds."""


class Session:
    """The link *name* of the settings. report: takes a few words for people."""

    def __init__(
        self, name: str, context: Context[UdsSettings], report: Callable[[str], None]
    ) -> None:
        self.name = name
        self._context = context
        self._report = report
        self._using = asyncio.Lock()
        self._client: Client | None = None
        self._is_open = asyncio.Event()
        self._told_state: str | None = None

    @property
    def settings(self) -> LinkOptions:
        """What is in force now."""
        return self._context.settings.of(self.name)

    def ecu(self, target: int) -> str:
        """How events name a control unit; where there are several links, with the link's name."""
        ecu = self.settings.ecu(target)
        return f"{ecu} {self.name}" if len(self._context.settings.names()) > 1 else ecu

    def target_of(self, module: str) -> int | None:
        """Who is asked under that name here, if anybody."""
        wanted = (each for each in self.settings.candidates() if self.ecu(each) == module)
        return next(wanted, None)

    async def run(self) -> None:
        """Tell whether it can be reached, until cancelled. Raises FatalError."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe(), name=f"uds:{self.name}:probe")
            group.create_task(self._keep(), name=f"uds:{self.name}:keep")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Talk]:
        """The link, open for the length of a block. Raises PluginError where it cannot be."""
        settings = self.settings
        async with self._using, self._connected(settings) as client:
            try:
                await self._context.run_blocking(client.open)
            except LinkError as error:
                await self._lose(error)
                raise PluginError(f"{self.name} cannot be used: {error}.") from error
            await self._tell("connected", _reached(settings))
            self._client = client
            self._is_open.set()
            try:
                yield Talk(self.name, self.ecu, settings, client, self._context, self._lose)
            finally:
                self._is_open.clear()
                self._client = None

    @asynccontextmanager
    async def _connected(self, settings: LinkOptions) -> AsyncIterator[Client]:
        """A client; whatever it has opened is closed, and its thread free, after the block."""
        client = await self._context.run_blocking(_client, settings)
        try:
            yield client
        finally:
            client.stop()
            await self._context.run_blocking(client.close)

    async def _probe(self) -> None:
        while True:
            async with self._using, self._connected(self.settings) as client:
                try:
                    await self._context.run_blocking(client.probe)
                except LinkError as error:
                    await self._lose(error)
                except FatalError as error:
                    await self._tell("lost", str(error))
                    raise
                else:
                    await self._tell("connected", _reached(self.settings))
            await self._context.sleep(self._context.settings.probe_interval_s)

    async def _keep(self) -> None:
        """Keep what a command has opened from being closed while nothing is asked."""
        while True:
            await self._is_open.wait()
            client = self._client
            if client is not None:
                try:
                    await self._context.run_blocking(client.keep)
                except LinkError:
                    self._context.log.debug("link not kept", link=self.name)
            await asyncio.sleep(_KEEP_S)

    async def _lose(self, error: LinkError) -> None:
        await self._tell(error.state, str(error))

    async def _tell(self, state: str, detail: str) -> None:
        """Emit `adapter.state` when the state changes; the status shows every detail."""
        self._report(f"{state.replace('_', ' ')}: {detail}")
        if state == self._told_state:
            return
        self._told_state = state
        self._context.log.info("adapter state", adapter=self.name, state=state, detail=detail)
        data = {"adapter": self.name, "state": state, "detail": detail}
        await self._context.emit(catalogue.vehicle.AdapterState.type, data)


def _client(settings: LinkOptions) -> Client:
    timing = Timing(settings.p2_s, settings.p2_star_s, settings.pending_max_s)
    if settings.channel is None:
        return Client(DoipLink(settings), timing)
    # What speaks CAN is not loaded where only DoIP is spoken, and takes a while to load.
    from nexus_plugins.uds.can_link import CanLink

    return Client(CanLink(settings), timing)


def _reached(settings: LinkOptions) -> str:
    if settings.channel is None:
        return "the DoIP gateway takes connections"
    return f"{settings.channel} can be opened"
