"""A mosquitto on the box, with persistence and a bridge to the remote one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from nexus_demo.processes import Process, free_port
from peers.contestant import Contestant, size_of
from peers.course import Desk, listening, mosquitto

_CONF: Final = """\
user root
listener {local} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 1
max_inflight_messages 100
max_queued_messages 0
set_tcp_nodelay true
connection bridge
address 127.0.0.1:{port}
{tls}
remote_clientid bridge
cleansession false
restart_timeout 1
notification_topic bench/state
topic bench/events out 1
"""
_STORE: Final = "mosquitto.db"


class Bridge(Contestant):
    """mosquitto is measured; the publisher beside it is the box's own work and is not."""

    name = "mosquitto-bridge"
    form = "lines"
    what = "mosquitto with persistence, saved each second, and a bridge; a message an event, QoS 1"

    def __init__(self, folder: Path, ca: Path, desk: Desk, load: Path) -> None:
        super().__init__(folder, ca, desk, load)
        self._port = free_port()
        self._config = folder / "mosquitto.conf"
        self.process = Process("bridge", mosquitto(self._config), folder / "bridge.log")
        command = [sys.executable, "-m", "peers.producers.publisher", str(self._port)]
        self._publisher = Process("publisher", command, folder / "publisher.log", self.environ)

    async def start(self, port: int) -> float:
        self._config.write_text(
            _CONF.format(local=self._port, folder=self.folder, port=port, tls=self._tls())
        )
        started = await self._run()
        await listening(self.process, self._port)
        if not self._publisher.running:
            await self._publisher.start()
        return started

    async def stop(self) -> None:
        await self._publisher.stop()
        await super().stop()

    def _tls(self) -> str:
        return f"bridge_cafile {self.ca}"

    def disk(self) -> int:
        return size_of(self.folder, _STORE)


class PlainBridge(Bridge):
    """The same without TLS to the remote broker: what encryption alone costs it."""

    name = "mosquitto-bridge-plain"
    what = "the same bridge without TLS"
    tls = False

    def _tls(self) -> str:
        return ""
