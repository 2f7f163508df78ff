"""A box without a broker, and what happens once there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from delivery import peer
from figure import Figure
from script import run_script

from nexus_agent.store.database import FILE_NAME
from nexus_demo.broker import Broker, choose
from nexus_demo.certs import Authority

_WITHIN_S: Final = 150.0


async def backlog(folder: Path, count: int) -> list[Figure]:
    """*count* events written down without a broker, then delivered."""
    broker = Broker(folder / "broker", Authority(folder / "ca"), choose("auto"))
    state = folder / "state"
    box = broker.url, broker.ca, state, count
    seconds, growth = await run_script("backlog.py", "fill", *box, within=_WITHIN_S)
    kept = sum(file.stat().st_size for file in state.glob(f"{FILE_NAME}*")) / count
    await broker.start()
    try:
        async with peer(broker) as report:
            drain = await run_script("backlog.py", "drain", *box, within=_WITHIN_S)
    finally:
        await broker.stop()
    if report["alert"] is None:
        raise RuntimeError("the peer has not seen the alert that it acknowledged")
    wire, rate = drain["wire_bytes"] / count, drain["rate"]
    alert = report["alert"] - drain["alert_at"]
    return [
        Figure(
            "offline, on the disk",
            round(kept, 1),
            "bytes/event",
            "<= 80",
            kept <= 80,
            f"{count} readings at irregular times, emitted in {seconds:.1f} s; after the close",
        ),
        Figure(
            "offline, memory growth",
            round(growth / 1e6, 1),
            "MB RSS",
            "<= 20",
            growth <= 20e6,
            f"highest of events 50,001 to {count}, against after the first 50,000",
        ),
        Figure(
            "backlog, on the wire",
            round(wire, 1),
            "bytes/event",
            "<= 60",
            wire <= 60,
            f"handed to TCP, handshake and TLS included; payloads {report['payload'] / count:.1f}",
        ),
        Figure(
            "backlog drained",
            round(rate),
            "events/s",
            ">= 300000",
            rate >= 300_000,
            f"{broker.kind}, TLS, first to last acknowledgement",
        ),
        Figure(
            "new alert during the drain, emit to peer",
            round(alert, 3),
            "s",
            "<= 1",
            alert <= 1,
            f"{drain['alert_waiting']} events waited",
        ),
    ]
