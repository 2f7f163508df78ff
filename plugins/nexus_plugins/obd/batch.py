"""Several live values in one question, and its answer taken apart again.

Source: SAE J1979 (ISO 15031-5) section 6.1, for ISO 15765-4 only: a request names up to six PIDs,
and each control unit that has any of them answers in one message, `41` and then PID and data of
each, in an order of its own. The message does not say how long the data of a PID are, so it can be
taken apart only with the lengths of the standard, and only as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Answer, Reply

MOST: Final = 6
"""PIDs in one question; with the service they fill a CAN frame."""
_POSITIVE: Final = b"\x41"


def request(pids: Iterable[int]) -> str:
    """The question for *pids*, such as `010C0D`."""
    return "01" + "".join(f"{pid:02X}" for pid in pids)


def split(answer: Answer, lengths: Mapping[int, int]) -> dict[int, Answer]:
    """PID → what the answer to a question for all of *lengths* (PID → data bytes) says to it.

    A control unit whose message does not come out even has said nothing that can be told: its reply
    is malformed for every PID. One that leaves a PID out is not among the replies to that PID.
    """
    replies: dict[int, list[Reply]] = {pid: [] for pid in lengths}
    for reply in answer.replies:
        parts = _parts(reply, lengths)
        for pid, part in parts.items():
            replies[pid].append(part)
    return {
        pid: Answer(tuple(of_pid), answer.otherwise, answer.detail)
        for pid, of_pid in replies.items()
    }


def _parts(reply: Reply, lengths: Mapping[int, int]) -> dict[int, Reply]:
    if reply.quality is not Quality.OK:
        return dict.fromkeys(lengths, reply)
    found = _apart(reply.messages, lengths)
    if found is None:
        detail = "an answer for several values that does not come out even"
        return dict.fromkeys(lengths, Reply(reply.ecu, Quality.MALFORMED, detail=detail))
    return {
        pid: Reply(reply.ecu, Quality.OK, (_POSITIVE + bytes([pid]) + data,))
        for pid, data in found.items()
    }


def _apart(messages: Sequence[bytes], lengths: Mapping[int, int]) -> dict[int, bytes] | None:
    """PID → its data; None unless it is one message and exactly that."""
    if len(messages) != 1:
        return None
    rest, found = messages[0][1:], dict[int, bytes]()
    while rest:
        pid, length = rest[0], lengths.get(rest[0])
        if length is None or pid in found or len(rest) <= length:
            return None
        found[pid], rest = rest[1 : 1 + length], rest[1 + length :]
    return found
