"""Control units behind a DoIP gateway (ISO 13400-2)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, Final

from doipclient.messages import (
    AliveCheckRequest,
    AliveCheckResponse,
    DiagnosticMessage,
    DiagnosticMessageNegativeAcknowledgement,
    DiagnosticMessagePositiveAcknowledgement,
    GenericDoIPNegativeAcknowledge,
    RoutingActivationRequest,
    RoutingActivationResponse,
)

from nexus_plugins.uds import doip_wire
from nexus_plugins.uds.doip_wire import Connection, Unknown
from nexus_plugins.uds.link import Link, LinkError, NoRoute
from nexus_plugins.uds.settings import LinkOptions

_Nack = DiagnosticMessageNegativeAcknowledgement.NackCodes
_Activation = RoutingActivationResponse.ResponseCode

_NOT_THERE: Final = frozenset({_Nack.UnknownTargetAddress, _Nack.UnknownNetwork})
_SILENT_MOST: Final = 3
"""After so many questions in a row that the gateway took no notice of, it is connected to anew:
that it is alive is known only once it has admitted us again."""

_MESSAGES_MOST: Final = 1000
"""So many messages in one wait are a flood, in which no answer is looked for any longer."""


def _words(code: int, names: type[_Nack | _Activation]) -> str:
    """`code 0x06, target unreachable`."""
    try:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", names(code).name).lower()
    except ValueError:
        name = "a reason of the maker's own"
    return f"code 0x{code:02X}, {name}"


class DoipLink(Link):
    """One gateway; a target is a logical address."""

    def __init__(self, settings: LinkOptions) -> None:
        super().__init__()
        self._settings = settings
        self._connection: Connection | None = None
        self._address: str | None = None
        self._module: int | None = None
        self._early: list[bytes] = []
        self._unnoticed = 0

    def open(self) -> None:
        self._find()
        self._connect()
        self._admit()

    def probe(self) -> None:
        self._find()
        self._connect()
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._module, self._unnoticed = None, 0
        if connection is not None:
            connection.close()

    def send(self, target: int, payload: bytes) -> None:
        self.vouches = False
        if self._settings.connection == "per_module" and self._module not in {None, target}:
            self._reconnect()
        connection = self._open_connection()
        self._module = target
        self._forget(connection)
        until = time.monotonic() + self._settings.ack_s
        connection.send(DiagnosticMessage(self._settings.source, target, payload), until)
        self._await_acknowledgement(connection, target, until)
        # Gateways acknowledge for whom they know; some for anybody, whom nobody has named.
        self.vouches = bool(self._settings.targets)

    def receive(self, until: float) -> bytes | None:
        if self._early:
            return self._early.pop(0)
        for message in self._messages(self._open_connection(), until):
            if self._is_from(message, self._module):
                return bytes(message.user_data)
        return None

    # -- the connection --------------------------------------------------------------------------

    def _find(self) -> None:
        settings = self._settings
        self._address = settings.host or doip_wire.find(
            settings.discover or "",
            settings.port,
            within_s=settings.connect_timeout_s,
            patience=self.patience,
        )

    def _connect(self) -> None:
        settings = self._settings
        self._connection = doip_wire.connect(
            self._address or "",
            settings.port,
            settings.version,
            within_s=settings.connect_timeout_s,
            patience=self.patience,
        )

    def _reconnect(self) -> None:
        self.close()
        self._connect()
        self._admit()

    def _admit(self) -> None:
        """Routing activation (ISO 13400-2 section 9.2): from then on questions are handed on."""
        connection = self._open_connection()
        until = time.monotonic() + self._settings.connect_timeout_s
        connection.send(
            RoutingActivationRequest(self._settings.source, self._settings.activation), until
        )
        for message in self._messages(connection, until):
            if isinstance(message, RoutingActivationResponse):
                code = message._response_code  # noqa: SLF001 - its property raises for new codes
                if code != _Activation.Success:
                    raise LinkError(
                        f"the gateway does not admit tester {self._settings.source:04X} "
                        f"({_words(code, _Activation)}): see `source` and `activation`"
                    )
                return
        raise LinkError("the gateway has not answered the routing activation")

    def _open_connection(self) -> Connection:
        if self._connection is None:
            raise LinkError("the gateway is not connected")
        return self._connection

    # -- messages --------------------------------------------------------------------------------

    def _messages(self, connection: Connection, until: float) -> Iterator[Any]:
        """What comes, but for what is about the connection itself; a flood has an end."""
        for _ in range(_MESSAGES_MOST):
            message = connection.receive(until)
            if message is None:
                return
            if isinstance(message, AliveCheckRequest):
                answer = AliveCheckResponse(self._settings.source)
                connection.send(answer, time.monotonic() + self._settings.ack_s)
            else:
                yield message

    def _forget(self, connection: Connection) -> None:
        """What came since the last question answers no question."""
        self._early.clear()
        for _ in self._messages(connection, 0.0):
            pass

    def _is_from(self, message: Any, target: int | None) -> bool:
        return (
            isinstance(message, DiagnosticMessage)
            and message.source_address == target
            and message.target_address == self._settings.source
        )

    def _await_acknowledgement(self, connection: Connection, target: int, until: float) -> None:
        """Raises NoRoute unless the question was handed on (ISO 13400-2 section 9.5)."""
        for message in self._messages(connection, until):
            if self._is_from(message, target):
                self._early.append(bytes(message.user_data))
            elif isinstance(message, DiagnosticMessageNegativeAcknowledgement):
                if message.source_address == target:
                    self._unnoticed = 0
                    raise self._refusal(message._nack_code)  # noqa: SLF001 - as above
                continue
            elif isinstance(message, GenericDoIPNegativeAcknowledge | Unknown):
                self._unnoticed = 0
                raise NoRoute("the gateway refuses the message itself", there=False)
            elif not (
                isinstance(message, DiagnosticMessagePositiveAcknowledgement)
                and message.source_address == target
            ):
                continue
            self._unnoticed = 0
            return
        self._unnoticed += 1
        if self._unnoticed >= _SILENT_MOST:
            self._reconnect()
        raise NoRoute(
            f"the gateway took no notice of the question within {self._settings.ack_s:g} s",
            there=False,
        )

    def _refusal(self, code: int) -> NoRoute | LinkError:
        words = _words(code, _Nack)
        if code == _Nack.InvalidSourceAddress:
            return LinkError(
                f"the gateway hands nothing on from tester {self._settings.source:04X} ({words}): "
                "see `source`"
            )
        return NoRoute(f"the gateway: {words}", there=code not in _NOT_THERE)
