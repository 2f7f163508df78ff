"""can_signals at work: contexts with settings, and what it has told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import can

from nexus_agent.testing import RecordingContext, running
from nexus_plugins.can_signals import CanSignalsPlugin
from nexus_plugins.can_signals.settings import CanSignalsSettings

DATA = Path(__file__).resolve().parents[1] / "data/can"
DRIVE = {"file": str(DATA / "drive.dbc")}
TRUCK = {"file": str(DATA / "truck.dbc")}
BROKEN = {"file": str(DATA / "broken.dbc")}
Recorded = RecordingContext[CanSignalsSettings]


def context_of(**given: Any) -> Recorded:
    return RecordingContext(CanSignalsSettings.model_validate(given))


def on_bus(*dbc: dict[str, Any], **given: Any) -> Recorded:
    channel = {"interface": "virtual", "channel": "signals", "dbc": list(dbc)}
    return context_of(channels={"bay": channel}, **given)


def replaying(file: Path, *dbc: dict[str, Any], **given: Any) -> Recorded:
    replay = {"file": str(file), "dbc": list(dbc), **given}
    return context_of(replays={"log": replay}, max_rate=10)


@asynccontextmanager
async def at_work(context: Recorded) -> AsyncIterator[None]:
    async with running(CanSignalsPlugin(context)):
        await context.wait_for("adapter.state")
        yield


async def played(context: Recorded) -> dict[str, list[Any]]:
    """Plays a log to its end; the values of each signal, or their quality where there is none."""
    async with asyncio.timeout(20):
        await CanSignalsPlugin(context).run()
    return values(context)


def values(context: Recorded) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for data in context.of("telemetry.signal"):
        told = data["value"] if data["quality"] == "ok" else data["quality"]
        found.setdefault(data["signal"], []).append(told)
    return found


async def until(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def engine(speed: float) -> can.Message:
    data = int(speed * 4).to_bytes(2, "little") + b"\x78\x00\x20\x00\x00\x00"
    return can.Message(arbitration_id=256, data=data, is_extended_id=False)
