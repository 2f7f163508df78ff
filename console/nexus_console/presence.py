"""Who is there: birth documents, farewells and wills, and what they make of a device's status."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from sqlalchemy import Connection, Row, select, update

from nexus_agent.protocol import Presence, ProtocolError, parse_time
from nexus_console.db.engine import storable
from nexus_console.db.models import devices

STALE_AFTER: Final = 2.5
"""Silent intervals after which a device that says it is online is no longer believed."""

OVERTAKEN_WITHIN_NS: Final = 60_000_000_000
"""No message is under way for longer than this while a later one arrives."""
PAST_SESSIONS: Final = 32
"""Sessions of a box that are remembered as over."""
DEFAULT_INTERVAL_S: Final = 60
MAX_INTERVAL_S: Final = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Status:
    """since is in ns since 1970; reason is for people."""

    status: Literal["online", "offline", "stale"]
    reason: str | None
    since: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What a presence document has brought.

    came_up: the box has just come up, so that it may be told things. anew: it is the birth of
    another session than the last one that was known. overtaken: by a later birth on its way.
    """

    came_up: bool = False
    anew: bool = False
    overtaken: bool = False


def apply(
    connection: Connection, device_id: int, presence: Presence, *, retained: bool, received: int
) -> Heard:
    """Record *presence*.

    retained: the broker handed out what it had kept, so the box was not heard just now. A will or
    farewell of another session than that of the last birth is left aside: the box is back already.
    So is a birth that a later one of the same boot has overtaken, and one of a session that another
    has followed, unless it says more than that session has said before: then the other one was
    late, and this is the box's present one.
    """
    row = connection.execute(select(devices).where(devices.c.id == device_id)).one()
    if not presence.online:
        if row.session in {None, presence.session} and (row.online or row.session is None):
            values = {
                "online": False,
                "session": presence.session,
                "reason": storable(presence.reason or "the connection was lost"),
                "since": received,
            }
            connection.execute(update(devices).where(devices.c.id == device_id).values(values))
        return Heard()
    past = _past_sessions(row)
    if row.session != presence.session:
        if _is_past(presence, past) or _is_overtaken(presence, row, received):
            return Heard(overtaken=True)
        past.pop(presence.session, None)
        if row.session is not None:
            known = birth_of(row)
            past = {row.session: _mono(known) if known else None, **past}
    birth = presence.encode().decode()
    changed = not row.online or row.session != presence.session
    interval = presence.interval
    values = {
        "online": True,
        "session": presence.session,
        "past_sessions": orjson.dumps(list(past.items())[:PAST_SESSIONS]).decode(),
        "reason": None,
        "since": received if changed else row.since,
        "last_seen": _last_seen(row, presence, retained=retained, received=received),
        "birth": birth,
        # What has changed since it was said counts; to hear the same again is not to be reborn.
        "born": row.born if birth == row.birth else received,
        "interval": interval if interval and 1 <= interval <= MAX_INTERVAL_S else None,
    }
    connection.execute(update(devices).where(devices.c.id == device_id).values(values))
    known = birth_of(row)
    # A box whose disk was away introduces itself without its streams first.
    anew = row.session != presence.session or known is None or known.epoch is None
    return Heard(came_up=changed or not retained, anew=anew)


def status_of(row: Row[Any], now: int) -> Status:
    """A device's status at *now* (ns since 1970)."""
    if row.birth is None and row.session is None:
        return Status("stale", "it has sent data, but no birth document yet", row.since)
    if not row.online:
        return Status("offline", row.reason, row.since)
    interval = row.interval or DEFAULT_INTERVAL_S
    believed_until = row.last_seen + int(STALE_AFTER * interval * 1e9)
    if now > believed_until:
        text = (
            f"nothing heard for {STALE_AFTER * interval:g} s; it promised a word every {interval} s"
        )
        return Status("stale", text, believed_until)
    return Status("online", None, row.since)


def birth_of(row: Row[Any]) -> Presence | None:
    """The last birth document of a device's row."""
    return None if row.birth is None else Presence.model_validate_json(row.birth)


def _past_sessions(row: Row[Any]) -> dict[str, float | None]:
    """Sessions that others have followed, the newest first.

    With the seconds from its boot to its last birth, None where they are not known.
    """
    found: dict[str, float | None] = {}
    for told in orjson.loads(row.past_sessions or "[]"):
        session, mono = told if isinstance(told, list) else (told, None)
        found[session] = mono
    return found


def _is_past(presence: Presence, past: dict[str, float | None]) -> bool:
    """Whether *presence* is of a past session, and no newer than what that has said before."""
    if presence.session not in past:
        return False
    before, now = past[presence.session], _mono(presence)
    return before is None or now is None or now <= before


def _mono(presence: Presence) -> float | None:
    try:
        found = float(presence.mono or "nan")
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _is_overtaken(presence: Presence, row: Row[Any], received: int) -> bool:
    """Whether *presence* was said before the last birth, by the clock of the same boot.

    Only where that one came just now: a virtual machine that is set back to a snapshot has the same
    boot and an earlier clock, too.
    """
    known = birth_of(row)
    if known is None or known.boot is None or known.boot != presence.boot:
        return False
    if received - row.born > OVERTAKEN_WITHIN_NS:
        return False
    try:
        return float(presence.mono or "nan") < float(known.mono or "nan")
    except ValueError:
        return False


def _last_seen(row: Row[Any], presence: Presence, *, retained: bool, received: int) -> int:
    if not retained:
        return received
    if row.birth is not None or presence.time is None:
        return int(row.last_seen)
    try:
        return min(max(parse_time(presence.time), 0), received)
    except ProtocolError:
        return int(row.last_seen)
