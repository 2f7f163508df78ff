"""Takes a channel's frames on a worker thread, for as long as somebody wants them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

import can

from nexus_agent.plugin import RetryError
from nexus_plugins.canbus.bus import Filter, open_bus
from nexus_plugins.canbus.settings import ChannelSettings

_PAUSE_S: Final = 0.1
"""How long the thread may wait for a frame before it looks whether it shall stop."""
_BUS_OFF: Final = 0x40
"""CAN_ERR_BUSOFF of an error frame's identifier (linux/can/error.h)."""

Sink = Callable[[can.Message], None]
"""Given each data frame on the pump's thread: it must not wait, nor touch the loop."""


class Pump:
    """One channel: `run` it in a worker thread, `stop` it from anywhere.

    frames and errors count what came; bus_off is true from the frame that says so until another
    data frame comes.
    """

    def __init__(
        self, settings: ChannelSettings, sink: Sink, filters: Iterable[Filter] | None = None
    ) -> None:
        self.frames = 0
        self.errors = 0
        self.bus_off = False
        self.is_open = False
        self._settings = settings
        self._sink = sink
        self._filters = filters
        self._stopped = threading.Event()
        self._bus: can.BusABC | None = None

    def run(self) -> None:
        """Open the channel, hand on its frames until stopped, close it. Raises as `open_bus`, and
        RetryError when the adapter goes.
        """
        bus = open_bus(self._settings, self._filters)
        try:
            self._bus, self.is_open = bus, True
            while not self._stopped.is_set():
                self._take(bus.recv(_PAUSE_S))
        except (can.CanError, OSError) as error:
            raise RetryError(f"{self._settings.channel} has gone: {error}.") from error
        finally:
            self._bus, self.is_open = None, False
            bus.shutdown()

    def stop(self) -> None:
        """End `run` within a tenth of a second."""
        self._stopped.set()

    def send(self, message: can.Message) -> None:
        """Send a frame; from any thread but the loop's. Raises RetryError."""
        bus = self._bus
        if bus is None:
            raise RetryError(f"{self._settings.channel} is not open.")
        try:
            bus.send(message)
        except (can.CanError, OSError) as error:
            raise RetryError(f"{self._settings.channel} does not send: {error}.") from error

    def _take(self, message: can.Message | None) -> None:
        if message is None or message.is_remote_frame:
            return
        if message.is_error_frame:
            self.errors += 1
            self.bus_off = self.bus_off or bool(message.arbitration_id & _BUS_OFF)
            return
        self.frames += 1
        self.bus_off = False
        self._sink(message)
