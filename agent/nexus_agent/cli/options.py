"""What every command of `nexus` takes, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from nexus_agent.cli.errors import AgentError

DEFAULT_SOCKET: Final = "/run/nexus/agent.sock"


@dataclass(slots=True)
class Options:
    """What --socket and --json said, before or after the command."""

    socket: str | None = None
    as_json: bool = False

    @property
    def path(self) -> str:
        return self.socket or os.environ.get("NEXUS_SOCKET") or DEFAULT_SOCKET


class NexusGroup(click.Group):
    """A group that turns the agent's failures into words and exit codes, and ends quietly."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AgentError as error:
            click.echo(f"nexus: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(130)  # 128 + SIGINT, as shells have it


F = TypeVar("F", bound=Callable[..., Any])


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    options = ctx.ensure_object(Options)
    if value:
        setattr(options, str(param.name), value)


def common(function: F) -> F:
    """Give a command --socket and --json, so that they are understood wherever they stand."""
    with_socket = click.option(
        "--socket",
        metavar="FILE",
        expose_value=False,
        callback=_remember,
        help=f"The agent's socket  [$NEXUS_SOCKET, else {DEFAULT_SOCKET}]",
    )
    with_json = click.option(
        "--json",
        "as_json",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Print JSON for scripts.",
    )
    return with_socket(with_json(function))
