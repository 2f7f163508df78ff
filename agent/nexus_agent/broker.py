"""Where the broker is and how to speak TLS with it. Shared by the agent and the console."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from nexus_agent.settings import Section, SettingsError

DEFAULT_PORT: Final = 8883
"""secure-mqtt in the IANA service name registry."""


class BrokerAddress(Section):
    """What every `[broker]` section has: `mqtts://host:port`, the CA, and the own certificate."""

    url: str
    """`mqtts://host:port`; 8883 without a port."""
    ca: Path | None = None
    """PEM file of the CA that signed the broker's certificate; without it the system's CAs are
    trusted."""
    cert: Path | None = None
    """PEM file of the own certificate, where the broker asks for one; none if not given."""
    key: Path | None = None
    """PEM file of its key; without it the key is in the certificate's file."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        more = parts.username or parts.query or parts.fragment or parts.path.strip("/")
        if parts.scheme != "mqtts" or not parts.hostname or more:
            raise ValueError(f"must be mqtts://host:port and nothing more, not {url!r}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError(f"has no valid port: {url!r}")
        return url

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
        return urlsplit(self.url).port or DEFAULT_PORT

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
