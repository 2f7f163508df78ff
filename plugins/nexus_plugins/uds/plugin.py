"""The plugin: one session for each link, and the commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from nexus_agent.plugin import (
    Context,
    FatalError,
    Plugin,
    PluginError,
    Progress,
    Safety,
    command,
)
from nexus_plugins.uds import commands
from nexus_plugins.uds.commands import ClearArgs, IdentifyArgs, UdsScanArgs
from nexus_plugins.uds.session import Session
from nexus_plugins.uds.settings import UdsSettings


class UdsPlugin(Plugin[UdsSettings]):
    """Reads every control unit of a vehicle over UDS; see README.md for events and commands."""

    name = "uds"
    version = "1.0.0"
    description = "Reads every control unit over UDS, on CAN and through DoIP gateways."
    author = "Nexus Core"
    emits = ("adapter.state", "module.identity", "dtc.details", "dtc.cleared")
    devices = ("channel",)
    settings_model = UdsSettings
    live = frozenset({"probe_interval_s"})

    def __init__(self, context: Context[UdsSettings]) -> None:
        super().__init__(context)
        self._reports: dict[str, str] = {}
        self._sessions = {
            name: Session(name, context, partial(self._report, name))
            for name in context.settings.names()
        }

    async def run(self) -> None:
        """Watch every link; none of them is disturbed by what becomes of another."""
        failed: list[str] = []
        async with asyncio.TaskGroup() as group:
            for name, session in self._sessions.items():
                group.create_task(self._attend(session, failed), name=f"uds:{name}")
        raise FatalError("; ".join(failed))

    async def _attend(self, session: Session, failed: list[str]) -> None:
        """Run *session*; what no further try can help is kept until all have ended so."""
        try:
            await session.run()
        except* FatalError as errors:
            failed.extend(str(error) for error in errors.exceptions)

    def _report(self, name: str, text: str) -> None:
        self._reports[name] = text
        several = len(self._sessions) > 1
        texts = [f"{each}: {said}" if several else said for each, said in self._reports.items()]
        self.context.report("; ".join(texts))

    @command(args=UdsScanArgs, timeout_s=1800.0, scans=True)
    async def scan(self, args: UdsScanArgs, progress: Progress) -> dict[str, Any]:
        """Ask every module for its trouble codes, what it keeps of them, and who it is."""
        return await commands.scan(self._over(args.adapter), args, self.context, progress)

    @command(args=IdentifyArgs, timeout_s=300.0)
    async def identify(self, args: IdentifyArgs, progress: Progress) -> dict[str, Any]:
        """Ask one module who it is: part numbers, hardware and software."""
        return await commands.identify(self._over(None), args, self.context, progress)

    @command(args=ClearArgs, safety=Safety.CLEAR, timeout_s=900.0)
    async def clear(self, args: ClearArgs, progress: Progress) -> dict[str, Any]:
        """Clear the trouble codes of one module, or of every one that answers."""
        return await commands.clear(self._over(args.adapter), args, self.context, progress)

    def _over(self, adapter: str | None) -> Sequence[Session]:
        """The sessions that a command is about."""
        if adapter is None:
            return tuple(self._sessions.values())
        try:
            return (self._sessions[adapter],)
        except KeyError:
            known = ", ".join(self._sessions)
            raise PluginError(f"There is no link {adapter!r}; there is {known}.") from None
