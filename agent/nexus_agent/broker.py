"""Where the broker is and how to speak TLS with it. Shared by the agent and the console."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr, field_validator, model_validator

from nexus_agent.settings import Section, SettingsError

DEFAULT_PORTS: Final = {"mqtts": 8883, "wss": 443}
"""secure-mqtt and https in the IANA service name registry."""
WEBSOCKET_PATH: Final = "/mqtt"
"""Where brokers serve MQTT over WebSocket by custom; MQTT 5.0 section 6 names no path."""
CREDENTIAL: Final = "credential:"
SOCKS_TEXT: Final = 255
"""Bytes that a user or a password may have (RFC 1929 section 2)."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy on the way to the broker. Its text never holds who we are to it."""

    scheme: str
    """`http` (CONNECT) or `socks5`; both let the proxy resolve the broker's name."""
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `http://[user:password@]host:port` or `socks5://…`, percent-encoded.

        Raises ValueError with a message that repeats nothing of *url*, for it may hold a password.
        """
        form = "must be http://[user:password@]host:port or socks5://[user:password@]host:port"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"{form}: its host or port is not valid") from None
        more = parts.query or parts.fragment or parts.path.strip("/")
        if parts.scheme not in {"http", "socks5"} or not parts.hostname or not port or more:
            raise ValueError(f"{form} and nothing more")
        proxy = cls(
            parts.scheme,
            parts.hostname,
            port,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
        )
        proxy._check_credentials()
        return proxy

    def _check_credentials(self) -> None:
        if self.password and not self.user:
            raise ValueError("has a password and no user")
        if self.scheme == "http" and ":" in self.user:
            raise ValueError("has a user with a colon, which HTTP cannot say (RFC 7617)")
        if self.scheme == "socks5":
            if self.user and not self.password:
                raise ValueError("has a user and no password, which SOCKS cannot say (RFC 1929)")
            if max(len(self.user.encode()), len(self.password.encode())) > SOCKS_TEXT:
                raise ValueError(f"has a user or a password of more than {SOCKS_TEXT} bytes")


class BrokerAddress(Section):
    """What every `[broker]` section has: where the broker is, the way there, our certificate."""

    url: str
    """`mqtts://host:port`, 8883 without a port; or `wss://host:port/path` for MQTT over WebSocket,
    443 without a port and `/mqtt` without a path."""
    proxy: SecretStr | None = None
    """`http://user:password@host:port` or `socks5://user:password@host:port` where the broker is
    reached through a proxy only; without `user:password@` where it asks for none. Characters that
    mean something in a URL are percent-encoded. The proxy resolves the broker's name, and TLS goes
    through it to the broker."""
    ca: Path | None = None
    """PEM file of the CA that signed the broker's certificate; without it the system's CAs are
    trusted."""
    cert: Path | None = None
    """PEM file of the own certificate, where the broker asks for one; none if not given."""
    key: Path | None = None
    """PEM file of its key; without it the key is in the certificate's file. `credential:NAME`
    stands for a credential that systemd hands to the service (`LoadCredential=NAME:…`)."""

    @field_validator("key", mode="before")
    @classmethod
    def _find_credential(cls, key: object) -> object:
        """A credential's file: systemd.exec(5) has $CREDENTIALS_DIRECTORY."""
        if not isinstance(key, str) or not key.startswith(CREDENTIAL):
            return key
        name, folder = key.removeprefix(CREDENTIAL), os.environ.get("CREDENTIALS_DIRECTORY")
        if not name or "/" in name or name == "..":
            raise ValueError(f"{key!r} names no credential: it must be {CREDENTIAL}NAME")
        if folder is None:
            raise ValueError(
                f"{key!r}: systemd has handed no credential over: "
                f"add LoadCredential={name}:FILE to the unit"
            )
        return Path(folder) / name

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or _has_more(parts):
            # What stands before an @ may be a password.
            found = "" if "@" in url else f", not {url!r}"
            raise ValueError(
                f"must be mqtts://host:port or wss://host:port/path and nothing more{found}"
            )
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError(f"has no valid port: {url!r}")
        return url

    @field_validator("proxy", mode="before")
    @classmethod
    def _check_proxy(cls, proxy: object) -> object:
        if isinstance(proxy, str):
            Proxy.parse(proxy)
        elif proxy is not None and not isinstance(proxy, SecretStr):
            raise ValueError("must be text")
        return proxy

    @model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.key is not None and self.cert is None:
            raise ValueError("key is given without cert; both are needed to show who we are")
        return self

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or DEFAULT_PORTS[parts.scheme]

    @property
    def path(self) -> str | None:
        """The path of a WebSocket; None where MQTT goes over TLS alone."""
        parts = urlsplit(self.url)
        return (parts.path or WEBSOCKET_PATH) if parts.scheme == "wss" else None

    def way(self) -> Proxy | None:
        """The proxy to go through, with its credentials in clear; None for a direct way."""
        return None if self.proxy is None else Proxy.parse(self.proxy.get_secret_value())

    def tls_context(self) -> ssl.SSLContext:
        """A context that checks the broker's certificate and shows ours, if there is one.

        Reads the files, so it blocks. Raises SettingsError where one cannot be used.
        """
        try:
            context = ssl.create_default_context(
                ssl.Purpose.SERVER_AUTH, cafile=None if self.ca is None else str(self.ca)
            )
        except (OSError, ValueError) as error:
            raise SettingsError(f"broker.ca: {self.ca}: cannot be used: {error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            try:
                # With no password OpenSSL would ask for one on the terminal, and wait.
                context.load_cert_chain(self.cert, self.key, password="")
            except (OSError, ValueError) as error:
                raise SettingsError(
                    f"broker.cert, broker.key: {self.cert}, {self.key}: cannot be used: {error}"
                ) from None
        return context


def _has_more(parts: SplitResult) -> bool:
    """Whether there is anything in *parts* besides what the scheme takes."""
    path_is_fine = (
        re.fullmatch(r"[!-~]*", parts.path) if parts.scheme == "wss" else not parts.path.strip("/")
    )
    return bool("@" in parts.netloc or parts.query or parts.fragment or not path_is_fine)
