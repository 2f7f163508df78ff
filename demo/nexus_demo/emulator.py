"""One emulated car behind a TCP adapter: `python -m nexus_demo.emulator SCENARIO --port N`.

elmulator's engine answers; this adds what makes a car of a script. Its memory is one for all
connections, the trouble codes change when they are cleared and not when they are read, and live
values go round instead of standing still at the last one. With `--memory FILE` that file has the
trouble codes instead of the scenario. While the file of `--engine-off` is there, the engine stands.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Final

from elmulator.server import EngineState, Scenario, normalize  # type: ignore[import-untyped]

from nexus_demo.memory import CLEAR, SERVICES, STATUS, Memory

MEMORY: Final = frozenset({*SERVICES, STATUS})
"""What a clear changes, beside freeze frames (SAE J1979): stored, pending and permanent codes, the
monitor status."""

_FREEZE_FRAMES: Final = "02"
_ENGINE_SPEED: Final = "010C"
_STANDING: Final = "7E8 04 41 0C 00 00"

_MEMORY_S: Final = 0.01
"""How long a control unit takes to look into its memory."""
_LINE_END: Final = re.compile(rb"[\r\n]")


class Car:
    """A scenario with a memory, whose engine stands while the file *engine_off* is there."""

    def __init__(
        self, scenario: Path, memory: Memory | None = None, engine_off: Path | None = None
    ) -> None:
        script = Scenario.from_path(scenario)
        options = argparse.Namespace(
            echo="scenario", split=None, latency_ms=0, jitter_ms=0, seed=0, record=False
        )
        self._engine = EngineState(script, options)
        self._entries = Counter(normalize(command["request"]) for command in script.commands)
        self._turns: Counter[str] = Counter()
        self._clears = 0
        self._memory = memory
        self._engine_off = engine_off

    def answer(self, line: str) -> tuple[list[str], float, str]:
        """The reply's pieces, the delay before them in seconds, and elmulator's post-action."""
        request = normalize(line)
        if self._memory and (frame := self._memory.answer(request)):
            return [f"{frame}\r\r>"], _MEMORY_S, ""
        if request == _ENGINE_SPEED and self._engine_off and self._engine_off.exists():
            return [f"{_STANDING}\r\r>"], _MEMORY_S, ""
        entries = self._entries[request]
        if entries:
            is_cleared = request in MEMORY or request.startswith(_FREEZE_FRAMES)
            at = min(self._clears, entries - 1) if is_cleared else self._turns[request]
            self._engine.cursors[request] = at % entries
            self._turns[request] += 1
        pieces, delay_ms, action, _ = self._engine.plan(line)
        if request == CLEAR:
            self._clears += 1
        return pieces, delay_ms / 1000, action


async def serve(car: Car, port: int) -> None:
    """Answer on 127.0.0.1 until cancelled."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _converse(car, reader, writer)
        except ConnectionError:
            pass  # an adapter's user may vanish at any time
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


async def _converse(car: Car, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    buffer = b""
    while data := await reader.read(4096):
        *lines, buffer = _LINE_END.split(buffer + data)
        for line in lines:
            text = line.decode("ascii", errors="replace").strip()
            if not text:
                continue
            pieces, delay, action = car.answer(text)
            if action == "stall":
                continue
            await asyncio.sleep(delay)
            for piece in pieces:
                writer.write(piece.encode("ascii"))
                await writer.drain()
            if action == "disconnect":
                return


def main() -> None:
    parser = argparse.ArgumentParser(description="Emulate one car behind a TCP adapter.")
    parser.add_argument("scenario", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--memory", type=Path, help="its trouble codes, a file of the story")
    parser.add_argument("--engine-off", type=Path, help="while it is there, the engine stands")
    options = parser.parse_args()
    memory = None if options.memory is None else Memory(options.memory)
    car = Car(options.scenario, memory, options.engine_off)
    asyncio.run(serve(car, options.port))


if __name__ == "__main__":
    main()
