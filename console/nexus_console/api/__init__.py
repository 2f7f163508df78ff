"""The HTTP API, `/api/v1`: one module a noun.

Endpoints are plain functions: FastAPI runs them on worker threads, so that the database never
blocks the event loop.
"""

from __future__ import annotations

from fastapi import FastAPI

from nexus_console import __version__
from nexus_console.api import (
    commands,
    delivery,
    devices,
    events,
    health,
    live,
    login,
    series,
    vehicles,
)
from nexus_console.api.access import Services
from nexus_console.api.errors import ApiError, install_handlers
from nexus_console.api.headers import SecurityHeaders
from nexus_console.web import Page

PREFIX = "/api/v1"


def create_api(services: Services) -> FastAPI:
    """The ASGI application over *services*."""
    api = FastAPI(
        title="Nexus Core fleet console",
        version=__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # these pages load scripts from other people's servers
        redoc_url=None,
        responses={"default": {"model": ApiError, "description": "What is wrong"}},
    )
    api.state.services = services
    install_handlers(api)
    api.add_middleware(SecurityHeaders)
    for module in (login, devices, events, series, vehicles, delivery, commands, live, health):
        api.include_router(module.router, prefix=PREFIX)
    # Load balancers ask at the root.
    api.include_router(health.router, include_in_schema=False)
    # Everything that is no endpoint is the page, or a file of it.
    api.router.default = Page(missing=api.router.not_found)
    return api
