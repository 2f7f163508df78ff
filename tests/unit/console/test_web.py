"""The page's files: by name, its document at its views, and nothing else."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from nexus_console.web import Page

DOCUMENT = "<!doctype html>"
SCRIPT = "assets/index-1a2b.js"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    page = tmp_path / "page"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text(DOCUMENT)
    (page / SCRIPT).write_text("1")
    (tmp_path / "secret").write_text("secret")
    return page


def browse(folder: Path) -> httpx.AsyncClient:
    page = Page(PlainTextResponse("missing", 404), folder)
    return httpx.AsyncClient(transport=httpx.ASGITransport(page), base_url="http://console")


@pytest.mark.parametrize(
    "path", ["/", "/boxes/bay-1", "/boxes/bay-1/events", "/vehicles", "/vehicles/v-1"]
)
async def test_every_view_is_the_document_and_is_asked_for_again(folder: Path, path: str) -> None:
    async with browse(folder) as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.text) == (200, DOCUMENT)
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_file_with_a_hash_in_its_name_is_kept(folder: Path) -> None:
    async with browse(folder) as http:
        answer = await http.get(f"/{SCRIPT}")
    assert (answer.status_code, answer.text) == (200, "1")
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/assets/gone.js", "/..%2fsecret", "/%2e%2e/secret", "/favicon.ico"]
)
async def test_everything_else_is_missing(folder: Path, path: str) -> None:
    async with browse(folder) as http:
        assert (await http.get(path)).text == "missing"


async def test_a_view_takes_no_other_method(folder: Path) -> None:
    async with browse(folder) as http:
        assert (await http.post("/")).text == "missing"


async def test_a_page_that_was_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    async with browse(tmp_path / "none") as http:
        answer = await http.get("/")
    assert answer.status_code == 503
    assert "make page" in answer.text
