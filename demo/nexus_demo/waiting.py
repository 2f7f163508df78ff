"""Waiting for what other processes do: a condition, a deadline, and what was last seen of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class DemoError(Exception):
    """A step of the demo or the smoke failed; the message says which, and what was seen."""


class NotYet(Exception):  # noqa: N818 - not an error: it says what is still missing
    """Raised by a condition that does not hold yet; its text is what is still missing."""


async def until(
    what: str, condition: Callable[[], Awaitable[T]], *, within: float, every: float = 0.2
) -> T:
    """What *condition* returns, once it no longer raises NotYet; DemoError after *within* s."""
    deadline = time.monotonic() + within
    while True:
        try:
            return await condition()
        except NotYet as missing:
            if time.monotonic() > deadline:
                raise DemoError(f"{what}: not within {within:g} s: {missing}") from None
        await asyncio.sleep(every)


async def together(work: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Do all of it at once; the first failure is raised as it is, after the rest was cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            for number, item in enumerate(work):
                group.create_task(item, name=f"together:{number}")
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
