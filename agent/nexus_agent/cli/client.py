"""Asking the agent over its status socket, one request a connection.

With h11, because http.client imports the e-mail parser and TLS, which takes 20 ms longer.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final
from urllib.parse import urlencode

import h11

from nexus_agent.cli.errors import DENIED, FAILED, MISUSED, NO_AGENT, AgentError

ANSWER_S: Final = 15.0
"""A little longer than the agent allows itself."""
_CHUNK: Final = 64 * 1024


class Agent:
    """The agent behind the socket at *path*. Every method raises AgentError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get(self, path: str, **query: str | None) -> bytes:
        """The body that the agent answers."""
        with closing(_Call(self._path)) as call:
            self._ask(call, path, query)
            try:
                return b"".join(call.body())
            except (OSError, h11.RemoteProtocolError):
                raise AgentError(f"the agent at {self._path} broke off its answer") from None

    def post(self, path: str) -> bytes:
        """The body of the answer to a request that changes something."""
        with closing(_Call(self._path)) as call:
            self._ask(call, path, {}, "POST")
            return b"".join(call.body())

    def steps(self, path: str, **query: str | None) -> Iterator[bytes]:
        """The lines of the answer to a request that changes something and takes its time."""
        with closing(_Call(self._path)) as call:
            self._ask(call, path, query, "POST")
            call.wait_forever()
            rest = b""
            try:
                for chunk in call.body():
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from whole
            except (OSError, h11.RemoteProtocolError):
                raise AgentError(f"the agent at {self._path} broke off its answer") from None

    def lines(self, path: str, **query: str | None) -> Iterator[bytes]:
        """The lines of an answer without an end; when the agent ends it, that is an AgentError."""
        with closing(_Call(self._path)) as call:
            self._ask(call, path, query)
            call.wait_forever()
            rest = b""
            with suppress(OSError, h11.RemoteProtocolError):
                for chunk in call.body():
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from whole
        raise AgentError(
            f"the agent at {self._path} ended the stream: it stopped, or this reader is too slow"
        )

    def _ask(
        self, call: _Call, path: str, query: dict[str, str | None], method: str = "GET"
    ) -> None:
        """Return once an answer with status 200 begins."""
        given = urlencode({key: value for key, value in query.items() if value is not None})
        try:
            status = call.ask(method, f"{path}?{given}" if given else path)
            if status == 200:
                return
            body = b"".join(call.body())
        except TimeoutError:
            raise AgentError(
                f"the agent at {self._path} did not answer within {ANSWER_S:.0f} s"
            ) from None
        except (OSError, h11.RemoteProtocolError):
            raise AgentError(f"{self._path} does not answer as an agent does") from None
        raise AgentError(_sentence(body, status), DENIED if status == 403 else FAILED)


class _Call:
    """One connection with one request on it."""

    def __init__(self, path: str) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_S)
        try:
            self._connect(path)
        except AgentError:
            self._socket.close()
            raise

    def _connect(self, path: str) -> None:
        try:
            self._socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise AgentError(
                f"no agent answers at {path}: is nexus-agent running?", NO_AGENT
            ) from None
        except PermissionError:
            raise AgentError(
                f"you may not use {path}: ask to be put into the group nexus", DENIED
            ) from None
        except (TimeoutError, BlockingIOError):
            raise AgentError(f"the agent at {path} takes no calls at the moment") from None
        except OSError as error:
            raise AgentError(f"{path}: {error.strerror or error}", MISUSED) from None

    def close(self) -> None:
        self._socket.close()

    def wait_forever(self) -> None:
        """Let the answer take as long as it will."""
        self._socket.settimeout(None)

    def ask(self, method: str, target: str) -> int:
        """Send the request; return the answer's status."""
        headers = [("Host", "localhost"), ("Connection", "close")]
        request = self._http.send(h11.Request(method=method, target=target, headers=headers))
        end = self._http.send(h11.EndOfMessage())
        # A server that is full answers and closes before it has read the request.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall((request or b"") + (end or b""))
        event = self._next()
        if not isinstance(event, h11.Response):
            raise h11.RemoteProtocolError("no answer")
        return event.status_code

    def body(self) -> Iterator[bytes]:
        """The answer's body, as it comes."""
        while isinstance(event := self._next(), h11.Data):
            yield bytes(event.data)

    def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(self._socket.recv(_CHUNK))
        return event


def _sentence(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the agent answered with status {status} and no explanation"
