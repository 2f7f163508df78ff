"""The page as people use it: chromium, the console, real agents and emulated cars."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.async_api import Browser, Locator, Page, expect
from tests.system.browser.visitor import Visitor, violations

from nexus_console.web import FOLDER
from nexus_demo.broker import choose
from nexus_demo.fleet import USER, Box, Fleet
from nexus_demo.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="package")

VIEWS = ["/", "/boxes/bay-1", "/boxes/bay-3", "/boxes/bay-1/events", "/boxes/bay-1/delivery"]


def speed(page: Page) -> Locator:
    return page.locator("[data-reading=engine_speed]")


async def see_change(locator: Locator) -> None:
    """Wait until what it says is no longer what it says now."""
    now = await locator.inner_text()
    await expect(locator).not_to_have_text(now)


async def see_view(page: Page, path: str) -> None:
    """Wait until the view at *path* shows what it has loaded."""
    sights: dict[str, Callable[[], Locator]] = {
        "events": lambda: page.get_by_text("vehicle.identified").first,
        "delivery": lambda: page.locator("[data-stream=telemetry]"),
        "bay-1": lambda: speed(page),
        "bay-3": lambda: page.get_by_text("Asked for, without a value"),
        "": lambda: page.get_by_role("link", name="bay-1"),
    }
    await expect(sights[path.rpartition("/")[2]]()).to_be_visible()


async def test_a_wrong_password_is_told_and_the_right_one_opens_the_fleet(
    stranger: Visitor, fleet: Fleet
) -> None:
    page = await stranger.open("/boxes/bay-2")
    await page.get_by_label("User name").fill(USER)
    await page.get_by_label("Password").fill("not this one")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_have_text("User name or password is wrong.")
    await page.get_by_label("Password").fill(fleet.password)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="bay-2")).to_be_visible()
    # A browser notes every 401 in its console; this one was asked for.
    stranger.complaints[:] = [text for text in stranger.complaints if "401" not in text]


async def test_logging_out_ends_every_tab(visitor: Visitor) -> None:
    first, second = await visitor.open(), await visitor.open()
    await expect(second.get_by_text("Live", exact=True)).to_be_visible()
    await first.get_by_role("button", name=f"Log out {USER}").click()
    await expect(second.get_by_role("heading", name="Log in")).to_be_visible()


async def test_values_and_counts_go_on_without_a_reload(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-1")
    await page.evaluate("window.kept = true")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await see_change(speed(page))
    await page.get_by_role("link", name="Delivery").click()
    await see_change(page.locator("[data-stream=telemetry]"))
    whole = page.get_by_text(re.compile(r"Everything up to [\d,]+ is here"))
    await expect(whole.first).to_be_visible()
    await expect(page.get_by_role("status").filter(has_text="Nothing is missing")).to_be_attached()
    assert await page.evaluate("window.kept")


async def test_what_a_vehicle_refuses_is_called_refused(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-3")
    refused = page.locator("li", has_text="Coolant temperature").last
    await expect(refused).to_contain_text("Refused")
    await expect(page.get_by_text("This box keeps the VIN to itself.")).to_be_visible()


async def test_a_command_shows_its_progress_and_its_result(
    visitor: Visitor, boxes: dict[str, Box]
) -> None:
    page = await visitor.open("/boxes/bay-2")
    scan = page.get_by_role("button", name="Scan")
    await expect(speed(page)).to_be_visible()
    os.kill(boxes["bay-2"].car.pid, signal.SIGSTOP)  # so that there is time to look
    try:
        await scan.click()
        await expect(page.get_by_role("status").filter(has_text="Running")).to_be_visible()
        await expect(scan).to_be_disabled()
    finally:
        os.kill(boxes["bay-2"].car.pid, signal.SIGCONT)
    await expect(scan).to_be_enabled()


async def test_a_vehicles_page_follows_what_is_done_at_its_box(visitor: Visitor) -> None:
    page = await visitor.open("/vehicles")
    await expect(page.get_by_role("listitem").filter(has_text="bay-2")).to_be_visible()
    await page.goto(f"{visitor.fleet.address}/boxes/bay-2")
    await page.get_by_role("region", name="Vehicle").get_by_role("link").click()
    await see_change(page.locator("[data-live=engine_speed]"))
    scans = page.get_by_role("region", name="Scans").get_by_role("listitem")
    before = await scans.count()
    box = await visitor.open("/boxes/bay-2")
    await box.get_by_role("button", name="Scan").click()
    await expect(scans).to_have_count(before + 1)


async def test_clearing_is_asked_first_and_a_box_may_refuse_it(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-3")
    clear = page.get_by_role("button", name="Clear codes")
    await clear.first.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert await violations(page) == []
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_text("Refused by the box")).to_be_hidden()
    await clear.first.click()
    await dialog.get_by_role("button", name="Clear codes").click()
    await expect(page.get_by_text("Refused by the box")).to_be_visible()


async def test_a_repair_is_seen_as_the_difference_of_two_scans(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-1")
    codes = page.get_by_role("region", name="Trouble codes")
    scan = codes.get_by_role("button", name="Scan")
    await scan.click()
    await expect(codes.locator("li", has_text="P0301")).to_contain_text("stored")
    await expect(scan).to_be_enabled()
    await codes.get_by_role("button", name="Clear codes").first.click()
    await page.get_by_role("dialog").get_by_role("button", name="Clear codes").click()
    await expect(codes.get_by_text("scan again to see what")).to_be_visible()
    await expect(scan).to_be_enabled()
    await scan.click()
    await expect(codes.locator("li", has_text="P0301")).to_contain_text("Fixed")
    await expect(codes.locator("li", has_text="P0420")).to_contain_text("Permanent")
    await expect(codes.locator("li", has_text="P0171")).to_contain_text("New")


async def test_a_box_that_stops_is_offline_with_its_reason_and_its_command_waits(
    visitor: Visitor, boxes: dict[str, Box]
) -> None:
    page = await visitor.open("/boxes/bay-2")
    status = page.get_by_role("status").filter(has_text=re.compile("Online|Offline"))
    await expect(status).to_have_text("Online")
    await boxes["bay-2"].agent.stop()
    try:
        await expect(status).to_have_text("Offline")
        await page.get_by_role("button", name="Scan").click()
        await expect(page.get_by_text("Waiting for the box")).to_be_visible()
        fleet_page = await visitor.open("/")
        await expect(fleet_page.locator("li", has_text="bay-2")).to_contain_text("offline for")
    finally:
        await boxes["bay-2"].start_agent()
    await expect(status).to_have_text("Online")
    await expect(page.get_by_text("Waiting for the box")).to_be_hidden()


async def test_the_theme_follows_the_system_until_one_is_chosen(visitor: Visitor) -> None:
    page = await visitor.open()
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = "rgb(246, 247, 249)", "rgb(14, 17, 22)"
    assert await page.evaluate(background) == light
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(background) == dark
    button = page.get_by_role("button", name="Theme")
    await button.click()
    await expect(button).to_have_accessible_name("Theme: light")
    assert await page.evaluate(background) == light
    await page.reload()
    assert await page.evaluate(background) == light
    await button.click()
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(background) == dark


@pytest.mark.parametrize("path", VIEWS)
async def test_a_view_is_accessible_in_both_themes_and_fits_a_phone(
    path: str, visitor: Visitor
) -> None:
    page = await visitor.open(path)
    await see_view(page, path)
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        assert await violations(page) == []
    await page.set_viewport_size({"width": 390, "height": 844})
    await see_view(page, path)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await violations(page) == []


async def test_the_log_in_is_accessible_in_both_themes_and_fits_a_phone(stranger: Visitor) -> None:
    page = await stranger.open()
    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        assert await violations(page) == []
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth") == 390


async def test_everything_can_be_done_by_keyboard(stranger: Visitor, fleet: Fleet) -> None:
    page = await stranger.open()
    keyboard = page.keyboard

    async def tab_to(target: Locator) -> None:
        for _ in range(30):
            if await target.evaluate("element => element === document.activeElement"):
                return
            await keyboard.press("Tab")
        pytest.fail(f"Tab does not lead to {target}")

    await expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    await keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await keyboard.press("Enter")
    await tab_to(page.get_by_label("User name"))
    await keyboard.type(USER)
    await keyboard.press("Tab")
    await keyboard.type(fleet.password)
    await keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Fleet")).to_be_focused()
    await tab_to(page.get_by_role("link", name="bay-2"))
    await keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="bay-2")).to_be_focused()
    scan = page.get_by_role("button", name="Scan")
    await expect(scan).to_be_enabled()
    await tab_to(scan)
    outline = await scan.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    await keyboard.press("Enter")
    await expect(page.get_by_text("Done")).to_be_visible()


async def test_eight_tabs_share_one_stream_and_outlive_the_one_that_has_it(
    visitor: Visitor,
) -> None:
    first = await visitor.open("/boxes/bay-1")
    await expect(first.get_by_text("Live", exact=True)).to_be_visible()
    others = await asyncio.gather(*(visitor.open("/boxes/bay-1") for _ in range(7)))
    await asyncio.gather(*(see_change(speed(tab)) for tab in [first, *others]))
    assert visitor.streams() == 1
    await first.close()
    await asyncio.gather(*(see_change(speed(tab)) for tab in others))
    assert visitor.streams() == 2


async def test_a_console_that_goes_is_told_and_when_it_is_back_the_page_goes_on(
    visitor: Visitor, fleet: Fleet
) -> None:
    page = await visitor.open("/boxes/bay-1")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await fleet.console.stop()
    try:
        await expect(page.get_by_role("alert")).to_contain_text("The console does not answer.")
        assert await violations(page) == []
    finally:
        await fleet.console.start()
        await until("the console is well", fleet.console_well, within=30)
    await expect(page.get_by_role("alert")).to_be_hidden()
    await see_change(speed(page))
    # A browser notes every request that nobody answered.
    visitor.complaints[:] = [text for text in visitor.complaints if "net::ERR_" not in text]


async def test_an_empty_fleet_says_what_to_run_next(browser: Browser, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, choose("auto"), bays=())
    try:
        await fleet.start(print)
        context = await browser.new_context(viewport={"width": 390, "height": 844})
        visitor = Visitor(context, fleet)
        await visitor.log_in()
        page = await visitor.open()
        await expect(page.get_by_role("main")).to_contain_text("nexus-agent run --config")
        assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        await context.close()
    finally:
        await fleet.stop()
    assert visitor.complaints == []


async def test_the_script_is_small() -> None:
    [script] = (FOLDER / "assets").glob("*.js")
    assert len(gzip.compress(script.read_bytes())) < 70_000
