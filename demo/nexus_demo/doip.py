"""A car behind a DoIP gateway, which is doip-server: three modules, of which one is unplugged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from nexus_demo.processes import Process

VIN: Final = "WNXDEM5Z4TA000005"
TESTER: Final = 0x0E00
ENGINE: Final = 0x1010
GATEWAY: Final = 0x1000
BODY: Final = 0x1020
UNPLUGGED: Final = 0x1030
"""The parking assistant: the gateway knows it, and nothing comes from there."""

_PRESENT: Final = {"3E00": "7E00"}
_MODULES: Final[dict[int, dict[str, str | None]]] = {
    ENGINE: {
        **_PRESENT,
        "22F190": "62F190" + VIN.encode().hex().upper(),
        "22F187": "62F187" + b"4N0906259C".hex().upper(),
        "22F189": "62F189" + b"0012".hex().upper(),
        "22F197": "62F197" + b"ECM-EngineControl".hex().upper(),
        # Status of SAE J2012-DA P0301-00 (confirmed and failing) and P0420-00 (confirmed).
        "1902FF": "5902FF" + "03010009" + "04200008",
        # Snapshots and extended data, all of them and each by its number.
        **dict.fromkeys(("1904030100FF", "190403010001"), "59040301000901" + "01F40C1AF8"),
        **dict.fromkeys(("1906030100FF", "190603010001"), "59060301000901" + "05"),
        "1904042000FF": "590404200008",
        **dict.fromkeys(("1906042000FF", "190604200001"), "59060420000801" + "02"),
        "1901FF": "5901FF000002",
    },
    BODY: {
        **_PRESENT,
        "22F187": "62F187" + b"4N0937063".hex().upper(),
        "22F197": "62F197" + b"BCM-Body".hex().upper(),
        "1902FF": "5902FF",
        "1901FF": "5901FF000000",
    },
    UNPLUGGED: {"3E00": None},
}
TARGETS: Final = tuple(_MODULES)

_REFUSED: Final = [f"22F1{did:02X}" for did in range(0x80, 0xB0)]
"""What the modules do not tell they refuse (NRC 31): the server's own answer is none."""


def gateway(folder: Path, port: int, name: str) -> Process:
    """The gateway's process; its configuration is written into *folder*."""
    folder.mkdir(exist_ok=True)
    for target, told in _MODULES.items():
        refused = {} if target == UNPLUGGED else dict.fromkeys(_REFUSED, "7F2231")
        answers = {**refused, **told}
        services = {
            f"s{target:04X}_{question}": {
                "request": f"0x{question}",
                "responses": [] if answer is None else [f"0x{answer}"],
                "no_response": answer is None,
            }
            for question, answer in answers.items()
        }
        ecu = {
            "name": f"M{target:04X}",
            "target_address": target,
            "tester_addresses": [TESTER],
            "uds_services": {"service_files": [f"services_{target:04X}.yaml"]},
        }
        _write(folder / f"services_{target:04X}.yaml", {"specific_services": services})
        _write(folder / f"ecu_{target:04X}.yaml", {"ecu": ecu})
    config = {
        "name": "Gateway",
        "logical_address": GATEWAY,
        "network": {"host": "127.0.0.1", "port": port, "max_connections": 5, "timeout": 30},
        "protocol": {"version": 2, "inverse_version": 0xFD},
        "ecus": [f"ecu_{target:04X}.yaml" for target in _MODULES],
    }
    path = folder / "gateway.yaml"
    _write(path, {"gateway": config, "logging": {"level": "WARNING"}})
    command = [sys.executable, "-m", "doip_server.main", "--gateway-config"]
    return Process(name, [*command, path], folder / "gateway.log", cwd=folder)


def _write(path: Path, document: Any) -> None:
    # YAML 1.2 contains JSON.
    path.write_text(json.dumps(document), "utf-8")
