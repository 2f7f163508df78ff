"""The JSON documents of the protocol: presence, acknowledgements and commands."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nexus_agent.protocol.names import EVENT_TYPE, MAX_EPOCH, MAX_SEQUENCE, ProtocolError, Stream

Epoch = Annotated[int, Field(ge=1, le=MAX_EPOCH)]
Sequence0 = Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
Sequence1 = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]

MAX_WANTED: Final = 64
"""Ranges that one acknowledgement may ask for again."""


class _Document(BaseModel):
    """A JSON document of the protocol. Unknown keys are left aside: a newer peer may send them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def encode(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Any:
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "document"
            raise ProtocolError(f"{cls.__name__}: {where}: {first['msg']}") from None


class Presence(_Document):
    """`up/presence`, retained: the birth document, the clean farewell or the broker's will.

    The will holds `online` and `session` only. `interval` is the longest silence in seconds that
    an online box allows itself. `session` is new with every connection. `next` has the next
    sequence of each stream in `epoch`, `released` the last one that was acknowledged, so that the
    box will not send it again by itself; `oldest` is when the oldest event that waits was recorded;
    `closed` has the last sequence of each stream in the epochs that ended, and `closed_released`
    the last one that was acknowledged in those where something waits still.
    `time`, `mono` and `synced` are one moment by the box's clocks, as events have them: with it the
    console can tell how far a box's clock is off. `storage` says why the box cannot write at the
    moment; it is absent where all is well. `catalogue` is the version of its event catalogue.
    """

    v: Literal[1] = 1
    online: bool
    session: str = Field(min_length=1, max_length=64)
    reason: str | None = None
    time: str | None = None
    mono: str | None = None
    synced: bool | None = None
    agent: str | None = None
    boot: str | None = None
    hostname: str | None = None
    interval: int | None = None
    epoch: Epoch | None = None
    next: dict[Stream, int] | None = None
    released: dict[Stream, int] | None = None
    oldest: str | None = None
    closed: dict[int, dict[Stream, int]] | None = None
    closed_released: dict[int, dict[Stream, int]] | None = None
    plugins: dict[str, str] | None = None
    storage: str | None = None
    catalogue: int | None = None


Range = tuple[Sequence1, Sequence1]
"""First and last sequence, both included."""


class Ack(_Document):
    """`down/ack`: everything up to and including `seq` is committed in the console.

    `session` is that of the box's birth which it answers. A box leaves one for another session
    aside: it was meant for itself before, or for another disk under the same name.

    `want` are ranges that the box will not send by itself and the console does not have, or has
    from who knows which disk: the box sends them again from its history and declares the rest lost.

    `renew` orders a new epoch and says why: the console has other content under this epoch's
    numbers (a cloned or restored disk). The new one is above `above` as well. Only a box whose open
    epoch is `epoch` obeys; what waits under the old numbers stays under them.

    `mac` is the HMAC under the device's key, from enrolment on.
    """

    v: Literal[1] = 1
    epoch: Epoch
    stream: Stream
    seq: Sequence0
    session: str | None = None
    want: Annotated[list[Range], Field(max_length=MAX_WANTED)] = []
    renew: str | None = None
    above: Epoch | None = None
    mac: str | None = None


class Command(_Document):
    """What the console wants done; travels inside `Signed`. Times are RFC 3339.

    `counter` rises with every command to one device in one `epoch` of the console's counters.
    """

    v: Literal[1] = 1
    id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")
    device: str
    epoch: int = Field(default=1, ge=1)
    counter: int = Field(ge=1)
    not_before: str
    expires: str
    name: str = Field(pattern="^" + EVENT_TYPE.pattern.replace(r"\Z", "$"))
    args: dict[str, Any] = Field(default_factory=dict)


class Signed(_Document):
    """An envelope for what must not be forged: `document` is JSON text, signed byte for byte.

    `key` and `sig` (Ed25519, base64) are empty until identities exist.
    """

    v: Literal[1] = 1
    document: str
    key: str = ""
    sig: str = ""
