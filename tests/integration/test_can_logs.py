"""Logs of CAN channels: read, played, and given up where they are damaged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import can
import pytest
from tests.integration.can_telling import (
    DATA,
    DRIVE,
    TRUCK,
    at_work,
    engine,
    played,
    replaying,
    until,
    values,
)

from nexus_agent.plugin import FatalError
from nexus_plugins.can_signals.log import DamagedError, Log


def taken(path: Path) -> tuple[list[can.Message], DamagedError | None]:
    """Every frame of a log, and the damage at which it ended."""
    found: list[can.Message] = []
    log, until_s = Log(path), 0.0
    try:
        log.open()
        while log.take(until_s, found.append):
            until_s += 0.1
    except DamagedError as error:
        return found, error
    finally:
        log.close()
    return found, None


def written(path: Path, count: int = 3) -> Path:
    """A log by python-can's own writer: one frame a second."""
    with can.Logger(path) as logger:
        for second in range(count):
            message = engine(1000 * second)
            message.timestamp = 1_700_000_000.0 + second
            logger(message)
    return path


def log_of(folder: Path, *times: float) -> Path:
    """An ASC file with one frame at each of *times*."""
    path = folder / "drive.asc"
    lines = [
        f"   {time:.6f} 1  100             Rx   d 8 {engine(1000 * number).data.hex(' ')}"
        for number, time in enumerate(times)
    ]
    head = ["date Mon Nov 23 10:00:00.000 am 2026", "base hex  timestamps absolute"]
    head += ["internal events logged", "Begin Triggerblock Mon Nov 23 10:00:00.000 am 2026"]
    path.write_text("\n".join([*head, *lines, "End TriggerBlock", ""]))
    return path


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".asc", ".blf", ".log", ".trc", ".BLF"])
def test_every_format_is_read_as_python_can_writes_it(tmp_path: Path, suffix: str) -> None:
    whole = written(tmp_path / f"drive{suffix.lower()}")
    found, damage = taken(whole.rename(tmp_path / f"Drive{suffix}"))
    assert damage is None
    assert [(each.arbitration_id, each.data) for each in found] == [
        (256, engine(1000 * second).data) for second in range(3)
    ]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none.asc", None, "No such file"),
        ("empty.asc", b"", "no frame"),
        ("text.asc", b"Dear diary,\n", "no frame"),
        ("wrong.asc", b"date\n 0.1 1  ZZZ             Rx   d 8 01\n", "invalid literal"),
        ("short.blf", b"LOGG", "buffer"),
        ("wrong.blf", bytes(200), "Unexpected file format"),
        ("wrong.trc", b";$FILEVERSION=2.1\n1 2 3\n", "no column information"),
        ("wrong.log", b"(1.0) can0 123#XX\n", "invalid literal"),
    ],
)
def test_a_damaged_log_says_why(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found, damage = taken(tmp_path / name)
    assert found == []
    assert why in str(damage)


def test_a_log_that_is_cut_short_is_taken_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "drive.blf"
    with can.BLFWriter(path, compression_level=0) as writer:
        for second in range(2):
            message = engine(1000 * second)
            message.timestamp = 1_700_000_000.0 + second
            writer(message)
    path.write_bytes(path.read_bytes()[:-20])
    found, damage = taken(path)
    assert [each.data for each in found] == [engine(0).data]
    assert "bytes are there" in str(damage)


@pytest.mark.parametrize("suffix", [".asc", ".blf", ".log", ".trc"])
def test_no_damage_raises_anything_else(tmp_path: Path, suffix: str) -> None:
    whole = written(tmp_path / f"drive{suffix}").read_bytes()
    path = tmp_path / f"damaged{suffix}"
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        for damage in (whole[:position], whole[:position] + b"\xff~ " + whole[position + 2 :]):
            path.write_bytes(damage)
            taken(path)


def test_a_silence_of_days_and_a_clock_that_goes_back_hold_nothing_up(tmp_path: Path) -> None:
    log = Log(log_of(tmp_path, 0.0, 1e9, 5.0))
    log.open()
    assert not log.take(60.0, lambda _: None)
    log.close()
    assert (log.frames, log.elapsed) == (3, 60.0)


def test_a_log_that_nobody_waits_for_any_more_opens_no_file(tmp_path: Path) -> None:
    log = Log(log_of(tmp_path, 0.0))
    log.close()
    log.open()
    with pytest.raises(DamagedError):
        log.take(1.0, lambda _: None)


# -- at work -------------------------------------------------------------------------------------


async def test_a_log_is_told_as_it_was_only_sooner() -> None:
    context = replaying(DATA / "drive.asc", DRIVE, speed="fast")
    found = await played(context)
    assert found == {
        "EngineSpeed": [1000.0, 4000.0],
        "OilTemperature": [80.0],
        "Torque": [0.0],
        "EngineState": ["running", "SNA"],
        "Counter": [0.0, 1.0, 2.0],
        "WheelSpeed": [50.0, "malformed", 100.0],
        "SteeringAngle": [0.0, "malformed", 0.0],
        "Level": [50.0],
    }
    (traffic,) = context.of("can.traffic")
    assert (traffic["frames"], traffic["errors"], traffic["unknown"]) == (8, 1, 1)
    states = [(data["state"], data["detail"]) for data in context.of("adapter.state")]
    assert states == [
        ("connected", "the log is played"),
        ("silent", "the log has come to its end"),
    ]


async def test_a_log_of_a_truck() -> None:
    found = await played(replaying(DATA / "truck.trc", TRUCK, speed="fast"))
    assert found["EngSpeed"] == [800.0, 1600.0]
    assert found["EngCoolantTemp"] == ["malformed"], "the newest of those that came together"
    assert found["EngOilTemp1"] == ["absent"]


async def test_at_real_speed_a_log_takes_its_time(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    context = replaying(log_of(tmp_path, 0.0, 0.5), DRIVE)
    async with at_work(context):
        begun = loop.time()
        await until(lambda: values(context).get("EngineSpeed") == [0.0, 1000.0])
        assert loop.time() - begun >= 0.4


async def test_a_log_that_is_repeated_begins_again(tmp_path: Path) -> None:
    context = replaying(log_of(tmp_path, 0.0, 0.15), DRIVE, repeat=True)
    async with at_work(context):
        await until(lambda: len(values(context).get("EngineSpeed", [])) >= 4)
    assert values(context)["EngineSpeed"][:4] == [0.0, 1000.0, 0.0, 1000.0]
    assert [data["state"] for data in context.of("adapter.state")] == ["connected"]


async def test_a_damaged_log_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    path = log_of(tmp_path, 0.0)
    path.write_text(path.read_text() + "   0.2 1  ZZZ             Rx   d 8 01\n")
    context = replaying(path, DRIVE, speed="fast")
    with pytest.raises(FatalError, match="log: the log cannot be played on: invalid literal"):
        await played(context)
    assert values(context)["EngineSpeed"] == [0.0]
    assert context.of("adapter.state")[-1]["state"] == "lost"


async def test_the_name_of_a_log_is_not_told_for_it_may_be_a_vin(tmp_path: Path) -> None:
    context = replaying(tmp_path / "1HGCM82633A004352.asc", DRIVE)
    with pytest.raises(FatalError) as caught:
        await played(context)
    assert "1HGCM" not in f"{caught.value} {context.events} {context.reports}"


async def test_mf4_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="install the package's extra `mf4`"):
        await played(replaying(tmp_path / "drive.mf4", DRIVE))
