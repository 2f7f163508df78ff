"""What is told of a death, and what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.traces import LINE_CHARACTERS, plugin_among, read_dump, reason_of, redact, stack_of


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no such port /dev/ttyUSB0", "no such port /dev/ttyUSB0"),
        ("vin=1HGCM82633A004352, again", "vin=[vin], again"),
        ("wvwzzz1jzxw000001 is not known", "[vin] is not known"),
        ("answer 49 02 01 31 48 47 43 4D 38 32 36 33 33 is long", "answer [bytes] is long"),
        (r"b'\x49\x02\x01\x31\x48\x47\x43\x4d\x38\x32\x36\x33'", "b'[bytes]'"),
        ("socks5://anna:hunter2@proxy:1080 refuses", "socks5://[secret]@proxy:1080 refuses"),
        ("password = 'hunter 2', user", "password = [secret], user"),
        ("{'token': 'abc'}", "{'token': [secret]}"),
        ("key\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "key [key]"),
        ("vehicle.key: holds 3 bytes", "vehicle.key: holds 3 bytes"),
        ("two\nlines \ud800", "two lines ?"),
    ],
)
def test_words_are_told_without_vins_and_secrets(text: str, told: str) -> None:
    assert redact(text) == told


@given(st.text(), st.from_regex(r"\A[A-HJ-NPR-Z0-9]{17}\Z"))
def test_no_vin_survives_wherever_it_stands(text: str, vin: str) -> None:
    assert vin not in redact(f"{text} {vin} {text}", 10_000)


@given(st.text())
def test_what_is_told_is_one_short_line_that_json_can_carry(text: str) -> None:
    told = redact(text)
    assert len(told) <= LINE_CHARACTERS
    assert told.isprintable() or "\n" not in told
    told.encode()


def _fail() -> None:
    secret = "1HGCM82633A004352"
    try:
        dict.fromkeys("ab")[secret]
    except KeyError as error:
        raise ValueError("no car") from error


def test_a_stack_has_causes_and_places_and_no_source_or_values() -> None:
    with pytest.raises(ValueError, match="no car") as caught:
        _fail()
    stack = stack_of(caught.value)
    assert stack[0] == "KeyError: '[vin]'"
    assert stack[1].startswith("  unit/agent/test_traces.py:")
    assert stack[2:4] == ["then:", "ValueError: no car"]
    assert "secret" not in "".join(stack)


def test_a_group_is_told_with_what_is_in_it() -> None:
    inner = ExceptionGroup("inner", [OSError("first"), ValueError("second")])
    group = ExceptionGroup("outer", [inner])
    assert reason_of(group) == "OSError: first"
    assert stack_of(group) == [
        "ExceptionGroup: outer (1 sub-exception)",
        "ExceptionGroup: inner (2 sub-exceptions)",
        "OSError: first",
        "ValueError: second",
    ]


def test_the_thread_that_ran_comes_first() -> None:
    program = (
        "import faulthandler, sys, threading\n"
        "def wait(): threading.Event().wait(60)\n"
        "threading.Thread(target=wait, daemon=True).start()\n"
        "faulthandler.enable(sys.stdout)\n"
        "def crash(): faulthandler._sigabrt()\n"
        "crash()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    name, stack, files = read_dump(done.stdout)
    assert name == "SIGABRT"
    assert stack[0].startswith("Current thread")
    assert stack[1] == "  <string>:5 in crash"
    assert any(line.endswith(" in wait") for line in stack)
    assert set(files) == {"<string>"}


@given(st.text())
def test_any_dump_is_read(text: str) -> None:
    _, stack, _ = read_dump(text)
    assert all(len(line) <= LINE_CHARACTERS for line in stack)


def test_a_plugin_is_named_only_where_one_alone_can_be_meant() -> None:
    places = {"obd": "/lib/nexus_plugins/obd/", "a": "/lib/acme.py", "b": "/lib/acme.py"}
    assert plugin_among(["/lib/asyncio/base.py", "/lib/nexus_plugins/obd/scan.py"], places) == "obd"
    assert plugin_among(["/lib/acme.py", "/lib/nexus_plugins/obd/scan.py"], places) is None
    assert plugin_among(["/lib/nexus_agent/app.py"], places) is None
