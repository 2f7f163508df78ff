"""What every kind of event is made of."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    StrictFloat,
    StrictStr,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from nexus_agent.protocol.names import ProtocolError, Quality, Stream

_READING: Final = "reading"


class Privacy(enum.StrEnum):
    """Whom an event may tell of."""

    MACHINE = "machine"
    """The box, its plugins and its adapters; nobody's car."""
    VEHICLE = "vehicle"
    """A car, under a reference that only the shop's key leads back to its VIN; with the VIN itself
    where the shop's setting says so."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a figure that does not carry one beside it."""

    text: str


class OneOf:
    """Annotates a text: it is one of *words* where it is emitted, and any where it is read.

    A box says no other; a newer box may know more.
    """

    def __init__(self, *words: str) -> None:
        self.words = words

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def _check(self, text: str, info: core_schema.ValidationInfo) -> str:
        if text not in self.words and info.context != _READING:
            raise ValueError(f"use one of {', '.join(self.words)}")
        return text


Seconds = Annotated[float, Unit("s")]
Milliseconds = Annotated[float, Unit("ms")]
Text = str
"""For people, and never to be taken apart by a program."""
Name = Annotated[str, Field(min_length=1, max_length=200)]
Moment = Annotated[str, Field(min_length=20, max_length=35)]
"""RFC 3339, in UTC."""
Value = Annotated[StrictFloat | StrictBool | StrictStr, Field(union_mode="left_to_right")]
"""What a reading can be: yes or no, a figure, or a word that stands for a state."""


class Part(BaseModel):
    """A piece of an event's data. What a box emits has no other keys than these."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    def document(self) -> dict[str, Any]:
        """As JSON has it: keys that were not given are not there."""
        return self.model_dump(mode="json", exclude_unset=True)


class Measured(Part):
    """One value. It is there only where quality is ok; nothing is ever invented."""

    value: Value | None
    """The value, or null."""
    unit: Annotated[str, Field(max_length=20)]
    """Of the value; `1` where it has none."""
    quality: Quality
    """`ok`, `absent`, `refused` or `malformed`."""
    detail: Text | None = None
    """Why there is no value, for people."""

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        if (self.value is None) is (self.quality is Quality.OK):
            raise ValueError("there is a value where quality is ok, and nowhere else")
        return self


class EventData(Part):
    """`data` of one type of event."""

    type: ClassVar[str]
    streams: ClassVar[tuple[Stream, ...]] = (Stream.EVENT,)
    """Where it may go, the usual one first."""
    rate: ClassVar[str]
    """How often it comes, for people."""
    privacy: ClassVar[Privacy] = Privacy.MACHINE

    @classmethod
    def check(cls, body: bytes) -> None:
        """Raise ProtocolError unless the JSON text *body* is what a box may emit."""
        try:
            cls.__pydantic_validator__.validate_json(body, strict=True)
        except ValidationError as error:
            raise ProtocolError(why(cls.type, error)) from None

    @classmethod
    def read(cls, data: Any) -> Self:
        """What a box of whichever version has sent. Raises ProtocolError.

        Keys and words that are not known here are left aside: the box may be newer.
        """
        try:
            return cls.model_validate(data, extra="ignore", context=_READING)
        except ValidationError as error:
            raise ProtocolError(why(cls.type, error)) from None


class CarData(EventData):
    """`data` of an event about a car; both keys are missing where its VIN is not known."""

    privacy: ClassVar[Privacy] = Privacy.VEHICLE

    vehicle_ref: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Names the car: a keyed digest of its VIN, the same on every box of the shop."""
    vin: Annotated[str, Field(pattern=r"^[A-HJ-NPR-Z0-9]{17}$")] | None = None
    """Only where the box's `[privacy]` allows it."""


def why(event_type: str, error: ValidationError) -> str:
    """The first thing that is wrong. The value is not quoted: it may be a VIN."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "data"
    return f"event {event_type}: {where}: {first['msg'].removeprefix('Value error, ')}"
