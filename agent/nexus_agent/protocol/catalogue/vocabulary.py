"""What one plugin may emit: what the catalogue has, and what it declares itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from nexus_agent.protocol.catalogue.base import EventData
from nexus_agent.protocol.catalogue.kinds import CATALOGUE
from nexus_agent.protocol.names import ProtocolError, Stream, check_event_type

Declared = str | type[EventData]
"""A type by its name, or one of the plugin's own with the model of its data."""


def names(emits: Iterable[Declared]) -> tuple[str, ...]:
    """The types' names."""
    return tuple(each if isinstance(each, str) else each.type for each in emits)


class Vocabulary:
    """emits: what the plugin declares; None where nobody knows, then any type of its own will do.

    Types of the catalogue need not be declared to be taken.
    """

    def __init__(self, emits: Iterable[Declared] | None = None) -> None:
        declared = () if emits is None else tuple(emits)
        self._declared = None if emits is None else frozenset(names(declared))
        self._own = {each.type: each for each in declared if not isinstance(each, str)}

    def checked(
        self, events: Sequence[tuple[str, Any]], stream: Stream
    ) -> Sequence[tuple[str, Any]]:
        """*events* with models of data made plain. ProtocolError says what is wrong with one."""
        return [(kind, self._check(kind, data, stream)) for kind, data in events]

    def _check(self, kind: str, data: Any, stream: Stream) -> Any:
        model = CATALOGUE.get(kind) or self._own.get(kind)
        if model is None:
            self._check_declared(kind)
            return data
        if stream not in model.streams:
            raise ProtocolError(
                f"event {kind}: it goes on {' or '.join(model.streams)}, not on {stream}"
            )
        if isinstance(data, EventData):
            if type(data) is not model:
                raise ProtocolError(f"event {kind}: its data is that of {data.type}")
            return data.document()
        model.check(_body(kind, data))
        return data

    def _check_declared(self, kind: str) -> None:
        check_event_type(kind)
        if self._declared is not None and kind not in self._declared:
            raise ProtocolError(
                f"event {kind}: the catalogue has no such type, and the plugin does not declare it "
                "in `emits`"
            )


def _body(kind: str, data: Any) -> bytes:
    try:
        return orjson.dumps(data)
    except TypeError as error:
        raise ProtocolError(f"event {kind}: data is not JSON: {error}") from None
