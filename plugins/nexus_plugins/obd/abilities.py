"""What an adapter really can do, against what it claims: most that call themselves ELM327 are not.

Sources: ELM327 data sheet, "Version History" and "AT Command Summary", for which version brought
which command; STN1100 family reference manual, "STI", for the chips that name themselves there.
Elm Electronics made the versions of `_MADE`, and no v1.5.

Every command here only asks, or sets what is the default or set anyway. None writes to the
adapter's memory, and none begins like one that does something else: copies look at few letters.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from nexus_agent.plugin import catalogue

Abilities = catalogue.vehicle.Abilities
Tried = Callable[[str], Awaitable[list[str] | None]]
"""Gives the adapter a command and returns the lines that it says; None where it says nothing."""

_MADE: Final = (
    *("1.0", "1.0a", "1.1", "1.2", "1.2a", "1.3", "1.3a", "1.4", "1.4b"),
    *("2.0", "2.1", "2.2", "2.3"),
)

_CAME_WITH: Final = (
    ("1.0", "AT@1", re.compile(r"(?=.*[A-Z])(?!OK$).{4,}")),
    ("1.0", "ATRV", re.compile(r"\d{1,2}\.\d{1,2} ?V?")),
    ("1.1", "ATPPS", re.compile(r"(?:[0-9A-F]{2}: ?[0-9A-F]{2} [FN] *)+")),
    ("1.2", "ATAT1", re.compile("OK")),
    ("1.3", "ATS0", re.compile("OK")),
    ("1.4", "ATIGN", re.compile("ON|OFF")),
    ("1.4", "ATCEA", re.compile("OK")),
    ("1.4b", "ATCSM1", re.compile("OK")),
    ("2.0", "ATAMC", re.compile(r"[0-9A-F]{2}")),
)
"""Version, a command that came with it, and what each line of its answer looks like."""

_ELM: Final = re.compile(r"ELM ?327.*?\bv ?(\d\.\d+)([a-z]?)", re.IGNORECASE)
_STN: Final = re.compile(r"STN\d{4}.*")


async def probe(claimed: str | None, tried: Tried) -> Abilities:
    """Try the commands that the version in *claimed*, such as `ELM327 v2.1`, should know.

    Ends at the first that is not answered at all. Raises what *tried* raises.
    """
    told = await tried("STI")
    stn = next((line for line in told or () if _STN.fullmatch(line)), None)
    lacks: list[str] = []
    voltage: bool | None = None
    for since, command, form in _CAME_WITH:
        due = _is_due(since, claimed)
        if told is None or not (due or command == "ATRV"):
            continue
        told = await tried(command)
        knows = bool(told) and all(form.fullmatch(line) for line in told or ())
        if command == "ATRV":
            voltage = knows
        if due and not knows:
            lacks.append(command)
    version = _version_of(claimed)
    return Abilities(
        claims=", ".join(filter(None, (claimed, stn and stn.replace(" V", " v")))) or None,
        genuine=None if version is None else version in _MADE and not lacks,
        lacks=tuple(lacks),
        voltage=voltage,
    )


def _version_of(claimed: str | None) -> str | None:
    """`2.1`; None where it does not claim to be an ELM327."""
    found = _ELM.search(claimed or "")
    return None if found is None else found[1] + found[2].lower()


def _is_due(version: str, claimed: str | None) -> bool:
    """Whether what claims to be *claimed* should know what came with *version*."""
    own = _version_of(claimed)
    return own is not None and _order(version) <= _order(own)


def _order(version: str) -> tuple[float, str]:
    number = version.rstrip("abcdefghijklmnopqrstuvwxyz")
    return float(number), version.removeprefix(number)
