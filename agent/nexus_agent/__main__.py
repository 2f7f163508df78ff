"""`nexus-agent`: the daemon's command line. Exit codes: 0 stopped, 1 failed, 2 wrong settings."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Never

import click
import structlog

from nexus_agent import __version__
from nexus_agent.settings import SettingsError

if TYPE_CHECKING:
    from nexus_agent.config import AgentConfig
    from nexus_agent.crashes import Crashes
    from nexus_agent.sections import PluginSection


@click.group()
@click.version_option(__version__, prog_name="nexus-agent")
def main() -> None:
    """The Nexus Core agent. People use `nexus`; systemd uses this."""


@main.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=Path("/etc/nexus/agent.toml"),
    show_default=True,
    help="The settings file.",
)
def run(file: Path) -> None:
    """Run the agent in the foreground until SIGTERM."""
    from nexus_agent import config, logs
    from nexus_agent.clock import Clock
    from nexus_agent.crashes import Crashes, place_of

    try:
        settings = config.load_config(file, os.environ)
        plugins = config.plugin_sections(settings, str(file))
    except SettingsError as error:
        click.echo(f"nexus-agent: {error}", err=True)
        sys.exit(2)
    logs.configure(settings.log)
    signal.signal(signal.SIGTERM, _leave)
    places = {item.name: place_of(item.plugin) for item in plugins if item.plugin is not None}
    crashes = Crashes(settings.agent.state_dir, Clock().boot, places)
    with crashes.seeing():  # also where not even the agent's own code can be loaded
        code = _live(settings, plugins, file, crashes)
    logging.shutdown()
    if threading.active_count() > 1:
        # A thread that connects or a plugin's blocking call cannot be interrupted; everything
        # durable is closed by now, and a stop must not wait for them.
        os._exit(code)
    sys.exit(code)


def _live(settings: AgentConfig, plugins: list[PluginSection], file: Path, crashes: Crashes) -> int:
    import uvloop

    from nexus_agent import app
    from nexus_agent.status.listener import StatusError
    from nexus_agent.store.errors import StoreError

    log = structlog.get_logger("agent")

    async def life() -> None:
        await app.Agent(settings, plugins, file, crashes).run()

    loop = uvloop.new_event_loop()
    code = 0
    try:
        with app.exclusive(settings.agent.state_dir), crashes.watch():
            loop.run_until_complete(life())
    except* (app.AgentError, StatusError, StoreError) as group:
        code = 1
        log.error("cannot_run", error=_leaf(group))  # noqa: TRY400 - the message says it all
    except* Exception as group:  # whatever it is, the log is where people look for it
        code = 1
        log.exception("service_died", error=_leaf(group))
    return code


def _leave(_number: int, _frame: FrameType | None) -> Never:
    """Until the agent listens for SIGTERM itself, it ends the process as a clean stop does."""
    sys.exit(0)


def _leaf(group: BaseExceptionGroup[BaseException]) -> str:
    """The message of the first error in *group* that is no group itself."""
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, BaseExceptionGroup) else str(first)


if __name__ == "__main__":
    main()
