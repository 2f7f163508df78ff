"""The demo's MQTT broker: the machine's mosquitto, or one from a wheel. TLS and loopback only."""

from __future__ import annotations

import asyncio
import enum
import json
import os
import shutil
import ssl
import sys
from pathlib import Path
from typing import Final

from nexus_demo.certs import Authority
from nexus_demo.processes import Process, free_port
from nexus_demo.waiting import DemoError, NotYet, until

MAX_PACKET_BYTES: Final = 1024 * 1024
_START_S: Final = 10.0


class Kind(enum.StrEnum):
    MOSQUITTO = "mosquitto"
    IOTCORE = "iotcore"


_DESCRIPTIONS: Final = {
    Kind.MOSQUITTO: "mosquitto: TLS, no client certificates asked, no access rules, loopback only",
    Kind.IOTCORE: "embedded broker (iotcore): no client certificates checked, no access rules, "
    "loopback only",
}


def find_mosquitto() -> str | None:
    """Debian puts it into /usr/sbin, which is not on everybody's PATH."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def choose(wish: str) -> Kind:
    """The broker for *wish*: mosquitto, embedded, or auto, which takes mosquitto if it is there."""
    present = find_mosquitto() is not None
    if wish == "mosquitto" and not present:
        raise DemoError("there is no mosquitto on this machine; install it or use the embedded one")
    if wish == "mosquitto" or (wish == "auto" and present):
        return Kind.MOSQUITTO
    return Kind.IOTCORE


class Broker:
    """One broker on one port for the whole run, however often it is killed and started again."""

    def __init__(self, folder: Path, authority: Authority, kind: Kind) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.kind = kind
        self.description = _DESCRIPTIONS[kind]
        self.port = free_port()
        self.url = f"mqtts://127.0.0.1:{self.port}"
        self.ca = authority.ca
        server = authority.server("broker")
        if kind is Kind.MOSQUITTO:
            text = _mosquitto_conf(self.port, authority.ca, server.cert, server.key, folder)
            command = [str(find_mosquitto()), "-c", str(folder / "mosquitto.conf")]
            (folder / "mosquitto.conf").write_text(text, "utf-8")
        else:
            text = _rumqttd_toml(self.port, server.cert, server.key)
            command = [sys.executable, "-m", "iotcore", "--config", str(folder / "rumqttd.toml")]
            # Its logger calls every routed packet an error; what matters ends the process.
            command += ["--log-level", "CRITICAL"]
            (folder / "rumqttd.toml").write_text(text, "utf-8")
        self.process = Process("broker", command, folder / "broker.log")

    async def start(self) -> None:
        """Start it and return once it completes a TLS handshake."""
        await self.process.start()
        await until("the broker answers", self._answers, within=_START_S, every=0.05)

    async def stop(self) -> None:
        await self.process.stop()

    async def kill(self) -> None:
        """SIGKILL: nothing that it had not written down survives."""
        await self.process.kill()

    async def restart(self) -> None:
        """Stop it cleanly and start it again on the same port."""
        await self.stop()
        await self.start()

    async def _answers(self) -> None:
        self.process.check()
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            async with asyncio.timeout(2):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        except (OSError, TimeoutError) as error:
            raise NotYet(f"{error}") from None
        writer.close()
        await writer.wait_closed()


def _mosquitto_conf(port: int, ca: Path, cert: Path, key: Path, folder: Path) -> str:
    # "user" counts only where root starts it: it then keeps the right to read the run folder.
    return f"""\
user root
listener {port} 127.0.0.1
cafile {ca}
certfile {cert}
keyfile {key}
allow_anonymous true

persistence true
persistence_location {folder}/
max_inflight_messages 100
max_queued_messages 10000
max_packet_size {MAX_PACKET_BYTES}
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def _rumqttd_toml(port: int, cert: Path, key: Path) -> str:
    # Values are JSON strings, which TOML's basic strings contain.
    return f"""\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "nexus"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.tls]
certpath = {json.dumps(str(cert))}
keypath = {json.dumps(str(key))}

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {MAX_PACKET_BYTES}
max_inflight_count = 100
"""
