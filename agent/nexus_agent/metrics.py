"""The agent's figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nexus_agent.protocol import Stream
from nexus_agent.runtime.supervisor import PluginState, Supervisor
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Traffic

_OUTBOX: Final = (
    ("nexus_outbox_next", "Next sequence number.", "next"),
    ("nexus_outbox_acknowledged", "Last sequence number that is acknowledged.", "acknowledged"),
    ("nexus_outbox_pending_events", "Events that wait.", "pending_events"),
    ("nexus_outbox_pending_bytes", "Bytes that wait.", "pending_bytes"),
)


async def prometheus(
    outbox: Outbox,
    supervisor: Supervisor,
    sender: Sender | None,
    traffic: Traffic | None,
    *,
    online: bool,
) -> str:
    """Prometheus text format 0.0.4. Raises StoreError where the outbox cannot be read."""
    waiting = await outbox.status()
    lines = ["# TYPE nexus_online gauge", f"nexus_online {int(online)}"]
    for name, help_text, value in _OUTBOX:
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{stream="{s.stream}"}} {getattr(s, value)}' for s in waiting]
    lines += [*_of_sender(sender), *_of_traffic(traffic), *_of_plugins(supervisor)]
    return "\n".join(lines) + "\n"


def _of_sender(sender: Sender | None) -> Iterator[str]:
    if sender is not None:
        name = "nexus_outbox_retransmissions_total"
        yield f"# HELP {name} Times that a stream was sent again from what is acknowledged."
        yield f"# TYPE {name} counter"
        yield f"{name} {sender.retransmissions}"


def _of_traffic(traffic: Traffic | None) -> Iterator[str]:
    if traffic is not None:
        name = "nexus_link_bytes_total"
        yield from (f"# HELP {name} Bytes of data messages sent.", f"# TYPE {name} counter")
        yield from (f'{name}{{stream="{s}"}} {size}' for s, size in traffic.total.items())
        name = "nexus_outbox_held"
        yield from (f"# HELP {name} Whether [link] has it wait.", f"# TYPE {name} gauge")
        yield from (f'{name}{{stream="{s}"}} {int(traffic.hold(s) is not None)}' for s in Stream)


def _of_plugins(supervisor: Supervisor) -> Iterator[str]:
    yield "# TYPE nexus_plugin_running gauge"
    for item in supervisor.plugins.values():
        running = int(item.state is PluginState.RUNNING)
        yield f'nexus_plugin_running{{plugin="{item.name}"}} {running}'
    yield "# TYPE nexus_plugin_events_total counter"
    for item in supervisor.plugins.values():
        yield f'nexus_plugin_events_total{{plugin="{item.name}"}} {item.counters.events}'
