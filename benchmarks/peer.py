"""The minimal acknowledging peer as a process: `python peer.py URL CA`; ends with its stdin.

Says `ready`, and at its end {"payload": bytes of payload, "alert": CLOCK_MONOTONIC of the first
alert or null}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Final

import uvloop

from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import Stream
from nexus_demo.peer import Peer, connected

_LONGEST_S: Final = 600


async def _first_alert(peer: Peer) -> float:
    await peer.until(
        lambda: any(stream is Stream.ALERT for _, _, stream in peer.marks), within=_LONGEST_S
    )
    return time.monotonic()


async def main() -> None:
    address = BrokerAddress(url=sys.argv[1], ca=Path(sys.argv[2]))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with connected(address, keep=False) as peer, asyncio.TaskGroup() as group:
        alert = group.create_task(_first_alert(peer), name="alert")
        print("ready", flush=True)
        threading.Thread(
            target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True
        ).start()
        async with asyncio.timeout(_LONGEST_S):
            await ended.wait()
        seen = alert.result() if alert.done() else None
        print(json.dumps({"payload": peer.payload_bytes, "alert": seen}), flush=True)
        alert.cancel()


uvloop.run(main())
