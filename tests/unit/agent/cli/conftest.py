"""A real status server over an agent's documents, and the command run against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from nexus_agent.cli import main
from nexus_agent.plugin import PluginError, Progress
from nexus_agent.protocol import Stream
from nexus_agent.status.server import StatusServer
from nexus_agent.status.source import PluginAction, QueryError


def ago(**kept: float) -> str:
    return (datetime.now(UTC) - timedelta(**kept)).isoformat().replace("+00:00", "Z")


VIN = "1HGCM82633A004352"


def _said(quality: str, *codes: str, **more: Any) -> dict[str, Any]:
    return {"quality": quality, "codes": list(codes), **more}


SCAN: Final[dict[str, Any]] = {
    "scan_id": "5f",
    "vehicle_ref": "v-1",
    "vin_quality": "ok",
    "phase": "post",
    "modules": [
        {
            "ecu": "7E8",
            "name": "ECM",
            "answers": {"stored": _said("ok", "P0301"), "pending": _said("refused")},
        },
        {
            "ecu": "UDS 7E8",
            "answers": {"stored": _said("ok", "P0301-11", active=["P0301-11"])},
        },
        {"ecu": "UDS 7EA", "answers": {"stored": _said("absent"), "pending": _said("absent")}},
    ],
    "dtcs": [
        {"code": "P0301", "kinds": ["stored"], "ecu": "7E8"},
        {"code": "P0301-11", "kinds": ["stored"], "ecu": "UDS 7E8", "active": True},
    ],
    "parts": [
        {"plugin": "obd", "outcome": "done"},
        {"plugin": "j1939", "outcome": "failed", "detail": "can0 has gone"},
    ],
    "diff": {
        "before": "4e",
        "after": "5f",
        "new": [{"code": "P0301-11", "kinds": ["stored"], "ecu": "UDS 7E8"}],
        "remaining": [{"code": "P0301", "kinds": ["stored"], "ecu": "7E8"}],
        "permanent": [],
        "fixed": [],
        "unknown": [
            {
                "ecu": "UDS 7EA",
                "kind": "stored",
                "quality": "absent",
                "why": "did not answer",
                "scan": "after",
                "codes": ["C0035-00"],
            }
        ],
    },
}


class Agent:
    """A Source and Control whose documents a test may change before it asks."""

    def __init__(self) -> None:
        self.erased_document: dict[str, Any] = {
            "v": 1,
            "done": False,
            "states": 1,
            "results": 2,
            "events": 30,
            "forgotten": 34,
            "waiting": 5,
            "searched": 128,
            "unsearched": ["agent.db.damaged-1"],
            "log_emptied": False,
        }
        self.erasing: list[dict[str, Any]] = [{"searched": 64}, {"done": True}]
        self.status_document: dict[str, Any] = {
            "v": 1,
            "device": "bay-3",
            "version": "0.1.0",
            "pid": 4711,
            "boot": "b0",
            "uptime_s": 3900.5,
            "state": "offline",
            "health": [
                {"level": "ok", "text": "The disk has room."},
                {"level": "critical", "text": "The broker refuses this box."},
                {"level": "warning", "text": "The clock is not synchronised."},
            ],
            "services": [
                {"name": "outbox", "ok": True, "reason": None, "since": ago(hours=9)},
                {"name": "link", "ok": False, "reason": "Refused.", "since": ago(hours=2)},
            ],
            "broker": {
                "state": "waiting",
                "url": "mqtts://fleet.example:8883",
                "since": ago(minutes=3),
                "error": "connection refused",
                "attempt": 4,
            },
            "outbox": {
                "pending_events": 1204,
                "pending_bytes": 56_000,
                "oldest": ago(hours=2, minutes=5),
            },
            "plugins": {"obd": "backoff", "host": "running"},
        }
        self.plugins_document: dict[str, Any] = {
            "v": 1,
            "plugins": [
                plugin(
                    "obd",
                    "backoff",
                    isolation="process",
                    reason="it is silent",
                    restarts=3,
                    last_error="adapter\x1b[2Jis silent",
                ),
                plugin("host", "running", events=12_345, report="CPU 4 %"),
            ],
        }
        self.outbox_document: dict[str, Any] = {
            "v": 1,
            "epoch": 2,
            "connected": True,
            "database_bytes": 1_250_000,
            "quota_bytes": 1_024_000_000,
            "forecast": {
                "limited_by": "line",
                "seconds": 260.0,
                "bytes": 1_200_000.0,
                "period": "second",
                "growing": False,
            },
            "traffic": {
                "day": {
                    "bytes": 12_000_000,
                    "budget_bytes": 50_000_000,
                    "streams": {"log": {"bytes": 1_000, "budget_bytes": 2_000_000}},
                },
                "month": {
                    "bytes": 99_000_000,
                    "budget_bytes": None,
                    "streams": {"log": {"bytes": 1_000, "budget_bytes": None}},
                },
            },
            "losses": [],
            "streams": [
                {
                    "stream": "telemetry",
                    "next": 1205,
                    "acknowledged": 1,
                    "pending_events": 1203,
                    "pending_segments": 12,
                    "pending_bytes": 56_000,
                    "oldest": ago(hours=2, minutes=5),
                    "held": None,
                },
            ],
        }
        self.history: list[dict[str, Any]] = [event(seq) for seq in range(1, 31)]
        self.scans: list[dict[str, str]] = []
        self.scan_error: str | None = None
        self.scan_document: dict[str, Any] = SCAN
        self.live: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.asked: list[tuple[str | None, int, str | None, Stream | None]] = []

    async def status(self) -> dict[str, Any]:
        return self.status_document

    def plugins(self) -> dict[str, Any]:
        return self.plugins_document

    async def outbox(self) -> dict[str, Any]:
        return self.outbox_document

    async def events(
        self, *, after: str | None, limit: int, event_type: str | None, stream: Stream | None
    ) -> dict[str, Any]:
        self.asked.append((after, limit, event_type, stream))
        found = self.history[-limit:]
        return {"v": 1, "events": found, "next": found[-1]["cursor"] if found else None}

    @asynccontextmanager
    async def follow(
        self, *, event_type: str | None, stream: Stream | None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        async def events() -> AsyncIterator[dict[str, Any]]:
            while (item := await self.live.get()) is not None:
                yield item

        yield events()

    async def metrics(self) -> str:
        return ""

    async def change_plugin(self, name: str, action: PluginAction, _by: str) -> dict[str, Any]:
        raise QueryError(f"there is no plugin {name!r} to {action}")

    async def scan(self, given: Mapping[str, str], progress: Progress) -> dict[str, Any]:
        self.scans.append(dict(given))
        progress("uds: module 1 of 2")
        if self.scan_error is not None:
            raise PluginError(self.scan_error)
        return self.scan_document

    async def erase(self, vin: str, _by: str) -> AsyncGenerator[dict[str, Any], None]:
        if vin != VIN:
            raise QueryError("a VIN has 17 letters and digits, without I, O and Q")
        for step in self.erasing:
            yield self.erased_document | step


def event(seq: int, data: Any = None) -> dict[str, Any]:
    return {
        "cursor": str(seq),
        "epoch": 1,
        "stream": "telemetry",
        "seq": seq,
        "type": "telemetry.pid",
        "source": "/bay-3/obd",
        "time": "2026-03-01T10:00:00.250000Z",
        "data": {"name": "engine_speed", "value": seq} if data is None else data,
    }


def plugin(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1.0",
        "description": "",
        "state": state,
        "recoverable": True,
        "since": ago(seconds=40),
        "isolation": "task",
        "reason": None,
        "restarts": 0,
        "last_error": None,
        "report": None,
        "events": 0,
        "commands": [],
        **more,
    }


Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest_asyncio.fixture
async def path(tmp_path: Path, agent: Agent) -> AsyncIterator[Path]:
    """The socket of a running agent."""
    server = StatusServer(tmp_path / "agent.sock", agent, agent, agent.scan)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run(), name="status")
        async with asyncio.timeout(5):
            await server.started()
        yield tmp_path / "agent.sock"
        task.cancel()


async def invoke(*args: object, **environ: str) -> Result:
    """Run `nexus` in this process, beside the server's loop."""
    given = [str(arg) for arg in args]
    return await asyncio.to_thread(
        CliRunner().invoke, main, given, env={"NEXUS_SOCKET": None, "NO_COLOR": None, **environ}
    )


@pytest.fixture
def run(path: Path) -> Run:
    """Run `nexus` against the running agent."""

    async def command(*args: object, **environ: str) -> Result:
        return await invoke(*args, NEXUS_SOCKET=str(path), **environ)

    return command
