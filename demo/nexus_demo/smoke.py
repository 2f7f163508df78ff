"""`python -m nexus_demo.smoke`: the whole path on real parts, proved from the console's API.

Ends with one line of JSON on stdout, which is also written to build/smoke.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

from nexus_demo import api, session
from nexus_demo.broker import choose
from nexus_demo.fleet import USER, running
from nexus_demo.proof import Proof
from nexus_demo.waiting import DemoError

RESULT: Final = Path(__file__).resolve().parents[2] / "build" / "smoke.json"


def main() -> int:
    options = session.parser("Prove the whole path on this machine.").parse_args()
    clock = session.Clock()
    folder = session.make_folder(options.folder)
    result: dict[str, Any] = {"name": "smoke", "ok": False}
    try:
        asyncio.run(_smoke(folder, options.broker, clock, result))
    except (KeyboardInterrupt, asyncio.CancelledError):
        result["error"] = "interrupted"
    except DemoError as error:
        result["error"] = str(error).splitlines()[0]
        clock.say(f"FAILED at {result.get('step', 'start')}: {error}")
    result["seconds"] = clock.seconds
    if result["ok"]:
        session.remove_folder(folder, options.folder)
    else:
        result["logs"] = str(folder)
        print(f"The logs are in {folder}", flush=True)
    line = json.dumps(result)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(line + "\n", "utf-8")
    print(line, flush=True)
    return 0 if result["ok"] else 1


async def _smoke(folder: Path, wish: str, clock: session.Clock, result: dict[str, Any]) -> None:
    kind = choose(wish)
    result.update(broker=kind.value)
    async with session.stops_on_sigterm(), running(folder, kind, clock.say, buses=True) as fleet:
        result.update(boxes=len(fleet.stations))
        async with api.signed_in(fleet.address, USER, fleet.password) as console:
            proof = Proof(fleet, console, clock.say)
            for step in proof.steps():
                result["step"] = step.__name__
                result.update(await step() or {})
    del result["step"]
    result["ok"] = True


if __name__ == "__main__":
    sys.exit(main())
