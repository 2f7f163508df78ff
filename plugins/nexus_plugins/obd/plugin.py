"""The plugin: one session for each adapter, and the commands."""

from __future__ import annotations

import asyncio
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
from nexus_plugins.obd import commands
from nexus_plugins.obd.commands import AdapterArgs, ObdScanArgs
from nexus_plugins.obd.session import Session
from nexus_plugins.obd.settings import ObdSettings


class ObdPlugin(Plugin[ObdSettings]):
    """Reads a vehicle through each ELM327 adapter; see README.md for events and commands."""

    name = "obd"
    version = "1.0.0"
    description = "Reads vehicles through ELM327 adapters: identity, live values, trouble codes."
    author = "Nexus Core"
    emits = (
        "adapter.state",
        "adapter.rates",
        "vehicle.identified",
        "telemetry.pid",
        "dtc.cleared",
        "freeze_frame.captured",
        "readiness.snapshot",
        "calibration.ids",
        "monitor.counters",
        "monitor.tests",
    )
    devices = ("port",)
    settings_model = ObdSettings
    live = frozenset(
        {
            *("interval_s", "pids", "rates", "batch"),
            *("idle_after_s", "probe_interval_s", "reconnect_max_s", "clear_engine_off"),
        }
    )

    def __init__(self, context: Context[ObdSettings]) -> None:
        super().__init__(context)
        self._reports: dict[str, str] = {}
        self._sessions = {
            name: Session(name, context, partial(self._report, name))
            for name in context.settings.names()
        }

    async def run(self) -> None:
        """Attend to every adapter; none of them is disturbed by what becomes of another."""
        failed: list[str] = []
        async with asyncio.TaskGroup() as group:
            for name, session in self._sessions.items():
                group.create_task(self._attend(session, failed), name=f"obd:{name}")
        raise FatalError("; ".join(failed))

    async def _attend(self, session: Session, failed: list[str]) -> None:
        """Run *session*; what no further try can help is kept until all have ended so."""
        try:
            await session.run()
        except FatalError as error:
            failed.append(str(error) if self._is_only(session) else f"{session.name}: {error}")

    def _report(self, name: str, text: str) -> None:
        self._reports[name] = text
        several = len(self._sessions) > 1
        texts = [f"{each}: {said}" if several else said for each, said in self._reports.items()]
        self.context.report("; ".join(texts))

    @command(args=ObdScanArgs, timeout_s=300.0, scans=True)
    async def scan(self, args: ObdScanArgs, progress: Progress) -> dict[str, Any]:
        """Read the VIN and what every module tells: codes, freeze frames, readiness, tests."""
        session = self._session(args)
        async with session.commanding:
            return await commands.read_codes(session, args, self.context, progress)

    @command(args=AdapterArgs, safety=Safety.CLEAR, timeout_s=60.0)
    async def clear(self, args: AdapterArgs, progress: Progress) -> dict[str, Any]:
        """Clear the trouble codes and the readiness monitors of every module."""
        session = self._session(args)
        async with session.commanding:
            return await commands.clear_codes(session, self.context, progress)

    def _session(self, args: AdapterArgs | ObdScanArgs) -> Session:
        """That of the adapter that is asked for, or the only one."""
        known = ", ".join(self._sessions)
        if args.adapter is None:
            if len(self._sessions) > 1:
                raise PluginError(f"Say which adapter with `adapter`; there are {known}.")
            return next(iter(self._sessions.values()))
        try:
            return self._sessions[args.adapter]
        except KeyError:
            raise PluginError(f"There is no adapter {args.adapter!r}; there is {known}.") from None

    def _is_only(self, session: Session) -> bool:
        return list(self._sessions.values()) == [session]
