"""What the package notes when it has switched an upgrade back: `rollback.json`, written by root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE_NAME: Final = "rollback.json"
_FILE_BYTES: Final = 64 * 1024

log = structlog.get_logger("rollback")

Word = Annotated[str, Field(max_length=64)]


class Rollback(BaseModel):
    """One rollback. id: differs with each; failed, restored: versions; at: RFC 3339."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Word
    failed: Annotated[Word, Field(alias="from")]
    restored: Annotated[Word, Field(alias="to")]
    reason: Annotated[str, Field(max_length=2000)]
    at: Word


def read(folder: Path) -> Rollback | None:
    """The newest rollback of this box; None where there was none, or none that can be read."""
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            return Rollback.model_validate_json(file.read(_FILE_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("rollback_unreadable", file=str(path), error=str(error))
        return None
