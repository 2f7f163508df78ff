"""One question and what comes after it: the right answer, or the truth about there being none."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.uds.client import S3_CLIENT_S, Client, Timing
from nexus_plugins.uds.link import Garbled, Link, LinkError, NoRoute, Stopped

ASK = b"\x22\xf1\x87"
RIGHT = b"\x62\xf1\x87A"
PENDING = b"\x7f\x22\x78"
BUSY = b"\x7f\x22\x21"
WRONG = b"\x62\xf1\x88A"
Said = bytes | Exception


class Script(Link):
    """A link over which these messages come, one each time that somebody listens."""

    def __init__(self, *said: Said) -> None:
        super().__init__()
        self.said = list(said)
        self.opened = 0
        self.sent: list[bytes] = []

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        return

    def probe(self) -> None:
        return

    def send(self, target: int, payload: bytes) -> None:
        self.sent.append(payload)
        if self.said and isinstance(self.said[0], NoRoute):
            raise self.said.pop(0)  # type: ignore[misc]

    def receive(self, until: float) -> bytes | None:
        said = self.said.pop(0) if self.said else None
        if isinstance(said, Exception):
            raise said
        return said

    def pause(self, seconds: float) -> None:
        self.patience(0.0)


def client(link: Link) -> Client:
    return Client(link, Timing(p2_s=0.2, p2_star_s=5.0, pending_max_s=30.0))


@given(
    st.lists(
        st.sampled_from([RIGHT, PENDING, BUSY, WRONG, b"", b"\x7f\x22\x31", b"\x7f\x22\x31\x00"])
        | st.binary(max_size=6),
        max_size=12,
    )
)
def test_a_value_comes_from_the_right_answer_only(said: list[bytes]) -> None:
    reply = client(Script(*said)).ask(1, ASK, 2)

    if reply.quality is Quality.OK:
        assert b"\x62\xf1\x87" + reply.data in said
    else:
        assert reply.data == b""
        assert reply.detail


@pytest.mark.parametrize(
    ("said", "quality", "detail"),
    [
        ([], Quality.ABSENT, "no answer within 0.2 s"),
        ([PENDING], Quality.ABSENT, "no answer in the end (NRC 0x78"),
        ([WRONG], Quality.MALFORMED, "only answers to other questions came"),
        ([Garbled("cut")], Quality.MALFORMED, "cut"),
        ([NoRoute("no", there=False)], Quality.ABSENT, "no"),
        ([BUSY] * 5, Quality.REFUSED, "busy until the end"),
        ([BUSY, PENDING, WRONG, RIGHT], Quality.OK, None),
    ],
)
def test_what_became_of_a_question(said: list[Said], quality: Quality, detail: str | None) -> None:
    reply = client(Script(*said)).ask(1, ASK, 2)

    assert reply.quality is quality
    assert (reply.detail or "").startswith(detail or "")


def test_who_is_there_is_told_apart_from_who_is_not() -> None:
    def there(*said: Said) -> bool:
        return client(Script(*said)).ask(1, ASK, 2).there

    assert there(PENDING)
    assert there(NoRoute("unreachable", there=True))
    assert not there(NoRoute("unknown", there=False))
    assert not there()


def test_a_broken_link_is_opened_anew_once() -> None:
    link = Script(LinkError("gone"), RIGHT)
    assert client(link).ask(1, ASK, 2).quality is Quality.OK
    assert (link.opened, link.sent) == (1, [ASK, ASK])

    with pytest.raises(LinkError, match="gone again"):
        client(Script(LinkError("gone"), LinkError("gone again"), RIGHT)).ask(1, ASK, 2)


def test_who_was_asked_a_moment_ago_is_left_in_peace() -> None:
    link = Script(RIGHT)
    asked = client(link)
    asked.keep()
    asked.ask(1, ASK, 2)
    asked.keep()

    assert link.sent == [ASK]


def test_who_was_not_asked_for_a_while_is_told_that_we_are_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = Script(RIGHT)
    asked = client(link)
    asked.ask(1, ASK, 2)
    later = time.monotonic() + S3_CLIENT_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    asked.keep()

    assert link.sent == [ASK, b"\x3e\x80"]


def test_a_thread_that_is_stopped_comes_back_and_then_the_link_is_closed() -> None:
    class Silent(Script):
        def receive(self, until: float) -> bytes | None:
            while self.patience(until + 60):
                listening.set()
                self.pause(0.01)
            return None

        def close(self) -> None:
            ended.append("closed")

    listening, ended = threading.Event(), list[str]()
    asked = client(Silent())

    def ask() -> None:
        try:
            asked.ask(1, ASK, 2)
        except Stopped:
            ended.append("stopped")

    thread = threading.Thread(target=ask)
    thread.start()
    assert listening.wait(5)
    asked.stop()
    asked.close()
    thread.join()

    assert sorted(ended) == ["closed", "stopped"]
