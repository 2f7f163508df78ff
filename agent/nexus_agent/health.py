"""How the agent's services are: what is wrong with each, in plain sentences, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from nexus_agent.clock import Clock
from nexus_agent.protocol import format_time
from nexus_agent.reload import Reloader
from nexus_agent.runtime.states import PluginState
from nexus_agent.runtime.supervisor import Supervisor
from nexus_agent.status.scrapes import MetricsServer
from nexus_agent.store.housekeeping import Housekeeper
from nexus_agent.store.outbox import Outbox
from nexus_agent.sync.link import Link, LinkState

Level = Literal["critical", "warning"]
LEVELS: Final[tuple[Level, ...]] = ("critical", "warning")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One sentence about what does not work."""

    level: Level
    text: str


WAITS: Final = Problem("warning", "Waits until the database can be opened.")
"""Of a service that is not to blame: the outbox has the sentence for people."""

Findings = Mapping[str, list[Problem]]
"""The problems of each service by its name; an empty list where it is well."""


class Since:
    """Remembers since when each service is as it is. Call `look` often."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[bool, int]] = {}

    def look(self, findings: Findings) -> None:
        """Note which services are well now."""
        for name, problems in findings.items():
            well = not problems
            if name not in self._known or self._known[name][0] is not well:
                self._known[name] = well, self._clock.stamp().wall

    def document(self, findings: Findings) -> list[dict[str, Any]]:
        """Every service with `name`, `ok`, `reason` (None where it is well) and `since`."""
        self.look(findings)
        return [
            {
                "name": name,
                "ok": not problems,
                "reason": " ".join(problem.text for problem in problems) or None,
                "since": format_time(self._known[name][1]),
            }
            for name, problems in findings.items()
        ]


def of_outbox(outbox: Outbox, unopened: str | None) -> list[Problem]:
    """unopened: why the database could not be opened yet, if so."""
    if unopened is not None:
        return [
            Problem("critical", f"Nothing can be stored, and no plugin runs: {unopened}."),
        ]
    trouble = outbox.trouble
    if trouble is None:
        return []
    lost = f" {trouble.refused} events were not taken." if trouble.refused else ""
    since = format_time(trouble.since)
    return [Problem("critical", f"Nothing can be stored since {since}: {trouble.reason}.{lost}")]


def of_plugins(supervisor: Supervisor) -> list[Problem]:
    found: list[Problem] = []
    for item in supervisor.plugins.values():
        if item.state.is_alarming:
            found.append(Problem("critical", f"Plugin {item.name} is {item.state}: {item.reason}."))
        elif item.state is PluginState.BACKOFF:
            found.append(Problem("warning", f"Plugin {item.name} restarts: {item.reason}."))
        elif item.state is PluginState.WAITING:
            found.append(Problem("warning", f"Plugin {item.name} {item.reason}."))
        if item.moved:
            text = f"Plugin {item.name} was given a process of its own: {item.moved}."
            found.append(Problem("warning", text))
    return found


def of_link(link: Link | None, url: str) -> list[Problem]:
    if link is None or link.state is LinkState.CONNECTED:
        return []
    if link.state is LinkState.DENIED:
        return [Problem("critical", f"The broker refuses this box: {link.error}.")]
    why = f": {link.error}" if link.error else ""
    return [Problem("warning", f"Not connected to {url}{why}.")]


def of_housekeeping(housekeeper: Housekeeper | None, outbox: Outbox) -> list[Problem]:
    """What the outbox says of its disk itself is not said again."""
    if housekeeper is None or housekeeper.trouble is None or outbox.trouble is not None:
        return []
    return [Problem("warning", f"Housekeeping waits for the disk: {housekeeper.trouble}.")]


def of_metrics(server: MetricsServer | None) -> list[Problem]:
    if server is None or server.trouble is None:
        return []
    return [Problem("warning", f"Prometheus cannot ask: {server.trouble}.")]


def of_settings(reloader: Reloader | None) -> list[Problem]:
    found: list[Problem] = []
    if reloader is not None and reloader.error is not None:
        text = f"Settings: {reloader.error}; the old ones are in force."
        found.append(Problem("warning", text))
    if reloader is not None and reloader.waiting:
        text = f"Settings need a restart: {', '.join(reloader.waiting)}."
        found.append(Problem("warning", text))
    return found


def of_damage(database: Path) -> list[Problem]:
    """What a salvage has left behind, for a person to look at."""
    aside = sorted(database.parent.glob(f"{database.name}.damaged-*[0-9]"))
    if not aside:
        return []
    text = f"The database was damaged and salvaged; the damaged one is {aside[-1]}"
    advice = "check the disk, and delete that file when nobody needs it"
    return [Problem("warning", f"{text}: {advice}.")]
