"""A custom connector of thingsboard-gateway that hands over what the bench orders.

It runs in the gateway's own environment. `send_to_storage` has answered SUCCESS: accepted.
"""

from __future__ import annotations

import os
import socket
import time
from threading import Event, Thread
from typing import Any, Final

from thingsboard_gateway.connectors.connector import Connector
from thingsboard_gateway.gateway.constant_enums import Status
from thingsboard_gateway.gateway.entities.converted_data import ConvertedData
from thingsboard_gateway.gateway.entities.datapoint_key import DatapointKey
from thingsboard_gateway.gateway.entities.telemetry_entry import TelemetryEntry

from peers.producers.feed import TOGETHER, Load, Order, port

DEVICE: Final = "bench"
_EPOCH_MS: Final = 1_800_000_000_000
"""A reading's time is its key in ThingsBoard, in milliseconds: no two may have the same."""
_QUEUED: Final = 20_000
"""What may wait in the gateway's memory, so that it is not measured on a queue of any length."""
_TOGETHER: Final = int(os.environ[TOGETHER])
"""Readings in one item of its storage."""


class FeedConnector(Thread, Connector):  # type: ignore[misc]
    """The bench's own connector; see `feed`."""

    def __init__(self, gateway: Any, config: dict[str, Any], connector_type: str) -> None:
        super().__init__(daemon=True, name="feed")
        self._gateway = gateway
        self._config = config
        self._type = connector_type
        self._stopped = Event()
        self._keys: dict[str, DatapointKey] = {}

    def open(self) -> None:
        self.start()

    def run(self) -> None:
        load = Load()
        with socket.create_connection(("127.0.0.1", port())) as line, line.makefile("rb") as orders:
            for text in orders:
                order = Order.parse(text)
                begin = time.monotonic()
                line.sendall(f"start {begin}\n".encode())
                for due, first, count in order.batches():
                    self._stopped.wait(max(0.0, begin + due - time.monotonic()))
                    if self._stopped.is_set():
                        return
                    if self._hand_over(load.events(first, count)):
                        line.sendall(f"{first} {first + count - 1}\n".encode())

    def _hand_over(self, events: list[tuple[str, dict[str, Any]]]) -> bool:
        waiting = self._gateway.get_converted_data_queue()
        storing = self._gateway._event_storage.write_queue  # noqa: SLF001 - it has no other door
        taken = True
        for start in range(0, len(events), _TOGETHER):
            while waiting.qsize() + storing.qsize() > _QUEUED // _TOGETHER:
                self._stopped.wait(0.002)
            item = ConvertedData(DEVICE)
            for kind, data in events[start : start + _TOGETHER]:
                values = {self._key(name): value for name, value in data.items()}
                values[self._key("type")] = kind
                item.add_to_telemetry(TelemetryEntry(values, _EPOCH_MS + data["n"]))
            told = self._gateway.send_to_storage(self.name, self.get_id(), item)
            taken = taken and told == Status.SUCCESS
        return taken

    def _key(self, name: str) -> DatapointKey:
        return self._keys.setdefault(name, DatapointKey(name))

    def close(self) -> None:
        self._stopped.set()

    def get_id(self) -> Any:
        return self._config.get("id")

    def get_name(self) -> str:
        return str(self.name)

    def get_type(self) -> str:
        return self._type

    def get_config(self) -> dict[str, Any]:
        return self._config

    def is_connected(self) -> bool:
        return True

    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def on_attributes_update(self, content: Any) -> None:
        """Nothing here has attributes."""

    def server_side_rpc_handler(self, content: Any) -> None:
        """Nothing here is called."""
