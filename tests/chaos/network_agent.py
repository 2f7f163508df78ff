"""The agent of one network case: the whole product with a load, and with times made small."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel

from nexus_agent import logs
from nexus_agent.__main__ import _live
from nexus_agent.clock import Clock
from nexus_agent.config import AgentConfig
from nexus_agent.crashes import Crashes
from nexus_agent.discovery import Code
from nexus_agent.plugin import Plugin, Settings, Stream
from nexus_agent.sections import PluginSection
from nexus_agent.sync.client import Client
from nexus_agent.sync.lane import Lane
from nexus_agent.transport import Dialer

KEEPALIVE_S: Final = 2
"""Less than `[broker]` takes: no box should be so nervous."""
PING_MARGIN_S: Final = 0.25
TICK_S: Final = 0.5
DIAL_S: Final = 2.0
ANSWER_S: Final = 2.0
PUBACK_S: Final = 2.5
CAP_S: Final = 0.5
PATIENCE_S: Final = 0.5

VALUE: Final = "load.value"
PROMISED, ENOUGH, DONE, NO_NAMES, ATTEMPTS = "promised", "enough", "done", "no-names", "attempts"
"""Files in the case's folder: numbers whose `emit` has returned; the load is to end; it has ended;
names are not resolved; moments of attempts to connect.
"""

Broken = Literal["", "deaf", "forgetful", "hasty"]


class Order(BaseModel):
    """What the case wants. broken: what is wrong with this agent on purpose."""

    config: dict[str, Any]
    folder: Path
    seed: str
    broken: Broken = ""


class LoadSettings(Settings):
    folder: Path
    seed: str


class Load(Plugin[LoadSettings]):
    """Emits numbers in every stream, and notes each one once it is promised."""

    name = "load"
    version = "1"
    description = "A load."
    author = "tests"
    emits = (VALUE,)
    settings_model = LoadSettings

    async def run(self) -> None:
        folder = self.context.settings.folder
        with (folder / PROMISED).open("ab", buffering=0) as notes:
            async with asyncio.TaskGroup() as group:
                for lane, stream in enumerate(Stream):
                    group.create_task(self._emit(lane, stream, notes), name=f"load:{stream}")
        (folder / DONE).touch()
        await asyncio.Event().wait()

    async def _emit(self, lane: int, stream: Stream, notes: Any) -> None:
        settings = self.context.settings
        dice = random.Random(f"{settings.seed}:{stream}")
        number = lane
        while not (settings.folder / ENOUGH).exists():
            numbers = [number + n * len(Stream) for n in range(dice.choice((1, 1, 2, 5, 30)))]
            number = numbers[-1] + len(Stream)
            events = [
                (VALUE, {"n": n, "noise": base64.b85encode(dice.randbytes(120)).decode()})
                for n in numbers
            ]
            await self.context.emit_many(events, stream=stream)
            notes.write("".join(f"{n}\n" for n in numbers).encode())
            await asyncio.sleep(dice.uniform(0, 0.6))


def main() -> None:
    order = Order.model_validate_json(sys.argv[1])
    _make_quick()
    _count_attempts(order.folder)
    config = AgentConfig.model_validate(order.config)
    keepalive = 3600 if order.broken == "deaf" else KEEPALIVE_S
    broker = config.broker.model_copy(update={"keepalive_s": keepalive})
    config = config.model_copy(update={"broker": broker})
    _break(order.broken)
    logs.configure(config.log)
    load = PluginSection(
        "load",
        Code("load", Load.__module__, Load.__qualname__),
        plugin=Load,
        settings=LoadSettings(folder=order.folder, seed=order.seed),
    )
    crashes = Crashes(config.agent.state_dir, Clock().boot, {})
    sys.exit(_live(config, [load], order.folder / "agent.toml", crashes))


def _make_quick() -> None:
    _set("nexus_agent.sync.backoff", CAP_S=CAP_S)
    _set("nexus_agent.app", ACK_TIMEOUT_S=PATIENCE_S)
    _set(
        "nexus_agent.sync.client",
        PUBACK_TIMEOUT_S=PUBACK_S,
        TICK_S=TICK_S,
        Dialer=partial(Dialer, within=DIAL_S),
    )
    _set("nexus_agent.transport.dialer", PING_MARGIN_S=PING_MARGIN_S)
    _set("nexus_agent.sync.link", Client=partial(Client, timeout=ANSWER_S))


def _break(broken: Broken) -> None:
    if broken == "deaf":
        _set("nexus_agent.sync.client", PUBACK_TIMEOUT_S=3600.0)
    elif broken == "forgetful":
        _set_on(Lane, deadline=lambda _: float("inf"), overdue=lambda *_: False)
    elif broken == "hasty":
        _set("nexus_agent.sync.link", full_jitter=lambda _: 0.0)


def _set(module: str, **values: object) -> None:
    _set_on(import_module(module), **values)


def _set_on(owner: object, **values: object) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


def _count_attempts(folder: Path) -> None:
    """Each attempt begins with a name to resolve; note it, and fail while names are not."""
    resolve = socket.getaddrinfo
    notes = (folder / ATTEMPTS).open("ab", buffering=0)

    def getaddrinfo(*args: Any, **more: Any) -> Any:
        notes.write(f"{time.monotonic()}\n".encode())
        if (folder / NO_NAMES).exists():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(*args, **more)

    _set_on(socket, getaddrinfo=getaddrinfo)


if __name__ == "__main__":
    main()
