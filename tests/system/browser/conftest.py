"""A running fleet, the machine's chromium, and visitors whose pages must not complain."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect
from tests.system.browser.visitor import TIMEOUT_MS, Visitor

from nexus_demo.broker import choose
from nexus_demo.fleet import Box, Fleet, running

CHROMIUM = ["chromium", "chromium-browser", "google-chrome"]
"""Debian's name, Ubuntu's, and what the CI machines have."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=TIMEOUT_MS)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with running(tmp_path_factory.mktemp("fleet"), choose("auto"), print) as running_fleet:
        yield running_fleet


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed")
        pytest.skip("no chromium here (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="package")
async def stranger(browser: Browser, fleet: Fleet) -> AsyncIterator[Visitor]:
    """Nobody yet; at the end, nothing may have been complained of."""
    context = await browser.new_context(
        viewport={"width": 1280, "height": 820}, color_scheme="light"
    )
    visitor = Visitor(context, fleet)
    yield visitor
    await context.close()
    assert visitor.complaints == []


@pytest_asyncio.fixture(loop_scope="package")
async def visitor(stranger: Visitor) -> Visitor:
    """Logged in as the demo's user, who may give commands."""
    await stranger.log_in()
    return stranger


@pytest.fixture
def boxes(fleet: Fleet) -> dict[str, Box]:
    return {box.id: box for box in fleet.boxes}
