"""Plugins' small state on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nexus_agent.plugin import StateError
from nexus_agent.store.database import Database
from nexus_agent.store.errors import StoreError
from nexus_agent.store.state import KEY_CHARACTERS, QUOTA_BYTES, PluginState


@asynccontextmanager
async def opened(state_dir: Path) -> AsyncIterator[Database]:
    database = Database(state_dir)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.mark.parametrize(
    "value",
    [0, -(2**63), 2**64 - 1, 1.5, True, False, "", "Ü\0\n", [], {}, [1, [None, {"a": {"b": "c"}}]]],
)
async def test_a_value_comes_back_as_it_was(state_dir: Path, value: Any) -> None:
    async with opened(state_dir) as database:
        state = PluginState(database, "obd")
        await state.set("key", value)
        found = await state.get("key")
        assert (type(found), found) == (type(value), value)


async def test_the_last_value_of_a_key_counts(state_dir: Path) -> None:
    async with opened(state_dir) as database:
        state = PluginState(database, "obd")
        await state.set("key", 1)
        await state.set("key", 2)
        assert await state.get("key") == 2


async def test_none_deletes_the_key_and_may_do_so_twice(state_dir: Path) -> None:
    async with opened(state_dir) as database:
        state = PluginState(database, "obd")
        await state.set("key", 1)
        await state.set("key", None)
        await state.set("key", None)
        assert await state.get("key") is None
        assert await database.read("SELECT count(*) FROM plugin_state") == [(0,)]


async def test_plugins_do_not_see_each_others_keys(state_dir: Path) -> None:
    async with opened(state_dir) as database:
        one, other = PluginState(database, "obd"), PluginState(database, "host")
        await one.set("key", 1)
        await other.set("key", 2)
        await other.set("key", None)
        assert (await one.get("key"), await other.get("key")) == (1, None)


async def test_state_outlives_the_agent(state_dir: Path) -> None:
    async with opened(state_dir) as database:
        await PluginState(database, "obd").set("vin", {"text": "1HGCM82633A004352"})
    async with opened(state_dir) as database:
        assert await PluginState(database, "obd").get("vin") == {"text": "1HGCM82633A004352"}


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        {1: "a"},
        {"a": {1, 2}},
        2**64,
        "\ud800",
        float("nan"),
        [float("inf")],
        datetime(2026, 1, 1, tzinfo=UTC),
    ],
)
async def test_what_is_not_json_is_refused_and_leaves_the_old_value(
    state_dir: Path, value: Any
) -> None:
    async with opened(state_dir) as database:
        state = PluginState(database, "obd")
        await state.set("key", "old")
        with pytest.raises(StateError, match=r"^state obd\.key: not JSON: "):
            await state.set("key", value)
        assert await state.get("key") == "old"


async def test_a_closed_database_says_so(state_dir: Path) -> None:
    async with opened(state_dir) as database:
        state = PluginState(database, "obd")
    with pytest.raises(StoreError, match="is closed"):
        await state.get("key")


async def test_a_plugin_that_fills_its_quota_keeps_what_it_has_and_hurts_nobody(
    state_dir: Path,
) -> None:
    async with opened(state_dir) as database:
        greedy, modest = PluginState(database, "greedy"), PluginState(database, "modest")
        half = "x" * (QUOTA_BYTES // 2 - 10)
        await greedy.set("a", half)
        await greedy.set("b", half)
        with pytest.raises(StateError, match=r"greedy\.c: .*at most 1048576 are kept"):
            await greedy.set("c", "x" * 20)
        with pytest.raises(StateError):
            await greedy.set("a", half + "x" * 30)
        assert (await greedy.get("a"), await greedy.get("c")) == (half, None)
        await modest.set("c", 1)

        await greedy.set("a", None)
        await greedy.set("c", "x" * 20)
        assert await greedy.get("c") == "x" * 20


@pytest.mark.parametrize("key", ["", "k" * (KEY_CHARACTERS + 1)])
async def test_a_key_has_a_bounded_length(state_dir: Path, key: str) -> None:
    async with opened(state_dir) as database:
        with pytest.raises(StateError, match="a key has"):
            await PluginState(database, "obd").set(key, 1)
