"""Takes a channel's frames on a worker thread, for as long as somebody wants them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import can

from nexus_agent.plugin import RetryError
from nexus_plugins.canbus.bus import Filter, close_bus, missed, open_bus
from nexus_plugins.canbus.settings import ChannelSettings

_PAUSE_S: Final = 0.1
"""How long the thread may wait for a frame before it looks whether it shall stop."""
_SEND_S: Final = 1.0
_BUS_OFF: Final = 0x40
_RESTARTED: Final = 0x100
"""CAN_ERR_BUSOFF and CAN_ERR_RESTARTED of an error frame's identifier (linux/can/error.h)."""
_BUS_OFF_S: Final = 5.0
"""An adapter that does not come back from bus-off by itself is opened anew after so long."""
_CLASSIC: Final = 8

Sink = Callable[[can.Message], None]
"""Given each data frame on the pump's thread: it must not wait, nor touch the loop."""


class Pump:
    """One channel: `run` it in a worker thread, again after it has raised; `stop` it for good.

    Counted over all runs: `frames` of data, `errors` (error frames, and what came from the adapter
    and is no frame), `bus_offs`. `bus_off` is true from the frame that says so until the adapter
    says that it has started again, or a frame of data comes.
    """

    def __init__(
        self, settings: ChannelSettings, sink: Sink, filters: Iterable[Filter] | None = None
    ) -> None:
        self.frames = 0
        self.errors = 0
        self.bus_offs = 0
        self.bus_off = False
        self.is_open = False
        self._settings = settings
        self._sink = sink
        self._filters = filters
        self._stopped = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._bus: can.BusABC | None = None
        self._bus_off_at = 0.0
        self._missed = 0
        self._missed_before = 0

    def run(self) -> None:
        """Open the channel, hand on its frames until stopped, close it. Raises as `open_bus`, and
        RetryError when the adapter goes, or stays bus-off.
        """
        self._idle.clear()
        try:
            if not self._stopped.is_set():
                self._run()
        finally:
            self._idle.set()

    def stop(self) -> None:
        """End `run` within a tenth of a second or so, and let it not begin again."""
        self._stopped.set()

    @property
    def is_idle(self) -> bool:
        """Whether no `run` is under way: the adapter is given back."""
        return self._idle.is_set()

    @property
    def dropped(self) -> int:
        """Frames that came faster than they were taken, as far as the kernel counts them."""
        bus = self._bus
        if bus is not None:
            self._missed = max(self._missed, missed(bus))
        return self._missed_before + self._missed

    def send(self, message: can.Message) -> None:
        """Send a frame; from any thread but the loop's. Raises RetryError."""
        bus = self._bus
        if bus is None:
            raise RetryError(f"{self._settings.channel} is not open.")
        try:
            bus.send(message, timeout=_SEND_S)
        except (can.CanError, OSError) as error:
            raise RetryError(f"{self._settings.channel} does not send: {error}.") from error

    def _run(self) -> None:
        bus = open_bus(self._settings, self._filters)
        try:
            self._bus, self.bus_off, self.is_open = bus, False, True
            while not self._stopped.is_set():
                self._turn(bus)
        except (can.CanError, OSError) as error:
            raise RetryError(f"{self._settings.channel} has gone: {error}.") from error
        finally:
            self._missed_before, self._missed = self.dropped, 0
            self._bus, self.is_open = None, False
            close_bus(bus)

    def _turn(self, bus: can.BusABC) -> None:
        try:
            message = bus.recv(_PAUSE_S)
        except (ValueError, IndexError):  # how python-can says that a line is no frame
            self.errors += 1
            return
        if message is not None and not message.is_remote_frame:
            self._take(message)
        if self.bus_off and time.monotonic() - self._bus_off_at > _BUS_OFF_S:
            raise RetryError(f"{self._settings.channel} stays bus-off.")

    def _take(self, message: can.Message) -> None:
        if message.is_error_frame:
            self.errors += 1
            self._take_error(message.arbitration_id)
        elif len(message.data) < (message.dlc if message.is_fd else min(message.dlc, _CLASSIC)):
            self.errors += 1
        else:
            self.frames += 1
            self.bus_off = False
            self._sink(message)

    def _take_error(self, says: int) -> None:
        if says & _BUS_OFF:
            self.bus_off = True
            self.bus_offs += 1
            self._bus_off_at = time.monotonic()
        elif says & _RESTARTED:
            self.bus_off = False
