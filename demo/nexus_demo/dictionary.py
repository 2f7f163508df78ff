"""Trains the dictionary of small segments: `python -m nexus_demo.dictionary FILE`.

It learns from made-up events of every type that goes up, each in a segment of its own. A dictionary
that a box has used once is part of the protocol for good: a better one gets a number of its own.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import zstandard

from nexus_agent.plugin import Quality
from nexus_agent.protocol import DICTIONARY, Stamp, Stream, encode_events, event_id
from nexus_plugins.host.metrics import metrics
from nexus_plugins.host.reading import Cpu, Reading, Space, Traffic
from nexus_plugins.obd.pids import PIDS, decode

SIZE: Final = 8 * 1024
SEED: Final = 20261123
ROUNDS: Final = 400
LEVEL: Final = 3

_NOON: Final = 1_795_348_800_000_000_000
_MS: Final = 1_000_000
_SYNCED: Final = 0.9
_SWAPS: Final = 0.5
_QUALITIES: Final = ("absent", "refused", "malformed")
_ECUS: Final = ("7E8", "7E9", "7EA", "7EB", "18DAF110")
_KINDS: Final = ("stored", "pending", "permanent")
_NETWORKS: Final = (("eth0",), ("enp1s0", "wlp2s0"), ("eth0", "wlan0"), ("enp3s0",), ("wwan0",))
_CHIPS: Final = ((), ("cpu_thermal",), ("acpitz", "coretemp", "nvme"), ("k10temp", "nvme"))
_PLUGIN_STATES: Final = ("starting", "running", "backoff", "quarantined", "stopped")
_CAUSES: Final = ("disk quota", "older than its time to live", "damaged on the disk")

_Event = tuple[Stream, str, str, Any]
"""(stream, source, type, data)"""


def train(seed: int = SEED) -> bytes:
    """The dictionary; the same seed and the same zstd give the same bytes."""
    samples: list[bytes | bytearray | memoryview] = [*lines(seed)]
    trained = zstandard.train_dictionary(SIZE, samples, dict_id=DICTIONARY, level=LEVEL)
    return trained.as_bytes()


def lines(seed: int) -> Iterator[bytes]:
    """What stands in segments of one event, box by box."""
    chance = random.Random(seed)  # noqa: S311 - made-up events, no secret
    for _ in range(ROUNDS):
        device = f"{chance.choice(('bay', 'box', 'shop'))}-{chance.randrange(1, 10_000)}"
        boot = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        for stream, source, kind, data in _events(chance):
            wall = _NOON + chance.randrange(-(10**8), 10**8) * _MS
            stamp = Stamp(wall, chance.randrange(10**10) * _MS, boot, chance.random() < _SYNCED)
            events = [(kind, data)]
            (tail,) = encode_events(device=device, source=source, stamp=stamp, events=events)
            name = event_id(1, stream, int(10 ** chance.uniform(0, 6)))
            yield b'{"specversion":"1.0","id":"%b%b' % (name.encode(), tail)


def _events(chance: random.Random) -> Iterator[_Event]:
    """A few of one box: mostly those that come alone, which are the ones that cost."""
    networks, chips = chance.choice(_NETWORKS), chance.choice(_CHIPS)
    for _ in range(2):
        before, now = _reading(chance, networks, chips), _reading(chance, networks, chips)
        yield Stream.TELEMETRY, "host", "host.metrics", metrics(before, now)
    car = {"vehicle_ref": f"v-{chance.getrandbits(80):020x}"}
    scan = {"scan_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)), **car}
    ecu, code = chance.choice(_ECUS), f"{chance.choice('PCBU')}{chance.randrange(0x4000):04X}"
    for pid in chance.sample(sorted(PIDS), 3):
        yield Stream.TELEMETRY, "obd", "telemetry.pid", _value(chance, car, ecu, pid)
    observed = {**scan, "code": code, "kind": chance.choice(_KINDS), "ecu": ecu}
    answers: dict[str, dict[str, Any]] = {
        kind: {"quality": chance.choice(_QUALITIES), "codes": [], "detail": None} for kind in _KINDS
    }
    answers["stored"] = {"quality": "ok", "codes": [code], "detail": None}
    completed = {
        **scan,
        "modules": [{"ecu": ecu, "answers": answers}],
        "dtcs": [{"code": code, "kinds": ["stored"], "ecu": ecu}],
        "vin_quality": "ok",
    }
    yield Stream.EVENT, "obd", "scan.started", {**scan, "reason": "command"}
    yield Stream.EVENT, "obd", "dtc.observed", observed
    yield Stream.EVENT, "obd", "scan.completed", completed
    yield from _of_the_agent(chance)


def _of_the_agent(chance: random.Random) -> Iterator[_Event]:
    plugin, state = chance.choice(("host", "obd", "reports")), chance.choice(_PLUGIN_STATES)
    told = {"plugin": plugin, "state": state, "recoverable": state != "stopped", "reason": None}
    yield Stream.EVENT, "agent", "plugin.state", told
    adapter = {"adapter": "/dev/ttyUSB0", "state": "connected", "detail": "polling every 1 s"}
    yield Stream.EVENT, "obd", "adapter.state", adapter
    first = chance.randrange(1, 10**5)
    loss = {
        "stream": "telemetry",
        "epoch": 1,
        "first": first,
        "last": first + chance.randrange(1000),
        "cause": chance.choice(_CAUSES),
    }
    yield Stream.ALERT, "agent", "delivery.loss", loss
    result = {
        "id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        "name": chance.choice(("obd.scan", "obd.clear", "host.read")),
        "state": chance.choice(("accepted", "running", "succeeded", "failed")),
    }
    yield Stream.EVENT, "agent", "command.result", result


def _value(chance: random.Random, car: dict[str, str], ecu: str, number: int) -> dict[str, Any]:
    pid, known = PIDS[number], chance.random() < _SYNCED
    what, reading = decode(pid, chance.randbytes(pid.length))[0]
    return {
        **car,
        "ecu": ecu,
        "pid": number,
        "name": what.name,
        "value": reading.value if known else None,
        "unit": what.unit,
        "quality": reading.quality if known else chance.choice(_QUALITIES),
    }


def _reading(chance: random.Random, networks: Sequence[str], chips: Sequence[str]) -> Reading:
    """What a small computer may show."""
    busy = chance.uniform(0, 10**5)
    return Reading(
        at=chance.uniform(0, 10**7),
        cpu=Cpu(busy, busy * chance.uniform(1, 30)),
        load=(chance.uniform(0, 3), chance.uniform(0, 2), chance.uniform(0, 1)),
        memory=_space(chance, 8 * 10**9),
        swap=_space(chance, 2 * 10**9) if chance.random() < _SWAPS else Quality.ABSENT,
        disks={"root": _space(chance, 10**11), "state": _space(chance, 10**11)},
        disk_io=_traffic(chance),
        network={name: _traffic(chance) for name in networks},
        temperatures={chip: round(chance.uniform(25, 80), 1) for chip in chips} or Quality.ABSENT,
        clock_synchronised=chance.random() < _SYNCED,
        boot_time=_NOON // 10**9 + chance.randrange(10**7),
    )


def _space(chance: random.Random, size: int) -> Space:
    used = chance.randrange(size)
    return Space(used, size - used, round(100 * used / size, 1))


def _traffic(chance: random.Random) -> Traffic:
    return Traffic(int(10 ** chance.uniform(3, 11)), int(10 ** chance.uniform(3, 11)))


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(train())
