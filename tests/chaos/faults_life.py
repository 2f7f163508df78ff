"""A life whose disk fails now and then, or is full for a while; in the end everything drains.

`python -m tests.chaos.faults_life '{"folder": …}'`. With a file `ballast` beside the folder the
disk itself is filled for a while: the folder is then alone on a small one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.chaos.disk_life import Life, main

from nexus_agent.plugin import EmitError
from nexus_agent.protocol import Ack, Stream
from nexus_agent.store.errors import StoreError
from nexus_agent.store.segments import row_id

RECOVERY_S: Final = 10.0
_AGAIN_S: Final = 0.05
_BLOCK: Final = 4096


class FaultyLife(Life):
    """Nobody helps it: what fails is tried again, as the agent does."""

    async def run(self) -> None:
        ballast = self.folder.with_name("ballast")
        await self.start()
        for number in range(self.course.steps):
            if ballast.exists() and number == self.course.steps // 3:
                fill(ballast)
            if ballast.exists() and number == self.course.steps * 2 // 3:
                os.truncate(ballast, 0)
                await self.drain()
            await self.step()
        await self.drain()
        with suppress(StoreError):
            await self.stop()

    async def drain(self) -> None:
        """Within 10 s a new event is taken, and everything that waits goes out."""
        began = time.monotonic()
        async with asyncio.timeout(RECOVERY_S):
            while True:
                try:
                    await self.outbox.heal()
                    await self.emit()
                    for stream in Stream:
                        await self._drain(stream)
                    await self.outbox.save()
                    break
                except (StoreError, EmitError):
                    await asyncio.sleep(_AGAIN_S)
        self.mark("drained", seconds=time.monotonic() - began)

    async def _drain(self, stream: Stream) -> None:
        while found := await self.outbox.after(stream, 0, 1000):
            self.note_read(found)
            last = found[-1]
            self.outbox.sent(stream, row_id(last.epoch, last.last))
            self.mark("released", stream=stream, epoch=last.epoch, last=last.last)
            await self.outbox.acknowledge(Ack(epoch=last.epoch, stream=stream, seq=last.last))


def fill(ballast: Path) -> None:
    """Take all the room that is left."""
    with ballast.open("r+b") as file:
        size = 0
        with suppress(OSError):
            while True:
                os.posix_fallocate(file.fileno(), size, _BLOCK)
                size += _BLOCK
        if size == 0:
            raise OSError(errno.EINVAL, "there was no room to take")


if __name__ == "__main__":
    main(FaultyLife)
