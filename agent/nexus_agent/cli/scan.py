"""`nexus scan`: the trouble codes of every module, by every way that the box has."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from nexus_agent.cli.errors import AgentError
from nexus_agent.cli.options import Options, common

_PHASES = {"pre": ", before the repair", "post": ", after the repair"}
_SILENT = {"absent": "did not answer", "refused": "refused", "malformed": "answered unreadably"}


@click.command()
@common
@click.option("--phase", type=click.Choice(("pre", "post")), help="Before or after a repair.")
@click.option("--adapter", metavar="NAME", help="Which one, where a plugin has several.")
@click.pass_obj
def scan(options: Options, *, phase: str | None, adapter: str | None) -> None:
    """Read the trouble codes of the vehicle's modules, and say what has changed.

    Every plugin of the box that can takes part: over OBD, UDS and J1939. Ctrl-C ends the scan. The
    console gets it as it gets all events.
    """
    from nexus_agent.cli.client import Agent

    found = _last(Agent(options.path).steps("/v1/scan", phase=phase, adapter=adapter))
    if options.as_json:
        click.echo(json.dumps(found))
        return
    for number, each in enumerate([found, *found.get("others", [])]):
        if number:
            click.echo()
        click.echo("\n".join(_lines(each)))


def _last(steps: Iterable[bytes]) -> dict[str, Any]:
    """What was found. Steps go to stderr: on a terminal one over the other."""
    shown = False
    try:
        for line in steps:
            step = json.loads(line)
            if (text := step.get("progress")) is not None:
                shown = _say(text)
            elif "error" in step:
                raise AgentError(str(step["error"]))
            else:
                result: dict[str, Any] = step["scan"]
                return result
    finally:
        if shown:
            click.echo("\r\033[K", nl=False, err=True)
    raise AgentError("the agent stopped before the scan was done: scan again")


def _say(text: str) -> bool:
    """Tell a step; whether it must be wiped away in the end."""
    terminal = sys.stderr.isatty()
    click.echo(f"\r\033[K{text}" if terminal else text, nl=not terminal, err=True)
    return terminal


def _lines(found: dict[str, Any]) -> Iterator[str]:
    car = found.get("vin") or found.get("vehicle_ref") or "a vehicle that tells no VIN"
    phase = _PHASES.get(str(found.get("phase")), "")
    yield click.style(f"Scan of {car}{phase}", bold=True)
    yield ""
    yield from _table(list(_rows(found)))
    yield ""
    yield from _silences(found)
    yield from _changes(found.get("diff"))


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(code, how it is known, module) of each code."""
    names = {module["ecu"]: module.get("name") for module in found["modules"]}
    for code in found["dtcs"]:
        kinds = ", ".join(code["kinds"])
        if code.get("active") is not None:
            kinds += ", active" if code["active"] else ", not active"
        ecu = code["ecu"]
        yield code["code"], kinds, f"{ecu}  {names[ecu]}" if names.get(ecu) else ecu


def _table(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    if not rows:
        yield "No trouble code was told."
        return
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for code, kinds, module in rows:
        yield f"{click.style(code.ljust(widths[0]), bold=True)}  {kinds.ljust(widths[1])}  {module}"


def _silences(found: dict[str, Any]) -> Iterator[str]:
    """How many modules answered, and each that did not: it is not clean."""
    whole = 0
    lines: list[str] = []
    for module in found["modules"]:
        unsaid = {
            kind: said["quality"]
            for kind, said in module["answers"].items()
            if said["quality"] != "ok"
        }
        if not unsaid:
            whole += 1
        elif len(set(unsaid.values())) == 1 and len(unsaid) == len(module["answers"]):
            lines.append(f"{module['ecu']} {_SILENT[next(iter(unsaid.values()))]}")
        else:
            said = ", ".join(f"{kind} {_SILENT[quality]}" for kind, quality in unsaid.items())
            lines.append(f"{module['ecu']}: {said}")
    modules = len(found["modules"])
    yield f"{whole} of {modules} module{'' if modules == 1 else 's'} answered everything."
    for line in lines:
        yield click.style(f"  {line}: nobody knows whether it has codes", fg="yellow")
    for part in found["parts"]:
        if part["outcome"] != "done":
            yield click.style(f"  {part['plugin']} failed: {part.get('detail')}", fg="red")


def _changes(diff: dict[str, Any] | None) -> Iterator[str]:
    if diff is None:
        return
    yield ""
    yield "Since the last scan of this vehicle:"
    for word, colour in (
        ("new", "red"),
        ("remaining", None),
        ("permanent", "yellow"),
        ("fixed", "green"),
    ):
        if codes := diff[word]:
            text = ", ".join(f"{code['code']} ({code['ecu']})" for code in codes)
            yield click.style(f"  {word:<9}  {text}", fg=colour)
    for gap in diff["unknown"]:
        if gap["codes"]:
            which = "before" if gap["scan"] == "before" else "now"
            text = f"{', '.join(gap['codes'])} ({gap['ecu']}): {gap['kind']} {gap['why']} {which}"
            yield f"  {'unknown':<9}  {text}"
    if not any(diff[word] for word in ("new", "remaining", "permanent", "fixed")):
        yield "  no code has changed"
