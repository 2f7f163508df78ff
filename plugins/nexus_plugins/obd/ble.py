"""The way to an adapter over Bluetooth Low Energy, with bleak.

Such an adapter has a GATT service that stands for a serial line: what it says comes as
notifications of one characteristic, what it is told is written to another, or to the same one.
There is no standard for it. Sources of the services in `_SERIAL`: Nordic Semiconductor, "Nordic
UART Service"; JNHuaMao, HM-10 data sheet (FFE0 with FFE1); the others as adapters are known to have
them (FFF0 with FFF1 and FFF2; 18F0 with 2AF0 and 2AF1 of Vgate's; E7810A71 of "IOS-Vlink").
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

from nexus_agent.plugin import FatalError
from nexus_plugins.obd.transport import Link, LinkError

_SERIAL: Final = (
    "0000fff0-0000-1000-8000-00805f9b34fb",
    "0000ffe0-0000-1000-8000-00805f9b34fb",
    "6e400001-b5a3-f393-e0a9-e50e24dcca9e",
    "000018f0-0000-1000-8000-00805f9b34fb",
    "e7810a71-73ae-499d-8c15-faa9aef0c3f2",
)
_ADDRESS: Final = re.compile(r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}", re.IGNORECASE)
_GOODBYE_S: Final = 2.0
"""How long an adapter may take to be let go; a plugin has five seconds to end."""


class Characteristic(Protocol):
    """Of bleak's `BleakGATTCharacteristic`, what is used here."""

    @property
    def properties(self) -> Sequence[str]: ...


class Service(Protocol):
    """Of bleak's `BleakGATTService`, what is used here."""

    @property
    def uuid(self) -> str: ...
    @property
    def characteristics(self) -> Sequence[Any]: ...


class Client(Protocol):
    """Of bleak's `BleakClient`, what is used here."""

    @property
    def services(self) -> Iterable[Service]: ...
    async def connect(self) -> None: ...
    async def disconnect(self) -> None: ...
    async def start_notify(
        self, char_specifier: Any, callback: Callable[[Any, bytearray], None], /
    ) -> None: ...
    async def write_gatt_char(self, char_specifier: Any, data: bytes, response: bool) -> None: ...


class Radio(Protocol):
    """Finds devices and makes clients of them."""

    error: type[Exception]
    """What the client raises when something fails."""

    async def find(self, target: str, within_s: float) -> Any:
        """The device with *target* as its address or name; None where it is not heard."""

    def client(self, device: Any, gone: Callable[[Any], None]) -> Client:
        """A client of *device*; *gone* is called when the connection ends."""


@asynccontextmanager
async def opened(
    target: str, *, within_s: float, radio: Radio | None = None
) -> AsyncIterator[Link]:
    """A connection to the adapter *target*, an address or a name, until the block ends.

    Raises LinkError, and FatalError where bleak is not installed.
    """
    radio = radio or bleak_radio()
    link = BleLink(radio, within_s)
    try:
        await link.open(target)
        yield link
    finally:
        await link.let_go()


def _serial(services: Iterable[Service]) -> tuple[Any, Any]:
    """The characteristics that notify and that are written to."""
    by_uuid = {service.uuid.lower(): service for service in services}
    for uuid in _SERIAL:
        if (service := by_uuid.get(uuid)) is None:
            continue
        notifying = [c for c in service.characteristics if "notify" in c.properties]
        writable = [c for c in service.characteristics if _writes(c)]
        if notifying and writable:
            # Where there are two, one is for each direction, whatever else they can do.
            others = [each for each in writable if each is not notifying[0]]
            return notifying[0], (others or writable)[0]
    raise LinkError(
        f"it has no service for a serial line that is known; it has {', '.join(by_uuid) or 'none'}"
    )


def _writes(characteristic: Characteristic) -> bool:
    return not {"write", "write-without-response"}.isdisjoint(characteristic.properties)


class BleLink(Link):
    """A link to a GATT service; `open` it, and `let_go` of it in any case."""

    def __init__(self, radio: Radio, within_s: float) -> None:
        super().__init__()
        self._radio = radio
        self._within_s = within_s
        self._client: Client | None = None
        self._writable: Any = None
        self._response = False

    async def open(self, target: str) -> None:
        """Find *target* and connect to it. Raises LinkError."""
        async with self._in_time("it does not open"):
            device = await self._radio.find(target, self._within_s)
            if device is None:
                raise LinkError("no such BLE device is heard: is it powered and in reach?")
            client = self._client = self._radio.client(device, self._gone)
            await client.connect()
            notifying, self._writable = _serial(client.services)
            self._response = "write-without-response" not in self._writable.properties
            await client.start_notify(notifying, self._heard)

    async def write(self, data: bytes) -> None:
        """Send *data*; a request has at most 16 bytes, and every BLE link carries 20 at once."""
        if self.lost or self._client is None:
            raise LinkError("the connection is closed")
        async with self._in_time("it takes no request"):
            await self._client.write_gatt_char(self._writable, data, response=self._response)

    async def let_go(self) -> None:
        """Disconnect; an adapter that does not take its leave is left alone."""
        self.close()
        if self._client is None:
            return
        with suppress(TimeoutError, self._radio.error):
            async with asyncio.timeout(_GOODBYE_S):
                await self._client.disconnect()

    def _heard(self, _: Any, data: bytearray) -> None:
        self.data_received(bytes(data))

    def _gone(self, _: Any) -> None:
        self.connection_lost(None)

    @asynccontextmanager
    async def _in_time(self, otherwise: str) -> AsyncIterator[None]:
        """Make LinkErrors of what goes wrong in the block."""
        try:
            async with asyncio.timeout(self._within_s):
                yield
        except TimeoutError:
            raise LinkError(f"{otherwise} within {self._within_s:g} s") from None
        except self._radio.error as error:
            raise LinkError(f"Bluetooth: {error}") from None


def bleak_radio() -> Radio:
    """The machine's own radio. Raises FatalError where bleak is not installed."""
    try:
        import bleak
        from bleak.exc import BleakError
    except ImportError:
        raise FatalError(
            "BLE adapters need the extra 'ble': install nexus-core-agent[ble]"
        ) from None
    # At debug level it logs every byte, and a VIN is among them.
    logging.getLogger("bleak").setLevel(logging.INFO)

    class BleakRadio:
        error: type[Exception] = BleakError

        async def find(self, target: str, within_s: float) -> Any:
            if _ADDRESS.fullmatch(target):
                return await bleak.BleakScanner.find_device_by_address(target, timeout=within_s)
            return await bleak.BleakScanner.find_device_by_name(target, timeout=within_s)

        def client(self, device: Any, gone: Callable[[Any], None]) -> Client:
            return bleak.BleakClient(device, disconnected_callback=gone)

    return BleakRadio()
