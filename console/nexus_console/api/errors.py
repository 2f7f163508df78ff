"""Every error is `{"error": "one plain sentence"}` with the right status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException

from nexus_console.db.engine import reason

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ApiError(BaseModel):
    """The body of every answer that is not a success."""

    error: str


def install_handlers(api: FastAPI) -> None:
    """Give every failure the one shape."""

    @api.exception_handler(HTTPException)
    def _http(_request: Request, error: HTTPException) -> JSONResponse:
        return _answer(error.status_code, str(error.detail), error.headers)

    @api.exception_handler(RequestValidationError)
    def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        first: Any = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return _answer(422, f"{place or 'body'}: {first['msg']}")

    @api.exception_handler(DataError)
    def _unstorable(_request: Request, error: DataError) -> JSONResponse:
        return _answer(422, f"The request holds what the database cannot hold: {reason(error)}")

    @api.exception_handler(SQLAlchemyError)
    def _database(_request: Request, error: SQLAlchemyError) -> JSONResponse:
        _log.error("database refused a request", reason=reason(error))
        return _answer(503, "The database does not answer at the moment; try again shortly.")

    @api.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("request failed", path=request.url.path, exc_info=error)
        return _answer(500, "The console failed on this request; its log says why.")


def _answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status_code=status, headers=dict(headers or {}))
