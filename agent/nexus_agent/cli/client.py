"""Asking the agent over its status socket, one request a connection."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Final
from urllib.parse import urlencode

from nexus_agent.cli.errors import DENIED, FAILED, MISUSED, NO_AGENT, AgentError

ANSWER_S: Final = 15.0
"""A little longer than the agent allows itself."""


class _UnixConnection(HTTPConnection):
    """HTTP to a Unix socket; the host name goes into the Host header only."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise AgentError(
                f"no agent answers at {self._path}: is nexus-agent running?", NO_AGENT
            ) from None
        except PermissionError:
            raise AgentError(
                f"you may not use {self._path}: ask to be put into the group nexus", DENIED
            ) from None
        except TimeoutError:
            raise AgentError(f"{self._path}: nobody takes the call") from None
        except OSError as error:
            raise AgentError(f"{self._path}: {error.strerror or error}", MISUSED) from None


class Agent:
    """The agent behind the socket at *path*. Every method raises AgentError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get(self, path: str, **query: str | None) -> bytes:
        """The body that the agent answers."""
        with closing(_UnixConnection(self._path)) as connection:
            response = self._ask(connection, path, query)
            try:
                return response.read()
            except (OSError, HTTPException):
                raise AgentError(f"the agent at {self._path} broke off its answer") from None

    def lines(self, path: str, **query: str | None) -> Iterator[bytes]:
        """The lines of an answer without an end; when the agent ends it, that is an AgentError."""
        with closing(_UnixConnection(self._path)) as connection:
            response = self._ask(connection, path, query)
            connection.sock.settimeout(None)
            with suppress(OSError, HTTPException):
                while line := response.readline():
                    yield line
        raise AgentError(
            f"the agent at {self._path} ended the stream: it stopped, or this reader is too slow"
        )

    def _ask(
        self, connection: HTTPConnection, path: str, query: dict[str, str | None]
    ) -> HTTPResponse:
        given = urlencode({key: value for key, value in query.items() if value is not None})
        try:
            # A server that is full answers and closes before it has read the request.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("GET", f"{path}?{given}" if given else path)
            response = connection.getresponse()
            if response.status == 200:
                return response
            body = response.read()
        except TimeoutError:
            raise AgentError(
                f"the agent at {self._path} did not answer within {ANSWER_S:.0f} s"
            ) from None
        except (OSError, HTTPException):
            raise AgentError(f"{self._path} does not answer as an agent does") from None
        exit_code = DENIED if response.status == 403 else FAILED
        raise AgentError(_sentence(body, response.status), exit_code)


def _sentence(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"the agent answered with status {status} and no explanation"
