"""The `nexus-console` command."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nexus_agent.logs import configure
from nexus_agent.settings import SettingsError, load
from nexus_console import __version__
from nexus_console.app import open_database, run
from nexus_console.auth import Accounts, Role, UserError
from nexus_console.config import ConsoleSettings

config_option = click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The console's settings, such as /etc/nexus-console/console.toml.",
)
password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)


class _Failed(click.ClickException):
    """One line on stderr, and exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"nexus-console: {self.message}", file=file or sys.stderr)


class _WrongSettings(_Failed):
    """One line on stderr, and exit code 2."""

    exit_code = 2


@click.group()
@click.version_option(__version__, prog_name="nexus-console")
def main() -> None:
    """The fleet console of Nexus Core."""


@main.command("run")
@config_option
def run_console(file: Path) -> None:
    """Run the console until SIGTERM."""
    settings = _settings(file)
    configure(settings.log)
    # A batch is many short-lived objects without cycles: the collector's default of a pass every
    # 700 of them costs a sixth of the ingest.
    gc.set_threshold(50_000, 20, 50)
    try:
        asyncio.run(run(settings))
    except SettingsError as error:
        raise _WrongSettings(f"{file}: {error}") from None


@main.group()
def user() -> None:
    """Who may log in to the console."""


@user.command("add")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([role.value for role in Role]))
@config_option
@password_option
def add_user(name: str, role: str, file: Path, *, password_stdin: bool) -> None:
    """Add a user."""
    password = _password(from_stdin=password_stdin)
    _with_accounts(file, lambda accounts: accounts.add(name, Role(role), password))
    click.echo(f"user {name} added with role {role}")


@user.command("list")
@config_option
def list_users(file: Path) -> None:
    """List users and their roles."""
    for found in _with_accounts(file, lambda accounts: accounts.all()):
        click.echo(f"{found.name}\t{found.role}")


@user.command("passwd")
@click.argument("name")
@config_option
@password_option
def change_password(name: str, file: Path, *, password_stdin: bool) -> None:
    """Change a user's password; every log-in of that user ends."""
    password = _password(from_stdin=password_stdin)
    _with_accounts(file, lambda accounts: accounts.set_password(name, password))
    click.echo(f"password of {name} changed")


def _settings(file: Path) -> ConsoleSettings:
    try:
        return load(ConsoleSettings, file, os.environ)
    except SettingsError as error:
        raise _WrongSettings(str(error)) from None


def _with_accounts(file: Path, action: Callable[[Accounts], Any]) -> Any:
    settings = _settings(file)
    try:
        database = open_database(settings)
    except SettingsError as error:
        raise _WrongSettings(f"{file}: {error}") from None
    try:
        return action(Accounts(database))
    except UserError as error:
        raise _Failed(str(error)) from None
    finally:
        database.close()


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


if __name__ == "__main__":
    main()
