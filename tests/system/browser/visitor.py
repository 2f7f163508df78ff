"""Somebody with a browser of their own, and what its pages asked for and complained of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, Page, Request

from nexus_demo.fleet import USER, Fleet

TIMEOUT_MS = 15_000
_AXE: Final = Path(__file__).resolve().parents[3] / "console/ui/node_modules/axe-core/axe.min.js"


async def violations(page: Page) -> list[str]:
    """What axe-core finds that keeps people from using *page* as it is now."""
    await page.evaluate(_AXE.read_text("utf-8"))
    found: list[dict[str, Any]] = await page.evaluate("axe.run().then(r => r.violations)")
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


class Visitor:
    """A browser of its own, on its own, at one console; what its pages complain of is kept."""

    def __init__(self, context: BrowserContext, fleet: Fleet) -> None:
        self.context, self.fleet = context, fleet
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context.set_default_timeout(TIMEOUT_MS)
        context.on("console", lambda message: self._note(message.type, message.text))
        context.on("weberror", lambda error: self._note("error", str(error.error)))
        context.on("request", self._requested)

    async def log_in(self) -> None:
        """Get the session's cookie, as the log-in form would."""
        answer = await self.context.request.post(
            f"{self.fleet.address}/api/v1/login",
            data={"username": USER, "password": self.fleet.password},
        )
        assert answer.ok

    async def open(self, path: str = "/") -> Page:
        page = await self.context.new_page()
        await page.goto(self.fleet.address + path)
        return page

    def streams(self) -> int:
        """How many event streams were ever asked for."""
        return sum(url.endswith("/api/v1/live") for url in self.requests)

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)
        if urlsplit(request.url).netloc != urlsplit(self.fleet.address).netloc:
            self.complaints.append(f"asks elsewhere: {request.url}")
