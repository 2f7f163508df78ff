"""One CAN channel: kept open, its frames turned into messages, its state told."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import can

from nexus_agent.plugin import Context, PluginError
from nexus_plugins.canbus.keeper import Keeper
from nexus_plugins.j1939.identifier import TP_CM, TP_DT, WANTED, Identifier, Message, pgn_of
from nexus_plugins.j1939.settings import J1939Settings
from nexus_plugins.j1939.transport import Reassembly

MAX_FRAMES: Final = 5000
"""Frames that wait for the loop; a second of a busy bus."""
_BATCH: Final = 200
"""Frames that are taken before others have a turn on the loop."""
_GLANCE_S: Final = 0.2
"""From one look at the clock to the next."""
CONNECTED: Final = "connected"
_EXTENDED: Final = ({"can_id": 0, "can_mask": 0, "extended": True},)

_Frame = tuple[float, int, bytes]
_GAP: Final[_Frame] = (0.0, 0, b"")
"""Stands where frames were dropped: no message may be put together across it."""


class Channel:
    """hear: told each message, in its order, with the time at which its last frame came. quieten:
    called when the bus falls silent or is lost; another vehicle may be there when it speaks again.
    """

    def __init__(
        self,
        context: Context[J1939Settings],
        wanted: frozenset[int],
        hear: Callable[[float, Message], None],
        quieten: Callable[[], None],
    ) -> None:
        self.name = context.settings.channel
        self.reassembly = Reassembly(wanted)
        self._context = context
        self._hear = hear
        self._quieten = quieten
        self._heard: dict[int, float] = {}
        self._frames: deque[_Frame] = deque()
        self._dropping = False
        self._news = asyncio.Event()
        self._dropped = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper = Keeper(
            self.name,
            context.settings,
            context,
            self._put,
            report=self._changed,
            filters=_EXTENDED,
            longest_s=context.settings.reconnect_max_s,
            silent_s=context.settings.silent_s,
        )

    @property
    def is_open(self) -> bool:
        """Whether frames can come and go."""
        return self._keeper.pump.is_open

    @property
    def state(self) -> str | None:
        """As `adapter.state` has it; None until the first attempt to open it."""
        return self._keeper.state

    @property
    def detail(self) -> str:
        """Its state in words."""
        return self._keeper.detail

    @property
    def dropped(self) -> int:
        """Frames that came faster than they could be taken, here or in the kernel."""
        return self._dropped + self._keeper.pump.dropped

    def heard(self) -> dict[int, float]:
        """Source addresses, and when each was last heard (monotonic), since the bus was silent."""
        return dict(self._heard)

    def is_heard(self, address: int) -> bool:
        """Whether a control unit has sent anything lately."""
        last = self._heard.get(address)
        return last is not None and time.monotonic() - last < self._context.settings.silent_s

    async def run(self) -> None:
        """Keep the channel open for ever. Raises FatalError where no attempt can help."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(), name="j1939:frames")
            group.create_task(self._keeper.run(), name="j1939:channel")

    def _changed(self, _: str) -> None:
        """The channel has another state than before."""
        if self._keeper.state != CONNECTED:
            self._heard.clear()
            self._quieten()

    # -- what comes ------------------------------------------------------------------------------

    def _put(self, frame: can.Message) -> None:
        """On the pump's thread: keep what is wanted, and note who speaks."""
        can_id = frame.arbitration_id
        if not frame.is_extended_id or frame.is_fd or not frame.is_rx:
            return
        now = time.monotonic()
        self._heard[can_id & 0xFF] = now
        if pgn_of(can_id) not in WANTED:
            return
        if len(self._frames) >= MAX_FRAMES:
            self._dropped += 1
            if not self._dropping:
                self._dropping = True
                self._frames.append(_GAP)
            return
        self._dropping = False
        self._frames.append((now, can_id, bytes(frame.data)))
        if len(self._frames) == 1 and self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def _take(self) -> None:
        """Hand on messages as they become whole, and say what the transport protocol asks for."""
        while True:
            try:
                async with asyncio.timeout(_GLANCE_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            while self._frames:
                for _ in range(min(_BATCH, len(self._frames))):
                    self._frame(self._frames.popleft())
                await self._send_outgoing()
                await asyncio.sleep(0)
            self.reassembly.expire(time.monotonic())
            await self._send_outgoing()

    def _frame(self, frame: _Frame) -> None:
        if frame is _GAP:
            self.reassembly.reset()
            return
        now, can_id, data = frame
        identifier = Identifier.read(can_id)
        if identifier.pgn in {TP_CM, TP_DT}:
            message = self.reassembly.take(now, identifier, data)
        else:
            message = Message(identifier.pgn, identifier.source, identifier.destination, data)
        if message is not None:
            self._hear(now, message)

    # -- what goes -------------------------------------------------------------------------------

    async def send(self, identifier: Identifier, data: bytes) -> None:
        """Send one frame. Raises PluginError where that cannot be, or must not."""
        if self._context.settings.listen_only:
            raise PluginError("Nothing is sent: `listen_only` is set.")
        if not self.is_open:
            raise PluginError(f"{self.name} is not open: {self.detail.rstrip('.')}.")
        frame = can.Message(arbitration_id=identifier.can_id(), data=data, is_extended_id=True)
        await self._context.run_blocking(self._keeper.pump.send, frame)

    def say(self, identifier: Identifier, data: bytes) -> None:
        """Have one frame sent soon; where that fails it is logged."""
        self.reassembly.outgoing.append((identifier, data))
        self._news.set()

    async def _send_outgoing(self) -> None:
        while self.reassembly.outgoing:
            try:
                await self.send(*self.reassembly.outgoing.pop(0))
            except PluginError as error:
                self._context.log.warning("a frame was not sent", reason=str(error))

    def counts(self) -> dict[str, Any]:
        """What was lost, by cause; only what happened."""
        reassembly = self.reassembly
        found = {
            "dropped": self.dropped,
            "interrupted": reassembly.interrupted,
            "aborted": reassembly.aborted,
            "malformed": reassembly.malformed,
            "refused": reassembly.refused,
        }
        return {cause: count for cause, count in found.items() if count}
