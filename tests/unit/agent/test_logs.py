"""Log lines as they leave a process: its own and those of libraries."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import logging, structlog
from nexus_agent.logs import LogSettings, configure
configure(LogSettings(level={level!r}, format={format!r}))
log = structlog.get_logger("agent")
log.debug("quiet")
log.info("ready", device="box-1")
logging.getLogger("asyncio").warning("slow %s", "callback")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broke")
"""


VIN = "1HGCM82633A004352"
TELLING = """
import logging, structlog
from nexus_agent.logs import LogSettings, configure
configure(LogSettings(format=FORMAT))
log = structlog.get_logger("plugin")
log.info("found VIN", car="VIN", all=[{"vin": 1}])
logging.getLogger("library").warning("sent %s", b"VIN")
log.info("none", digits="12345678901234567", word="straightforwardly")
try:
    raise ValueError("VIN")
except ValueError:
    log.exception("broke")
"""


def written(level: str = "info", form: str = "json") -> list[str]:
    """What a process writes to stderr; nothing goes to stdout."""
    script = SCRIPT.format(level=level, format=form)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b""
    return done.stderr.decode().splitlines()


def test_a_line_is_one_json_object_whoever_wrote_it() -> None:
    ready, library, broke = documents(written())
    assert ready["event"] == "ready"
    assert (ready["device"], ready["level"], ready["logger"]) == ("box-1", "info", "agent")
    assert (library["event"], library["logger"]) == ("slow callback", "asyncio")
    assert "ZeroDivisionError: division by zero" in broke["exception"]
    assert ready["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["quiet", "ready", "slow callback", "broke"]),
        ("warning", ["slow callback", "broke"]),
        ("error", ["broke"]),
    ],
)
def test_the_level_counts_for_libraries_too(level: str, events: list[str]) -> None:
    assert [line["event"] for line in documents(written(level))] == events


def test_without_a_terminal_auto_means_json() -> None:
    assert len(documents(written(form="auto"))) == 3


def test_people_get_text_without_colours_where_it_is_no_terminal() -> None:
    lines = written(form="console")
    assert "ready" in lines[0]
    assert "device=box-1" in lines[0]
    assert "\x1b" not in "".join(lines)
    assert any("ZeroDivisionError" in line for line in lines)


def documents(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_has_a_vin(form: str) -> None:
    script = TELLING.replace("FORMAT", repr(form)).replace("VIN", VIN).replace("vin", VIN.lower())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    text = done.stderr.decode()
    assert text.count("[vin]") >= 5
    assert VIN.lower() not in text.lower()
    assert "12345678901234567" in text
    assert "straightforwardly" in text
