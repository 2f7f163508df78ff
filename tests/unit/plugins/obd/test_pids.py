"""Live values: formulas and supported PIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.pids import PIDS, Reading, read, supported, values_only


def reply(pid: int, data: bytes) -> Reply:
    return Reply("7E8", Quality.OK, (bytes([0x41, pid]) + data,))


@pytest.mark.parametrize(
    ("pid", "data", "value"),
    [
        (0x04, "FF", 100),
        (0x05, "00", -40),
        (0x06, "80", 0),
        (0x0B, "FF", 255),
        (0x0C, "1AF8", 1726),
        (0x0C, "0000", 0),
        (0x0D, "FF", 255),
        (0x0E, "80", 0),
        (0x0F, "7B", 83),
        (0x10, "0FA0", 40),
        (0x11, "00", 0),
        (0x1F, "0101", 257),
        (0x2F, "80", 50.2),
        (0x33, "65", 101),
        (0x42, "3610", 13.84),
        (0x46, "28", 0),
        (0x5C, "D2", 170),
    ],
)
def test_a_value_follows_the_standards_formula(pid: int, data: str, value: float) -> None:
    found = read(PIDS[pid], reply(pid, bytes.fromhex(data)))

    assert found == Reading(Quality.OK, value)


@given(pid=st.sampled_from(sorted(PIDS)), data=st.binary(max_size=8))
def test_a_wrong_length_is_never_a_value(pid: int, data: bytes) -> None:
    found = read(PIDS[pid], reply(pid, data))

    assert (found.value is not None) == (len(data) == PIDS[pid].length)
    assert (found.quality is Quality.OK) == (found.value is not None)


def test_a_refusal_has_no_value() -> None:
    found = read(PIDS[0x0C], Reply("7E8", Quality.REFUSED, detail="NRC", nrc=0x12))

    assert (found.value, found.quality) == (None, Quality.REFUSED)


def test_bits_name_the_supported_pids() -> None:
    found = supported(0, reply(0, bytes.fromhex("BE3EB811")))

    assert found is not None
    assert values_only(found) == [1, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 17, 19, 20, 21, 28]
    assert 0x20 in found


@given(base=st.sampled_from([0, 0x20, 0x40]), pids=st.sets(st.integers(1, 32)))
def test_any_set_of_supported_pids_survives(base: int, pids: set[int]) -> None:
    word = sum(1 << (32 - pid) for pid in pids)

    found = supported(base, reply(base, word.to_bytes(4, "big")))
    assert found == frozenset(base + pid for pid in pids)


def test_supported_pids_of_the_wrong_length_are_unknown() -> None:
    assert supported(0, reply(0, b"\xff\xff\xff")) is None
