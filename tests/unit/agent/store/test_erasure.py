"""A car that is erased is gone from this box's disk, and nothing that is promised goes with it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.store.boxed import Store

from nexus_agent.protocol import Stream
from nexus_agent.store.database import FILE_NAME
from nexus_agent.store.erasure import Erased, Erasure
from nexus_agent.store.state import PluginState

REF = "v-0123456789abcdef0123"
OTHER = "v-aaaaaaaaaaaaaaaaaaaa"


async def erase(store: Store, *marks: str) -> Erased:
    return [step async for step in Erasure(store.outbox, store.database).erase(marks)][-1]


async def emit(store: Store, *references: str, stream: Stream = Stream.EVENT) -> None:
    for reference in references:
        await store.emit({"vehicle_ref": reference}, stream=stream)


def references(events: list[Any]) -> list[str]:
    return [event.data["vehicle_ref"] for event in events]


async def test_delivered_events_of_the_car_go_and_those_of_others_stay(opened: Any) -> None:
    async with opened() as store:
        await emit(store, OTHER, REF, OTHER)
        await emit(store, REF, stream=Stream.TELEMETRY)
        await store.acknowledge(3)
        await store.acknowledge(1, Stream.TELEMETRY)
        found = await erase(store, REF)
        assert (found.events, found.waiting, found.searched) == (2, 0, 4)
        assert references(await store.events()) == [OTHER, OTHER]
        assert await store.events(Stream.TELEMETRY) == []


async def test_what_waits_stays_promised_and_goes_once_it_is_delivered(opened: Any) -> None:
    async with opened() as store:
        await emit(store, REF, OTHER)
        found = await erase(store, REF)
        assert (found.events, found.waiting) == (0, 1)
        await store.tidy()
        assert references(await store.waiting()) == [REF, OTHER]
        await store.acknowledge(2)
        await store.tidy()
        assert REF not in references(await store.events())


async def test_what_waits_is_not_forgotten_over_a_restart(opened: Any) -> None:
    async with opened() as store:
        await emit(store, OTHER, REF)
        await erase(store, REF)
    async with opened() as store:
        await store.acknowledge(2)
        await store.tidy()
        assert REF not in references(await store.events())


async def test_a_segment_that_is_only_partly_delivered_stays(opened: Any) -> None:
    async with opened() as store:
        await store.outbox.emit(
            "test", [("a.b", {"vehicle_ref": REF}), ("a.b", {"vehicle_ref": OTHER})], Stream.EVENT
        )
        await erase(store, REF)
        await store.acknowledge(1)
        await store.tidy()
        assert len(await store.events()) == 2
        await store.acknowledge(2)
        await store.tidy()
        assert await store.events() == []


async def test_notes_of_plugins_and_results_of_commands_go(opened: Any) -> None:
    async with opened() as store:
        obd = PluginState(store.database, "obd")
        await obd.set(f"scan/{REF}", {"codes": []})
        await obd.set("newest", {"car": REF})
        await obd.set(f"scan/{OTHER}", {"codes": []})
        result = json.dumps({"id": "c", "name": "obd.scan", "state": "succeeded", "result": REF})
        await store.database.run(
            lambda c: c.execute(
                "INSERT INTO command VALUES ('c', 1, 'obd.scan', '{}', 0, 'succeeded', 0, 0, ?)",
                (result,),
            )
        )
        found = await erase(store, REF)
        assert (found.states, found.results) == (2, 1)
        assert await obd.get(f"scan/{OTHER}") == {"codes": []}
        [[kept]] = await store.database.read("SELECT result FROM command")
        assert json.loads(kept) == {**json.loads(result), "result": {"erased": True}}


async def test_nothing_of_the_car_is_left_in_the_files(opened: Any, state_dir: Path) -> None:
    vin = "1HGCM82633A004352"
    async with opened() as store:
        # Told raw: what is compressed is not found in a file by looking for it.
        await PluginState(store.database, "obd").set(f"scan/{REF}", vin)
        await erase(store, REF, vin)
        files = [file for file in state_dir.iterdir() if file.name.startswith(FILE_NAME)]
        assert len(files) > 1
        assert [file.name for file in files if vin.encode() in file.read_bytes()] == []


async def test_a_log_that_somebody_reads_is_said_not_to_be_emptied(
    opened: Any, state_dir: Path
) -> None:
    async with opened() as store:
        await store.emit(1)
        await store.database.tend(lambda c: c.execute("PRAGMA busy_timeout=10").fetchall())
        with closing(sqlite3.connect(state_dir / FILE_NAME, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM epoch").fetchone()
            await emit(store, REF)
            assert not (await erase(store, REF)).log_emptied
        assert (await erase(store, REF)).log_emptied


async def test_a_second_time_finds_nothing(opened: Any) -> None:
    async with opened() as store:
        await emit(store, REF)
        await store.acknowledge(1)
        await erase(store, REF)
        found = await erase(store, REF)
        assert (found.events, found.states, found.waiting) == (0, 0, 0)


async def test_files_that_were_set_aside_are_named(opened: Any, state_dir: Path) -> None:
    async with opened() as store:
        aside = state_dir / f"{FILE_NAME}.damaged-1"
        aside.touch()
        assert (await erase(store, REF)).unsearched == [str(aside)]


@pytest.mark.parametrize("merged", [False, True])
async def test_segments_that_are_merged_before_they_go_are_found_again(
    opened: Any, *, merged: bool
) -> None:
    async with opened() as store:
        for n in range(200):
            await emit(store, REF if n == 150 else OTHER)
        await erase(store, REF)
        if merged:
            await store.tidy()
            row = await store.database.read("SELECT count(*) FROM segment_event")
            assert row[0][0] < 200
        await store.acknowledge(200)
        await store.tidy()
        assert REF not in references(await store.events())
