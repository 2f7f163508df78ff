"""Asking control units: an address of our own, requests, and what is answered to them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from nexus_agent.plugin import PluginError, Quality
from nexus_plugins.j1939.identifier import (
    ACKNOWLEDGEMENT,
    ADDRESS_CLAIMED,
    GLOBAL,
    NULL,
    REQUEST,
    TOLD,
    Identifier,
    Message,
)
from nexus_plugins.j1939.name import Name
from nexus_plugins.j1939.network import Network

CLAIM_S: Final = 0.25
"""How long others may take to contest a claim (SAE J1939-81 section 4)."""
_GLANCE_S: Final = 0.1

_TOOL: Final = Name(129 << 40 | 0x7FF << 21)
"""Function 129 of all industry groups, a diagnostic tool, of no registered maker. It is a high
NAME: whoever else has claimed our address keeps it."""

_REFUSALS: Final = {
    1: "it does not have this (NACK)",
    2: "access is denied",
    3: "it cannot answer now",
}
"""Control bytes of an acknowledgement that brings nothing (SAE J1939-21 section 5.4.4)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one control unit said to one request. No `repr` has the data: it may be a VIN."""

    quality: Quality
    data: bytes = field(default=b"", repr=False)
    detail: str | None = None


NO_ANSWER: Final = Answer(Quality.ABSENT, detail="no answer")


class Inquiry:
    """Notes what is told while it lasts, asked for or not: the last word of each control unit on
    each parameter group. address: ours.
    """

    def __init__(self, network: Network, address: int) -> None:
        self.address = address
        self._network = network
        self._name = Name(_TOOL.value | secrets.randbelow(1 << 21))
        self._answers: dict[tuple[int, int], Answer] = {}
        self._news = asyncio.Event()
        self._seated = False
        self._lost: str | None = None

    def of(self, source: int, pgn: int) -> Answer:
        """What that control unit has said of that group."""
        return self._answers.get((source, pgn), NO_ANSWER)

    def has(self, pgn: int) -> bool:
        """Whether anybody has told that group."""
        return any(what == pgn for _, what in self._answers)

    # -- our address -----------------------------------------------------------------------------

    @asynccontextmanager
    async def seated(self) -> AsyncIterator[None]:
        """Have an address while the block lasts. Raises PluginError where another has it."""
        channel = self._network.channel
        if channel.is_heard(self.address):
            raise PluginError(self._taken("is there"))
        self._seated = True
        channel.reassembly.address = self.address
        try:
            await channel.send(Identifier(ADDRESS_CLAIMED, self.address), self._name.data())
            await asyncio.sleep(CLAIM_S)
            self._check()
            yield
        finally:
            self._seated = False
            channel.reassembly.address = None

    def _taken(self, what: str) -> str:
        return (
            f"Another device with address {self.address:02X} {what}: set `address` to a free one."
        )

    def _check(self) -> None:
        if self._lost is not None:
            raise PluginError(self._lost)

    def _contested(self, message: Message) -> None:
        """Another claims our address: the lower NAME keeps it (SAE J1939-81 section 4)."""
        theirs = Name.read(message.data)
        if theirs is None:
            return
        if theirs.value > self._name.value:
            self._claim(self.address)
            return
        self._lost = self._taken("has claimed it")
        self._network.channel.reassembly.address = None
        self._seated = False
        self._claim(NULL)
        self._news.set()

    def _claim(self, address: int) -> None:
        self._network.channel.say(Identifier(ADDRESS_CLAIMED, address), self._name.data())

    # -- requests --------------------------------------------------------------------------------

    async def call(self) -> None:
        """Ask everybody for their NAMEs (SAE J1939-81 section 4.2)."""
        await self._request(ADDRESS_CLAIMED, GLOBAL)

    async def ask(self, pgn: int, sources: Iterable[int], *, tries: int = 1) -> None:
        """Ask each of *sources* that has not told *pgn* yet, all at a time, and wait until they
        have answered or let their time pass. Raises PluginError.
        """
        wanted = set(sources)
        for _ in range(tries):
            silent = sorted(source for source in wanted if (source, pgn) not in self._answers)
            for source in silent:
                self._check()
                await self._request(pgn, source)
            await self._settle(pgn, silent)

    async def _request(self, pgn: int, destination: int) -> None:
        """SAE J1939-21 section 5.4.2."""
        identifier = Identifier(REQUEST, self.address, destination)
        await self._network.channel.send(identifier, pgn.to_bytes(3, "little"))

    async def _settle(self, pgn: int, sources: Iterable[int]) -> None:
        """Until all of *sources* have answered; who is in the middle of it may go on."""
        loop, waiting = asyncio.get_running_loop(), set(sources)
        deadline = loop.time() + self._network.context.settings.answer_s
        while waiting := {source for source in waiting if (source, pgn) not in self._answers}:
            self._check()
            receiving = self._network.channel.reassembly.receiving
            if loop.time() >= deadline and not any(receiving(each, pgn) for each in waiting):
                return
            self._news.clear()
            try:
                async with asyncio.timeout(_GLANCE_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    # -- what comes ------------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        """A `Listener` of the network's."""
        if message.pgn in TOLD:
            self._note(message.source, message.pgn, Answer(Quality.OK, message.data))
        elif message.pgn == ACKNOWLEDGEMENT:
            self._acknowledged(message)
        elif self._seated and message.pgn == ADDRESS_CLAIMED and message.source == self.address:
            self._contested(message)
        elif self._seated and self._asks_who_we_are(message):
            self._claim(self.address)

    def _asks_who_we_are(self, message: Message) -> bool:
        asked = int.from_bytes(message.data[:3], "little")
        return message.pgn == REQUEST and asked == ADDRESS_CLAIMED and self._is_for_us(message)

    def _is_for_us(self, message: Message) -> bool:
        return message.destination in {self.address, GLOBAL}

    def _acknowledged(self, message: Message) -> None:
        """To whom it speaks is in byte 5 too; older control units leave that out."""
        if len(message.data) != 8 or not self._is_for_us(message):
            return
        detail, asked_by = _REFUSALS.get(message.data[0]), message.data[4]
        ours = self.address in {asked_by, message.destination}
        key = (message.source, pgn := int.from_bytes(message.data[5:8], "little"))
        if detail is not None and ours and pgn in TOLD and key not in self._answers:
            self._note(*key, Answer(Quality.REFUSED, detail=detail))

    def _note(self, source: int, pgn: int, answer: Answer) -> None:
        self._answers[source, pgn] = answer
        self._news.set()
