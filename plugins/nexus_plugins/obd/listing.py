"""Asking what a service offers before anything else is asked of it.

Services 06 and 09 list what they support as service 01 does (SAE J1979, appendix A): the answer to
number 00 speaks of 01 to 20, the last of them being the next such number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd import pids
from nexus_plugins.obd.answer import Answer, Reply
from nexus_plugins.obd.elm327 import Elm327

_LAST_RANGE: Final = 0xE0


@dataclass(frozen=True, slots=True)
class Listing:
    """What each control unit says it supports of one service.

    first: the answer to number 00; claims: of those whose list decodes.
    """

    first: Answer
    claims: dict[str, frozenset[int]]

    def numbers(self) -> list[int]:
        """Whatever anybody supports."""
        return pids.values_only(frozenset[int]().union(*self.claims.values()))

    def why_not(self, ecu: str) -> Reply:
        """Why *ecu* was not asked for something, as the reply that it would have given."""
        if ecu in self.claims:
            return Reply(
                ecu, Quality.ABSENT, detail="the control unit says that it does not have it"
            )
        reply = self.first.of(ecu)
        if reply.quality is Quality.OK:
            return Reply(ecu, Quality.MALFORMED, detail="its list of what it supports is cut short")
        return reply


async def ask_listing(elm: Elm327, service: str, *, last: int = _LAST_RANGE) -> Listing:
    """What each control unit supports of *service*, up to the range *last*. Raises AdapterError."""
    claims: dict[str, frozenset[int]] = {}
    base = 0
    first = answer = await elm.ask(f"{service}{base:02X}")
    while True:
        for reply in map(one, answer.replies):
            listed = _listed(base, reply)
            if listed is not None:
                claims[reply.ecu] = claims.get(reply.ecu, frozenset()) | listed
        base += pids.RANGE
        if base > last or not any(base in known for known in claims.values()):
            return Listing(first, claims)
        answer = await elm.ask(f"{service}{base:02X}")


def _listed(base: int, reply: Reply) -> frozenset[int] | None:
    """Four bytes; older buses send another before them (a fill byte, or the message's number)."""
    if reply.quality is not Quality.OK:
        return None
    data = reply.payload[2:]
    return pids.bitmap(base, data[1:] if len(data) == 1 + pids.RANGE // 8 else data)


def one(reply: Reply) -> Reply:
    """*reply*, but malformed where it holds several messages and one was asked for.

    Then several control units answered through an adapter that does not tell them apart.
    """
    if len(reply.messages) <= 1:
        return reply
    detail = "several answers, and nobody knows whose"
    return replace(reply, quality=Quality.MALFORMED, messages=(), detail=detail)
