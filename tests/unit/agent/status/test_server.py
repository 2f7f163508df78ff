from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.agent.status.conftest import Box, Dial, Serve, serving

from nexus_agent.status.server import StatusError, StatusServer


def document(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_status_is_the_sources_document(serve: Serve, dial: Dial) -> None:
    await serve()
    caller = await dial()

    caller.get("/v1/status", "Connection: close")

    answer = await caller.rest()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: application/json\r\n" in answer.lower()
    assert document(answer) == {"v": 1, "device": "box-1"}


async def test_pythons_http_client_keeps_its_connection(serve: Serve, path: Path) -> None:
    await serve()

    def ask_twice() -> list[tuple[int, Any]]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(os.fspath(path))
        answers = []
        for target in ("/v1/status", "/v1/plugins"):
            connection.request("GET", target)
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
        connection.close()
        return answers

    assert await asyncio.to_thread(ask_twice) == [
        (200, {"v": 1, "device": "box-1"}),
        (200, {"v": 1, "plugins": []}),
    ]


async def test_pipelined_requests_are_answered_in_order(serve: Serve, dial: Dial) -> None:
    await serve()
    caller = await dial()

    caller.get("/v1/status")
    caller.get("/nowhere")
    caller.get("/v1/plugins", "Connection: close")

    answers = (await caller.rest()).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"404", b"200"]
    assert "plugins" in document(answers[2])


async def test_a_half_closed_caller_gets_its_answer(serve: Serve, dial: Dial) -> None:
    await serve()
    caller = await dial()

    caller.get("/v1/status")
    caller.writer.write_eof()

    assert document(await caller.rest())["device"] == "box-1"


async def test_head_has_the_length_and_no_body(serve: Serve, dial: Dial) -> None:
    await serve()
    caller = await dial()

    caller.get("/v1/status", "Connection: close", method="HEAD")

    answer = await caller.rest()
    assert b"content-length: 25\r\n" in answer.lower()
    assert answer.endswith(b"\r\n\r\n")


async def test_head_of_a_follow_ends_at_once(serve: Serve, dial: Dial) -> None:
    await serve()
    caller = await dial()

    caller.get("/v1/events?follow=1", method="HEAD")

    answer = await caller.rest()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "target", "status", "words"),
    [
        ("GET", "/", 404, "there is nothing at '/'"),
        ("GET", "/v1/status/", 404, "/v1/status, "),
        ("POST", "/v1/status", 405, "POST is not possible here"),
        ("DELETE", "/metrics", 405, "can only be read"),
        ("GET", "/v1/status?x=1", 400, "unknown parameter 'x'; known here: none"),
        ("GET", "/v1/events?typ=a.b", 400, "known here: type, stream, after, limit, follow"),
        ("GET", "/v1/events?limit=0", 400, "limit is a number from 1 to 1000, not '0'"),
        ("GET", "/v1/events?limit=1001", 400, "not '1001'"),
        ("GET", "/v1/events?limit=-1", 400, "not '-1'"),
        ("GET", "/v1/events?limit=1&limit=2", 400, "given twice"),
        ("GET", "/v1/events?stream=alarm", 400, "one of alert, event, telemetry, log"),
        ("GET", "/v1/events?type=Nope", 400, "event type 'Nope'"),
        ("GET", "/v1/events?follow=yes", 400, "follow is 0 or 1, not 'yes'"),
        ("GET", "/v1/events?after=x", 400, "'x' is no cursor"),
        ("GET", "/v1/events?after=x&follow=1", 400, "'x' is no cursor"),
        ("GET", "/v1/events?type=%ff", 400, "does not parse"),
        ("GET", "http://[x/v1/status", 400, "does not parse"),
        ("GET", "/metrics", 503, "the outbox is being repaired"),
    ],
)
async def test_a_refusal_is_one_sentence_and_the_connection_goes_on(
    serve: Serve, dial: Dial, method: str, target: str, status: int, words: str
) -> None:
    await serve()
    caller = await dial()

    caller.get(target, method=method)
    caller.get("/v1/status", "Connection: close")

    first, second = (await caller.rest()).split(b"HTTP/1.1 ")[1:]
    assert first[:3] == str(status).encode()
    assert words in document(first)["error"]
    assert second[:3] == b"200"


async def test_405_names_what_is_allowed(serve: Serve, dial: Dial) -> None:
    await serve()
    caller = await dial()

    caller.get("/v1/status", method="PUT")

    assert b"allow: get, head\r\n" in (await caller.head()).lower()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + b"z" * 20_000, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", 417),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_ends(
    serve: Serve, dial: Dial, sent: bytes, status: int
) -> None:
    await serve()
    caller = await dial()

    caller.send(sent)

    head = await caller.head()
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close\r\n" in head.lower()


@settings(max_examples=40, deadline=None)
@given(garbage=st.binary(max_size=200))
def test_no_bytes_bring_the_server_down(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    """In a process of its own event loop, because Hypothesis runs plain functions."""
    path = tmp_path_factory.mktemp("s") / "agent.sock"

    async def scenario() -> bytes:
        async with serving(path, Box()):
            for sent in (garbage, b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(sent)
                writer.write_eof()
                async with asyncio.timeout(5):
                    answer = await reader.read()
                writer.close()
                await writer.wait_closed()
            return answer

    assert document(asyncio.run(scenario()))["device"] == "box-1"


async def test_an_idle_caller_is_let_go_without_a_word(serve: Serve, dial: Dial) -> None:
    await serve(request_s=0.05)
    caller = await dial()

    assert await caller.rest() == b""


async def test_a_request_that_dribbles_in_is_refused(serve: Serve, dial: Dial) -> None:
    await serve(request_s=0.05)
    caller = await dial()

    caller.send(b"GET /v1/status HT")

    assert (await caller.head()).startswith(b"HTTP/1.1 408 ")


async def test_a_source_that_hangs_is_a_503(serve: Serve, dial: Dial) -> None:
    await serve(answer_s=0.05)
    caller = await dial()

    caller.get("/v1/outbox")

    assert (await caller.head()).startswith(b"HTTP/1.1 503 ")


async def test_a_fault_in_an_answer_is_a_500_and_the_server_goes_on(
    serve: Serve, dial: Dial, box: Box
) -> None:
    task = await serve()
    box.fault = KeyError("state")
    first, second = await dial(), await dial()

    first.get("/v1/status")
    assert (await first.head()).startswith(b"HTTP/1.1 500 ")
    second.get("/v1/plugins")

    assert (await second.head()).startswith(b"HTTP/1.1 200 ")
    assert not task.done()


async def test_one_caller_too_many_is_told_so(serve: Serve, dial: Dial) -> None:
    await serve(connections=1)
    first, second = await dial(), await dial()
    first.get("/v1/status")
    await first.head()

    answer = await second.rest()

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert "too many connections" in document(answer)["error"]


async def test_stopping_ends_followers_and_leaves_no_task_and_no_socket(
    serve: Serve, dial: Dial, box: Box, path: Path
) -> None:
    before = asyncio.all_tasks()
    task = await serve()
    follower, idle = await dial(), await dial()
    follower.get("/v1/events?follow=1")
    await follower.head()
    idle.get("/v1/status")
    await idle.head()

    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait({task})

    assert asyncio.all_tasks() == before
    assert not await asyncio.to_thread(path.exists)
    assert await follower.rest() == b""
    assert box.followers == []


async def test_a_second_agent_is_refused_and_the_first_goes_on(
    serve: Serve, dial: Dial, path: Path, box: Box
) -> None:
    await serve()

    with pytest.RaisesGroup(pytest.RaisesExc(StatusError, match="another agent")):
        async with asyncio.TaskGroup() as group:
            group.create_task(StatusServer(path, box).run())

    caller = await dial()
    caller.get("/v1/status")
    assert (await caller.head()).startswith(b"HTTP/1.1 200 ")


def test_it_runs_on_uvloop(path: Path) -> None:
    async def scenario() -> bytes:
        async with serving(path, Box()):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

    assert document(uvloop.run(scenario()))["device"] == "box-1"


ASK = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as caller:
    caller.connect(sys.argv[1])
    caller.sendall(b"GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(b"".join(iter(lambda: caller.recv(4096), b"")).decode())
"""


def open_to_all(path: Path) -> None:
    path.chmod(0o666)
    for folder in path.parents:
        if len(folder.parts) > 2:  # below /tmp
            folder.chmod(folder.stat().st_mode | 0o011)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_stranger_is_refused_even_where_the_files_mode_lets_him_in(
    serve: Serve, path: Path
) -> None:
    await serve()
    await asyncio.to_thread(open_to_all, path)

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-I", "-c", ASK, os.fspath(path)],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
        cwd="/",
    )

    assert done.stdout.startswith("HTTP/1.1 403 ")
    assert "only members of the group 'nexus' may" in done.stdout
