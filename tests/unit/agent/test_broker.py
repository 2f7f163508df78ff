"""Where the broker is, and a TLS context of real files."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from nexus_agent.broker import BrokerAddress
from nexus_agent.settings import SettingsError
from nexus_demo.certs import Authority, Credentials

URL = "mqtts://broker"


@pytest.fixture(scope="module")
def own(authority: Authority) -> Credentials:
    return authority.server("box")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("mqtts://broker.example", "broker.example", 8883),
        ("mqtts://broker.example/", "broker.example", 8883),
        ("mqtts://broker.example:", "broker.example", 8883),
        ("mqtts://broker.example:1", "broker.example", 1),
        ("mqtts://10.0.0.1:65535", "10.0.0.1", 65535),
        ("mqtts://[::1]:8884", "::1", 8884),
        ("MQTTS://Broker:8884", "broker", 8884),
    ],
)
def test_a_url_is_host_and_port(url: str, host: str, port: int) -> None:
    address = BrokerAddress(url=url)
    assert (address.host, address.port) == (host, port)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must be mqtts://host:port"),
        ("broker", "must be mqtts://host:port"),
        ("broker:8883", "must be mqtts://host:port"),
        ("mqtt://broker:1883", "must be mqtts://host:port"),
        ("https://broker", "must be mqtts://host:port"),
        ("mqtts://", "must be mqtts://host:port"),
        ("mqtts://:8883", "must be mqtts://host:port"),
        ("mqtts://broker/topic", "must be mqtts://host:port"),
        ("mqtts://broker?tls=no", "must be mqtts://host:port"),
        ("mqtts://broker#x", "must be mqtts://host:port"),
        ("mqtts://user:secret@broker", "must be mqtts://host:port"),
        ("mqtts://[::1", "Invalid IPv6 URL"),
        ("mqtts://broker:0", "has no valid port"),
        ("mqtts://broker:65536", "has no valid port"),
        ("mqtts://broker:-1", "has no valid port"),
        ("mqtts://broker:mqtt", "has no valid port"),
    ],
)
def test_another_form_of_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BrokerAddress(url=url)


def test_the_context_checks_the_broker_and_shows_who_we_are(
    authority: Authority, own: Credentials
) -> None:
    address = BrokerAddress(url=URL, ca=authority.ca, cert=own.cert, key=own.key)
    context = address.tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1, "only ours, not the system's"


def test_without_a_ca_the_systems_are_trusted() -> None:
    assert BrokerAddress(url=URL).tls_context().verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"\0\xff"])
def test_a_ca_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^broker.ca: {ca}: cannot be used: "):
        BrokerAddress(url=URL, ca=ca).tls_context()


def test_a_key_without_its_certificate_is_refused(own: Credentials) -> None:
    with pytest.raises(ValidationError, match="key is given without cert"):
        BrokerAddress(url=URL, key=own.key)


@pytest.mark.parametrize("wrong", ["absent", "damaged", "of another", "not given", "encrypted"])
def test_a_key_that_cannot_be_used_is_named(
    tmp_path: Path, authority: Authority, own: Credentials, wrong: str
) -> None:
    key = tmp_path / "key.pem"
    if wrong == "damaged":
        key.write_bytes(own.key.read_bytes()[:60])
    elif wrong == "of another":
        key.write_bytes(authority.server("other").key.read_bytes())
    elif wrong == "encrypted":
        key.write_bytes(encrypted(own.key.read_bytes()))
    address = BrokerAddress(
        url=URL, ca=authority.ca, cert=own.cert, key=None if wrong == "not given" else key
    )
    with pytest.raises(SettingsError) as caught:
        address.tls_context()
    said = f"broker.cert, broker.key: {own.cert}, {address.key}: cannot be used: "
    assert str(caught.value).startswith(said)
    assert len(str(caught.value).splitlines()) == 1


def encrypted(pem: bytes) -> bytes:
    return serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
