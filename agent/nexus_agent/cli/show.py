"""The agent's documents as text for people: plain, aligned, the worst first.

Whatever comes from a vehicle or an adapter is shown with its control characters replaced, so that
it cannot command the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """How a state looks: a symbol, the same where only ASCII can be shown, and a colour."""

    symbol: str
    ascii: str
    colour: str | None


GOOD: Final = Mark("✓", "+", "green")
BUSY: Final = Mark("…", ".", None)
DOUBT: Final = Mark("!", "!", "yellow")
BAD: Final = Mark("✗", "x", "red")
OFF: Final = Mark("-", "-", None)

HEALTH: Final = {"critical": BAD, "warning": DOUBT, "ok": GOOD}
BROKER: Final = {"connected": GOOD, "connecting": BUSY, "waiting": DOUBT, "denied": BAD}
PLUGIN: Final = {
    "running": GOOD,
    "starting": BUSY,
    "backoff": DOUBT,
    "failed": BAD,
    "quarantined": BAD,
    "blocked": BAD,
    "stuck": BAD,
    "waiting": BUSY,
    "stopped": OFF,
    "disabled": OFF,
}


class Screen:
    """Where text goes: whether it can show more than ASCII, how wide it is, and the time now."""

    def __init__(self, *, encoding: str = "utf-8", width: int | None = None) -> None:
        self._width = width
        self._now = datetime.now(UTC)
        try:
            "✓…✗".encode(encoding)
        except (UnicodeEncodeError, LookupError):
            self._ascii = True
        else:
            self._ascii = False

    def mark(self, mark: Mark) -> str:
        """The symbol of a mark in its colour."""
        return click.style(mark.ascii if self._ascii else mark.symbol, fg=mark.colour)

    def cut(self, line: str) -> str:
        """A line that fits the width, where there is one."""
        if self._width is None or len(line) <= self._width:
            return line
        end = "..." if self._ascii else "…"
        return line[: max(self._width - len(end), 0)] + end

    def age(self, moment: str | None) -> str:
        """How long ago an RFC 3339 time was: `3 min`."""
        if moment is None:
            return "-"
        try:
            return duration((self._now - datetime.fromisoformat(moment)).total_seconds())
        except (ValueError, TypeError):
            return printable(moment)

    def moment(self, moment: str) -> str:
        """An RFC 3339 time by the clock on the wall: `14:30`, with its date if it is a day off."""
        try:
            local = datetime.fromisoformat(moment).astimezone()
        except ValueError:
            return printable(moment)
        near = abs(local - self._now) < timedelta(days=1)
        return f"{local:%H:%M}" if near else f"{local:%Y-%m-%d %H:%M}"


def printable(value: object) -> str:
    """Text without control characters, on one line."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 5 min`, `4 d 2 h`; a time ahead of the clock is `0 s`."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if hours == 0:
        return f"{minutes} min"
    if days == 0:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def size(count: float) -> str:
    """`950 B`, `1.2 kB`, `34 MB`; a thousand of one is one of the next."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> list[str]:
    """Aligned columns under their titles; the titles in *right*, split at blanks, align right."""
    plain = [[click.unstyle(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(len(row[i]) for row in plain) for i in range(len(titles))]
    numbers = [title in right.split() for title in titles]
    lines = []
    for styled, bare in zip((titles, *rows), plain, strict=True):
        cells = []
        for i, cell in enumerate(styled):
            gap = " " * (widths[i] - len(bare[i]))
            cells.append(gap + cell if numbers[i] else cell + gap)
        lines.append("  ".join(cells).rstrip())
    return lines


def status(document: Document, screen: Screen) -> list[str]:
    """`/v1/status` on one screen."""
    who = f"{printable(document['device'])} is {printable(document['state'])}"
    agent = f"agent {printable(document['version'])}, process {document['pid']}"
    lines = [f"{who}: {agent}, up {duration(document['uptime_s'])}", ""]
    order = list(HEALTH)
    health = sorted(document["health"], key=lambda item: _rank(order, item["level"]))
    lines += [
        f"{screen.mark(HEALTH.get(item['level'], DOUBT))} {printable(item['text'])}"
        for item in health
    ]
    if health:
        lines.append("")
    lines += _named("Broker", _broker(document["broker"], screen))
    lines += _named("Outbox", [_waiting(document["outbox"], screen)])
    lines += _named("Plugins", _plugin_states(document["plugins"], screen))
    lines += _named("Unwell", _unwell(document.get("services", []), screen))
    return lines


def _rank(order: Sequence[str], level: str) -> int:
    return order.index(level) if level in order else 0


def _named(name: str, lines: Sequence[str]) -> list[str]:
    return [f"{name if i == 0 else '':<8} {line}" for i, line in enumerate(lines)]


def _broker(broker: Document, screen: Screen) -> list[str]:
    state = printable(broker["state"])
    mark = screen.mark(BROKER.get(broker["state"], DOUBT))
    since = f" for {screen.age(broker['since'])}" if broker.get("since") else ""
    lines = [f"{mark} {state}{since}, {printable(broker['url'])}"]
    if broker.get("error"):
        attempt = f" (attempt {broker['attempt']})" if broker.get("attempt") else ""
        lines.append(f"  {printable(broker['error'])}{attempt}")
    return lines


def _waiting(outbox: Document, screen: Screen) -> str:
    count = outbox["pending_events"]
    if not count:
        return f"{screen.mark(GOOD)} nothing waits"
    oldest = f", the oldest for {screen.age(outbox['oldest'])}" if outbox.get("oldest") else ""
    events = "1 event waits" if count == 1 else f"{count:,} events wait"
    return f"{screen.mark(BUSY)} {events} ({size(outbox['pending_bytes'])}){oldest}"


def _plugin_states(plugins: dict[str, str], screen: Screen) -> list[str]:
    if not plugins:
        return ["none"]
    width = max(len(printable(name)) for name in plugins)
    return [
        f"{screen.mark(PLUGIN.get(state, DOUBT))} {printable(name):<{width}}  {printable(state)}"
        for name, state in sorted(plugins.items())
    ]


def _unwell(services: Sequence[Document], screen: Screen) -> list[str]:
    """The agent's services that do not do their work, and for how long; the health says why."""
    return [
        f"{screen.mark(DOUBT)} {printable(service['name'])} for {screen.age(service['since'])}"
        for service in services
        if not service["ok"]
    ]


def plugins(document: Document, screen: Screen) -> list[str]:
    """`/v1/plugins` as a table; the last errors below it."""
    found = sorted(document["plugins"], key=lambda plugin: str(plugin["name"]))
    rows = [
        [
            f"{screen.mark(PLUGIN.get(plugin['state'], DOUBT))} {printable(plugin['name'])}",
            printable(plugin["version"]),
            printable(plugin["state"]),
            printable(plugin["isolation"]),
            screen.age(plugin["since"]),
            str(plugin["restarts"]),
            f"{plugin['events']:,}",
            printable(plugin["reason"] or plugin["report"] or "-"),
        ]
        for plugin in found
    ]
    titles = ("  NAME", "VERSION", "STATE", "RUNS AS", "FOR", "RESTARTS", "EVENTS", "REPORT")
    lines = [screen.cut(line) for line in table(titles, rows, right="RESTARTS EVENTS")]
    failed = [plugin for plugin in found if plugin["last_error"]]
    if failed:
        lines.append("")
    lines += [
        f"{printable(plugin['name'])}: last error: {printable(plugin['last_error'])}"
        for plugin in failed
    ]
    return lines


def outbox(document: Document, screen: Screen) -> list[str]:
    """`/v1/outbox`: the streams in their order of priority, why they wait and for how long."""
    rows = [
        [
            printable(stream["stream"]),
            f"{stream['pending_events']:,}",
            f"{stream['pending_segments']:,}",
            size(stream["pending_bytes"]),
            screen.age(stream["oldest"]),
            str(stream["acknowledged"]),
            str(stream["next"]),
        ]
        for stream in document["streams"]
    ]
    titles = ("STREAM", "WAITING", "SEGMENTS", "SIZE", "OLDEST", "ACKNOWLEDGED", "NEXT")
    quota = f" of {size(document['quota_bytes'])}" if document["quota_bytes"] else ""
    return [
        f"epoch {document['epoch']}, database {size(document['database_bytes'])}{quota}",
        "",
        *table(titles, rows, right="WAITING SEGMENTS SIZE OLDEST ACKNOWLEDGED NEXT"),
        "",
        *[_held(s, screen) for s in document["streams"] if s["held"]],
        *[_loss(loss, screen) for loss in document["losses"]],
        _forecast(document),
        *_traffic(document["traffic"]),
    ]


def _held(stream: Document, screen: Screen) -> str:
    """Why a stream waits, and until when."""
    held = stream["held"]
    until = f"; goes on at {screen.moment(held['until'])}" if held["until"] else ""
    name, reason = printable(stream["stream"]), printable(held["reason"])
    return f"{screen.mark(DOUBT)} {name} waits: {reason}{until}"


def _loss(loss: Document, screen: Screen) -> str:
    """What was dropped, when it had been recorded, why, and whether the console knows."""
    count = loss["last"] - loss["first"] + 1
    what = f"{count:,} {printable(loss['stream'])} event{'' if count == 1 else 's'} dropped"
    first, last = loss.get("first_time"), loss.get("last_time")
    when = f", recorded {screen.moment(first)} to {screen.moment(last)}" if first and last else ""
    known = "" if loss["told"] else "; the console does not know yet"
    return f"{screen.mark(DOUBT)} {what}{when}: {printable(loss['cause'])}{known}"


def _forecast(document: Document) -> str:
    """How long it will take, in one sentence."""
    forecast = document["forecast"]
    waiting = sum(stream["pending_bytes"] for stream in document["streams"])
    if forecast["limited_by"] == "offline":
        return f"not connected: nothing moves{_until_full(forecast)}"
    return f"{size(waiting)} wait{_until_empty(forecast)}" if waiting else "nothing waits"


def _until_full(forecast: Document) -> str:
    if forecast["seconds"] is None:
        return ""
    quota = f"the quota of {size(forecast['bytes'])}"
    return f"; {quota} is reached in about {roughly(forecast['seconds'])} at the present rate"


def _until_empty(forecast: Document) -> str:
    kind, seconds = forecast["limited_by"], forecast["seconds"]
    if kind == "metered":
        return " for as long as the line is metered"
    if kind == "budget":
        pace = f"{size(forecast['bytes'])} a {forecast['period']}"
        if forecast["growing"]:
            return f"; more comes in than {pace} let out"
        return f"; at {pace} about {roughly(seconds)}"
    if seconds is None:
        return "; the speed of the line is not known yet"
    return f"; at {size(forecast['bytes'])}/s about {roughly(seconds)}"


def roughly(seconds: float) -> str:
    """`4 min`, `7 h`, `6 days`: as exact as a forecast can be."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _traffic(traffic: Document | None) -> list[str]:
    """What was sent today and this month, against the budgets that there are."""
    lines = []
    for period, name in (("day", "today"), ("month", "this month")):
        if traffic is None:
            break
        used = traffic[period]
        parts = [_spent(used)]
        parts += [
            f"{printable(stream)} {_spent(one)}"
            for stream, one in used["streams"].items()
            if one["budget_bytes"]
        ]
        lines.append(f"sent {name}: {', '.join(parts)}")
    return lines


def _spent(used: Document) -> str:
    budget = f" of {size(used['budget_bytes'])}" if used["budget_bytes"] else ""
    return size(used["bytes"]) + budget


def event(document: Document, screen: Screen) -> str:
    """One event on one line: local time, stream, type, who said it, and its data as JSON."""
    try:
        moment = datetime.fromisoformat(document["time"]).astimezone()
        when = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
    except ValueError:
        when = printable(document["time"])
    source = printable(document["source"]).rpartition("/")[2]
    data = printable(json.dumps(document["data"], ensure_ascii=False, separators=(",", ":")))
    kind = f"{printable(document['stream']):<9}  {printable(document['type']):<18}"
    return screen.cut(f"{when}  {kind}  {source:<6}  {data}")


def events(document: Document, screen: Screen) -> list[str]:
    """`/v1/events`, an event a line."""
    return [event(item, screen) for item in document["events"]]


Renderer = Callable[[Document, Screen], list[str]]
