"""The page tells of a delivery that did not go well, and invents nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from tests.system.browser.troubles import fill
from tests.system.browser.visitor import Visitor, violations

from nexus_demo.broker import choose
from nexus_demo.fleet import Fleet

pytestmark = pytest.mark.asyncio(loop_scope="package")

# The console lets go of what is very old: what is to be seen has to be new.
NOW = time.time_ns()
VIEWS = {
    "/": "Cannot write",
    "/boxes/bay-1": "Cannot write",
    "/boxes/bay-1/delivery": "disk quota",
    "/boxes/bay-3": "Engine speed",
    "/boxes/bay-2/events": "A * marks a time",
}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def troubled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """A console whose boxes have gone, and have left what they told it."""
    fleet = Fleet(tmp_path_factory.mktemp("troubled"), choose("auto"), bays=())
    fill(fleet.folder / "console" / "console.db", NOW)
    try:
        await fleet.start(print)
        yield fleet
    finally:
        await fleet.stop()


@pytest_asyncio.fixture(loop_scope="package")
async def visitor(browser: Browser, troubled: Fleet) -> AsyncIterator[Visitor]:
    context = await browser.new_context(
        viewport={"width": 1280, "height": 820}, color_scheme="light", timezone_id="UTC"
    )
    visitor = Visitor(context, troubled)
    await visitor.log_in()
    yield visitor
    await context.close()
    assert visitor.complaints == []


async def test_a_loss_is_told_with_its_count_times_and_cause(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-1/delivery")
    lane = page.locator("[data-lane='2 telemetry']")
    await expect(lane).to_contain_text(
        "7 samples dropped 2 Jan 2020, 03:04–03:07: disk quota"  # noqa: RUF001 - a range
    )
    log = page.locator("[data-lane='2 log']")
    await expect(log).to_contain_text("3 log lines dropped, times unknown: lost with the database")


async def test_what_is_missing_or_set_aside_is_told(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-1/delivery")
    await expect(page.locator("[data-lane='2 telemetry']")).to_contain_text(
        "14 samples missing, numbers 301–314: not here yet; the box sends them"  # noqa: RUF001
    )
    event = page.locator("[data-lane='2 event']")
    await expect(event).to_contain_text("1 segment could not be read.")
    await expect(event).to_contain_text("1 segment came twice with other content")
    await expect(page.locator("[data-lane='2 alert']")).to_have_text(
        "Alert Everything up to 3 is here."
    )


async def test_earlier_numbering_is_folded_away_with_its_state(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-1/delivery")
    earlier = page.locator("[data-lane='1 telemetry']")
    await expect(page.get_by_text("closed: 20 outstanding")).to_be_visible()
    await expect(earlier).to_be_hidden()
    await page.get_by_text("Earlier numbering").click()
    await expect(earlier).to_contain_text("Everything up to 500 is here.")


async def test_what_the_console_found_out_is_told(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-1/delivery")
    remarks = page.get_by_role("region", name="What the console found out").get_by_role("listitem")
    await expect(remarks.first).to_contain_text("Asked the box for 20 telemetry events again")
    await expect(remarks.last).to_contain_text("A new epoch was ordered.")


async def test_a_box_that_cannot_write_is_seen_in_the_fleet(visitor: Visitor) -> None:
    page = await visitor.open()
    await expect(page.locator("li", has_text="bay-1")).to_contain_text(
        "Cannot write: database or disk is full"
    )
    await expect(page.locator("li", has_text="bay-2")).not_to_contain_text("write")
    await page.get_by_role("link", name="bay-1").click()
    await expect(page.get_by_role("alert")).to_contain_text("Cannot write")


async def test_a_time_that_was_set_right_says_so(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-2/events")
    retimed = page.locator("li", has_text="retimed")
    recorded = time.strftime("%H:%M:%S", time.gmtime(NOW // 1_000_000_000 - 60))
    await expect(retimed.locator("summary")).to_contain_text(f"{recorded}*")
    await retimed.locator("summary").click()
    await expect(retimed).to_contain_text(
        "box clock said 1 Jan 2016, 00:03:00; set right by the console"
    )
    unknown = page.locator("li", has_text="unset")
    await unknown.locator("summary").click()
    await expect(unknown).to_contain_text("time unknown: the box's clock was not set")


async def test_readings_of_a_day_are_summed_up_by_the_minute(visitor: Visitor) -> None:
    page = await visitor.open("/boxes/bay-3")
    speed = page.locator("li", has_text="Engine speed")
    await expect(speed).to_contain_text("1,190 rpm")
    await page.get_by_label("Time shown").select_option("Last day")
    await expect(speed).to_contain_text("one point a minute")
    assert await violations(page) == []
    await page.get_by_label("Time shown").select_option("Last 30 days")
    await expect(speed).to_contain_text("one point an hour")


@pytest.mark.parametrize("path", VIEWS)
async def test_bad_news_is_accessible_in_both_themes_and_fits_a_phone(
    path: str, visitor: Visitor
) -> None:
    page = await visitor.open(path)
    await expect(page.get_by_text(VIEWS[path]).first).to_be_visible()
    for folded in await page.locator("details:not(li details)").all():
        await folded.locator("> summary").click()
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        assert await violations(page) == []
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    assert await violations(page) == []
