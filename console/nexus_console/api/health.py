"""Whether the console works. No log-in: load balancers and service managers ask."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from nexus_console.api.access import Services, ServicesDep

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """broker: connecting, connected, waiting, denied or stopped. database: ok or failing."""

    ok: bool
    broker: str
    database: str


@router.get("/healthz", responses={503: {"model": Health}})
def show_health(services: ServicesDep, response: Response) -> Health:
    """200 where all is well, otherwise 503 with the same body."""
    health = health_of(services)
    if not health.ok:
        response.status_code = 503
    return health


def health_of(services: Services) -> Health:
    """Blocks for a short read. Details are in the log: who asks need not be logged in."""
    working = services.writer.error is None
    try:
        services.database.check()
    except SQLAlchemyError:
        working = False
    broker = services.link.state
    return Health(
        ok=working and broker == "connected",
        broker=broker,
        database="ok" if working else "failing",
    )
