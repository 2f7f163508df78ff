"""The glue between a link and bleak, against a client with bleak's interface and no radio."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from nexus_agent.plugin import FatalError
from nexus_plugins.obd import ble, transport
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.transport import LinkError

BASE = "0000{}-0000-1000-8000-00805f9b34fb"
NORDIC = "6E400001-B5A3-F393-E0A9-E50E24DCCA9E"


class RadioError(Exception):
    """What the client raises."""


@dataclass(eq=False)
class Characteristic:
    uuid: str
    properties: list[str]


@dataclass
class Service:
    uuid: str
    characteristics: list[Characteristic]


@dataclass
class Client:
    """A client of an adapter that answers AT commands, in notifications of four bytes."""

    services: list[Service]
    gone: Callable[[Any], None]
    fails: bool = False
    stuck: bool = False
    written: list[tuple[str, bytes, bool]] = field(default_factory=list)
    disconnected: bool = False
    notify: Callable[[Any, bytearray], None] | None = None
    notifying: str = ""

    async def connect(self) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        if self.fails:
            raise RadioError("not in reach")

    async def disconnect(self) -> None:
        self.disconnected = True

    async def start_notify(
        self, characteristic: Characteristic, callback: Callable[[Any, bytearray], None]
    ) -> None:
        self.notifying, self.notify = characteristic.uuid, callback

    async def write_gatt_char(
        self, characteristic: Characteristic, data: bytes, response: bool
    ) -> None:
        if self.fails:
            raise RadioError("write failed")
        self.written.append((characteristic.uuid, data, response))
        says = b"ELM327 v2.1\r\r>" if data == b"ATZ\r" else b"OK\r\r>"
        assert self.notify is not None
        for at in range(0, len(says), 4):
            self.notify(characteristic, bytearray(says[at : at + 4]))


class Radio:
    error: type[Exception] = RadioError

    def __init__(self, *services: Service, heard: bool = True) -> None:
        self.services = list(services)
        self.heard = heard
        self.made: list[Client] = []
        self.options: dict[str, Any] = {}

    async def find(self, target: str, within_s: float) -> Any:
        return target if self.heard else None

    def client(self, device: Any, gone: Callable[[Any], None]) -> Client:
        self.made.append(Client(self.services, gone, **self.options))
        return self.made[-1]


def service(short: str, *characteristics: tuple[str, list[str]]) -> Service:
    uuid = BASE.format(short) if len(short) == 4 else short
    return Service(uuid, [Characteristic(*each) for each in characteristics])


FFF0 = service("fff0", ("fff1", ["notify"]), ("fff2", ["write", "write-without-response"]))
OTHER = service("180a", ("2a29", ["read"]))


@pytest.mark.parametrize(
    ("offered", "notifying", "written", "response"),
    [
        (FFF0, "fff1", "fff2", False),
        (service("ffe0", ("ffe1", ["notify", "write"])), "ffe1", "ffe1", True),
        (
            service("ffe0", ("ffe1", ["notify", "write-without-response"]), ("ffe2", ["write"])),
            *("ffe1", "ffe2", True),
        ),
        (
            service(NORDIC, ("rx", ["write-without-response"]), ("tx", ["notify"])),
            "tx",
            "rx",
            False,
        ),
    ],
    ids=["FFF0", "FFE0", "FFE0 with FFE2", "Nordic UART"],
)
async def test_an_adapter_speaks_through_its_serial_service(
    offered: Service, notifying: str, written: str, response: bool
) -> None:
    radio = Radio(OTHER, offered)
    async with ble.opened("OBDII", within_s=1, radio=radio) as link:
        elm = Elm327(link, timeout_s=1, search_timeout_s=1)
        await elm.set_up()

    (client,) = radio.made
    assert elm.version == "ELM327 v2.1"
    assert client.notifying == notifying
    assert client.written[0] == (written, b"ATZ\r", response)
    assert client.disconnected


async def test_a_device_without_a_serial_service_is_refused_and_let_go() -> None:
    radio = Radio(OTHER)
    with pytest.raises(LinkError, match=r"no service for a serial line .* it has 0000180a-"):
        async with ble.opened("OBDII", within_s=1, radio=radio):
            pass

    assert radio.made[0].disconnected


async def test_a_device_that_is_not_heard_is_named_so() -> None:
    with pytest.raises(LinkError, match="no such BLE device is heard"):
        async with ble.opened("OBDII", within_s=1, radio=Radio(heard=False)):
            pass


@pytest.mark.parametrize(
    ("option", "reason"),
    [("fails", "Bluetooth: not in reach"), ("stuck", r"does not open within 0.05 s")],
)
async def test_a_connection_that_fails_is_a_link_error(option: str, reason: str) -> None:
    radio = Radio(FFF0)
    radio.options[option] = True
    with pytest.raises(LinkError, match=reason):
        async with ble.opened("OBDII", within_s=0.05, radio=radio):
            pass

    assert radio.made[0].disconnected


async def test_a_device_that_goes_is_a_lost_link() -> None:
    radio = Radio(FFF0)
    async with ble.opened("OBDII", within_s=1, radio=radio) as link:
        radio.made[0].gone(radio.made[0])
        assert link.lost
        with pytest.raises(LinkError, match="closed"):
            await link.write(b"010C\r")


async def test_a_write_that_fails_is_a_link_error() -> None:
    radio = Radio(FFF0)
    async with ble.opened("OBDII", within_s=1, radio=radio) as link:
        radio.made[0].fails = True
        with pytest.raises(LinkError, match="Bluetooth: write failed"):
            await link.write(b"010C\r")


async def test_without_bleak_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bleak", None)
    with pytest.raises(FatalError, match=r"install nexus-core-agent\[ble\]"):
        async with transport.opened("ble://OBDII", baudrate=38400, within_s=1):
            pass


def test_bleaks_own_classes_fit() -> None:
    bleak = pytest.importorskip("bleak")
    radio = ble.bleak_radio()

    assert issubclass(radio.error, Exception)
    for name in ("connect", "disconnect", "start_notify", "write_gatt_char", "services"):
        assert hasattr(bleak.BleakClient, name)
