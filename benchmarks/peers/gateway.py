"""thingsboard-gateway in an environment of its own, its SQLite storage tuned for throughput."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import ClassVar, Final

from nexus_demo.processes import Process
from peers.contestant import Contestant, size_of
from peers.course import HERE, Desk
from peers.producers.feed import TOGETHER

REQUIREMENTS: Final = HERE.parent / "requirements" / "peers.txt"
VENV: Final = Path("build/peers/tb-venv")
_INSTALL_S: Final = 300.0
_PACKAGE: Final = "lib/python*/site-packages/thingsboard_gateway"
_CONNECTOR: Final = Path(__file__).parent / "producers" / "tb_feed.py"
_AT_ONCE: Final = 5_000
"""Readings that it writes and reads at once: five times its default."""
_NOWHERE: Final = "http://127.0.0.1:9"
"""It looks for updates of itself at its maker's: a benchmark calls nobody."""


class Gateway(Contestant):
    """The gateway's process, with our connector in it."""

    name = "thingsboard-gateway"
    form = "thingsboard"
    what = "thingsboard-gateway 3.8, SQLite storage, one custom connector; an item a reading"
    together: ClassVar[int] = 1
    """Readings in one item of its storage; its own connectors store each reading by itself."""

    def __init__(self, folder: Path, ca: Path, desk: Desk, load: Path) -> None:
        super().__init__(folder, ca, desk, load)
        self._config = folder / "config"
        self._config.mkdir()
        (folder / "logs").mkdir()
        self.environ |= {
            TOGETHER: str(self.together),
            "TB_GW_CONFIG_DIR": str(self._config),
            "HTTPS_PROXY": _NOWHERE,
            "PIP_NO_INDEX": "1",
        }
        self._venv = VENV.resolve()
        # It works in the folder where it is started: hence the shell.
        start = f"cd '{folder}' && exec '{self._venv}/bin/python' -m thingsboard_gateway.tb_gateway"
        self.process = Process("gateway", ["sh", "-c", start], folder / "gateway.log", self.environ)

    async def prepare(self) -> None:
        ready, wanted = self._venv / ".ready", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
        if not ready.exists() or ready.read_text() != wanted:
            print(f"installing {REQUIREMENTS.name} into {VENV} …", file=sys.stderr)
            venv = sys.executable, "-m", "venv", "--clear", str(self._venv)
            await _call("making an environment", *venv)
            pip = str(self._venv / "bin" / "python"), "-m", "pip", "install", "--quiet"
            await _call("installing", *pip, "--require-hashes", "-r", str(REQUIREMENTS))
            ready.write_text(wanted)
        (package,) = self._venv.glob(_PACKAGE)
        extension = package / "extensions" / "feed"
        extension.mkdir(exist_ok=True)
        shutil.copy(_CONNECTOR, extension)

    async def start(self, port: int) -> float:
        self._write("tb_gateway", _settings(port, self.ca, self.folder, self.together))
        self._write("feed", {"id": "feed"})
        self._write("logs", _LOGS)
        return await self._run()

    def _write(self, name: str, document: object) -> None:
        (self._config / f"{name}.json").write_text(json.dumps(document))

    def disk(self) -> int:
        return size_of(self.folder / "data", "*.db*")


class BatchedGateway(Gateway):
    """The same with a connector that puts as many readings into an item as the agent's plugin."""

    name = "thingsboard-gateway-batched"
    what = "the same gateway, 100 readings an item"
    together = 100


async def _call(what: str, *command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(_INSTALL_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{what} failed: {''.join(last)}")


def _settings(port: int, ca: Path, folder: Path, together: int) -> dict[str, object]:
    """Its main configuration: no limits, no statistics, no remote configuration, big batches.

    Its storage is WAL with synchronous=NORMAL; it has no setting for that.
    """
    return {
        "thingsboard": {
            "host": "127.0.0.1",
            "port": port,
            "remoteShell": False,
            "remoteConfiguration": False,
            "statistics": {"enable": False, "enableCustom": False},
            "reportStrategy": {"type": "DISABLED"},
            "minPackSendDelayMS": 1,
            "minPackSizeToSend": 500,
            "maxPayloadSizeBytes": 80_000,
            "checkConnectorsConfigurationInSeconds": 3600,
            "security": {"type": "tlsAccessToken", "accessToken": "bench", "caCert": str(ca)},
            "qos": 1,
        },
        "storage": {
            "type": "sqlite",
            "data_file_path": f"{folder}/data/",
            "max_read_records_count": _AT_ONCE // together,
            "writing_batch_size": _AT_ONCE // together,
            "size_limit": 1024,
            "messages_ttl_in_days": 30,
        },
        "grpc": {"enabled": False},
        "connectors": [
            {
                "type": "feed",
                "name": "feed",
                "class": "FeedConnector",
                "configuration": "feed.json",
            }
        ],
    }


_LOGS: Final = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "level": "WARNING",
            "stream": "ext://sys.stdout",
        }
    },
    "root": {"level": "WARNING", "handlers": ["console"]},
}
