"""What may go wrong with a measurement without being a bug of it, and how that is said."""

from __future__ import annotations

from typing import Final

import aiomqtt
import httpx
import psutil

from nexus_demo.waiting import DemoError

FAILURES: Final = (
    OSError,
    RuntimeError,
    DemoError,
    aiomqtt.MqttError,
    httpx.HTTPError,
    psutil.Error,
)


def reasons(group: BaseExceptionGroup[Exception]) -> str:
    """Every failure of a group in a line."""
    found: list[str] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found.append(reasons(error))
        else:
            found.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return "; ".join(dict.fromkeys(found))
