"""Whether a vehicle's engine runs."""

from __future__ import annotations

from typing import Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd import pids
from nexus_plugins.obd.answer import Answer
from nexus_plugins.obd.elm327 import Elm327
from nexus_plugins.obd.pids import ENGINE_SPEED, PIDS
from nexus_plugins.obd.vehicle import Vehicle

ANYBODY: Final = "0100"
"""The one question of service 01 that every vehicle answers (SAE J1979 appendix A)."""


def runs(answer: Answer) -> bool:
    """Whether it runs by the answer about its speed; polling may go by this, a clear may not.

    One control unit that tells of revolutions is enough. Where nobody tells a speed, their
    answering must do.
    """
    speeds = [pids.read(PIDS[ENGINE_SPEED], reply) for reply in answer.replies]
    known = [speed.value for speed in speeds if speed.value is not None]
    return any(known) if known else any(speed.quality is not Quality.ABSENT for speed in speeds)


async def look(elm: Elm327, vehicle: Vehicle) -> bool:
    """Ask one question and tell from it whether the engine runs."""
    if ENGINE_SPEED not in vehicle.all_pids:
        return bool((await elm.ask(ANYBODY)).replies)
    return runs(await elm.ask(PIDS[ENGINE_SPEED].request))
