"""The page: the files that `make page` builds from console/ui into this package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

FOLDER: Final = Path(__file__).parent / "page"
NOT_BUILT: Final = "The page has not been built. In a checkout: make page\n"

_FOREVER: Final = "public, max-age=31536000, immutable"
"""For files whose name holds a hash of their content."""
_ASK_AGAIN: Final = "no-cache"


class Page:
    """Serves the page's files by name, and its document at every path that is one of its views.

    *missing* answers what is none of the page's business.
    """

    def __init__(self, missing: ASGIApp, folder: Path = FOLDER) -> None:
        self._missing = missing
        # Listed once: no path that a browser sends is ever looked up on the disk.
        self._files = {
            f"/{path.relative_to(folder).as_posix()}": path
            for path in folder.rglob("*")
            if path.is_file()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._respond(scope) if scope["type"] == "http" else None
        await (response or self._missing)(scope, receive, send)

    def _respond(self, scope: Scope) -> Response | None:
        path: str = scope["path"]
        if scope["method"] not in {"GET", "HEAD"} or path.startswith("/api/"):
            return None
        if not self._files:
            return PlainTextResponse(NOT_BUILT, 503)
        if file := self._files.get(path):
            cache = _FOREVER if path.startswith("/assets/") else _ASK_AGAIN
            return FileResponse(file, headers={"Cache-Control": cache})
        if path == "/" or path.startswith(("/boxes/", "/vehicles")):
            return FileResponse(self._files["/index.html"], headers={"Cache-Control": _ASK_AGAIN})
        return None
