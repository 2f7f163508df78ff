"""Remembers which control units a car has, so that one that falls silent is missed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from nexus_agent.plugin import State

_MOST: Final = 1000
"""Cars; the one that was not here for the longest time is forgotten."""
_CARS: Final = "cars"
_LINKS: Final = "links"

Modules = dict[str, list[int]]
"""Link → targets of the control units that have answered there."""


class Known:
    """What was found before: in each car, and over each link where the VIN is not known."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def of(
        self, car: Mapping[str, Any], links: tuple[str, ...]
    ) -> dict[str, tuple[int, ...]]:
        """Link → targets. car: what `Context.vehicle` says, or nothing where it is not known."""
        modules = await self._modules(_key(car))
        return {link: tuple(modules.get(link, ())) for link in links}

    async def add(self, car: Mapping[str, Any], found: Mapping[str, tuple[int, ...]]) -> None:
        """Note who is there; what is silent now is not forgotten."""
        links = await self._modules(_LINKS)
        if car:
            modules = await self._modules(_key(car))
            for link, targets in found.items():
                modules[link] = sorted({*modules.get(link, ()), *targets})
            await self._state.set(_key(car), modules)
            await self._remember(_key(car))
            links |= modules
        else:
            for link, targets in found.items():
                # Somebody new: another car than the one that stood there before.
                if not set(targets) <= set(links.get(link, ())):
                    links[link] = sorted(targets)
        await self._state.set(_LINKS, links)

    async def _modules(self, key: str) -> Modules:
        found = await self._state.get(key)
        return dict(found) if isinstance(found, dict) else {}

    async def _remember(self, key: str) -> None:
        cars = [other for other in await self._state.get(_CARS) or [] if other != key]
        cars.append(key)
        for forgotten in cars[:-_MOST]:
            await self._state.set(forgotten, None)
        await self._state.set(_CARS, cars[-_MOST:])


def _key(car: Mapping[str, Any]) -> str:
    """The reference may be long; the VIN is not in it."""
    if not car:
        return _LINKS
    return "car/" + hashlib.sha256(str(car["vehicle_ref"]).encode()).hexdigest()[:16]
