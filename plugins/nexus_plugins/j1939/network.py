"""The bus and all that is known of it: who is there, and which faults they have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from nexus_agent.plugin import Context, Stream, catalogue
from nexus_plugins.j1939 import dm, identity
from nexus_plugins.j1939.channel import CONNECTED, Channel
from nexus_plugins.j1939.faults import Change, Fault, Faults
from nexus_plugins.j1939.identifier import (
    ADDRESS_CLAIMED,
    DM1,
    NULL,
    TOLD,
    VIN,
    Message,
    ecu_of,
)
from nexus_plugins.j1939.name import Addresses, Name
from nexus_plugins.j1939.settings import J1939Settings

_TICK_S: Final = 0.5
_STATE: Final = "faults"

Listener = Callable[[Message], None]


class Network:
    """One channel's control units. Their faults are told as they appear and go, once each: those
    that are active outlive a restart.
    """

    def __init__(self, context: Context[J1939Settings]) -> None:
        self.context = context
        self.channel = Channel(context, TOLD, self._hear, self._quieten)
        self.addresses = Addresses()
        self.malformed = 0
        """DM1s that were too short, or had codes that could not be read."""
        self._faults = Faults(0, 0)
        self._vins: dict[int, str] = {}
        self._listeners: list[Listener] = []
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._said = ""

    async def run(self) -> None:
        """Attend to the channel for ever. Raises FatalError where that cannot work."""
        told = [Fault.from_state(data) for data in await self.context.state.get(_STATE) or ()]
        settings = self.context.settings
        self._faults = Faults(settings.appear_s, settings.gone_s, told)
        async with asyncio.TaskGroup() as group:
            active = {fault.key: fault for fault in told}
            group.create_task(self._tell(active), name="j1939:faults")
            group.create_task(self._tick(), name="j1939:clock")
            group.create_task(self.channel.run(), name="j1939:channel")

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Have *listener* told every message while the block lasts."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def present(self) -> frozenset[int]:
        """Addresses of all that were heard, or have claimed one, since the bus was silent."""
        return frozenset(a for a in self.channel.heard() if a < NULL) | self.addresses.known()

    def name_of(self, address: int) -> Name | None:
        """The NAME of who has that address, where it has said so."""
        return self.addresses.get(address)

    # -- what comes ------------------------------------------------------------------------------

    def _hear(self, now: float, message: Message) -> None:
        if message.pgn == ADDRESS_CLAIMED:
            self._meet(message)
        elif message.pgn == DM1:
            self._diagnose(now, message)
        elif message.pgn == VIN:
            found = identity.vin(message.data)
            if found.number is not None:
                self._vins[message.source] = found.number
        for listener in self._listeners:
            listener(message)

    def _meet(self, message: Message) -> None:
        name = Name.read(message.data)
        if name is None:
            return
        self.addresses.claim(message.source, name)
        self._queue(self._faults.meet(message.source, str(name)))

    def _diagnose(self, now: float, message: Message) -> None:
        if message.source >= NULL:
            return
        found = dm.decode(message.data, self.context.settings.spn_method)
        if found is None or found.trouble is not None:
            self.malformed += 1
        if found is None:
            return
        name = self.addresses.get(message.source)
        said = None if name is None else str(name)
        self._queue(self._faults.take(now, message.source, said, found))

    def _quieten(self) -> None:
        """Whoever speaks next may be another vehicle."""
        self.addresses.clear()
        self._vins.clear()

    def _queue(self, changes: list[Change]) -> None:
        for change in changes:
            self._changes.put_nowait(change)

    # -- what is told ----------------------------------------------------------------------------

    async def _tell(self, told: dict[tuple[int, int, int], Fault]) -> None:
        """Tell each change, and keep what was told: an event comes before its place in the state,
        so that none is lost.
        """
        while True:
            change = await self._changes.get()
            fault = change.fault
            if change.state != "forgotten":
                stream = Stream.ALERT if fault.alert else Stream.EVENT
                kind = catalogue.workshop.J1939Fault.type
                await self.context.emit(kind, await self._event(change), stream=stream)
            if change.state == "active":
                told[fault.key] = fault
            else:
                told.pop(fault.key, None)
            await self.context.state.set(_STATE, [each.to_state() for each in told.values()])

    async def _event(self, change: Change) -> dict[str, Any]:
        fault = change.fault
        data: dict[str, Any] = {
            **await self._car(),
            "channel": self.channel.name,
            "address": fault.address,
            "spn": fault.dtc.spn,
            "fmi": fault.dtc.fmi,
            "occurrences": fault.dtc.occurrences,
            "state": change.state,
        }
        if fault.name is not None:
            data["name"] = fault.name
        if fault.lamps is not None:
            data["lamps"] = fault.lamps.document()
        return data

    async def _car(self) -> dict[str, str]:
        """How events name the vehicle; nothing where its VIN is unknown or told in two ways."""
        numbers = set(self._vins.values())
        return await self.context.vehicle(numbers.pop()) if len(numbers) == 1 else {}

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._queue(self._faults.tick(time.monotonic(), self.channel.is_heard))
            said = self.summary()
            if said != self._said:
                self._said = said
                self.context.report(said)

    def summary(self) -> str:
        """How things are, in a sentence for people."""
        state = self.channel.state or "opening"
        if state != CONNECTED:
            return f"{state.replace('_', ' ')}: {self.channel.detail}"
        present = sorted(self.present())
        silent = [ecu_of(each) for each in present if not self.channel.is_heard(each)]
        faults = len(self._faults.open())
        counts = {**self.channel.counts(), "DM1s not read whole": self.malformed}
        if self._faults.untold:
            counts["faults too many to tell"] = self._faults.untold
        parts = [
            f"connected: {len(present)} control unit{'s' * (len(present) != 1)}",
            f"{faults or 'no'} active fault{'s' * (faults != 1)}",
            *([f"silent: {', '.join(silent)}"] if silent else []),
            *(f"{cause}: {count}" for cause, count in counts.items() if count),
        ]
        return "; ".join(parts)
