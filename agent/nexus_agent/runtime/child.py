"""A plugin's own process: gives up what it may not do, loads the plugin, and runs it.

Started by `nexus_agent.runtime.process` with a socket pair's end and the agent's process id:

    python -I -m nexus_agent.runtime.child FD PARENT

It says nothing on its own but what the messages of `nexus_agent.runtime.wire` carry. What libraries
print, and the stacks that faulthandler writes when it dies, go to its standard error, a file.
"""

from __future__ import annotations

import asyncio
import faulthandler
import socket
import sys
import traceback
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from nexus_agent import discovery, settings, traces
from nexus_agent.plugin import FatalError, Plugin, PluginError, Settings
from nexus_agent.runtime import confine
from nexus_agent.runtime.description import describe
from nexus_agent.runtime.remote import RemoteContext
from nexus_agent.runtime.wire import Wire, WireError
from nexus_agent.sections import check

BUFFER_BYTES: Final = 256 * 1024
TRACE_LINES: Final = 30
_SYSTEM: Final = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    *("/proc/self", "/proc/sys", "/proc/stat", "/proc/meminfo", "/proc/cpuinfo", "/proc/uptime"),
    *("/proc/loadavg", "/proc/version", "/proc/filesystems", "/proc/diskstats", "/proc/devices"),
    "/sys",
    "/etc/ssl",
    "/etc/ca-certificates",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ld.so.cache",
)
"""What programs read that know nothing about the box they run on."""
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def main(descriptor: int, parent: int) -> None:
    """Be the process of one plugin."""
    faulthandler.enable()
    confine.with_parent(parent)
    with socket.socket(fileno=descriptor) as line:
        asyncio.run(_live(line))


async def _live(line: socket.socket) -> None:
    line.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=line, limit=BUFFER_BYTES)
    wire = Wire(reader, writer)
    orders = await wire.receive()
    if orders is None:
        return
    sys.path[:] = orders["path"]
    _confine(orders)
    try:
        plugin = discovery.load(discovery.code_of(orders["code"]))
        description = describe(plugin)
        checked = check(plugin, orders["keys"], orders["source"])
    except (discovery.DiscoveryError, settings.SettingsError) as error:
        await wire.send("unusable", text=str(error))
        return
    await wire.send("described", description=description.document())
    order = await wire.receive()  # once all that the plugin requires runs
    if order is None or order["do"] != "run":
        return
    async with asyncio.TaskGroup() as group:
        await _Run(plugin, checked, wire, group, orders["source"]).serve()


def _confine(orders: Mapping[str, Any]) -> None:
    limits = orders["limits"]
    confine.limit(limits["memory_bytes"], limits["files"], limits["temporary_bytes"])
    readable = [Path(path) for path in (*_SYSTEM, *orders["readable"], *sys.path) if path]
    readable += [Path(sys.prefix), Path(sys.base_prefix)]
    readable += [Path(path).resolve() for path in ("/etc/resolv.conf", "/etc/localtime")]
    writable = [Path(path) for path in (*_DEVICES, *orders["writable"])]
    confine.enclose(readable, writable)
    confine.alone()


class _Run:
    """The plugin at work, and the agent's questions to it."""

    def __init__(
        self,
        plugin: type[Plugin[Any]],
        checked: Settings,
        wire: Wire,
        group: asyncio.TaskGroup,
        source: str,
    ) -> None:
        self._source = source
        self._plugin = plugin
        self._wire = wire
        self._group = group
        self._context = RemoteContext(plugin.name, checked, wire, plugin.emits)
        self._instance: Plugin[Any] | None = None

    async def serve(self) -> None:
        """Run the plugin until it ends or the agent says stop."""
        work = self._group.create_task(self._work(), name=f"plugin:{self._plugin.name}")
        hearing = self._group.create_task(self._hear(work), name="hear")
        await asyncio.wait([work])
        hearing.cancel()
        self._context.close()

    async def _work(self) -> None:
        try:
            self._instance = self._plugin(self._context)
            self._wire.put("running")
            await self._instance.run()
        except asyncio.CancelledError:
            self._wire.put("ended", kind="stopped", text="", trace="")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin boundary
            self._wire.put("ended", **told(error))
        else:
            self._wire.put("ended", kind="done", text="", trace="")

    async def _hear(self, work: asyncio.Task[None]) -> None:
        while True:
            try:
                message = await self._wire.receive()
            except WireError:
                message = None
            if message is None or message["do"] == "stop":
                work.cancel()
                return
            self._answer(message)

    def _answer(self, message: dict[str, Any]) -> None:
        do = message["do"]
        if do == "ping":
            self._wire.put("pong")
        elif do == "check":
            self._start(self._check(message), "check")
        elif do == "become":
            self._context.become(check(self._plugin, message["keys"], self._source))
        elif do == "invoke":
            self._start(self._invoke(message), f"command:{message['name']}")
        else:
            self._context.answered(message)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._group.create_task(work, name=name)

    async def _check(self, message: dict[str, Any]) -> None:
        try:
            check(self._plugin, message["keys"], self._source)
        except settings.SettingsError as error:
            self._wire.put("answer", id=message["id"], error=str(error))
        else:
            self._wire.put("answer", id=message["id"], value=None)

    async def _invoke(self, message: dict[str, Any]) -> None:
        spec = describe(self._plugin).commands[message["name"]]
        identity = message["id"]

        def progress(text: str) -> None:
            self._wire.put("progress", id=identity, text=str(text))

        try:
            arguments = spec.args.model_validate(message["args"])
            value = await getattr(self._instance, spec.attribute)(arguments, progress)
            self._wire.put("answer", id=identity, value=value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "args"
            self._wire.put("answer", id=identity, error=f"{where}: {first['msg']}")
        except PluginError as error:
            self._wire.put("answer", id=identity, error=str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the plugin boundary
            self._wire.put("answer", id=identity, error=f"it broke: {traces.reason_of(error)}")


def told(error: BaseException) -> dict[str, Any]:
    """How a run ended by *error*, as the agent is told."""
    kind, text = "error", traces.reason_of(error)
    if isinstance(first := traces.first_of(error), PluginError):
        kind, text = "fatal" if isinstance(first, FatalError) else "retry", str(first)
    lines = traceback.format_exception(error)
    return {"kind": kind, "text": text, "trace": "".join(lines[-TRACE_LINES:])}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
