"""The `nexus-console` command."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.exc import SQLAlchemyError

from nexus_agent.logs import configure
from nexus_agent.settings import SettingsError, load
from nexus_console import __version__, backup
from nexus_console.app import open_database, run
from nexus_console.auth import Accounts, Role, UserError
from nexus_console.config import ConsoleSettings
from nexus_console.db.engine import Database, reason
from nexus_console.vehicles import erasure

_Result = TypeVar("_Result")

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


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one line of JSON."
)


class _Progress:
    """A line on stderr each second."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 1

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._next:
            click.echo(f"nexus-console: {text}", err=True)
            self._next = time.monotonic() + 1


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
    configure(settings.log, "nexus-console")
    # A batch is many short-lived objects without cycles: the collector's default of a pass every
    # 700 of them costs a sixth of the ingest.
    gc.set_threshold(50_000, 20, 50)
    try:
        asyncio.run(run(settings))
    except SettingsError as error:
        raise _WrongSettings(f"{file}: {error}") from None


@main.command("backup")
@config_option
@json_option
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def make_backup(file: Path, out: Path, *, as_json: bool) -> None:
    """Write the whole database into the file OUT, while the console runs.

    Users are in it, log-ins are not. Keep it as safe as the database.
    """
    result = _with_database(file, lambda database: backup.backup(database, out, _Progress()))
    _tell(result, as_json=as_json, done="written")


@main.command("restore")
@config_option
@json_option
@click.argument("source", metavar="IN", type=click.Path(dir_okay=False, path_type=Path))
def restore_backup(file: Path, source: Path, *, as_json: bool) -> None:
    """Fill an empty database from the backup IN, of SQLite or PostgreSQL alike.

    Everybody has to log in anew then: log-ins are not in a backup.
    """
    result = _with_database(file, lambda database: backup.restore(database, source, _Progress()))
    _tell(result, as_json=as_json, done="restored")


@main.command("erase")
@config_option
@json_option
@click.option("--vehicle", "ref", metavar="REF", help="The vehicle's reference.")
@click.option(
    "--vin",
    metavar="VIN",
    help="Its VIN, where boxes have sent it. `-` reads it from stdin, so that no shell keeps it.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase_vehicle(
    file: Path, ref: str | None, vin: str | None, *, as_json: bool, yes: bool
) -> None:
    """Erase a vehicle: its history, and what stored events say of it.

    The console may go on running. Backups are not touched, nor what boxes still hold: erase it
    there first, with `nexus erase`.
    """
    if (ref is None) == (vin is None):
        raise click.UsageError("Give one of --vehicle and --vin.")
    if vin == "-":
        vin = sys.stdin.readline().strip()
    if not yes:
        click.confirm("Erase all that is stored about this vehicle?", abort=True, err=True)
    result = _with_database(
        file, lambda database: erasure.erase(database, ref=ref, vin=vin, progress=_Progress())
    )
    click.echo(result.model_dump_json() if as_json else _erased_text(result))


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


def _with_database(file: Path, action: Callable[[Database], _Result]) -> _Result:
    """*action* on the database as it is: no schema is made or changed before."""
    settings = _settings(file)
    try:
        database = Database(settings.database.url)
    except (SQLAlchemyError, ImportError) as error:
        raise _WrongSettings(f"{file}: database.url: cannot be used: {error}") from None
    try:
        return action(database)
    except (backup.BackupError, erasure.ErasureError) as error:
        raise _Failed(str(error)) from None
    except SQLAlchemyError as error:
        raise _Failed(f"the database refused: {reason(error)}") from None
    finally:
        database.close()


def _tell(result: backup.Result, *, as_json: bool, done: str) -> None:
    if as_json:
        click.echo(result.model_dump_json())
        return
    rows = sum(result.rows.values())
    click.echo(
        f"{result.file}: {rows:,} rows, {result.bytes:,} bytes {done}; log-ins are not in it"
    )


def _erased_text(result: erasure.Erased) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in result.events.items())
    events = f"stored events: {sum(result.events.values()):,}"
    lines = [
        f"histories: {result.vehicles}, with {result.facts:,} facts and {result.codes:,} codes",
        f"{events} ({kinds})" if kinds else events,
        f"segments set aside: {result.segments}",
        f"unreadable messages: {result.messages}",
        f"answers to commands: {result.commands}",
    ]
    if result.not_searched:
        lines.append(f"not searched, for nobody can decode them: {result.not_searched} segments")
    if not result.log_emptied:
        lines.append(
            "the database's own log is in use and still holds it: run this again, or restart the "
            "console"
        )
    lines.append("not touched: backups, and what boxes still hold")
    return "\n".join(lines)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


if __name__ == "__main__":
    main()
