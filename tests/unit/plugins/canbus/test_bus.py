"""A channel is opened as the settings say, or it is said why not."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import can
import pytest
from pydantic import ValidationError

from nexus_agent.plugin import FatalError, RetryError
from nexus_plugins.canbus.bus import close_bus, missed, open_bus
from nexus_plugins.canbus.settings import ChannelSettings


def test_an_unknown_kind_of_adapter_is_fatal() -> None:
    with pytest.raises(FatalError, match="no CAN interface 'telepathy' here"):
        open_bus(ChannelSettings(interface="telepathy", channel="can0"))


def test_a_kind_whose_driver_is_not_installed_is_fatal() -> None:
    with pytest.raises(FatalError, match="Install its driver"):
        open_bus(ChannelSettings(interface="ixxat", channel="0"))


@pytest.mark.parametrize("interface", ["socketcan", "slcan"])
def test_a_channel_that_is_not_there_may_come(interface: str) -> None:
    with pytest.raises(RetryError, match="cannot be opened"):
        open_bus(ChannelSettings(interface=interface, channel="/dev/none0"))


def test_settings_that_the_adapter_does_not_know_are_fatal() -> None:
    with pytest.raises(FatalError, match="does not know 'x@fast'"):
        open_bus(ChannelSettings(interface="slcan", channel="x@fast"))


def test_what_others_set_for_python_can_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "can.ini").write_text("[default]\nreceive_own_messages = true\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CAN_CONFIG", '{"receive_own_messages": true}')
    monkeypatch.chdir(tmp_path)
    bus = open_bus(ChannelSettings(interface="virtual", channel="own"))
    try:
        bus.send(can.Message(arbitration_id=1))
        assert bus.recv(0) is None
    finally:
        close_bus(bus)


def test_filters_reach_the_channel() -> None:
    bus = open_bus(
        ChannelSettings(interface="virtual", channel="filtered"),
        [{"can_id": 0x7E8, "can_mask": 0x7FF, "extended": False}],
    )
    with can.Bus(channel="filtered", interface="virtual", ignore_config=True) as other:
        other.send(can.Message(arbitration_id=0x7E0, is_extended_id=False))
        other.send(can.Message(arbitration_id=0x7E8, is_extended_id=False))
        try:
            message = bus.recv(1)
        finally:
            close_bus(bus)
    assert message is not None
    assert message.arbitration_id == 0x7E8


@pytest.mark.parametrize("bitrate", [0, 9_999, 1_000_001])
def test_a_bitrate_that_can_does_not_have_is_refused(bitrate: int) -> None:
    with pytest.raises(ValidationError, match="bitrate"):
        ChannelSettings(channel="can0", bitrate=bitrate)


class Socketed:
    """As python-can's SocketCAN has it: the socket lies open."""

    def __init__(self, line: socket.socket) -> None:
        self.socket = line


def test_what_the_kernel_had_no_room_for_is_counted() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        line.bind(("127.0.0.1", 0))
        before = missed(Socketed(line))  # type: ignore[arg-type]
        for _ in range(100):
            line.sendto(bytes(500), line.getsockname())
        lost = missed(Socketed(line))  # type: ignore[arg-type]
        line.setblocking(False)
        taken = 0
        while True:
            try:
                line.recv(500)
            except BlockingIOError:
                break
            taken += 1
    assert (before, lost + taken) == (0, 100)
    assert lost > 0
    assert missed(Socketed(line)) == 0, "a closed one is no error"  # type: ignore[arg-type]


def test_a_serial_adapter_that_has_gone_keeps_no_file_open() -> None:
    far, near = os.openpty()
    bus = open_bus(ChannelSettings(interface="slcan", channel=os.ttyname(near)))
    port = bus.serialPortOrig  # type: ignore[attr-defined]
    os.close(near)
    os.close(far)
    close_bus(bus)
    assert not port.is_open
