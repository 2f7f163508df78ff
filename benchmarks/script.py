"""The scripts beside this one as processes that cannot hang: what they print is JSON."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import orjson


async def run_script(name: str, *arguments: str | Path | float, within: float) -> Any:
    """Run `python NAME ARGUMENTS` to its end and return the JSON that it prints.

    Raises RuntimeError where it fails and TimeoutError after *within* seconds; then it is killed.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name(name)), *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within):
            said, complaint = await process.communicate()
    except TimeoutError:
        raise TimeoutError(f"{name} has not ended after {within:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = complaint.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{name} ended with code {process.returncode}: {''.join(last)}")
    return orjson.loads(said)
