"""Records of a code: taken apart only where the control unit says where each ends."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.uds import records
from nexus_plugins.uds.records import ALL, EXTENDED, SNAPSHOTS, Ask
from nexus_plugins.uds.reply import Reply

RAW = b"\x03\x01\x11"
Kept = Mapping[int, bytes]


def unit(kept: Kept, **lies: bytes) -> Ask:
    """A control unit with these records; lies: record number → what it says instead."""

    async def ask(request: bytes, echo: int) -> Reply:
        number = request[5]
        if str(number) in lies:
            return Reply(Quality.OK, lies[str(number)])
        if number == ALL:
            return Reply(Quality.OK, b"\x09" + b"".join(bytes([n]) + kept[n] for n in kept))
        return Reply(Quality.OK, b"\x09" + bytes([number]) + kept[number])

    return ask


@given(st.dictionaries(st.integers(0, 254), st.binary(min_size=1, max_size=20), max_size=8))
async def test_every_record_comes_out_as_it_is_kept(kept: dict[int, bytes]) -> None:
    told = await records.read(unit(kept), EXTENDED, RAW)

    assert {each.number: bytes.fromhex(each.data) for each in told.records} == kept


async def test_a_snapshot_says_how_many_identifiers_it_has() -> None:
    told = await records.read(unit({1: b"\x02\x10\x01\x05\x10\x02\x06"}), SNAPSHOTS, RAW)

    assert (told.records[0].identifiers, told.records[0].data) == (2, "100105100206")


async def test_records_that_do_not_fit_together_stay_one() -> None:
    kept = {1: b"\xaa\xbb", 2: b"\xcc"}
    told = await records.read(unit(kept, **{"2": b"\x09\x03\xcc"}), EXTENDED, RAW)

    assert [(each.number, each.data) for each in told.records] == [(ALL, "01AABB02CC")]


async def test_no_records_and_no_status_are_two_things() -> None:
    async def cut(request: bytes, echo: int) -> Reply:
        return Reply(Quality.OK, b"")

    assert (await records.read(cut, EXTENDED, RAW)).quality is Quality.MALFORMED
    assert (await records.read(unit({}), EXTENDED, RAW)).quality is Quality.OK


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=40), st.sampled_from([4, 6]))
async def test_whatever_is_said_no_byte_is_invented_or_lost(said: list[bytes], kind: int) -> None:
    left = list(said)

    async def ask(request: bytes, echo: int) -> Reply:
        return Reply(Quality.OK, left.pop(0)) if left else Reply(Quality.ABSENT)

    told = await records.read(ask, kind, RAW)

    parts = [
        (b"" if each.number == ALL else bytes([each.number]))
        + (b"" if each.identifiers is None else bytes([each.identifiers]))
        + bytes.fromhex(each.data)
        for each in told.records
    ]
    assert b"".join(parts) == said[0][1:] if said[0] else told.quality is Quality.MALFORMED
