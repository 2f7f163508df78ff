"""A technician at the page: which car is it, what has it got, and what does nobody know."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect
from tests.integration.console_cars import REF, VIN
from tests.system.browser.cars import HIDDEN, fill
from tests.system.browser.visitor import Visitor, violations

from nexus_demo.broker import choose
from nexus_demo.fleet import Fleet

pytestmark = pytest.mark.asyncio(loop_scope="package")

CAR = f"/vehicles/{REF}"


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A console whose boxes have gone, and have left what they told it of cars."""
    fleet = Fleet(tmp_path_factory.mktemp("shop"), choose("auto"), bays=())
    fill(fleet.folder / "console" / "console.db", time.time_ns())
    try:
        await fleet.start(print)
        yield fleet
    finally:
        await fleet.stop()


@pytest_asyncio.fixture(loop_scope="package")
async def technician(browser: Browser, shop: Fleet) -> AsyncIterator[Visitor]:
    context = await browser.new_context(
        viewport={"width": 1280, "height": 820}, color_scheme="light", timezone_id="UTC"
    )
    visitor = Visitor(context, shop)
    await visitor.log_in()
    yield visitor
    await context.close()
    assert visitor.complaints == []


async def test_a_car_is_found_by_a_part_of_its_vin(technician: Visitor) -> None:
    page = await technician.open("/")
    await page.get_by_role("link", name="Vehicles").click()
    await expect(page.get_by_role("listitem")).to_have_count(3)
    await page.get_by_role("searchbox").fill(VIN[-6:].lower())
    await expect(page.get_by_role("listitem")).to_have_count(1)
    await page.get_by_role("link", name=VIN).click()
    await expect(page.get_by_role("heading", name=VIN)).to_be_focused()


async def test_each_code_says_how_it_stands(technician: Visitor) -> None:
    page = await technician.open(CAR)
    for code, state in [
        ("P0301", "Returned"),
        ("P0133", "Pending"),
        ("P0420", "Permanent"),
        ("U0100", "Unknown"),
    ]:
        await expect(page.locator(f"[data-code={code}]")).to_contain_text(state)
    await expect(page.locator("[data-code=U0100]")).to_contain_text("no answer about stored codes")
    await expect(page.locator("[data-code=P0171]")).to_be_hidden()
    await page.get_by_text("2 codes of the past").click()
    await expect(page.locator("[data-code=P0171]")).to_contain_text("Cleared")
    await expect(page.locator("[data-code=P0700]")).to_contain_text("Gone")


async def test_the_keyboard_opens_the_life_of_a_code(technician: Visitor) -> None:
    page = await technician.open(CAR)
    code = page.locator("[data-code=P0301]")
    await code.get_by_role("button").focus()
    await page.keyboard.press("Enter")
    changes = code.get_by_role("list").get_by_role("listitem")
    await expect(changes).to_have_count(3)
    await expect(changes.nth(0)).to_contain_text("Confirmed")
    await expect(changes.nth(1)).to_contain_text("an order to clear")
    await expect(changes.nth(2)).to_contain_text("bay-2")
    await code.get_by_text("Freeze frame 0").first.click()
    await expect(code).to_contain_text("3,125.5 rpm")


async def test_a_module_that_did_not_answer_is_not_called_clean(technician: Visitor) -> None:
    page = await technician.open(CAR)
    await expect(page.locator("[data-module='7EA']")).to_have_text(
        re.compile("Did not answer.*Nobody knows whether it has codes", re.DOTALL)
    )
    module = page.locator("[data-module='7E9']")
    await expect(module).to_contain_text("No code")
    await expect(module).to_contain_text("Refused")


async def test_before_and_after_are_compared(technician: Visitor) -> None:
    page = await technician.open(CAR)
    await expect(page.get_by_text("what is gone need not be repaired")).to_be_visible()
    table = page.get_by_role("region", name="Before and after").get_by_role("table")
    for code, change in [
        ("P0133", "New"),
        ("P0301", "Remaining"),
        ("P0420", "Permanent"),
        ("P0171", "Fixed"),
        ("U0100", "Unknown"),
    ]:
        await expect(table.get_by_role("row").filter(has_text=code)).to_contain_text(change)


async def test_readiness_tells_verdicts_with_their_source(technician: Visitor) -> None:
    page = await technician.open(CAR)
    readiness = page.get_by_role("region", name="Readiness")
    await expect(readiness).to_contain_text("Not ready")
    await expect(readiness).to_contain_text("Source: EPA-420-R-01-015")
    await expect(readiness).to_contain_text("Cannot be said")
    await expect(readiness).to_contain_text("no answer in time")


async def test_a_value_that_did_not_come_is_no_zero(technician: Visitor) -> None:
    page = await technician.open(CAR)
    await expect(page.locator("[data-live=engine_speed]")).to_contain_text("812.5 rpm")
    await expect(page.locator("[data-live=vehicle_speed]")).to_contain_text("0 km/h")
    await expect(page.locator("[data-live=intake_pressure]")).to_contain_text("Did not answer")


async def test_a_vin_that_was_not_sent_is_not_shown_and_a_wrong_one_is_warned_of(
    technician: Visitor,
) -> None:
    page = await technician.open(f"/vehicles/{HIDDEN}")
    await expect(page.get_by_role("heading", name="Ford 2003")).to_be_visible()
    await expect(page.get_by_role("note")).to_contain_text("Check digit wrong")
    await expect(page.get_by_text("The boxes keep it to themselves.")).to_be_visible()
    await expect(page.get_by_text("It has not been scanned yet.").first).to_be_visible()


async def test_a_vehicle_that_nobody_knows_is_said(technician: Visitor) -> None:
    page = await technician.open("/vehicles/nobody")
    await expect(page.get_by_role("alert")).to_have_text("There is no vehicle 'nobody'.")
    # It asks again while it is open, and a browser notes every 404 in its console.
    await page.close()
    technician.complaints[:] = [text for text in technician.complaints if "404" not in text]


async def shown(page: Page) -> None:
    await expect(page.get_by_text("Loading", exact=True)).to_have_count(0)
    await expect(page.get_by_text(VIN).first).to_be_visible()


@pytest.mark.parametrize("path", ["/vehicles", CAR])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_it(technician: Visitor, path: str, scheme: str) -> None:
    page = await technician.open(path)
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await shown(page)
    if path == CAR:
        await page.locator("[data-code=P0301]").get_by_role("button").click()
        await expect(page.get_by_text("an order to clear")).to_be_visible()
    assert await violations(page) == []


@pytest.mark.parametrize("state", ["Live", "Connecting", "No answer"])
@pytest.mark.parametrize("path", ["/vehicles", CAR])
async def test_a_small_screen_needs_no_scrolling_sideways(
    technician: Visitor, path: str, state: str
) -> None:
    """At 320 px (WCAG 2.2, 1.4.10), whatever the header says of the live stream meanwhile."""
    page = await technician.context.new_page()
    await page.set_viewport_size({"width": 320, "height": 640})
    if state != "Live":
        await page.route("**/api/v1/live", lambda route: _unanswered(route, state))
    await page.goto(technician.fleet.address + path)
    await shown(page)
    await expect(page.get_by_role("status").get_by_text(state, exact=True)).to_be_attached()
    width = await page.evaluate("document.documentElement.scrollWidth")
    await page.close()
    # A browser notes what was kept from it in its console.
    technician.complaints[:] = [text for text in technician.complaints if "ERR_FAILED" not in text]
    assert width <= 320


async def _unanswered(route: Route, state: str) -> None:
    """Let the browser wait for the live stream for ever, or tell it that nobody is there."""
    if state == "No answer":
        await route.abort()
