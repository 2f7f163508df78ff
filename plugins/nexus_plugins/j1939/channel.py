"""One CAN channel: kept open, its frames turned into messages, its state told."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import can

from nexus_agent.plugin import Context, FatalError, PluginError, RetryError, catalogue
from nexus_plugins.canbus.pump import Pump
from nexus_plugins.j1939.identifier import TP_CM, TP_DT, WANTED, Identifier, Message, pgn_of
from nexus_plugins.j1939.settings import J1939Settings
from nexus_plugins.j1939.transport import Reassembly

MAX_FRAMES: Final = 5000
"""Frames that wait for the loop; a second of a busy bus."""
_BATCH: Final = 200
"""Frames that are taken before others have a turn on the loop."""
_FIRST_PAUSE_S: Final = 1.0
_GLANCE_S: Final = 0.2
"""From one look at the clock, and at the channel, to the next."""
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
        self.state: str | None = None
        self.detail = "it was not opened yet"
        self.dropped = 0
        """Frames that came faster than they could be taken."""
        self._context = context
        self._hear = hear
        self._quieten = quieten
        self._heard: dict[int, float] = {}
        self._frames: deque[_Frame] = deque()
        self._dropping = False
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump: Pump | None = None

    @property
    def is_open(self) -> bool:
        """Whether frames can come and go."""
        return self._pump is not None and self._pump.is_open

    def heard(self) -> dict[int, float]:
        """Source addresses, and when each was last heard (monotonic), since the bus was silent."""
        return dict(self._heard)

    def is_heard(self, address: int) -> bool:
        """Whether a control unit has sent anything lately."""
        last = self._heard.get(address)
        return last is not None and time.monotonic() - last < self._context.settings.silent_s

    # -- keeping it open -------------------------------------------------------------------------

    async def keep_open(self) -> FatalError:
        """Keep the channel open; a lost one is tried again after a growing pause. Returns when no
        further try can help, and says why.
        """
        self._loop = asyncio.get_running_loop()
        pause = first = min(_FIRST_PAUSE_S, self._context.settings.reconnect_max_s)
        while True:
            begun = time.monotonic()
            error = await self._hold()
            await self._tell("lost", str(error))
            if isinstance(error, FatalError):
                return error
            longest = self._context.settings.reconnect_max_s
            if time.monotonic() - begun > longest:
                pause = first
            await asyncio.sleep(min(pause, longest))
            pause = min(2 * pause, longest)

    async def _hold(self) -> PluginError:
        """From opening the channel to its loss; returns why it is lost."""
        pump = Pump(self._context.settings, self._put, _EXTENDED)
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch(pump), name="j1939:state")
            self._pump = pump
            try:
                await self._context.run_blocking(pump.run)
            except (RetryError, FatalError) as error:
                return error
            finally:
                self._pump = None
                pump.stop()
                watch.cancel()
        return RetryError(f"{self.name} was closed.")

    async def _watch(self, pump: Pump) -> None:
        """Tell how the channel is, for as long as it is open."""
        quiet_since, frames = time.monotonic(), pump.frames
        while True:
            await asyncio.sleep(_GLANCE_S)
            now = time.monotonic()
            if not pump.is_open or pump.frames != frames:
                quiet_since = now
            if pump.bus_off:
                await self._tell("bus_off", "the adapter has left the bus after too many errors")
            elif pump.frames != frames:
                await self._tell("connected", f"{self.name} is open and the bus is busy")
            elif now - quiet_since >= self._context.settings.silent_s:
                await self._tell("silent", "the channel is open and no frame comes")
            frames = pump.frames

    async def _tell(self, state: str, detail: str) -> None:
        """Emit `adapter.state` when the state changes."""
        self.detail = detail
        if state == self.state:
            return
        self.state = state
        if state != "connected":
            self._heard.clear()
            self._quieten()
        self._context.log.info("channel state", channel=self.name, state=state, detail=detail)
        data = catalogue.vehicle.AdapterState(
            adapter=self.name, state=state, detail=detail, protocol="SAE J1939"
        )
        await self._context.emit(data.type, data)

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
            self.dropped += 1
            if not self._dropping:
                self._dropping = True
                self._frames.append(_GAP)
            return
        self._dropping = False
        self._frames.append((now, can_id, bytes(frame.data)))
        if len(self._frames) == 1 and self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def take(self) -> None:
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
        pump = self._pump
        if pump is None or not self.is_open:
            raise PluginError(f"{self.name} is not open: {self.detail}")
        frame = can.Message(arbitration_id=identifier.can_id(), data=data, is_extended_id=True)
        await self._context.run_blocking(pump.send, frame)

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
