"""`nexus erase`: what this box keeps of one car goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from nexus_agent.cli.errors import AgentError
from nexus_agent.cli.options import Options, common


@click.command()
@common
@click.option("--vin", required=True, metavar="VIN", help="The car's VIN, or - to read it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def erase(options: Options, *, vin: str, yes: bool) -> None:
    """Erase what this box keeps of a car. For members of the group nexus-admin.

    With `--vin -` the VIN is read from stdin, and no list of processes shows it: then give --yes.

    Events that the console does not have yet are still sent, and go here once it has them. What the
    console keeps is erased there: nexus-console erase.
    """
    from nexus_agent.cli.client import Agent

    if not yes:
        click.confirm("Erase all that this box keeps of the car?", abort=True, err=True)
    given = sys.stdin.readline() if vin == "-" else vin
    last = _last(Agent(options.path).steps("/v1/erase", vin=given.strip().upper()))
    if options.as_json:
        click.echo(json.dumps(last))
        return
    click.echo("\n".join(_sentences(last)))


def _last(steps: Iterable[bytes]) -> dict[str, Any]:
    """The last document; on a terminal the others are told as they come."""
    found: dict[str, Any] = {"done": False}
    shown = False
    for line in steps:
        found = json.loads(line)
        if sys.stderr.isatty():
            click.echo(f"\r{found['searched']} segments looked through", nl=False, err=True)
            shown = True
    if shown:
        click.echo("\r\033[K", nl=False, err=True)
    if not found["done"]:
        raise AgentError("the agent stopped before it was done: run the command again")
    return found


def _sentences(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{found['events']} delivered events, {found['states']} notes of plugins and "
        f"{found['results']} results of commands named the car and are erased."
    )
    if others := found["forgotten"] - found["events"]:
        yield f"{others} delivered events that lay among them are not kept here any longer."
    if found["waiting"]:
        yield f"{found['waiting']} wait for the console, and go here once it has them."
    if not found["log_emptied"]:
        yield "The database's log could not be emptied, for it is being read: run this again."
    for file in found["unsearched"]:
        yield f"Damaged, so nobody looked into it: {file}. Delete it if it may name the car."
