"""A client of one ELM327 adapter: one request at a time, each with its deadline.

Source: ELM327 data sheet v2.x, "Communicating with the ELM327", "AT Command Summary". The adapter
closes every answer with the prompt `>` and takes nothing but an interruption before it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from nexus_agent.plugin import PluginError, Quality
from nexus_plugins.obd import abilities, answer
from nexus_plugins.obd.abilities import Abilities
from nexus_plugins.obd.answer import Answer
from nexus_plugins.obd.transport import Link, LinkError

_PROMPT: Final = b">"

_SET_UP: Final = ("ATL0", "ATS0", "ATH1", "ATSP0")
"""No line feeds, no blanks, headers, find the protocol: what an adapter refuses, the parser bears;
but ATSP0 it must know."""

_MARKER: Final = "ATE0"
"""Its answer, `OK`, can be none to a vehicle's request; sending it twice changes nothing."""

_MARKER_TRIES: Final = 3
_QUIET_S: Final = 0.2

_REPEATED_S: Final = 0.1
"""An adapter that says its answer twice has done so by then."""

_PENDING_S: Final = 5.0
"""P2*CAN max (ISO 15765-4 table 5, ISO 14229-2): what "response pending" entitles to."""
_PENDING_MAX: Final = 3

_PENDING: Final = re.compile(r"7F ?[0-9A-F]{2} ?78\s*\Z")
_SEARCHING: Final = re.compile(r"SEARCHING|BUS ?INIT")

_PROTOCOLS: Final = {
    "1": "SAE J1850 PWM",
    "2": "SAE J1850 VPW",
    "3": "ISO 9141-2",
    "4": "ISO 14230-4, 5 baud init",
    "5": "ISO 14230-4, fast init",
    "6": "ISO 15765-4, 11 bit, 500 kbit/s",
    "7": "ISO 15765-4, 29 bit, 500 kbit/s",
    "8": "ISO 15765-4, 11 bit, 250 kbit/s",
    "9": "ISO 15765-4, 29 bit, 250 kbit/s",
    "A": "SAE J1939",
}
"""What `ATDPN` answers, after an `A` where the adapter found it by itself."""


class AdapterError(PluginError):
    """The adapter is of no use any more; the link is closed. state is that of `adapter.state`."""

    state: str


class AdapterLostError(AdapterError):
    """The link broke."""

    state = "lost"


class AdapterSilentError(AdapterError):
    """The link is open but the adapter does not answer."""

    state = "silent"


class Elm327:
    """An adapter that is set up. Any task may ask; requests wait for their turn."""

    def __init__(self, link: Link, *, timeout_s: float, search_timeout_s: float) -> None:
        self._link = link
        self._timeout_s = timeout_s
        self._search_timeout_s = search_timeout_s
        self._turn = asyncio.Lock()
        self._in_step = False
        self._last = "", 0.0
        self._failure: AdapterError | None = None
        self.version: str | None = None
        """How the adapter names itself, such as `ELM327 v1.5`."""
        self.abilities = Abilities()
        """What `set_up` found that it can do."""
        self.trying = False
        """Whether that is under way, or was when the adapter was lost."""
        self.latency_s = 0.0
        """From the last request of `ask` to the end of its answer."""

    async def set_up(self, *, find_abilities: bool = False) -> None:
        """Reset the adapter and bring it into the state that `ask` needs. Raises AdapterError.

        find_abilities: try before that what it can do, which may silence a bad copy.
        """
        async with self._turn:
            self.version = _version(await self._command("ATZ"))
            await self._regain_step()
            self.abilities = Abilities(claims=self.version)
            if find_abilities:
                self.trying = True
                self.abilities = await abilities.probe(self.version, self._try)
                self.trying = False
            for command in _SET_UP:
                text = await self._command(command)
            if "OK" not in text.upper():
                raise self._fail(AdapterSilentError("it does not understand ATSP0: no ELM327?"))

    async def _try(self, command: str) -> list[str] | None:
        """What the adapter itself says to *command*; None where it says nothing in time."""
        text = await self._exchange(command)
        if text is None:
            await self._regain_step()
            return None
        self._in_step = True
        return answer.lines_of(text, command)

    async def ask(self, request: str) -> Answer:
        """What the vehicle says to *request*, upper-case hex such as `010C`.

        An answer that is late is absent and never becomes another request's. Raises AdapterError
        where the adapter itself is gone.
        """
        loop = asyncio.get_running_loop()
        async with self._turn:
            if not self._in_step or self._may_be_repeated(request):
                await self._regain_step()
            begun = loop.time()
            text = await self._exchange(request)
            self._last = request, loop.time()
            self.latency_s = loop.time() - begun
            if text is None:
                missing = self._missing(request)
                await self._regain_step()
                return missing
            if self._link.overrun:
                return Answer((), Quality.MALFORMED, "the answer is too long")
            found = answer.parse(request, text)
            qualities = {found.otherwise, *(reply.quality for reply in found.replies)}
            self._in_step = Quality.MALFORMED not in qualities
            return found

    def _may_be_repeated(self, request: str) -> bool:
        """Whether a second copy of the last answer could be taken for the answer to *request*."""
        last, at = self._last
        return request == last and asyncio.get_running_loop().time() - at < _REPEATED_S

    def _missing(self, request: str) -> Answer:
        """What to say of an answer that the deadline found unfinished, if begun at all."""
        lines = answer.lines_of(_decode(self._link.peek()), request)
        if all(_SEARCHING.match(line) or _PENDING.search(line) for line in lines):
            return Answer((), Quality.ABSENT, f"no answer within {self._timeout_s:g} s")
        return Answer((), Quality.MALFORMED, f"no whole answer within {self._timeout_s:g} s")

    async def protocol(self) -> str | None:
        """The protocol that the adapter found; None where it does not tell."""
        async with self._turn:
            if not self._in_step:
                await self._regain_step()
            lines = answer.lines_of(await self._command("ATDPN"), "ATDPN")
        number = lines[-1] if lines else ""
        return _PROTOCOLS.get(number.removeprefix("A") or "A")

    async def rest(self, seconds: float) -> bool:
        """Wait; True at once on `wake`. Raises AdapterError as soon as the adapter is gone."""
        try:
            async with asyncio.timeout(seconds):
                await self._link.stirred.wait()
        except TimeoutError:
            return False
        if self._link.lost:
            raise self._fail(AdapterLostError("the connection was closed by the adapter"))
        self._link.stirred.clear()
        return True

    def wake(self) -> None:
        """End the `rest` of another task: there is news."""
        self._link.stirred.set()

    def _fail(self, error: AdapterError) -> AdapterError:
        """Close the link, so that everyone who uses it learns of it."""
        self._failure = self._failure or error
        self._link.close()
        return self._failure

    async def _command(self, command: str) -> str:
        """The answer to an AT command; none in time means that the adapter is silent."""
        text = await self._exchange(command)
        if text is None:
            raise self._fail(
                AdapterSilentError(f"no answer to {command} within {self._timeout_s:g} s")
            )
        self._in_step = True
        return text

    async def _exchange(self, request: str) -> str | None:
        """The text up to the prompt, or None where the deadline passes."""
        self._in_step = False
        self._link.discard()
        try:
            await self._link.write(request.encode("ascii") + b"\r")
            return await self._read_text()
        except LinkError as error:
            raise self._fail(AdapterLostError(str(error))) from None

    async def _read_text(self) -> str | None:
        """Wait for the prompt: longer where the adapter is searching or a control unit is busy."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        until, pending, searched = begun + self._timeout_s, 0, False
        while (raw := await self._link.read_until(_PROMPT, until - loop.time())) is None:
            so_far = _decode(self._link.peek()).upper()
            if _PENDING.search(so_far) and pending < _PENDING_MAX:
                pending += 1
                until = loop.time() + _PENDING_S
            elif _SEARCHING.search(so_far) and not searched:
                searched = True
                until = begun + max(self._search_timeout_s, self._timeout_s)
            else:
                return None
        return _decode(raw)

    async def _regain_step(self) -> None:
        """Make sure that what comes next answers what is asked next.

        Answers come in the order of the requests, so whatever precedes the marker's answer is old.
        A real adapter that is still busy takes the marker as an interruption: it is sent again.
        Raises AdapterSilentError if the marker is never answered.
        """
        loop = asyncio.get_running_loop()
        try:
            for attempt in range(_MARKER_TRIES):
                await self._link.write(_MARKER.encode("ascii") + b"\r")
                until = loop.time() + self._timeout_s / _MARKER_TRIES
                while (raw := await self._read_before(until)) is not None:
                    if answer.lines_of(_decode(raw), _MARKER)[-1:] != ["OK"]:
                        continue
                    for _ in range(attempt):
                        await self._link.read_until(_PROMPT, _QUIET_S)
                    self._in_step = True
                    return
        except LinkError as error:
            raise self._fail(AdapterLostError(str(error))) from None
        raise self._fail(AdapterSilentError(f"no answer to {_MARKER} within {self._timeout_s:g} s"))

    async def _read_before(self, until: float) -> bytes | None:
        left = until - asyncio.get_running_loop().time()
        return await self._link.read_until(_PROMPT, max(left, 0))


def _decode(raw: bytes) -> str:
    # The data sheet allows the adapter to slip in NUL bytes.
    return raw.replace(b"\0", b"").decode("ascii", "replace")


def _version(text: str) -> str | None:
    """The line of the answer to ATZ that names adapter and version: it has letters and a digit."""
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    named = [line for line in lines if re.fullmatch(r"(?=.*\d)[A-Za-z][ -~]{3,40}", line)]
    return named[-1] if named else None
