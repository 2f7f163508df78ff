"""The adapter's client against a scripted adapter: what an emulator that only answers cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from nexus_agent.plugin import Quality
from nexus_plugins.obd.elm327 import AdapterLostError, AdapterSilentError, Elm327
from nexus_plugins.obd.transport import MAX_BUFFER, connect

Say = Callable[[str], None]
Script = Callable[[str, Say], Awaitable[None]]
"""Called for each request with the request and with a way to say something."""

RPM = "7E8 04 41 0C 1A F8\r\r>"
SPEED = "7E8 03 41 0D 32\r\r>"
COOLANT = "7E8 03 41 05 7B\r\r>"


@asynccontextmanager
async def adapter(script: Script, *, timeout_s: float = 0.3) -> AsyncIterator[Elm327]:
    """A client that is set up with an adapter of which *script* answers all but AT commands."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode())

        try:
            while request := (await reader.readuntil(b"\r"))[:-1].decode():
                if request.startswith("AT") and not ready.is_set():
                    say("ELM327 v2.1\r\r>" if request == "ATZ" else "OK\r\r>")
                else:
                    await script(request, say)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            gone.set()

    ready, gone = asyncio.Event(), asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        link = await connect(f"socket://127.0.0.1:{port}", baudrate=38400, within_s=5)
        try:
            elm = Elm327(link, timeout_s=timeout_s, search_timeout_s=5)
            await elm.set_up()
            ready.set()
            yield elm
        finally:
            link.close()
            await gone.wait()


def at_ok(request: str, say: Say) -> bool:
    if request.startswith("AT"):
        say("OK\r\r>")
        return True
    return False


async def test_set_up_learns_the_version() -> None:
    async def script(request: str, say: Say) -> None:
        at_ok(request, say)

    async with adapter(script) as elm:
        assert elm.version == "ELM327 v2.1"


async def test_response_pending_extends_the_deadline() -> None:
    go_on = asyncio.Event()

    async def script(request: str, say: Say) -> None:
        if not at_ok(request, say):
            say("7E8 03 7F 03 78\r")
            await go_on.wait()
            say("7E8 04 43 01 03 01\r\r>")

    async with adapter(script, timeout_s=0.1) as elm, asyncio.TaskGroup() as group:
        asked = group.create_task(elm.ask("03"), name="ask")
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        go_on.set()
        assert (await asked).of("7E8").quality is Quality.OK


async def test_searching_extends_the_deadline() -> None:
    go_on = asyncio.Event()

    async def script(request: str, say: Say) -> None:
        if not at_ok(request, say):
            say("SEARCHING...\r")
            await go_on.wait()
            say(RPM)

    async with adapter(script, timeout_s=0.1) as elm, asyncio.TaskGroup() as group:
        asked = group.create_task(elm.ask("010C"), name="ask")
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        go_on.set()
        assert (await asked).of("7E8").quality is Quality.OK


async def test_a_busy_adapter_that_is_interrupted_gets_back_in_step() -> None:
    """A real ELM327 takes whatever is sent before its prompt as an interruption."""
    waiting = True

    async def script(request: str, say: Say) -> None:
        nonlocal waiting
        if request == "010C" and waiting:
            return
        if waiting:
            waiting = False
            say("STOPPED\r\r>")
        elif not at_ok(request, say):
            say(RPM if request == "010C" else SPEED)

    async with adapter(script) as elm:
        late = await elm.ask("010C")
        assert (late.replies, late.otherwise) == ((), Quality.ABSENT)
        assert (await elm.ask("010D")).of("7E8").messages == (b"\x41\x0d\x32",)


async def test_an_answer_nobody_asked_for_is_discarded() -> None:
    async def script(request: str, say: Say) -> None:
        if not at_ok(request, say):
            say(RPM + RPM if request == "010C" else SPEED)

    async with adapter(script) as elm:
        assert (await elm.ask("010C")).of("7E8").quality is Quality.OK
        assert (await elm.ask("010D")).of("7E8").messages == (b"\x41\x0d\x32",)


async def test_an_adapter_that_lags_one_answer_behind_is_brought_back() -> None:
    unsaid = [SPEED]

    async def script(request: str, say: Say) -> None:
        if request.startswith("AT"):
            say("".join(unsaid) + "OK\r\r>")
            unsaid.clear()
        else:
            unsaid.append(RPM if request == "010C" else COOLANT)
            say(unsaid.pop(0))

    async with adapter(script) as elm:
        first = await elm.ask("010C")
        second = await elm.ask("0105")

    assert first.of("7E8").quality is Quality.MALFORMED
    assert second.of("7E8").messages == (b"\x41\x05\x7b",)


async def test_an_endless_answer_is_malformed_and_bounded() -> None:
    async def script(request: str, say: Say) -> None:
        if not at_ok(request, say):
            say("7E8 04 41 0C 1A F8\r" * (MAX_BUFFER // 10) + ">")

    async with adapter(script, timeout_s=2) as elm:
        answer = await elm.ask("010C")

    assert (answer.replies, answer.otherwise, answer.detail) == (
        (),
        Quality.MALFORMED,
        "the answer is too long",
    )


async def test_an_answer_without_its_prompt_is_malformed() -> None:
    async def script(request: str, say: Say) -> None:
        if not at_ok(request, say):
            say("7E8 04 41 0C 1A F8\r")

    async with adapter(script, timeout_s=0.1) as elm:
        answer = await elm.ask("010C")

    assert (answer.replies, answer.otherwise) == ((), Quality.MALFORMED)


async def test_requests_of_several_tasks_take_turns() -> None:
    under_way = 0

    async def script(request: str, say: Say) -> None:
        nonlocal under_way
        if not at_ok(request, say):
            under_way += 1
            assert under_way == 1
            await asyncio.sleep(0)
            under_way -= 1
            say(RPM if request == "010C" else SPEED)

    async with adapter(script) as elm:
        answers = await asyncio.gather(*(elm.ask(r) for r in ["010C", "010D"] * 5))

    assert [a.of("7E8").payload[1] for a in answers] == [0x0C, 0x0D] * 5


async def test_a_request_that_is_given_up_leaves_the_next_one_right() -> None:
    asked = asyncio.Event()
    answers: list[str] = [RPM]

    async def script(request: str, say: Say) -> None:
        if request == "010C":
            asked.set()
        elif request.startswith("AT"):
            say("".join(answers) + "OK\r\r>")
            answers.clear()
        else:
            say(SPEED)

    async with adapter(script) as elm, asyncio.TaskGroup() as group:
        given_up = group.create_task(elm.ask("010C"), name="ask")
        await asked.wait()
        given_up.cancel()
        assert (await elm.ask("010D")).of("7E8").messages == (b"\x41\x0d\x32",)


async def test_silence_ends_the_link_for_everyone() -> None:
    async def script(request: str, say: Say) -> None:
        pass

    async with adapter(script, timeout_s=0.1) as elm:
        with pytest.raises(AdapterSilentError):
            await elm.ask("010C")
        with pytest.raises(AdapterSilentError):
            await elm.rest(10)
        with pytest.raises(AdapterSilentError):
            await elm.ask("010D")


async def test_a_closed_link_ends_a_rest_at_once() -> None:
    async with adapter(never_asked) as elm:
        elm._link.close()
        with pytest.raises(AdapterLostError):
            await elm.rest(60)


async def never_asked(request: str, say: Say) -> None:
    raise AssertionError(request)
