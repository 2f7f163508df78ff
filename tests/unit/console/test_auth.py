"""Users, passwords, tokens and the log-in limit, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update

from nexus_console.__main__ import main
from nexus_console.auth import Accounts, Attempts, Role, User, UserError
from nexus_console.db.engine import Database
from nexus_console.db.models import tokens, users

PASSWORD = "correct horse"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/c.db")
    database.prepare()
    yield database
    database.close()


@pytest.fixture
def accounts(database: Database) -> Accounts:
    accounts = Accounts(database)
    accounts.add("ana", Role.OPERATOR, PASSWORD)
    return accounts


def test_a_token_tells_whose_it_is(accounts: Accounts) -> None:
    token = accounts.log_in("ana", PASSWORD)
    assert token is not None
    assert accounts.user_of(token.text) == User("ana", Role.OPERATOR)


@pytest.mark.parametrize(("name", "password"), [("ana", "wrong horse"), ("bob", PASSWORD)])
def test_a_wrong_name_or_password_gives_no_token(
    accounts: Accounts, name: str, password: str
) -> None:
    assert accounts.log_in(name, password) is None


def test_neither_password_nor_token_is_stored(accounts: Accounts, database: Database) -> None:
    token = accounts.log_in("ana", PASSWORD)
    assert token is not None
    with database.read() as connection:
        password = connection.execute(select(users.c.password)).scalar_one()
        digest = connection.execute(select(tokens.c.digest)).scalar_one()
    assert password.startswith("$argon2id$")
    assert len(digest) == 32
    assert token.text.encode() not in digest


def test_an_expired_token_is_nobodys(accounts: Accounts, database: Database) -> None:
    token = accounts.log_in("ana", PASSWORD)
    assert token is not None
    with database.write() as connection:
        connection.execute(update(tokens).values(expires=1))
    assert accounts.user_of(token.text) is None


def test_a_log_out_ends_a_token(accounts: Accounts) -> None:
    token = accounts.log_in("ana", PASSWORD)
    assert token is not None
    accounts.log_out(token.text)
    assert accounts.user_of(token.text) is None


def test_a_new_password_ends_all_tokens(accounts: Accounts) -> None:
    token = accounts.log_in("ana", PASSWORD)
    assert token is not None
    accounts.set_password("ana", "another horse")
    assert accounts.user_of(token.text) is None
    assert accounts.log_in("ana", "another horse") is not None


@pytest.mark.parametrize(
    ("name", "password", "says"),
    [
        ("ana", PASSWORD, "exists already"),
        ("Ana B", PASSWORD, "use 1 to 64 lower-case"),
        ("eve", "short", "8 to 1024 characters"),
    ],
)
def test_a_user_that_does_not_fit_is_refused(
    accounts: Accounts, name: str, password: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        accounts.add(name, Role.VIEWER, password)


def test_after_five_attempts_the_next_waits() -> None:
    attempts = Attempts(allowed=5)
    assert [attempts.admit("ana", "10.0.0.1") for _ in range(5)] == [0.0] * 5
    assert attempts.admit("ana", "10.0.0.1") > 0
    assert attempts.admit("ana", "10.0.0.2") == 0
    assert attempts.admit("bob", "10.0.0.1") == 0


def test_a_success_forgets_the_failures() -> None:
    attempts = Attempts(allowed=2)
    attempts.admit("ana", "10.0.0.1")
    attempts.succeeded("ana", "10.0.0.1")
    assert [attempts.admit("ana", "10.0.0.1") for _ in range(2)] == [0.0, 0.0]


def test_only_so_many_failures_are_remembered() -> None:
    attempts = Attempts(allowed=1, remembered=10)
    attempts.admit("ana", "10.0.0.1")
    for number in range(10):
        attempts.admit(f"user-{number}", "10.0.0.1")
    assert attempts.admit("ana", "10.0.0.1") == 0


def test_users_are_made_and_listed_by_the_command(tmp_path: Path) -> None:
    file = tmp_path / "console.toml"
    file.write_text(
        f'[database]\nurl = "sqlite:///{tmp_path}/d.db"\n[broker]\nurl = "mqtts://localhost"\n'
    )
    options = ["--config", str(file)]
    runner = CliRunner()
    add = ["user", "add", "ana", "--role", "admin", "--password-stdin", *options]
    assert runner.invoke(main, add, input=f"{PASSWORD}\n").exit_code == 0
    again = runner.invoke(main, add, input=f"{PASSWORD}\n")
    assert (again.exit_code, again.stderr) == (1, "nexus-console: user 'ana' exists already\n")
    changed = ["user", "passwd", "ana", "--password-stdin", *options]
    assert runner.invoke(main, changed, input="another horse\n").exit_code == 0
    assert runner.invoke(main, ["user", "list", *options]).stdout == "ana\tadmin\n"
