r"""A serial CAN adapter of no hardware: what one end writes, the other one reads.

Two hosts that speak slcan (`tIIILDD..\r`) understand each other: a frame that one of them sends is
one that the other receives, and the commands that would set an adapter up mean nothing to a host.
"""

from __future__ import annotations

import os
import selectors
import threading
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_CHUNK = 4096


@contextmanager
def line(device: Path) -> Iterator[str]:
    """Make the adapter's device at *device*; the path of the other end, for the vehicle."""
    with ExitStack() as undo:
        near, far = (_pseudo_terminal(undo) for _ in range(2))
        stop, stopped = os.pipe()
        undo.callback(os.close, stop)
        device.unlink(missing_ok=True)
        device.symlink_to(os.ttyname(near[1]))
        undo.callback(device.unlink, missing_ok=True)
        carrier = threading.Thread(target=_carry, args=(near[0], far[0], stop), name="slcan")
        carrier.start()
        undo.callback(carrier.join)
        undo.callback(os.close, stopped)
        yield os.ttyname(far[1])


def _pseudo_terminal(undo: ExitStack) -> tuple[int, int]:
    """Master and slave. The slave stays open here, so that the line outlives who opens it."""
    master, slave = os.openpty()
    for descriptor in (master, slave):
        undo.callback(os.close, descriptor)
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, slave


def _carry(left: int, right: int, stop: int) -> None:
    """Carry bytes both ways until the other end of *stop* is closed."""
    with selectors.DefaultSelector() as ready:
        ready.register(left, selectors.EVENT_READ, right)
        ready.register(right, selectors.EVENT_READ, left)
        ready.register(stop, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.data is None:
                    return
                try:
                    os.write(key.data, os.read(key.fd, _CHUNK))
                except BlockingIOError:
                    continue  # nobody reads there: a bus does not wait either
