"""One installed box on a real systemd, and outside of it a broker, a console and a car."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from tests.systemd.box import DEVICE, LOAD, PROBE, Box
from tests.systemd.machine import Machine, command, debian
from tests.systemd.packages import Packages
from tests.systemd.serial_port import serial_port

from nexus_demo import vehicles
from nexus_demo.broker import Kind
from nexus_demo.fleet import Fleet, running
from nexus_demo.processes import Process, free_port
from nexus_demo.waiting import NotYet, until

ROOT: Final = Path(__file__).parents[2]
SERIAL_PORTS: Final = ("/dev/ttyS0", "/dev/ttyUSB0")
"""What the box finds its one serial port as: built in, and plugged in."""
MISSING: Final = [
    name
    for name in ("systemd-nspawn", "debootstrap", "dpkg-deb", "mosquitto", "nsenter")
    if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = [*MISSING, *(["root"] if os.geteuid() != 0 else [])]
    if not absent:
        return
    if os.environ.get("CI") == "true":
        pytest.exit(f"this machine lacks {', '.join(absent)}, which CI vouches for", 1)
    for item in items:
        item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(absent)}"))


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for roots of machines, which are large: nothing of it is kept."""
    folder = tmp_path_factory.mktemp("systemd")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def packages() -> Packages:
    """Debian packages of this source, built as `make deb` builds them."""
    return Packages(ROOT)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet(workplace: Path) -> AsyncIterator[Fleet]:
    """A broker with TLS and a console, out here."""
    folder = workplace / "fleet"
    folder.mkdir()
    async with running(folder, Kind.MOSQUITTO, print, bays=()) as fleet:
        yield fleet


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def adapter(workplace: Path) -> AsyncIterator[int]:
    """The port, out here, of an emulated adapter with a car behind it."""
    port = free_port()
    car = Process(
        "car",
        [
            *(sys.executable, "-m", "nexus_demo.emulator"),
            *(vehicles.MISFIRE.scenario, "--port", str(port)),
        ],
        workplace / "car.log",
        {**os.environ, "PYTHONPATH": str(ROOT / "demo")},
    )
    await car.start()

    async def answers() -> None:
        car.check()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise NotYet(str(error)) from None
        writer.close()

    await until("the car's adapter answers", answers, within=30)
    yield port
    await car.stop()


Make = Callable[..., Awaitable[Box]]
MakeMachine = Callable[..., Awaitable[Machine]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def make_machine(workplace: Path) -> AsyncIterator[MakeMachine]:
    """Makes a machine: a fresh Debian. Name and options of nspawn."""
    made: list[Machine] = []

    async def make(name: str, *options: str) -> Machine:
        root = workplace / name
        await command("cp", "--archive", "--reflink=auto", str(await debian()), str(root))
        (root / "etc/machine-id").write_text("")
        (root / "etc/hostname").write_text(f"{name}\n")
        made.append(Machine(name, root, workplace / f"{name}.log", options))
        return made[-1]

    yield make
    for machine in made:
        await machine.cut()


@pytest.fixture(scope="session")
def make_box(make_machine: MakeMachine, packages: Packages, fleet: Fleet, adapter: int) -> Make:
    """Makes a box: a machine that has the package at hand. Name and options of nspawn."""

    async def make(name: str, *options: str) -> Box:
        machine = await make_machine(name, *options)
        for folder in (LOAD, PROBE):
            shutil.copytree(folder, machine.root / "usr/share/nexus-tests", dirs_exist_ok=True)
        shutil.copy(await packages.build("agent"), machine.root / "opt/agent.deb")
        return Box(name, machine, fleet, adapter)

    return make


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tty(adapter: int) -> AsyncIterator[Path]:
    """The path, out here, of a serial port with the same car behind it."""
    async with serial_port(adapter) as path:
        yield path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def box(make_box: Make, tty: Path) -> Box:
    """A box that works: installed, set up, its data at the console. Tests leave it so."""
    box = await make_box(DEVICE, *(f"--bind={tty}:{port}" for port in SERIAL_PORTS))
    await box.machine.boot()
    await box.install()
    return box
