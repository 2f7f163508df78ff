"""Where the broker is, and a TLS context of real files."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError

from nexus_agent.broker import BrokerAddress, Proxy
from nexus_agent.settings import SettingsError, validate
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
        ("ws://broker/mqtt", "must be mqtts://host:port or wss://host:port/path"),
        ("wss://broker/mqtt?x=1", "must be mqtts://host:port or wss://host:port/path"),
        ("wss://broker/a b", "must be mqtts://host:port or wss://host:port/path"),
        ("wss://broker/\u00e4", "must be mqtts://host:port or wss://host:port/path"),
        ("wss://broker:0/mqtt", "has no valid port"),
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


@pytest.mark.parametrize(
    ("url", "port", "path"),
    [
        ("wss://broker", 443, "/mqtt"),
        ("wss://broker:8443", 8443, "/mqtt"),
        ("wss://broker/", 443, "/"),
        ("WSS://Broker:8443/fleet/mqtt", 8443, "/fleet/mqtt"),
        ("mqtts://broker", 8883, None),
    ],
)
def test_a_websocket_has_a_path(url: str, port: int, path: str | None) -> None:
    address = BrokerAddress(url=url)
    assert (address.host, address.port, address.path) == ("broker", port, path)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy:3128", Proxy("http", "proxy", 3128)),
        ("http://proxy:3128/", Proxy("http", "proxy", 3128)),
        ("socks5://[::1]:1080", Proxy("socks5", "::1", 1080)),
        ("http://me@proxy:3128", Proxy("http", "proxy", 3128, "me")),
        ("http://me:a%40b%3Ac@proxy:3128", Proxy("http", "proxy", 3128, "me", "a@b:c")),
        ("socks5://m%3Ae:pw@proxy:1080", Proxy("socks5", "proxy", 1080, "m:e", "pw")),
    ],
)
def test_a_proxy_is_scheme_host_port_and_credentials(url: str, proxy: Proxy) -> None:
    assert BrokerAddress(url=URL, proxy=url).way() == proxy


def test_without_a_proxy_the_way_is_direct() -> None:
    assert BrokerAddress(url=URL).way() is None


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("", "must be http://"),
        ("proxy:3128", "must be http://"),
        ("http://me:hush@proxy", "must be http://"),
        ("http://me:hush@proxy:99999", "its host or port is not valid"),
        ("http://me:hush@[::1", "its host or port is not valid"),
        ("https://me:hush@proxy:3128", "must be http://"),
        ("socks4://me:hush@proxy:1080", "must be http://"),
        ("http://me:hush@proxy:3128/path", "and nothing more"),
        ("http://:hush@proxy:3128", "a password and no user"),
        ("http://m%3Ae:hush@proxy:3128", "a user with a colon"),
        ("socks5://me@proxy:1080", "a user and no password"),
        (f"socks5://me:{'hush' * 64}@proxy:1080", "more than 255 bytes"),
        (["http://me:hush@proxy:3128"], "must be text"),
        (3128, "must be text"),
    ],
)
def test_another_form_of_proxy_is_refused_without_repeating_it(proxy: object, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^f: proxy: .*{message}") as caught:
        validate(BrokerAddress, {"url": URL, "proxy": proxy}, "f")
    assert "hush" not in str(caught.value)


def test_what_a_proxy_is_told_shows_nowhere() -> None:
    address = BrokerAddress(url=URL, proxy="http://me:hush@proxy:3128")
    shown = f"{address} {address!r} {address.model_dump()} {address.model_dump_json()}"
    shown += f"{address.way()} {address.way()!r}"
    assert "hush" not in shown
    assert str(address.way()) == "http://proxy:3128"


def test_a_password_in_the_brokers_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(SettingsError) as caught:
        validate(BrokerAddress, {"url": "mqtts://me:hush@broker"}, "f")
    assert "hush" not in str(caught.value)


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


def test_a_key_can_be_a_credential_of_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/nexus-agent.service")
    address = BrokerAddress(url=URL, cert=Path("box.pem"), key=Path("box.key"))
    told = BrokerAddress.model_validate(
        {"url": URL, "cert": "box.pem", "key": "credential:box.key"}
    )
    assert address.key == Path("box.key")
    assert told.key == Path("/run/credentials/nexus-agent.service/box.key")


@pytest.mark.parametrize("name", ["", "..", "../box.key", "/etc/shadow"])
def test_a_credential_is_a_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/nexus-agent.service")
    with pytest.raises(ValidationError, match="names no credential"):
        BrokerAddress.model_validate({"url": URL, "cert": "c", "key": f"credential:{name}"})


def test_a_credential_that_nobody_hands_over_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ValidationError, match=r"LoadCredential=box\.key:FILE"):
        BrokerAddress.model_validate({"url": URL, "cert": "c", "key": "credential:box.key"})
