"""Who is there, on all links of a command together, and in which car."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from nexus_agent.plugin import Context, PluginError, Progress, Quality
from nexus_plugins.uds import discovery
from nexus_plugins.uds.discovery import Found
from nexus_plugins.uds.known import Known
from nexus_plugins.uds.privacy import Veil
from nexus_plugins.uds.session import Session
from nexus_plugins.uds.settings import UdsSettings
from nexus_plugins.uds.talk import Talk


@dataclass(frozen=True, slots=True)
class Survey:
    """found: link by link. unreached: link → why it could not be opened. car: as
    `Context.vehicle` has it, or nothing; what names the car stays out of `repr`.
    """

    found: tuple[tuple[Talk, Found], ...]
    unreached: Mapping[str, str]
    vin_quality: Quality
    car: Mapping[str, str] = field(repr=False)
    veil: Veil

    def targets(self) -> Iterator[tuple[Talk, int]]:
        """Everybody who answers."""
        for talk, found in self.found:
            for target in found.there:
                yield talk, target

    def silent(self) -> Iterator[tuple[str, str]]:
        """Everybody who should answer and does not, by name, and why."""
        for talk, found in self.found:
            for target, why in sorted(found.silent.items()):
                yield talk.ecu(target), why
        for link, why in self.unreached.items():
            yield f"link {link}", why


async def survey(
    sessions: Sequence[Session],
    context: Context[UdsSettings],
    progress: Progress,
    opened: AsyncExitStack,
) -> Survey:
    """Open the links, find who is there and read the VIN; the links stay open until *opened* ends.

    Raises PluginError where no link can be opened, or there is nobody and never was.
    """
    talks, unreached = await _open(sessions, opened)
    found = [(talk, await _find(talk, progress)) for talk in talks]
    quality, vin = discovery.car_of(each for _, each in found)
    car = {} if vin is None else await context.vehicle(vin)
    known = Known(context.state)
    before = await known.of(car, tuple(talk.name for talk in talks))
    await known.add(car, {talk.name: tuple(each.there) for talk, each in found})
    for talk, each in found:
        each.expect(before[talk.name], talk.gone)
    if not any(each.there or each.silent for _, each in found):
        _nobody(talks, unreached)
    vins = [vin for _, each in found for _, vin in each.vins if vin is not None]
    return Survey(tuple(found), unreached, quality, car, Veil(vins, car))


async def _open(
    sessions: Sequence[Session], opened: AsyncExitStack
) -> tuple[list[Talk], dict[str, str]]:
    talks: list[Talk] = []
    unreached: dict[str, str] = {}
    for session in sessions:
        try:
            talks.append(await opened.enter_async_context(session.opened()))
        except PluginError as error:
            unreached[session.name] = str(error)
    if not talks:
        raise PluginError(" ".join(unreached.values()))
    return talks, unreached


async def _find(talk: Talk, progress: Progress) -> Found:
    found = await discovery.find(talk, talk.settings.candidates(), progress)
    await discovery.read_vins(talk, found, progress)
    return found


def _nobody(talks: Iterable[Talk], unreached: Mapping[str, str]) -> None:
    whys = [f"{talk.name}: {talk.gone or 'no control unit answers'}" for talk in talks]
    raise PluginError(f"{'; '.join([*whys, *unreached.values()])}. Is the ignition on?")
