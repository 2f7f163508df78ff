"""The minimal acknowledging peer as a process: `python peer.py URL CA`; ends with its stdin."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import uvloop

from nexus_agent.broker import BrokerAddress
from nexus_demo.peer import connected


async def main() -> None:
    address = BrokerAddress(url=sys.argv[1], ca=Path(sys.argv[2]))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with connected(address, keep=False):
        print("ready", flush=True)
        threading.Thread(
            target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True
        ).start()
        await ended.wait()


uvloop.run(main())
