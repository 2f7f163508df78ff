"""`python -m nexus_demo`: a street of five boxes that lives, for a person, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nexus_demo import api, session
from nexus_demo.broker import choose
from nexus_demo.fleet import STREET, USER, Bay, Fleet, running
from nexus_demo.story import PACE_S, Story
from nexus_demo.waiting import DemoError


def main() -> int:
    parser = session.parser("Run five boxes, four cars, a truck, a broker and a console here.")
    parser.add_argument(
        "--pace",
        type=session.seconds,
        default=PACE_S,
        metavar="SECONDS",
        help="from one act of the story to the next (default: %(default)g)",
    )
    parser.add_argument(
        "--plugin",
        type=_bundle,
        metavar="FOLDER",
        help="a plugin's folder; it runs on the first box, as its sample.toml says",
    )
    options = parser.parse_args()
    street = (replace(STREET[0], guest=options.plugin), *STREET[1:])
    folder = session.make_folder(options.folder)
    try:
        asyncio.run(_demo(folder, options.broker, options.pace, street))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nstopped")
    except BrokenPipeError:
        # Whoever read our lines has gone, as with `make demo | head`: there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except DemoError as error:
        print(f"\n{error}\nThe logs are in {folder}", file=sys.stderr)
        return 1
    session.remove_folder(folder, options.folder)
    return 0


def _bundle(text: str) -> Path:
    folder = Path(text).resolve()
    for name in ("plugin.toml", "sample.toml"):
        if not (folder / name).is_file():
            raise argparse.ArgumentTypeError(f"{folder} has no {name}")
    return folder


async def _demo(folder: Path, broker: str, pace_s: float, street: Sequence[Bay]) -> None:
    say, kind = session.Clock().say, choose(broker)
    async with session.stops_on_sigterm(), running(folder, kind, say, street, buses=True) as fleet:
        _introduce(fleet)
        async with api.signed_in(fleet.address, USER, fleet.password) as console:
            await Story(fleet, console, say, pace_s).tell()


def _introduce(fleet: Fleet) -> None:
    box = fleet.boxes[0]
    nexus = Path(sys.executable).with_name("nexus")
    api_v1 = f"{fleet.address}/api/v1"
    print(
        f"""
In a browser  {fleet.address}
User          {USER}
Password      {fleet.password}   (made for this run)

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
    -H 'Content-Type: application/json' -d '{{"name":"vehicle.scan","args":{{}}}}'

Ctrl-C stops everything.
""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
