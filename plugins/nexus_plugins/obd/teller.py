"""Live values as events: which are worth telling, and what becomes of those nobody takes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from nexus_agent.plugin import Context, EmitError, Quality
from nexus_plugins.obd import pids
from nexus_plugins.obd.answer import Answer
from nexus_plugins.obd.pids import Field, Pid, Reading
from nexus_plugins.obd.settings import ObdSettings
from nexus_plugins.obd.vehicle import Vehicle

REPEAT_S: Final = 60.0
"""A value that stays absent, refused or malformed is told again this often, not every time."""


class Teller:
    """Tells of one vehicle, which events name as *car*, at the adapter of that name."""

    def __init__(
        self, adapter: str, vehicle: Vehicle, car: Mapping[str, str], context: Context[ObdSettings]
    ) -> None:
        self._adapter = adapter
        self._vehicle = vehicle
        self._car = car
        self._context = context
        self._told_bad: dict[tuple[str, str], tuple[Quality, float]] = {}
        self._dropping = False

    def values(self, pid: Pid, answer: Answer) -> None:
        """One event for each value of each control unit that answered or should have."""
        ecus = {*self._vehicle.supporters(pid.number), *(reply.ecu for reply in answer.replies)}
        for ecu in sorted(ecus):
            scales = self._vehicle.scales_of(ecu)
            for field, reading in pids.readings(pid, answer.of(ecu), scales):
                if self._worth_telling(ecu, field.name, reading):
                    self._hand_over(ecu, pid, field, reading)

    def _worth_telling(self, ecu: str, name: str, reading: Reading) -> bool:
        key, now = (ecu, name), asyncio.get_running_loop().time()
        if reading.quality is Quality.OK:
            self._told_bad.pop(key, None)
            return True
        quality, told = self._told_bad.get(key, (Quality.OK, now))
        if quality is reading.quality and now - told < REPEAT_S:
            return False
        self._told_bad[key] = (reading.quality, now)
        return True

    def _hand_over(self, ecu: str, pid: Pid, field: Field, reading: Reading) -> None:
        data = {
            **self._car,
            "adapter": self._adapter,
            "ecu": ecu,
            "pid": pid.number,
            "name": field.name,
            "value": reading.value,
            "unit": field.unit,
            "quality": reading.quality,
        }
        if reading.detail is not None:
            data["detail"] = reading.detail
        self.tell("telemetry.pid", data)

    def tell(self, event: str, data: dict[str, Any]) -> None:
        """Hand an event over; that values are dropped is logged once, not for each of them."""
        try:
            self._context.hand_over(event, data)
        except EmitError as error:
            if not self._dropping:
                self._context.log.warning("live values are not taken", reason=str(error))
            self._dropping = True
        else:
            self._dropping = False
