"""Log lines as journald gets them: datagrams, read here as its protocol's specification says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.journald import SMALL_BYTES, VALUE_BYTES, encode, fields_of, is_journal

SCRIPT = """
import logging, os, pathlib, sys, structlog
from nexus_agent.logs import LogSettings, configure
status = os.fstat(2)
environ = {{"JOURNAL_STREAM": f"{{status.st_dev}}:{{status.st_ino}}"}}
configure(LogSettings(), {identifier!r}, environ=environ, journal=pathlib.Path(sys.argv[1]))
log = structlog.get_logger("agent")
{lines}
"""


class Journal:
    """A datagram socket where journald's would be, and the stream that is its stderr."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(20)
        self.stderr = b""

    def run(self, lines: str, identifier: str = "nexus-agent") -> None:
        """Log *lines* in a process of its own whose stderr is a stream socket, as systemd's."""
        script = SCRIPT.format(lines=lines, identifier=identifier)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            subprocess.run(
                [sys.executable, "-c", script, str(self.path)],
                stderr=theirs.fileno(),
                check=True,
                timeout=60,
            )
            theirs.close()
            while part := ours.recv(65536):
                self.stderr += part

    def entry(self) -> dict[str, str]:
        return parse(self.socket.recv(1 << 20))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "socket")
    yield journal
    journal.socket.close()


def parse(datagram: bytes) -> dict[str, str]:
    """Fields of an entry; a name that journald would refuse fails here."""
    fields: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, datagram = rest[8 : 8 + size], rest[8 + size :]
            assert datagram[:1] == b"\n"
            datagram = datagram[1:]
        else:
            datagram = rest
        text = name.decode("ascii")
        assert text.replace("_", "A").isalnum()
        assert text.upper() == text
        assert text[0].isalpha()
        assert len(text) <= 64
        fields[text] = value.decode()
    return fields


def test_a_line_becomes_an_entry_with_fields(journal: Journal) -> None:
    journal.run('log.warning("plugin_failed", plugin="obd", error="no such port", tries=3)')
    entry = journal.entry()
    assert entry == {
        "MESSAGE": 'plugin_failed plugin=obd error="no such port" tries=3',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "nexus-agent",
        "LOGGER": "agent",
        "NEXUS_EVENT": "plugin_failed",
        "NEXUS_PLUGIN": "obd",
        "NEXUS_ERROR": "no such port",
        "NEXUS_TRIES": "3",
    }
    assert journal.stderr == b""


def test_a_traceback_is_a_field_of_several_lines(journal: Journal) -> None:
    journal.run("try: 1 / 0\nexcept ZeroDivisionError: log.exception('broke')")
    entry = journal.entry()
    assert entry["MESSAGE"] == "broke"
    assert entry["PRIORITY"] == "3"
    assert entry["NEXUS_TRACEBACK"].startswith("Traceback (most recent call last):\n")
    assert entry["NEXUS_TRACEBACK"].endswith("\nZeroDivisionError: division by zero")


def test_lines_of_libraries_come_the_same_way(journal: Journal) -> None:
    journal.run("logging.getLogger('asyncio').critical('slow %s', 'callback')", "nexus-console")
    entry = journal.entry()
    assert (entry["MESSAGE"], entry["LOGGER"], entry["PRIORITY"]) == (
        "slow callback",
        "asyncio",
        "2",
    )
    assert entry["SYSLOG_IDENTIFIER"] == "nexus-console"


def test_a_long_value_is_cut_and_says_so(journal: Journal) -> None:
    journal.run("log.info('long', text='ä' * 100_000)")
    entry = journal.entry()
    text = entry["NEXUS_TEXT"]
    assert text.startswith("ä" * (VALUE_BYTES // 2))
    assert text.endswith("… (200000 bytes, cut)")
    assert len(entry["MESSAGE"]) < 250, "people read this one"


def test_an_entry_that_the_socket_does_not_take_is_cut_to_the_bone(journal: Journal) -> None:
    journal.run("log.info('wide', **{f'key{n}': 'x' * 30_000 for n in range(30)})")
    entry = journal.entry()
    assert len(entry) == 35
    assert len(entry["NEXUS_KEY7"]) < SMALL_BYTES + 50


def test_without_a_journal_the_line_is_json_on_stderr(journal: Journal) -> None:
    journal.path.unlink()
    journal.run("log.error('alone', plugin='obd')")
    line = json.loads(journal.stderr)
    assert (line["event"], line["plugin"], line["level"]) == ("alone", "obd", "error")


def test_a_journal_that_hangs_blocks_nobody(journal: Journal) -> None:
    # Neither its datagrams nor its stream are read while these are written.
    journal.run("for n in range(5000): log.error('flood', number=n)")
    assert journal.entry()["NEXUS_NUMBER"] == "0"
    assert journal.stderr.startswith(b"{")


def test_stderr_that_is_another_than_the_journals_is_not_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        status = os.fstat(file.fileno())
        name = f"{status.st_dev}:{status.st_ino}"
        assert is_journal(file.fileno(), {"JOURNAL_STREAM": name})
        assert not is_journal(file.fileno(), {"JOURNAL_STREAM": f"{name}1"})
        assert not is_journal(file.fileno(), {})


values = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.text()))


@given(st.dictionaries(st.text(min_size=1), values), st.text())
def test_any_line_is_an_entry_that_journald_can_read(line: dict[str, object], event: str) -> None:
    read = parse(encode(fields_of({**line, "event": event}, "nexus-agent")))
    assert read["NEXUS_EVENT"] == event.encode("utf-8", "replace").decode()
