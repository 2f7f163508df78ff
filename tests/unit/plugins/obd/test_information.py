"""Service 09 beside the VIN: on CAN and on older buses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply
from nexus_plugins.obd.information import (
    COMPRESSION_COUNTERS,
    SPARK_COUNTERS,
    calibration,
    counters,
    items_of,
)

ABSENT = Reply("7E8", Quality.ABSENT, detail="did not answer")
INFOTYPES = st.sampled_from([SPARK_COUNTERS, COMPRESSION_COUNTERS])


def can(infotype: int, count: int, data: bytes) -> Reply:
    return Reply("7E8", Quality.OK, (bytes([0x49, infotype, count]) + data,))


def old(infotype: int, data: bytes) -> Reply:
    """As older buses send it: four bytes a message, each with its number."""
    parts = [data[i : i + 4] for i in range(0, len(data), 4)]
    return Reply(
        "10", Quality.OK, tuple(bytes([0x49, infotype, i + 1]) + p for i, p in enumerate(parts))
    )


@given(items=st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=6))
def test_items_are_the_same_on_can_and_on_older_buses(items: list[bytes]) -> None:
    data = b"".join(items)

    assert items_of(can(0x04, len(items), data), 16) == tuple(items)
    assert items_of(old(0x04, data), 16) == tuple(items)


@given(
    messages=st.lists(st.binary(max_size=40), min_size=1, max_size=6),
    size=st.sampled_from([2, 4, 16, 20]),
)
def test_any_bytes_are_whole_items_or_none(messages: list[bytes], size: int) -> None:
    found = items_of(Reply("10", Quality.OK, tuple(b"\x49\x04" + each for each in messages)), size)

    if not isinstance(found, str):
        assert found
        assert {len(item) for item in found} == {size}


@pytest.mark.parametrize("missing", range(8))
def test_a_part_that_is_missing_spoils_the_ids(missing: int) -> None:
    whole = old(0x04, b"37806-P3F-A01\0\0\0" * 2)
    rest = whole.messages[:missing] + whole.messages[missing + 1 :]

    found = calibration("10", Reply("10", Quality.OK, rest), ABSENT, ABSENT)

    assert (found.quality, found.ids) == (Quality.MALFORMED, ())


def test_ids_numbers_and_name_are_told() -> None:
    found = calibration(
        "7E8",
        can(0x04, 2, b"JMB*36761500\0\0\0\0JMB*47872611\0\0\0\0"),
        can(0x06, 2, bytes.fromhex("1791BC8216E062BE")),
        can(0x0A, 1, b"ECM\0-EngineControl\0\0"),
    )

    assert found.ids == ("JMB*36761500", "JMB*47872611")
    assert found.cvns == ("1791BC82", "16E062BE")
    assert found.name == "ECM-EngineControl"
    assert (found.quality, found.cvn_quality, found.detail) == (Quality.OK, Quality.OK, None)


def test_what_was_not_told_is_not_made_up() -> None:
    refused = Reply("7E8", Quality.REFUSED, detail="NRC 0x12", nrc=0x12)

    found = calibration("7E8", can(0x04, 1, b"\xff" * 16), refused, ABSENT)

    assert (found.quality, found.ids) == (Quality.MALFORMED, ())
    assert (found.cvn_quality, found.cvns, found.name) == (Quality.REFUSED, (), None)


def test_counters_are_named_by_their_place() -> None:
    words = [500, 900, *range(1, 15)]
    data = b"".join(word.to_bytes(2, "big") for word in words)

    found = counters("7E8", SPARK_COUNTERS, can(SPARK_COUNTERS, 16, data))

    assert (found.obd_conditions, found.ignition_cycles) == (500, 900)
    named = {each.name: (each.completions, each.conditions) for each in found.counters}
    assert len(named) == 7
    assert named["catalyst_bank_1"] == (1, 2)
    assert named["evaporative_system"] == (13, 14)


def test_counters_of_a_diesel_on_an_older_bus() -> None:
    data = b"".join(word.to_bytes(2, "big") for word in range(18))

    found = counters("10", COMPRESSION_COUNTERS, old(COMPRESSION_COUNTERS, data))

    assert found.counters[0].name == "nmhc_catalyst"
    assert (found.counters[-1].name, found.counters[-1].conditions) == ("fuel_system", 17)


@given(infotype=INFOTYPES, words=st.lists(st.integers(0, 0xFFFF), max_size=60))
def test_any_number_of_counters_is_told_or_malformed(infotype: int, words: list[int]) -> None:
    data = b"".join(word.to_bytes(2, "big") for word in words)

    found = counters("7E8", infotype, can(infotype, len(words), data))

    paired = len(words) >= 2 and len(words) % 2 == 0
    assert (found.quality is Quality.OK) == paired
    assert len({each.name for each in found.counters}) == len(found.counters)
    assert len(found.counters) == (len(words) // 2 - 1 if paired else 0)
