"""What every suite may ask for: a real broker with TLS, chosen as the demo chooses it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from nexus_agent.broker import BrokerAddress
from nexus_demo.broker import Broker, choose
from nexus_demo.certs import Authority

# A busy machine is no failure; a failing example prints the line that reproduces it.
settings.register_profile("nexus", deadline=None, print_blob=True)
settings.load_profile("nexus")


def pytest_configure() -> None:
    """Undo what a shell does to its background jobs: what is started here would ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def broker(tmp_path: Path, authority: Authority) -> AsyncIterator[Broker]:
    """The machine's mosquitto, or the embedded broker where there is none."""
    running = Broker(tmp_path / "broker", authority, choose("auto"))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def address(broker: Broker) -> BrokerAddress:
    return BrokerAddress(url=broker.url, ca=broker.ca)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"
