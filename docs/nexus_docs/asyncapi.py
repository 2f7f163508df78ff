"""The payload schemas at the end of asyncapi.yaml, from the protocol's own models."""

from __future__ import annotations

from typing import Any, Final

import yaml
from pydantic import BaseModel

from nexus_agent.protocol import Ack, Command, CommandResult, Presence, Signed

MARK: Final = "    # -- from here on written by `make reference`, from nexus_agent.protocol --\n"
MODELS: Final[tuple[type[BaseModel], ...]] = (Presence, Ack, Signed, Command, CommandResult)


def schemas() -> dict[str, Any]:
    """JSON Schema of every document by its name; what they share stands beside them."""
    found: dict[str, Any] = {}
    for model in MODELS:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found


def with_schemas(text: str) -> str:
    """*text* with everything behind the mark written anew."""
    written, mark, _ = text.partition(MARK)
    if not mark:
        raise LookupError(f"asyncapi.yaml has no line {MARK.strip()!r}")
    dumped = yaml.safe_dump(
        schemas(), sort_keys=False, allow_unicode=True, width=96, default_flow_style=False
    )
    return written + mark + "".join(f"    {line}\n" for line in dumped.splitlines())
