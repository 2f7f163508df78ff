"""Loads DBC files in a process of their own; one that does not load costs that file only.

cantools takes seconds for a large file and holds Python's lock for up to 160 ms at a time, on any
thread (measured: 2,000 messages with 24,000 signals). Here it is not even imported.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable
from typing import Any, Final, cast

from nexus_agent.plugin import Context
from nexus_plugins.can_signals.database import DatabaseError, read
from nexus_plugins.can_signals.directory import Directory
from nexus_plugins.can_signals.layout import Layout
from nexus_plugins.can_signals.settings import CanSignalsSettings, DbcFile

_LIMIT_S: Final = 120.0
_LINE: Final = 16 * 1024 * 1024
"""Bytes of one message with all its signals."""


async def load(
    files: Iterable[DbcFile], context: Context[CanSignalsSettings]
) -> tuple[Directory, list[str]]:
    """The messages of all files that load, and for each other file its name and the reason."""
    layouts: list[Layout] = []
    failed: list[str] = []
    for each in files:
        try:
            found = await _layouts(each, context)
        except DatabaseError as error:
            failed.append(f"{each.file.name} does not load: {error}")
            context.log.warning("a DBC file does not load", file=str(each.file), reason=str(error))
        else:
            layouts += found
    directory = Directory(layouts)
    if directory.hidden:
        context.log.warning("messages have the identifier of another one", count=directory.hidden)
    return directory, failed


async def _layouts(file: DbcFile, context: Context[CanSignalsSettings]) -> list[Layout]:
    orders = (str(file.file), "j1939" if file.j1939 else "plain")
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "nexus_plugins.can_signals", *orders),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE,
        )
    except PermissionError:
        # A plugin in a process of its own may start no other, and has its loop for itself.
        return await context.run_blocking(_read, file, context.settings)
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await _taken(process, context.settings)
    except TimeoutError:
        raise DatabaseError(f"it took more than {_LIMIT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def _read(file: DbcFile, settings: CanSignalsSettings) -> list[Layout]:
    return [each.only(settings.wants) for each in read(file.file, j1939=file.j1939)]


async def _taken(process: asyncio.subprocess.Process, settings: CanSignalsSettings) -> list[Layout]:
    """What the process says, message by message: a large file's text at once would take long."""
    found: list[Layout] = []
    lines = cast(asyncio.StreamReader, process.stdout)
    complaints = cast(asyncio.StreamReader, process.stderr)
    async with asyncio.TaskGroup() as group:
        errors = group.create_task(complaints.read(), name="can_signals:errors")
        async for line in lines:
            document: dict[str, Any] = json.loads(line)
            found.append(Layout.from_document(document).only(settings.wants))
            await asyncio.sleep(0)  # lines that have come already are read without a wait
    if await process.wait() != 0:
        *_, reason = errors.result().decode("utf-8", "replace").strip().splitlines() or [""]
        raise DatabaseError(reason or f"its reader ended with code {process.returncode}")
    return found
