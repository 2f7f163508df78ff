"""Control units on a CAN channel: ISO 15765-2, by can-isotp over python-can."""

from __future__ import annotations

import logging
import time
from typing import Final

import can
import isotp
from isotp import errors

from nexus_agent.plugin import RetryError
from nexus_plugins.canbus.bus import Filter, open_bus
from nexus_plugins.uds.link import Garbled, Link, LinkError
from nexus_plugins.uds.settings import LinkOptions

_LOGGER: Final = "nexus_plugins.uds.isotp"
logging.getLogger(_LOGGER).setLevel(logging.CRITICAL)
"""can-isotp writes frames into its log, and one may hold the VIN; errors reach us otherwise."""

_PARAMS: Final = {
    "tx_padding": 0xCC,  # ISO 15765-2 section 10.4.2.1; many control units ignore shorter frames
    "blocksize": 0,  # ISO 15765-4 section 9.5: what a tester asks for
    "stmin": 0,
    "rx_consecutive_frame_timeout": 1000,  # ms, N_Cr of ISO 15765-2 table 19
    "logger_name": _LOGGER,
}
_LONGEST_S: Final = 30.0
"""A message that was begun may take this long, however slowly it comes."""
_STALE_FRAMES: Final = 10_000
"""So many frames are looked through for what was said before a question."""
_BUS_OFF: Final = 0x40
"""CAN_ERR_BUSOFF of an error frame's identifier (linux/can/error.h)."""
_DAMAGED: Final = (
    errors.ConsecutiveFrameTimeoutError,
    errors.WrongSequenceNumberError,
    errors.ReceptionInterruptedWithFirstFrameError,
    errors.ReceptionInterruptedWithSingleFrameError,
    errors.FrameTooLongError,
    errors.ChangingInvalidRXDLError,
    errors.InvalidCanDataError,
    errors.InvalidCanFdFirstFrameRXDL,
)
"""What ends an answer. Frames that no answer was begun for are the rest of an older one."""


class CanLink(Link):
    """One CAN channel; a target is a request's identifier, or a control unit's 29-bit address."""

    def __init__(self, settings: LinkOptions) -> None:
        super().__init__()
        self._settings = settings
        self._bus: can.BusABC | None = None
        self._layer: isotp.TransportLayerLogic | None = None
        self._until = 0.0
        self._damage: str | None = None

    def open(self) -> None:
        try:
            self._bus = open_bus(self._settings.channel_settings(), self._filters())
        except RetryError as error:
            raise LinkError(str(error).removesuffix(".")) from error

    def close(self) -> None:
        bus, self._bus, self._layer = self._bus, None, None
        if bus is not None:
            bus.shutdown()

    def probe(self) -> None:
        self.open()
        self.close()

    def send(self, target: int, payload: bytes) -> None:
        bus = self._open_bus()
        for _ in range(_STALE_FRAMES):
            if self._frame(bus, 0.0) is None:
                break
        self._damage = None
        self._layer = isotp.TransportLayerLogic(
            rxfn=self._take, txfn=self._put, address=self._address(target), params=_PARAMS,
            error_handler=self._note,
        )  # fmt: skip
        self._layer.send(payload)
        self._layer.process(do_rx=False)

    def receive(self, until: float) -> bytes | None:
        layer = self._layer
        if layer is None:
            raise LinkError(f"{self._settings.channel} is not open")
        latest = until + _LONGEST_S
        while not layer.available():
            begun = layer.is_rx_active()
            self._until = latest if begun else until
            if time.monotonic() > self._until:
                if begun:
                    raise Garbled("an answer that does not come to its end")
                return None
            layer.process()
            if self._damage is not None:
                raise Garbled(self._damage)
        message = layer.recv()
        return None if message is None else bytes(message)

    # -- frames ----------------------------------------------------------------------------------

    @property
    def _is_short(self) -> bool:
        return self._settings.addressing == "11bit"

    def _address(self, target: int) -> isotp.Address:
        request, response = self._settings.identifiers(target)
        if self._is_short:
            mode = isotp.AddressingMode.Normal_11bits
        else:
            mode = isotp.AddressingMode.Normal_29bits
        return isotp.Address(mode, txid=request, rxid=response)

    def _filters(self) -> list[Filter]:
        """Nothing else need be looked at. With 29 bits one filter fits every control unit."""
        bus_off: Filter = {"can_id": _BUS_OFF, "can_mask": 0x7FF, "extended": False}
        if not self._is_short:
            tester = 0x18DA0000 | self._settings.tester << 8
            return [bus_off, {"can_id": tester, "can_mask": 0x1FFFFF00, "extended": True}]
        return [
            bus_off,
            *(
                {
                    "can_id": self._settings.identifiers(target)[1],
                    "can_mask": 0x7FF,
                    "extended": False,
                }
                for target in self._settings.candidates()
            ),
        ]

    def _take(self, _timeout: float) -> isotp.CanMessage | None:
        """The next frame for can-isotp, which calls it until there is none."""
        bus = self._open_bus()
        wait = self.patience(self._until)
        if wait <= 0 or self._damage is not None or (self._layer and self._layer.available()):
            return None
        message = self._frame(bus, wait)
        if message is None or message.is_remote_frame:
            return None
        if message.is_error_frame:
            if message.arbitration_id & _BUS_OFF:
                raise LinkError(
                    f"{self._settings.channel} is off the bus: its wires or its bitrate are wrong",
                    state="bus_off",
                )
            return None
        return isotp.CanMessage(
            arbitration_id=message.arbitration_id,
            data=bytes(message.data),
            extended_id=message.is_extended_id,
        )

    def _put(self, message: isotp.CanMessage) -> None:
        bus = self._open_bus()
        frame = can.Message(
            arbitration_id=message.arbitration_id,
            data=message.data,
            is_extended_id=message.is_extended_id,
        )
        try:
            bus.send(frame, timeout=self.POLL_S)
        except (can.CanError, OSError) as error:
            raise LinkError(f"{self._settings.channel} does not send: {error}") from error

    def _frame(self, bus: can.BusABC, wait: float) -> can.Message | None:
        try:
            return bus.recv(wait)
        except (can.CanError, OSError) as error:
            raise LinkError(f"{self._settings.channel} has gone: {error}") from error

    def _open_bus(self) -> can.BusABC:
        if self._bus is None:
            raise LinkError(f"{self._settings.channel} is not open")
        return self._bus

    def _note(self, error: Exception) -> None:
        if isinstance(error, _DAMAGED):
            self._damage = _WORDS.get(type(error), "an answer that is damaged")


_WORDS: Final[dict[type[Exception], str]] = {
    errors.ConsecutiveFrameTimeoutError: "an answer that does not come to its end",
    errors.WrongSequenceNumberError: "an answer of which a frame is missing",
    errors.FrameTooLongError: "an answer that is longer than 4095 bytes",
}
