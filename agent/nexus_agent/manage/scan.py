"""A scan of the vehicle by every plugin that can: one scan, with every control unit asked.

What a plugin has to do is in `nexus_agent.plugin.command`. A part that fails is told as one that
failed; what it would have asked is not taken for clean.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from nexus_agent.manage.difference import compare, found_codes
from nexus_agent.plugin import CommandSpec, PluginError, Progress, Safety, State, StateError
from nexus_agent.protocol import Quality, Stream
from nexus_agent.protocol.catalogue.scans import (
    DtcObserved,
    Findings,
    Module,
    ScanCompleted,
    ScanDiff,
    ScanStarted,
    TakenPart,
)
from nexus_agent.store.errors import StoreError

log = structlog.get_logger("scan")

NAME: Final = "vehicle.scan"
LONGEST_S: Final = 1200.0
CARS: Final = 200
"""Scans of so many cars are kept to compare the next one with."""

_BEST_FIRST: Final = (Quality.OK, Quality.MALFORMED, Quality.REFUSED, Quality.ABSENT)
_INDEX: Final = "cars"

Emit = Callable[[Sequence[tuple[str, Any]], Stream], Awaitable[object]]
"""Returns once the (type, data) pairs are durable. Raises EmitError."""


class Plugins(Protocol):
    """Who knows the plugins' commands and does them; the supervisor is one."""

    def find(self, name: str) -> CommandSpec | None: ...

    def scanners(self) -> Mapping[str, Collection[str]]:
        """The commands that take part in a scan: full names, and the names of their arguments."""

    def invoke(self, name: str, args: BaseModel, progress: Progress) -> Awaitable[Any]: ...


class WholeScanArgs(BaseModel):
    """Arguments of `vehicle.scan`."""

    model_config = ConfigDict(extra="forbid")

    phase: Literal["pre", "post"] | None = None
    """Before or after a repair."""
    adapter: str | None = None
    """For plugins that have several; its name in their settings."""


SPEC: Final = CommandSpec(
    name="scan",
    args=WholeScanArgs,
    safety=Safety.READ,
    timeout_s=LONGEST_S,
    summary="Read the trouble codes of every module, by every way that this box has.",
    attribute="scan",
)


@dataclass(frozen=True, slots=True)
class _Part:
    """What became of one plugin's part."""

    told: TakenPart
    findings: Findings | None


class Scans:
    """Knows `vehicle.scan`, and makes a whole scan of each command that takes part in one.

    All other commands are the plugins'.
    """

    def __init__(self, plugins: Plugins, emit: Emit, state: State) -> None:
        self._plugins = plugins
        self._emit = emit
        self._state = state

    def find(self, name: str) -> CommandSpec | None:
        """The specification of a command by its full name."""
        return SPEC if name == NAME else self._plugins.find(name)

    async def invoke(self, name: str, args: BaseModel, progress: Progress) -> Any:
        """Do a command. Raises PluginError, with words for the operator."""
        given = args.model_dump(exclude_unset=True)
        if name == NAME:
            parts = {
                each: {key: value for key, value in given.items() if key in known}
                for each, known in self._plugins.scanners().items()
            }
            return await self._scan(parts, given, progress)
        spec = self._plugins.find(name)
        if spec is not None and spec.scans:
            return await self._scan({name: given}, given, progress)
        return await self._plugins.invoke(name, args, progress)

    async def whole(self, given: Mapping[str, Any], progress: Progress) -> Any:
        """Scan by every way; *given* are arguments of `vehicle.scan`. Raises PluginError."""
        return await self.invoke(NAME, WholeScanArgs.model_validate(given), progress)

    async def _scan(
        self, parts: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any], progress: Progress
    ) -> dict[str, Any]:
        """Have the commands *parts*, each with its arguments, take part in one scan.

        Returns the data of `scan.completed` with `diff`; where there are several cars, that of the
        first, with the rest as `others`. Raises PluginError where no part succeeds: then nothing is
        told but the start.
        """
        if not parts:
            raise PluginError("No plugin of this box can scan: enable obd, uds or j1939.")
        scan_id = uuid.uuid4().hex
        about = {key: given[key] for key in ("phase", "adapter") if given.get(key) is not None}
        started = ScanStarted(scan_id=scan_id, reason="command", **about)
        await self._emit([(started.type, started.document())], Stream.EVENT)
        taken = await self._take_all(scan_id, parts, progress)
        failed = [part.told for part in taken if part.findings is None]
        if len(failed) == len(taken):
            raise PluginError(_reasons(failed))
        phase = about.get("phase")
        cars = [
            await self._tell(_completed(scan_id, group, failed, phase)) for group in _by_car(taken)
        ]
        first, *others = cars
        return {**first, "others": others} if others else first

    async def _take_all(
        self, scan_id: str, parts: Mapping[str, Mapping[str, Any]], progress: Progress
    ) -> list[_Part]:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for name, given in parts.items():
                plugin = name.partition(".")[0]
                say = progress if len(parts) == 1 else partial(_say, progress, plugin)
                part = self._take(name, {**given, "scan_id": scan_id}, say)
                tasks.append(group.create_task(part, name=f"scan:{plugin}"))
        return [task.result() for task in tasks]

    async def _take(self, name: str, given: Mapping[str, Any], progress: Progress) -> _Part:
        plugin = name.partition(".")[0]
        try:
            found = await self._find(name, given, progress)
        except PluginError as error:
            log.warning("part_failed", plugin=plugin, error=str(error))
            return _Part(TakenPart(plugin=plugin, outcome="failed", detail=str(error)), None)
        adapter = {} if found.adapter is None else {"adapter": found.adapter}
        return _Part(TakenPart(plugin=plugin, outcome="done", **adapter), found)

    async def _find(self, name: str, given: Mapping[str, Any], progress: Progress) -> Findings:
        """One part's findings. Raises PluginError."""
        spec = self._plugins.find(name)
        if spec is None:
            raise PluginError("it was switched off")
        try:
            async with asyncio.timeout(spec.timeout_s):
                args = spec.args.model_validate(given)
                found = await self._plugins.invoke(name, args, progress)
            return Findings.model_validate(found)
        except TimeoutError:
            raise PluginError(f"it was not done within {spec.timeout_s:g} s") from None
        except ValidationError as error:
            # The value is not quoted: it may be a VIN.
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise PluginError(f"what it found cannot be read: {where}: {first['msg']}") from None

    # -- what is told ------------------------------------------------------------------------

    async def _tell(self, completed: ScanCompleted) -> dict[str, Any]:
        """Emit all of one car; return what the operator is told."""
        data = completed.document()
        car = {key: data[key] for key in ("vehicle_ref", "vin") if data.get(key) is not None}
        events = [
            (DtcObserved.type, {"scan_id": completed.scan_id, **car, **seen})
            for seen in _observed(completed.modules)
        ]
        events.append((completed.type, data))
        diff = await self._difference(completed, car)
        if diff is not None:
            events.append((ScanDiff.type, diff))
        await self._emit(events, Stream.EVENT)
        if completed.vehicle_ref is not None and _anybody_answered(completed.modules):
            await self._remember(completed.vehicle_ref, completed)
        return {**data, "diff": diff}

    async def _difference(
        self, completed: ScanCompleted, car: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """The data of `scan.diff`; None where there is nothing to compare with."""
        if completed.vehicle_ref is None:
            return None
        try:
            before = await self._state.get(_key(completed.vehicle_ref))
        except StoreError as error:
            log.warning("scan_not_compared", error=str(error))
            return None
        if before is None:
            return None
        modules = [Module.model_validate(module) for module in before["modules"]]
        found = compare(modules, completed.modules)
        return ScanDiff(
            before=before["scan_id"],
            after=completed.scan_id,
            fixed=tuple(found.fixed),
            remaining=tuple(found.remaining),
            permanent=tuple(found.permanent),
            new=tuple(found.new),
            unknown=tuple(found.unknown),
            **car,
        ).document()

    async def _remember(self, vehicle_ref: str, completed: ScanCompleted) -> None:
        """Keep what the next scan of the car is compared with. What fails here costs that only."""
        kept = {
            "scan_id": completed.scan_id,
            "modules": [module.document() for module in completed.modules],
        }
        try:
            await self._keep(vehicle_ref, kept)
        except (StateError, StoreError) as error:
            log.warning("scan_not_kept", error=str(error))

    async def _keep(self, vehicle_ref: str, kept: dict[str, Any]) -> None:
        """The scans that were kept first make room for it."""
        cars = [ref for ref in await self._state.get(_INDEX) or [] if ref != vehicle_ref]
        while len(cars) >= CARS:
            await self._state.set(_key(cars.pop(0)), None)
        while True:
            try:
                await self._state.set(_key(vehicle_ref), kept)
                break
            except StateError:
                if not cars:
                    raise
                await self._state.set(_key(cars.pop(0)), None)
        await self._state.set(_INDEX, [*cars, vehicle_ref])


def _key(vehicle_ref: str) -> str:
    return f"scan/{vehicle_ref}"


def _say(progress: Progress, plugin: str, text: str) -> None:
    progress(f"{plugin}: {text}")


def _reasons(failed: Sequence[TakenPart]) -> str:
    if len(failed) == 1:
        return str(failed[0].detail)
    return "; ".join(f"{part.plugin}: {part.detail}" for part in failed)


def _by_car(parts: Iterable[_Part]) -> list[list[_Part]]:
    """Those that found something, by car. Where one car is named, all is about that one."""
    named: dict[str, list[_Part]] = {}
    nameless: list[_Part] = []
    for part in parts:
        if part.findings is None:
            continue
        if (ref := part.findings.vehicle_ref) is None:
            nameless.append(part)
        else:
            named.setdefault(ref, []).append(part)
    groups = list(named.values())
    if nameless and len(groups) == 1:
        groups[0] += nameless
    elif nameless:
        groups.append(nameless)
    return groups


def _completed(
    scan_id: str, parts: Sequence[_Part], failed: Sequence[TakenPart], phase: str | None
) -> ScanCompleted:
    """The scan of one car, of which *parts* have found something. failed: others might have."""
    all_found = [part.findings for part in parts if part.findings is not None]
    modules = tuple(module for found in all_found for module in found.modules)
    about: dict[str, Any] = {} if phase is None else {"phase": phase}
    for key in ("vehicle_ref", "vin", "adapter"):
        # Of several adapters none is the scan's: `parts` has them.
        values = {value for found in all_found if (value := getattr(found, key)) is not None}
        if len(values) == 1:
            about[key] = values.pop()
    frames = [found.freeze_frames for found in all_found if found.freeze_frames is not None]
    if frames:
        about["freeze_frames"] = tuple(answer for answers in frames for answer in answers)
    return ScanCompleted(
        scan_id=scan_id,
        modules=modules,
        dtcs=tuple(code for module in modules for code in found_codes(module.ecu, module.answers)),
        vin_quality=min((found.vin_quality for found in all_found), key=_BEST_FIRST.index),
        parts=(*(part.told for part in parts), *failed),
        **about,
    )


def _observed(modules: Iterable[Module]) -> list[dict[str, Any]]:
    """The data of `dtc.observed` for each code, kind and control unit."""
    return [
        {"code": code, "kind": kind, "ecu": module.ecu}
        for module in modules
        for kind, codes in module.answers.items()
        for code in codes.codes
    ]


def _anybody_answered(modules: Iterable[Module]) -> bool:
    return any(
        codes.quality is Quality.OK for module in modules for codes in module.answers.values()
    )
