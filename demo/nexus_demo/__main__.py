"""`python -m nexus_demo`: the fleet of the smoke, kept running for a person until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from nexus_demo import api, session
from nexus_demo.broker import choose
from nexus_demo.fleet import USER, Fleet, running
from nexus_demo.waiting import DemoError, NotYet

_REFRESH_S: Final = 1.0


def main() -> int:
    options = session.parser(
        "Run three boxes, three cars, a broker and a console here."
    ).parse_args()
    folder = session.make_folder(options.folder)
    try:
        asyncio.run(_demo(folder, options.broker))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nstopped")
    except DemoError as error:
        print(f"\n{error}\nThe logs are in {folder}", file=sys.stderr)
        return 1
    session.remove_folder(folder, options.folder)
    return 0


async def _demo(folder: Path, broker: str) -> None:
    clock = session.Clock()
    async with session.stops_on_sigterm(), running(folder, choose(broker), clock.say) as fleet:
        _introduce(fleet)
        async with api.signed_in(fleet.address, USER, fleet.password) as console:
            while True:
                line = await _one_line(fleet, console)
                # A terminal gets one line that changes; a file gets none that repeat.
                if sys.stdout.isatty():
                    print(f"\r\033[K{line}", end="", flush=True)
                await asyncio.sleep(_REFRESH_S)


def _introduce(fleet: Fleet) -> None:
    box = fleet.boxes[0]
    nexus = Path(sys.executable).with_name("nexus")
    api_v1 = f"{fleet.address}/api/v1"
    print(
        f"""
Console   {fleet.address}
User      {USER}
Password  {fleet.password}   (made for this run)

At a box, with no console and no network:
  {nexus} --socket {box.socket} status
  {nexus} --socket {box.socket} events -f

From the console's API:
  TOKEN=$(curl -s {api_v1}/login -H 'Content-Type: application/json' \\
    -d '{{"username":"{USER}","password":"{fleet.password}"}}' \\
    | {sys.executable} -c 'import json, sys; print(json.load(sys.stdin)["token"])')
  curl -s -H "Authorization: Bearer $TOKEN" {api_v1}/devices
  curl -s -H "Authorization: Bearer $TOKEN" '{api_v1}/devices/{box.id}/events?type=scan.completed'
  curl -s -H "Authorization: Bearer $TOKEN" {api_v1}/devices/{box.id}/commands \\
    -H 'Content-Type: application/json' -d '{{"name":"obd.scan","args":{{}}}}'

Ctrl-C stops everything.
""",
        flush=True,
    )


async def _one_line(fleet: Fleet, console: api.Console) -> str:
    devices = await console.devices()
    parts = []
    for box in fleet.boxes:
        state = devices.get(box.id, {}).get("status", "unknown")
        try:
            waiting = f"{await box.waiting()} waiting"
        except NotYet:
            waiting = "its agent does not answer"
        speed = await _engine_speed(console, box.id)
        parts.append(f"{box.id} {state}, {speed}, {waiting}")
    return " | ".join(parts)


async def _engine_speed(console: api.Console, device: str) -> str:
    for series in await console.series(device, "engine_speed", newest=1):
        for point in series["points"]:
            if point["quality"] == "ok":
                return f"{point['value']:.0f} rpm"
    return "no engine speed"


if __name__ == "__main__":
    sys.exit(main())
