"""Telling the console how the last life of this box ended: crash reports, and a rollback."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from nexus_agent import rollback
from nexus_agent.crashes import Crashes
from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Stream
from nexus_agent.store import state
from nexus_agent.store.database import Database
from nexus_agent.store.errors import StoreError
from nexus_agent.store.outbox import SOURCE, Outbox
from nexus_agent.traces import redact

CRASHED: Final = "agent.crashed"
ROLLED_BACK: Final = "agent.rolled_back"
RETRY_S: Final = 30.0
_REASON_CHARACTERS: Final = 2000

log = structlog.get_logger("aftermath")


class Aftermath:
    """`run` tells what is there at the start, and ends."""

    def __init__(
        self, crashes: Crashes, upgrade_dir: Path, database: Database, outbox: Outbox
    ) -> None:
        self._crashes = crashes
        self._upgrade_dir = upgrade_dir
        self._database = database
        self._outbox = outbox

    async def run(self) -> None:
        """Return once all is promised; a disk that does not take it is asked again and again."""
        while True:
            try:
                await self._tell_crashes()
                await self._tell_rollback()
            except (EmitError, StoreError) as error:
                log.warning("untold", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _tell_crashes(self) -> None:
        for item in await asyncio.to_thread(self._crashes.untold):
            data = item.report.model_dump(mode="json", exclude_none=True)
            await self._outbox.emit(SOURCE, [(CRASHED, data)], Stream.ALERT)
            log.warning("crash_told", kind=str(item.report.kind), reason=item.report.reason)
            # Marked only now: who is killed in between tells it twice rather than never.
            await asyncio.to_thread(self._crashes.told, item)

    async def _tell_rollback(self) -> None:
        found = await asyncio.to_thread(rollback.read, self._upgrade_dir)
        if found is None:
            return
        if await state.PluginState(self._database, SOURCE).get(ROLLED_BACK) == found.id:
            return
        data = found.model_dump(by_alias=True, exclude={"id"})
        data["reason"] = redact(found.reason, _REASON_CHARACTERS)
        await self._outbox.emit(
            SOURCE,
            [(ROLLED_BACK, data)],
            Stream.ALERT,
            also=partial(state.put, SOURCE, ROLLED_BACK, json.dumps(found.id)),
        )
        log.warning("rollback_told", failed=found.failed, restored=found.restored)
