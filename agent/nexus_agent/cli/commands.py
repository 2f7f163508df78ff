"""The commands of `nexus` and what they take."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from nexus_agent.cli import control
from nexus_agent.cli.erase import erase
from nexus_agent.cli.errors import MISUSED, AgentError
from nexus_agent.cli.options import NexusGroup, Options, common
from nexus_agent.cli.plugin import plugin
from nexus_agent.cli.scan import scan

if TYPE_CHECKING:
    from nexus_agent.cli.client import Agent
    from nexus_agent.cli.show import Renderer, Screen

STREAMS: Final = ("alert", "event", "telemetry", "log")
"""protocol.Stream, not imported here: that takes longer than to answer."""

HELP: Final = """What the Nexus Core agent on this box is doing.

\b
Data goes to stdout, words about failures to stderr. With --json, stdout has
the agent's own document, for `events -f` one JSON object a line.

\b
Exit codes:
  0  answered (also when what it says is bad news)
  1  the agent failed, broke off or gave no answer
  2  wrong command, option or configuration
  3  no agent runs at the socket
  4  you are not allowed to ask
"""


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"nexus {version('nexus-core-agent')}")
        ctx.exit()


@click.group(cls=NexusGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@common
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    if os.environ.get("NO_COLOR"):  # no-color.org: set and not empty
        ctx.color = False


control.add_to(plugin)
main.add_command(plugin)
main.add_command(erase)
main.add_command(scan)


@main.command()
@common
@click.pass_obj
def status(options: Options) -> None:
    """Health, broker, outbox and plugins on one screen."""
    from nexus_agent.cli import show

    _answer(options, "/v1/status", show.status)


@main.command()
@common
@click.pass_obj
def plugins(options: Options) -> None:
    """Every plugin, its state, and why it is not running."""
    from nexus_agent.cli import show

    _answer(options, "/v1/plugins", show.plugins)


@main.command()
@common
@click.pass_obj
def outbox(options: Options) -> None:
    """What waits for the console, stream by stream."""
    from nexus_agent.cli import show

    _answer(options, "/v1/outbox", show.outbox)


@main.command()
@common
@click.option("-f", "--follow", is_flag=True, help="Go on with new events until Ctrl-C.")
@click.option("--type", "event_type", metavar="TYPE", help="Only this type: telemetry.pid")
@click.option("--stream", type=click.Choice(STREAMS), help="Only this stream.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="How many to begin with, the newest, or the first after --after.",
)
@click.option("--after", metavar="CURSOR", help="Only what came after this event's cursor.")
@click.pass_obj
def events(
    options: Options,
    *,
    follow: bool,
    event_type: str | None,
    stream: str | None,
    limit: int,
    after: str | None,
) -> None:
    """Events of this box, oldest first, in local time; with -f also those to come."""
    from nexus_agent.cli import show

    query = {"type": event_type, "stream": stream, "after": after, "limit": str(limit)}
    if follow:
        _follow(options, query)
    else:
        _answer(options, "/v1/events", show.events, query)


@main.group(cls=NexusGroup)
@common
def config() -> None:
    """Work with configuration files."""


@config.command()
@common
@click.argument("file", type=click.Path())
@click.pass_obj
def check(options: Options, file: str) -> None:
    """Check FILE, an agent.toml, and the NEXUS_ variables over it."""
    import json
    from pathlib import Path

    from nexus_agent.config import load_config, plugin_sections
    from nexus_agent.settings import SettingsError

    try:
        found = load_config(Path(file), os.environ)
        sections = plugin_sections(found, file, os.environ)
        problem = next((one.problem for one in sections if one.problem is not None), None)
    except SettingsError as error:
        problem = str(error)
    if problem is not None:
        if options.as_json:
            click.echo(json.dumps({"file": file, "ok": False, "error": problem}))
        else:
            click.echo(problem, err=True)
        sys.exit(MISUSED)
    click.echo(json.dumps({"file": file, "ok": True}) if options.as_json else f"{file}: ok")


def _agent(options: Options) -> Agent:
    from nexus_agent.cli.client import Agent

    return Agent(options.path)


def _screen() -> Screen:
    import io
    import shutil

    from nexus_agent.cli.show import Screen

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot show
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Screen(encoding=sys.stdout.encoding, width=width)


def _answer(
    options: Options, path: str, render: Renderer, query: dict[str, str | None] | None = None
) -> None:
    import json

    body = _agent(options).get(path, **(query or {}))
    if options.as_json:
        click.echo(body, nl=not body.endswith(b"\n"))
        return
    try:
        lines = render(json.loads(body), _screen())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            f"the agent's answer is not what this version of nexus knows ({error!r}): try --json"
        ) from None
    for line in lines:
        click.echo(line)


def _follow(options: Options, query: dict[str, str | None]) -> None:
    import json

    from nexus_agent.cli.show import event

    lines = _agent(options).lines("/v1/events", follow="1", **query)
    screen = None if options.as_json else _screen()
    for line in lines:
        if screen is None:
            click.echo(line)
        else:
            click.echo(event(json.loads(line), screen))
