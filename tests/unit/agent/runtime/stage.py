"""A supervisor with real plugins, and a sink in the outbox's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from nexus_agent.bus import Bus
from nexus_agent.clock import Clock
from nexus_agent.config import SupervisorSection
from nexus_agent.discovery import Code
from nexus_agent.plugin import Plugin, Stream
from nexus_agent.protocol import Stamp, encode_events
from nexus_agent.runtime.context import Services, VehicleNames
from nexus_agent.runtime.states import Change, PluginState, Supervised
from nexus_agent.runtime.supervisor import Supervisor
from nexus_agent.sections import Isolation, Limits, PluginSection
from nexus_agent.testing import MemoryState

POLICY = SupervisorSection(backoff_s=0.01, backoff_cap_s=0.01, restarts=5, stall_s=0.2)
_STAMP = Stamp(wall=0, mono=0, boot="test", synced=True)


class Sink:
    """Takes events, as the outbox does."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []

    async def emit(self, source: str, events: Sequence[tuple[str, Any]], stream: Stream) -> int:
        await asyncio.sleep(0)
        return self.hand_over_many(source, events, stream)

    def hand_over_many(self, source: str, events: Sequence[tuple[str, Any]], stream: Stream) -> int:
        lines = encode_events(device="box", source=source, stamp=_STAMP, events=events)
        self.events += [(source, kind, data) for kind, data in events]
        return sum(map(len, lines))

    def of(self, source: str) -> list[Any]:
        """The data of all that *source* has emitted."""
        return [data for name, _, data in self.events if name == source]


class Stage:
    """A supervisor at work, what it tells, and what its plugins emit."""

    def __init__(self, sink: Sink, states: Callable[[str], MemoryState]) -> None:
        self.supervisor: Supervisor
        self.sink = sink
        self.changes: list[Change] = []
        self.bus = Bus()
        self.services = Services(
            sink, self.bus, Clock(), states, VehicleNames(b"k" * 32, show_vin=False)
        )

    @property
    def states(self) -> list[tuple[str, PluginState]]:
        """Every change so far."""
        return [(change.plugin, change.state) for change in self.changes]

    async def tell(self, change: Change) -> None:
        self.changes.append(change)

    async def until(self, condition: Callable[[], object], within: float = 20) -> None:
        """Wait for *condition*; if it does not come, say how things are."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(self.told()) from None

    def told(self) -> str:
        found = [f"{item.name}: {item.state} {item.reason}" for item in self.items()]
        return "; ".join(found)

    def items(self) -> list[Supervised]:
        return list(self.supervisor.plugins.values())

    def item(self, name: str) -> Supervised:
        return self.supervisor.plugins[name]

    def state(self, name: str) -> PluginState:
        return self.item(name).state


def section(
    plugin: type[Plugin[Any]],
    *,
    isolation: Isolation = Isolation.TASK,
    limits: Limits | None = None,
    **keys: Any,
) -> PluginSection:
    """What the settings say of *plugin*, with *keys*."""
    return PluginSection(
        plugin.name,
        Code(plugin.name, plugin.__module__, plugin.__qualname__),
        isolation,
        limits or Limits(),
        keys,
        plugin,
        plugin.settings_model.model_validate(keys),
    )


@asynccontextmanager
async def supervised(
    *plugins: type[Plugin[Any]] | PluginSection,
    policy: SupervisorSection = POLICY,
    kept: dict[str, MemoryState] | None = None,
) -> AsyncIterator[Stage]:
    """A supervisor over these within the block. kept: the plugins' states of an earlier one."""
    known = {} if kept is None else kept
    stage = Stage(Sink(), lambda name: known.setdefault(name, MemoryState()))
    sections = [one if isinstance(one, PluginSection) else section(one) for one in plugins]
    stage.supervisor = Supervisor(sections, stage.services, Clock(), stage.tell, policy)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(stage.supervisor.run(), name="supervisor")
        yield stage
        task.cancel()
