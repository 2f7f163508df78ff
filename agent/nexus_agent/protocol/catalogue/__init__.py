"""The event catalogue: what kinds of events there are, and what each of them says.

Code, console and tests share these models; docs/reference/events.md is made from them. A box emits
only what fits exactly. A console reads what any version has sent (`EventData.read`).

Versions: between one version and the next, types and keys that may be missing are added, and words
to a list of words. Nothing is renamed, retyped, made obligatory or taken away; what must change in
such a way gets a new type. So a console reads an older box's events, and leaves aside what a newer
one says besides. A box states its version in its birth.
"""

from __future__ import annotations

from nexus_agent.protocol.catalogue import box, emissions, scans, vehicle, workshop
from nexus_agent.protocol.catalogue.base import (
    CarData,
    EventData,
    Measured,
    OneOf,
    Part,
    Privacy,
    Unit,
)
from nexus_agent.protocol.catalogue.kinds import CATALOGUE, VERSION
from nexus_agent.protocol.catalogue.vocabulary import Vocabulary, names

__all__ = [
    "CATALOGUE",
    "VERSION",
    "CarData",
    "EventData",
    "Measured",
    "OneOf",
    "Part",
    "Privacy",
    "Unit",
    "Vocabulary",
    "box",
    "emissions",
    "names",
    "scans",
    "vehicle",
    "workshop",
]
