"""Who is there, on all links of a command together, and in which car."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from nexus_agent.plugin import Context, PluginError, Progress, Quality, StateError
from nexus_plugins.uds import discovery
from nexus_plugins.uds.discovery import Found
from nexus_plugins.uds.known import Known
from nexus_plugins.uds.privacy import Veil
from nexus_plugins.uds.session import Session
from nexus_plugins.uds.settings import UdsSettings
from nexus_plugins.uds.talk import Talk


@dataclass(frozen=True, slots=True)
class Survey:
    """targets: everybody who answers. silent: by name, everybody who should answer and does not,
    and why. car: as `Context.vehicle` has it, or nothing; it stays out of `repr`.
    """

    targets: tuple[tuple[Talk, int], ...]
    silent: tuple[tuple[str, str], ...]
    vin_quality: Quality
    car: Mapping[str, str] = field(repr=False)
    veil: Veil


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
    before = await known.of(car, tuple(session.name for session in sessions))
    try:
        await known.add(car, {talk.name: tuple(each.there) for talk, each in found})
    except StateError as error:
        context.log.warning("control units are not remembered", reason=str(error))
    silent: list[tuple[str, str]] = []
    for talk, each in found:
        each.expect(before[talk.name], talk.gone)
        silent += [(talk.ecu(target), why) for target, why in sorted(each.silent.items())]
    for session, why in unreached:
        names = [session.ecu(target) for target in before[session.name]]
        silent += [(name, why) for name in names or [f"link {session.name}"]]
    targets = tuple((talk, target) for talk, each in found for target in each.there)
    if not targets and not silent:
        whys = [f"{talk.name}: {talk.gone or 'no control unit answers'}" for talk in talks]
        raise PluginError(f"{'; '.join(whys)}. Is the ignition on?")
    vins = [vin for _, each in found for _, vin in each.vins if vin is not None]
    return Survey(targets, tuple(silent), quality, car, Veil(vins, car))


async def _open(
    sessions: Sequence[Session], opened: AsyncExitStack
) -> tuple[list[Talk], list[tuple[Session, str]]]:
    """The links that can be opened, and the others with the reason."""
    talks: list[Talk] = []
    unreached: list[tuple[Session, str]] = []
    for session in sessions:
        try:
            talks.append(await opened.enter_async_context(session.opened()))
        except PluginError as error:
            unreached.append((session, str(error)))
    if not talks:
        raise PluginError(" ".join(why for _, why in unreached))
    return talks, unreached


async def _find(talk: Talk, progress: Progress) -> Found:
    found = await discovery.find(talk, talk.settings.candidates(), progress)
    await discovery.read_vins(talk, found, progress)
    return found
