"""The drop-ins for serial ports and CAN: what they let through, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.systemd.box import AGENT, Box, exposure
from tests.systemd.conftest import SERIAL_PORTS

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]


def shipped(box: Box, drop_in: str) -> str:
    file = Path("usr/share/nexus-agent/drop-ins", f"{drop_in}.conf")
    return (box.machine.root / file).read_text("utf-8")


@pytest.mark.parametrize(
    ("drop_ins", "most"),
    [
        ("", 1.2),
        ("serial-fixed", 1.2),
        ("serial", 1.4),
        ("can", 1.5),
        ("serial-fixed can", 1.5),
        ("serial can", 1.6),
    ],
)
async def test_the_exposure_is_as_documented(box: Box, drop_ins: str, most: float) -> None:
    for name in drop_ins.split():
        await box.machine.drop_in(name, shipped(box, name))
    try:
        report = await box.machine.run("systemd-analyze", "security", "--no-pager", AGENT)
    finally:
        for name in drop_ins.split():
            await box.machine.drop_in(name, "")
    assert exposure(report) <= most


@pytest.mark.parametrize(
    ("drop_in", "port"), [("serial-fixed", "/dev/ttyS0"), ("serial", "/dev/ttyUSB0")]
)
async def test_a_serial_adapter_works_in_the_sandbox(box: Box, drop_in: str, port: str) -> None:
    unit = f"Environment=NEXUS_PLUGINS__OBD__PORT={port}\n"
    async with box.altered(drop_in, shipped(box, drop_in) + unit):
        event = await box.event("adapter.state", lambda e: bool(e["data"]["adapter"] == port))
        assert event["data"]["state"] == "connected"
        await box.event("telemetry.pid", lambda e: bool(e["time"] > event["time"]))


async def test_a_fixed_port_is_the_only_device_to_be_seen(box: Box) -> None:
    async with box.altered("serial-fixed", shipped(box, "serial-fixed")):
        await box.connected()
        seen = (await box.machine.run("ls", f"/proc/{await box.pid()}/root" + "/dev")).split()
    assert [name for name in seen if f"/dev/{name}" in SERIAL_PORTS] == ["ttyS0"]


async def test_a_fixed_port_that_is_not_there_stops_nothing(box: Box) -> None:
    absent = shipped(box, "serial-fixed").replace("ttyS0", "ttyS9")
    async with box.altered("serial-fixed", absent):
        await box.connected()
