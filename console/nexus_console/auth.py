"""Who may look and who may act: users, passwords (Argon2id), tokens and the log-in limit."""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, Row, delete, insert, select, update

from nexus_console.db.engine import Database
from nexus_console.db.models import tokens, users
from nexus_console.ingest import now_ns

TOKEN_LIFE_NS: Final = 12 * 3600 * 1_000_000_000
TOKEN_BYTES: Final = 32
MIN_PASSWORD: Final = 8
MAX_PASSWORD: Final = 1024
_NAME = re.compile(r"[a-z0-9._@-]{1,64}\Z")


class Role(enum.StrEnum):
    """What a person may do, most first. Each may do what those after it may."""

    ADMIN = "admin"
    OPERATOR = "operator"
    USER = "user"
    VIEWER = "viewer"

    @property
    def commands(self) -> bool:
        """Whether commands may be given to boxes."""
        return self in {Role.ADMIN, Role.OPERATOR}


class UserError(Exception):
    """What was asked for a user cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who is logged in."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Token:
    """A fresh token: the only time that its text is seen. expires is in ns since 1970."""

    text: str
    role: Role
    expires: int


class Attempts:
    """Failed log-ins per user and address: after a few, further ones wait for a while."""

    def __init__(
        self, *, allowed: int = 5, window_s: float = 300.0, remembered: int = 10_000
    ) -> None:
        self._allowed, self._window_s, self._remembered = allowed, window_s, remembered
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, user: str, address: str) -> float:
        """Count an attempt that is about to be made; seconds to wait where it is one too many.

        It counts as failed until `succeeded`, so that many at a time cannot slip through.
        """
        key, now = (user, address), time.monotonic()
        with self._lock:
            count, since = self._failures.pop(key, (0, now))
            if now - since >= self._window_s:
                count, since = 0, now
            refused = count >= self._allowed
            self._failures[key] = (count if refused else count + 1, since)
            while len(self._failures) > self._remembered:
                self._failures.popitem(last=False)
            return max(since + self._window_s - now, 1.0) if refused else 0.0

    def succeeded(self, user: str, address: str) -> None:
        with self._lock:
            self._failures.pop((user, address), None)


class Accounts:
    """Users and their tokens. Everything here blocks: hashing takes tens of milliseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hasher = PasswordHasher()
        # Compared with where the user does not exist, so that both answers take the same time.
        self._nobody = self._hasher.hash(secrets.token_hex(16))

    def log_in(self, name: str, password: str) -> Token | None:
        """A new token, or None where name or password is wrong, with no telling which."""
        with self._database.read() as connection:
            row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
        try:
            self._hasher.verify(self._nobody if row is None else row.password, password)
        except VerificationError:
            return None
        if row is None:
            return None
        now = now_ns()
        token = Token(secrets.token_urlsafe(TOKEN_BYTES), Role(row.role), now + TOKEN_LIFE_NS)
        with self._database.write() as connection:
            connection.execute(delete(tokens).where(tokens.c.expires <= now))
            connection.execute(
                insert(tokens).values(
                    digest=_digest(token.text), user_id=row.id, created=now, expires=token.expires
                )
            )
        return token

    def log_out(self, token: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(tokens).where(tokens.c.digest == _digest(token)))

    def user_of(self, token: str) -> User | None:
        """Whose token it is, or None where it is unknown or has expired."""
        statement = (
            select(users.c.name, users.c.role)
            .join(tokens, tokens.c.user_id == users.c.id)
            .where(tokens.c.digest == _digest(token), tokens.c.expires > now_ns())
        )
        with self._database.read() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else User(row.name, Role(row.role))

    def add(self, name: str, role: Role, password: str) -> None:
        """Make a user. Raises UserError where the name is taken or something does not fit."""
        if not _NAME.match(name):
            raise UserError(
                f"user name {name!r}: use 1 to 64 lower-case letters, digits and . _ @ -"
            )
        hashed = self._hash(password)
        with self._database.write() as connection:
            if _find(connection, name) is not None:
                raise UserError(f"user {name!r} exists already")
            connection.execute(
                insert(users).values(name=name, role=role, password=hashed, created=now_ns())
            )

    def set_password(self, name: str, password: str) -> None:
        """Change a password and end every log-in of that user. Raises UserError."""
        hashed = self._hash(password)
        with self._database.write() as connection:
            row = _find(connection, name)
            if row is None:
                raise UserError(f"there is no user {name!r}")
            connection.execute(update(users).where(users.c.id == row.id).values(password=hashed))
            connection.execute(delete(tokens).where(tokens.c.user_id == row.id))

    def all(self) -> list[User]:
        with self._database.read() as connection:
            rows = connection.execute(select(users.c.name, users.c.role).order_by(users.c.name))
            return [User(name, Role(role)) for name, role in rows]

    def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise UserError(f"the password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        return self._hasher.hash(password)


def _find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(users).where(users.c.name == name)).one_or_none()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
