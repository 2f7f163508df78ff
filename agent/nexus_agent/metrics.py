"""The agent's figures for Prometheus: `METRICS` says what there is, `render` writes it.

The text format is 0.0.4 of "Exposition formats" in Prometheus' documentation; the names keep to its
"Metric and label naming": a prefix, base units, `_total` for what only rises.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from nexus_agent.health import LEVELS, Findings, Problem
from nexus_agent.protocol import Stream
from nexus_agent.runtime.states import PluginState
from nexus_agent.runtime.supervisor import Supervisor
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.link import Link, LinkState
from nexus_agent.sync.sender import Sender
from nexus_agent.sync.traffic import Traffic
from nexus_agent.vitals import Lag, costs

Kind = Literal["counter", "gauge", "summary"]
_NS: Final = 1_000_000_000
_QUANTILES: Final = (0.5, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One family: its name, its labels and what it says."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_STREAM: Final = ("stream",)
_PLUGIN: Final = ("plugin",)
METRICS: Final = (
    Metric("nexus_build_info", "gauge", "1; the labels say what runs here.", ("version", "python")),
    Metric("nexus_uptime_seconds", "gauge", "Seconds since the agent started."),
    Metric("nexus_ready", "gauge", "1 while the outbox is open and the agent is not stopping."),
    Metric("nexus_online", "gauge", "1 while the agent is connected to its broker."),
    Metric(
        "nexus_link_state_timestamp_seconds",
        "gauge",
        "Unix time since when the link to the broker is as it is.",
    ),
    Metric("nexus_link_connects_total", "counter", "Connections to the broker that came about."),
    Metric("nexus_link_disconnects_total", "counter", "Connections to the broker that ended."),
    Metric("nexus_link_publishes_total", "counter", "Data messages sent.", _STREAM),
    Metric("nexus_link_bytes_total", "counter", "Bytes of data messages sent.", _STREAM),
    Metric(
        "nexus_outbox_retransmissions_total",
        "counter",
        "Times that a stream was sent again from what is acknowledged.",
    ),
    Metric("nexus_outbox_held", "gauge", "1 while [link] has the stream wait.", _STREAM),
    Metric("nexus_outbox_next", "gauge", "Next sequence number in the open epoch.", _STREAM),
    Metric(
        "nexus_outbox_acknowledged",
        "gauge",
        "Last sequence number that is acknowledged in the open epoch.",
        _STREAM,
    ),
    Metric("nexus_outbox_pending_events", "gauge", "Events that wait, of every epoch.", _STREAM),
    Metric("nexus_outbox_pending_segments", "gauge", "Segments that they are in.", _STREAM),
    Metric("nexus_outbox_pending_bytes", "gauge", "Bytes of these segments.", _STREAM),
    Metric(
        "nexus_outbox_oldest_age_seconds",
        "gauge",
        "Age of the oldest event that waits; 0 where none does.",
        _STREAM,
    ),
    Metric(
        "nexus_outbox_used_bytes",
        "gauge",
        "Bytes that database, write-ahead log and reserve take on the disk.",
    ),
    Metric("nexus_outbox_quota_bytes", "gauge", "Bytes that they may take together."),
    Metric(
        "nexus_outbox_lost_events",
        "gauge",
        "Events in the loss ledger, which forgets the oldest losses that the console knows of.",
        ("cause",),
    ),
    Metric(
        "nexus_outbox_refused_events_total",
        "counter",
        "Events that were not taken, for any reason.",
    ),
    Metric(
        "nexus_outbox_refused_acknowledgements_total",
        "counter",
        "Acknowledgements of what was never sealed.",
    ),
    Metric(
        "nexus_plugin_state", "gauge", "1 for the state that the plugin is in.", (*_PLUGIN, "state")
    ),
    Metric("nexus_plugin_restarts_total", "counter", "Restarts after a failure.", _PLUGIN),
    Metric("nexus_plugin_events_total", "counter", "Events that it emitted.", _PLUGIN),
    Metric("nexus_plugin_errors_total", "counter", "Errors that ended a run.", _PLUGIN),
    Metric(
        "nexus_plugin_refused_events_total", "counter", "Its events that were not taken.", _PLUGIN
    ),
    Metric(
        "nexus_plugin_cpu_seconds_total",
        "counter",
        "Its time on the agent's event loop, or the CPU time of its own process.",
        _PLUGIN,
    ),
    Metric("nexus_plugin_stalls_total", "counter", "Times that it blocked the loop.", _PLUGIN),
    Metric("nexus_plugin_blocking_calls", "gauge", "Worker threads that it holds.", _PLUGIN),
    Metric(
        "nexus_event_loop_lag_seconds",
        "summary",
        "How late the event loop wakes a task, in the last minute; measured twice a second.",
        ("quantile",),
    ),
    Metric("nexus_process_cpu_seconds_total", "counter", "CPU time of the agent's process."),
    Metric("nexus_process_resident_memory_bytes", "gauge", "Its memory in RAM."),
    Metric("nexus_process_open_fds", "gauge", "Its open file descriptors."),
    Metric("nexus_process_max_fds", "gauge", "How many of them it may have."),
    Metric("nexus_clock_synchronised", "gauge", "1 while the kernel says that the clock is right."),
    Metric("nexus_health_problems", "gauge", "Sentences that `nexus status` has.", ("level",)),
    Metric("nexus_service_ok", "gauge", "1 while the service of the agent is well.", ("service",)),
)
_FAMILIES: Final = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value. suffix: `_sum` or `_count` of a summary."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


def render(samples: Iterable[Sample]) -> str:
    """The page. KeyError for a sample of no family."""
    found: dict[str, list[str]] = {name: [] for name in _FAMILIES}
    for sample in samples:
        found[sample.name].append(_line(sample))
    lines: list[str] = []
    for name, metric in _FAMILIES.items():
        text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {metric.kind}", *found[name]]
    return "\n".join(lines) + "\n"


def _line(sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
    braces = f"{{{labels}}}" if labels else ""
    return f"{sample.name}{sample.suffix}{braces} {sample.value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def of_agent(version: str, uptime_s: float, *, ready: bool, synced: bool) -> Iterator[Sample]:
    labels = {"version": version, "python": platform.python_version()}
    yield Sample("nexus_build_info", 1, labels)
    yield Sample("nexus_uptime_seconds", round(uptime_s, 3))
    yield Sample("nexus_ready", int(ready))
    yield Sample("nexus_clock_synchronised", int(synced))


def of_link(link: Link | None, sender: Sender | None, traffic: Traffic | None) -> Iterator[Sample]:
    yield Sample("nexus_online", int(link is not None and link.state is LinkState.CONNECTED))
    if link is not None:
        yield Sample("nexus_link_state_timestamp_seconds", link.since / _NS)
        yield Sample("nexus_link_connects_total", link.connects)
        yield Sample("nexus_link_disconnects_total", link.disconnects)
    if sender is not None:
        yield Sample("nexus_outbox_retransmissions_total", sender.retransmissions)
    if traffic is not None:
        for stream in Stream:
            labels = {"stream": str(stream)}
            yield Sample("nexus_link_publishes_total", traffic.messages[stream], labels)
            yield Sample("nexus_link_bytes_total", traffic.total[stream], labels)
            yield Sample("nexus_outbox_held", int(traffic.hold(stream) is not None), labels)


async def of_streams(outbox: Outbox, now: int) -> list[Sample]:
    """now: wall time (ns). Raises StoreError where the outbox cannot be read."""
    found: list[Sample] = []
    for waiting in await outbox.status():
        age = 0.0 if waiting.oldest is None else max(now - waiting.oldest, 0) / _NS
        values: dict[str, Any] = {
            "next": waiting.next,
            "acknowledged": waiting.acknowledged,
            "pending_events": waiting.pending_events,
            "pending_segments": waiting.pending_segments,
            "pending_bytes": waiting.pending_bytes,
            "oldest_age_seconds": round(age, 3),
        }
        labels = {"stream": str(waiting.stream)}
        found += [Sample(f"nexus_outbox_{key}", value, labels) for key, value in values.items()]
    for cause, count in (await outbox.lost_events()).items():
        found.append(Sample("nexus_outbox_lost_events", count, {"cause": cause}))
    return found


async def of_storage(outbox: Outbox) -> list[Sample]:
    storage = await outbox.storage()
    return [
        Sample("nexus_outbox_used_bytes", storage.used_bytes),
        Sample("nexus_outbox_quota_bytes", storage.quota_bytes),
        Sample("nexus_outbox_refused_events_total", storage.refused_events),
        Sample("nexus_outbox_refused_acknowledgements_total", outbox.refused_acknowledgements),
    ]


def of_plugins(supervisor: Supervisor) -> Iterator[Sample]:
    for item in supervisor.plugins.values():
        labels = {"plugin": item.name}
        for state in PluginState:
            is_in = int(item.state is state)
            yield Sample("nexus_plugin_state", is_in, {**labels, "state": str(state)})
        yield Sample("nexus_plugin_restarts_total", item.restarts, labels)
        yield Sample("nexus_plugin_events_total", item.counters.events, labels)
        counters = item.counters
        yield Sample("nexus_plugin_errors_total", counters.errors, labels)
        yield Sample("nexus_plugin_refused_events_total", counters.refused, labels)
        yield Sample("nexus_plugin_cpu_seconds_total", round(counters.loop_s, 3), labels)
        yield Sample("nexus_plugin_stalls_total", counters.stalls, labels)
        yield Sample("nexus_plugin_blocking_calls", counters.threads.busy, labels)


def of_process(lag: Lag) -> Iterator[Sample]:
    for share in _QUANTILES:
        labels = {"quantile": f"{share:g}"}
        yield Sample("nexus_event_loop_lag_seconds", round(lag.quantile(share), 6), labels)
    yield Sample("nexus_event_loop_lag_seconds", round(lag.total_s, 6), suffix="_sum")
    yield Sample("nexus_event_loop_lag_seconds", lag.count, suffix="_count")
    now = costs()
    yield Sample("nexus_process_cpu_seconds_total", round(now.cpu_s, 3))
    yield Sample("nexus_process_resident_memory_bytes", now.resident_bytes)
    yield Sample("nexus_process_open_fds", now.descriptors)
    yield Sample("nexus_process_max_fds", now.most_descriptors)


def of_health(findings: Findings, problems: list[Problem]) -> Iterator[Sample]:
    for level in LEVELS:
        count = sum(problem.level == level for problem in problems)
        yield Sample("nexus_health_problems", count, {"level": level})
    for service, wrong in findings.items():
        yield Sample("nexus_service_ok", int(not wrong), {"service": service})
