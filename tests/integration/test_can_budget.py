"""5,000 frames a second on one core: a full bus at a serial adapter, measured."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import tty
from pathlib import Path

import pytest
from tests.integration.can_telling import context_of, until

from nexus_agent.testing import running
from nexus_plugins.can_signals import CanSignalsPlugin, feed

FRAMES_A_SECOND = 5_000
SECONDS = 3
MESSAGES = 100

FULL_BUS = f"""
import os, random, sys, time
chance, line = random.Random(int(sys.argv[2])), int(sys.argv[1])
begun = time.monotonic()
for step in range({SECONDS} * 100):
    time.sleep(max(0, begun + step / 100 - time.monotonic()))
    frames = b"".join(
        b"t%03X8%016X\\r" % (chance.randrange({MESSAGES}), chance.getrandbits(64))
        for _ in range({FRAMES_A_SECOND} // 100)
    )
    while frames:
        frames = frames[os.write(line, frames):]
"""


def database(folder: Path) -> Path:
    """A hundred messages with eight signals each."""
    path = folder / "full.dbc"
    lines = ['VERSION ""', ""]
    for number in range(MESSAGES):
        lines += [f"BO_ {number} Message{number}: 8 A"]
        lines += [
            f' SG_ S{number}_{byte} : {8 * byte}|8@1+ (0.5,-40) [0|0] "V" A' for byte in range(8)
        ]
        lines += [""]
    path.write_text("\n".join(lines))
    return path


async def test_a_full_bus_takes_less_than_half_a_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_TRAFFIC_S", 0.5)
    seed = 20_261_123
    far, near = os.openpty()
    tty.setraw(near)
    channel = {"interface": "slcan", "channel": os.ttyname(near)}
    context = context_of(channels={"bay": {**channel, "dbc": [{"file": str(database(tmp_path))}]}})
    sent = FRAMES_A_SECOND * SECONDS

    def taken() -> int:
        return sum(data["frames"] for data in context.of("can.traffic"))

    try:
        async with running(CanSignalsPlugin(context)):
            await context.wait_for("adapter.state")
            begun, cpu = time.monotonic(), time.process_time()
            orders = [sys.executable, "-c", FULL_BUS, str(far), str(seed)]
            bus = await asyncio.create_subprocess_exec(*orders, pass_fds=[far])
            try:
                await until(lambda: taken() == sent, within=30)
                wall, cpu = time.monotonic() - begun, time.process_time() - cpu
            finally:
                if bus.returncode is None:
                    bus.terminate()
                await bus.wait()
    finally:
        os.close(near)
        os.close(far)
    told = len(context.of("telemetry.signal"))
    print(
        f"seed {seed}: {sent} frames in {wall:.1f} s, {cpu / sent * 1e6:.0f} µs of CPU a frame, "
        f"{cpu / wall:.0%} of a core, {told} readings"
    )
    assert sum(data["dropped"] + data["errors"] for data in context.of("can.traffic")) == 0
    assert told <= 8 * MESSAGES * (wall + 1), "each signal once a second"
    assert told >= 8 * MESSAGES
    assert cpu / sent < 0.5 / FRAMES_A_SECOND
