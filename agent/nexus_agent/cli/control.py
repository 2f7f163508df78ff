"""The commands that change a plugin at this box: `nexus plugin start`, `stop` and so on."""

from __future__ import annotations

import json

import click

from nexus_agent.cli.options import Options, common

_HELP = {
    "start": "Start a plugin that is stopped, or let one that failed try again now.",
    "stop": "Stop a plugin until somebody starts it, or the agent starts anew.",
    "restart": "End a plugin's run and begin another, in the tier that its settings say.",
    "enable": "Switch a plugin on at this box again.",
    "disable": "Switch a plugin off at this box, also after a restart of the agent.",
}


def _change(options: Options, name: str, action: str) -> None:
    from nexus_agent.cli.client import Agent

    body = Agent(options.path).post(f"/v1/plugins/{name}/{action}")
    if options.as_json:
        click.echo(body, nl=False)
        return
    found = json.loads(body)["plugin"]
    reason = f": {found['reason']}" if found["reason"] else ""
    click.echo(f"{name} is {found['state']}{reason}")


def add_to(group: click.Group) -> None:
    """Give *group* the commands."""
    for action, text in _HELP.items():
        _add(group, action, text)


def _add(group: click.Group, action: str, text: str) -> None:
    @group.command(action, help=f"{text} For members of the group nexus-admin.")
    @common
    @click.argument("name")
    @click.pass_obj
    def run(options: Options, name: str) -> None:
        _change(options, name, action)
