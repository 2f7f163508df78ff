"""An agent with something to say now and then: `python beacon.py URL CA FOLDER COUNT PER_SECOND`.

Emits single events that carry CLOCK_MONOTONIC as `sent`, and prints COUNT once all are released.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import uvloop
from box import box

from nexus_agent import logs
from nexus_agent.broker import BrokerAddress
from nexus_agent.protocol import Stream

TYPE: Final = "bench.live"
_CONNECTING_S: Final = 2.0
_WITHIN_S: Final = 110.0


async def main() -> None:
    url, ca, folder, count, rate = sys.argv[1:]
    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(_WITHIN_S),
        box(Path(folder), BrokerAddress(url=url, ca=Path(ca))) as outbox,
    ):
        await asyncio.sleep(_CONNECTING_S)
        begin = loop.time()
        for n in range(int(count)):
            await asyncio.sleep(begin + n / float(rate) - loop.time())
            event = TYPE, {"sent": time.monotonic()}
            await outbox.emit("bench", [event], Stream.EVENT)
        while outbox.position(Stream.EVENT)[0] < int(count):
            await asyncio.sleep(0.01)
        print(count)


if __name__ == "__main__":
    logs.configure(logs.LogSettings(level="warning"))
    uvloop.run(main())
