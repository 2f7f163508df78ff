"""The life of one plugin: runs that follow each other, as the supervisor's policy has it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import structlog

from nexus_agent.config import SupervisorSection
from nexus_agent.plugin import FatalError
from nexus_agent.runtime.run import Activity, Run, StuckError
from nexus_agent.runtime.states import PluginState, Supervised
from nexus_agent.runtime.task import trimmed, words

log = structlog.get_logger("supervisor")

STEADY_S: Final = 60.0
"""A run this long is no failure to start: the backoff begins anew."""

Enter = Callable[[Supervised, PluginState, str], None]


@dataclass(frozen=True, slots=True)
class House:
    """What a life needs of the supervisor.

    open: makes a run in the plugin's tier. enter: notes a state. ready: returns once all that the
    plugin requires runs.
    """

    policy: SupervisorSection
    open: Callable[[Supervised], AbstractAsyncContextManager[Run]]
    enter: Enter
    ready: Callable[[Supervised], Awaitable[None]]


async def lead(item: Supervised, house: House) -> None:
    """Run *item*, restart it, rest it, until it is done or past help. Cancel to stop it."""
    policy, loop = house.policy, asyncio.get_running_loop()
    failures: deque[float] = deque(maxlen=policy.restarts + 1)
    attempt = 0
    if item.section.problem is not None:
        house.enter(item, PluginState.FAILED, item.section.problem)
        return
    while True:
        started = loop.time()
        error = await _run_once(item, house)
        if error is None:
            house.enter(item, PluginState.STOPPED, "its work is done")
            return
        if isinstance(error, StuckError):
            house.enter(item, PluginState.STUCK, str(error))
            return
        if isinstance(error, FatalError):
            house.enter(item, PluginState.FAILED, str(error))
            return
        attempt = 1 if loop.time() - started >= STEADY_S else attempt + 1
        failures.append(loop.time())
        if len(failures) > policy.restarts and failures[-1] - failures[0] <= policy.window_s:
            failures.clear()
            attempt = 0
            reason = f"{policy.restarts} restarts did not help: {words(error)}"
            house.enter(item, PluginState.QUARANTINED, reason)
            await asyncio.sleep(policy.quarantine_s)
        else:
            house.enter(item, PluginState.BACKOFF, words(error))
            await asyncio.sleep(backoff(policy, attempt))
        item.restarts += 1


async def _run_once(item: Supervised, house: House) -> Exception | SystemExit | None:
    """One run to its end; what ended it, None where its work is done."""
    house.enter(item, PluginState.STARTING, "")
    try:
        async with house.open(item) as run:
            item.description = run.description
            await house.ready(item)
            item.run = run
            ending = await run.live(lambda: house.enter(item, PluginState.RUNNING, ""))
            if ending is Activity.STOPPED:
                return FatalError("it stopped without being told to")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin boundary
        item.counters.errors += 1
        item.last_error = trimmed(error)
        log.warning("plugin_failed", plugin=item.name, error=words(error))
        return error
    finally:
        item.run = None
    return None


def backoff(policy: SupervisorSection, attempt: int) -> float:
    """Seconds to wait before start number *attempt* + 1: exponential, half of it jitter."""
    ceiling = min(policy.backoff_cap_s, policy.backoff_s * 2.0 ** min(attempt - 1, 32))
    return ceiling / 2 + random.uniform(0, ceiling / 2)  # noqa: S311 - spreads load, no secret
