"""The settings of the uds plugin."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from nexus_agent.plugin import Settings
from nexus_plugins.canbus.settings import SOCKETCAN, ChannelSettings
from nexus_plugins.uds.identification import NAMES

Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
LinkName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]
Address = Annotated[int, Field(ge=1, le=0xFFFF)]
Numbers = tuple[int | str, ...]
"""Numbers, and ranges as texts: `[0x7E0, "0x710-0x717"]`."""

DOIP_PORT: Final = 13400
"""ISO 13400-2, table 48: TCP_DATA and UDP_DISCOVERY."""
FUNCTIONAL: Final = 0x7DF
"""ISO 15765-4 section 10.5.2: everybody would answer."""
_EVERY_11: Final = tuple(0x700 + 16 * block + low for block in range(16) for low in range(8))
_EVERY_DOIP: Final = (*range(0x0001, 0x0100), *range(0x1000, 0x1100))
_MOST: Final = 4096
"""More candidates than this are a slip of the pen."""


def numbers(items: Iterable[int | str], most: int) -> tuple[int, ...]:
    """The numbers that *items* name, in order and once each. Raises ValueError."""
    found: dict[int, None] = {}
    for item in items:
        first, _, last = str(item).partition("-")
        try:
            low = int(first, 0)
            high = int(last, 0) if last else low
        except ValueError:
            raise ValueError(
                f"{item!r} is neither a number nor a range like '0x710-0x717'"
            ) from None
        if not 0 <= low <= high <= most:
            raise ValueError(f"{item!r} is not within 0 and {most:#x}, or ends before it begins")
        if high - low >= _MOST:
            raise ValueError(f"{item!r} is more than {_MOST} numbers")
        found.update(dict.fromkeys(range(low, high + 1)))
    return tuple(found)


class LinkOptions(Settings):
    """One way to a vehicle's control units; times are seconds."""

    channel: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """A CAN channel: `can0`, or the device's path for `slcan`. Give one of this, `host` and
    `discover`."""
    interface: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")] = SOCKETCAN
    """The kind of CAN adapter, as python-can names it: `socketcan`, `slcan`, `pcan`, `kvaser`, …"""
    bitrate: Annotated[int, Field(ge=10_000, le=1_000_000)] | None = None
    """Of the CAN channel, bit/s; none where it is set elsewhere, as for socketcan."""
    addressing: Literal["11bit", "29bit"] = "11bit"
    """On CAN: `11bit` (normal), or `29bit` (normal fixed: 18DA, control unit, tester)."""
    requests: Numbers = ()
    """Who is asked on CAN: request identifiers (`11bit`) or control units' addresses (`29bit`), as
    numbers and ranges: `[0x7E0, "0x710-0x717"]`. Empty: every 7n0 to 7n7, or every address."""
    responses: dict[int, int] = Field(default_factory=dict)
    """With `11bit`: the response's identifier where it is not the request's plus 8, by request:
    `0x714 = 0x77E`."""
    tester: Annotated[int, Field(ge=0, le=0xFF)] = 0xF1
    """With `29bit`: the address of this tester."""
    host: str | None = None
    """A DoIP gateway's IP address."""
    discover: str | None = None
    """Where a vehicle identification request is sent (UDP) to find the DoIP gateway each time, such
    as `255.255.255.255`; used is the first that answers."""
    port: Annotated[int, Field(ge=1, le=65_535)] = DOIP_PORT
    """Of the DoIP gateway, TCP and UDP."""
    source: Address = 0x0E00
    """The logical address of this tester; 0x0E00 to 0x0FFF are for testers."""
    activation: Annotated[int, Field(ge=0, le=0xFF)] = 0
    """The type of routing activation; 0 is the default, 1 that of regulated diagnostics."""
    version: Annotated[int, Field(ge=1, le=0xFE)] = 2
    """The DoIP protocol version: 2 is ISO 13400-2:2012, 3 that of 2019."""
    targets: Numbers = ()
    """Who is asked over DoIP: logical addresses, as numbers and ranges. One of them for which the
    gateway takes questions, and which does not answer, is absent. Empty: 0x0001 to 0x00FF and
    0x1000 to 0x10FF, of which only those that answer are known."""
    connection: Literal["shared", "per_module"] = "shared"
    """`per_module` for DoIP gateways that insist on a connection for each logical address."""
    ack_s: Seconds = 2.0
    """Seconds that a DoIP gateway may take to acknowledge a question."""
    connect_timeout_s: Seconds = 3.0
    """Seconds that it takes at most to connect to a DoIP gateway, and to be admitted by it."""
    p2_s: Seconds = 0.2
    """Seconds that a control unit may take to answer (P2)."""
    p2_star_s: Seconds = 5.0
    """Seconds until it must be heard of again once it has said that it needs longer (P2*)."""
    pending_max_s: Seconds = 30.0
    """Seconds in all for which it is believed that it needs longer (NRC 0x78)."""
    session: Literal["default", "extended"] = "default"
    """`extended` opens an extended diagnostic session with each control unit before it is read;
    some tell more in it. Otherwise no session is changed."""
    dids: Numbers = tuple(f"0x{did:04X}" for did in NAMES)
    """Data identifiers that a scan reads; F190, the VIN, is read in any case."""

    @field_validator("responses", mode="before")
    @classmethod
    def _read_keys(cls, responses: Any) -> Any:
        """TOML's keys are texts: `0x714` as well as `1812`."""
        if not isinstance(responses, dict):
            return responses
        return {_number(key): response for key, response in responses.items()}

    @field_validator("host", "discover")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ValueError(f"use an IP address, not {address!r}") from None
        return address

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        most = 0x7FF if self.addressing == "11bit" else 0xFF
        requests = numbers(self.requests, most)
        numbers(self.targets, 0xFFFF)
        numbers(self.dids, 0xFFFF)
        if self.addressing == "11bit" and FUNCTIONAL in requests:
            raise ValueError("7DF asks everybody at once: name each control unit's own identifier")
        for request, response in self.responses.items():
            if not (0 <= request <= 0x7FF and 0 <= response <= 0x7FF):
                raise ValueError(f"responses: {request:#x} = {response:#x} is not within 0 and 7FF")
        return self

    @property
    def ways(self) -> tuple[str, ...]:
        """What says where the control units are; exactly one makes a link."""
        return tuple(way for way in (self.channel, self.host, self.discover) if way is not None)

    def candidates(self) -> tuple[int, ...]:
        """Who is asked: request identifiers, addresses or logical addresses."""
        if self.channel is None:
            return numbers(self.targets, 0xFFFF) or _EVERY_DOIP
        if self.addressing == "11bit":
            return numbers(self.requests, 0x7FF) or _EVERY_11
        every = tuple(address for address in range(0x100) if address != self.tester)
        return numbers(self.requests, 0xFF) or every

    def identifiers(self, target: int) -> tuple[int, int]:
        """On CAN: of a question and of its answer (ISO 15765-4 section 10.5)."""
        if self.addressing == "11bit":
            return target, self.responses.get(target, (target + 8) & 0x7FF)
        return 0x18DA0000 | target << 8 | self.tester, 0x18DA0000 | self.tester << 8 | target

    def ecu(self, target: int) -> str:
        """How events name a control unit."""
        if self.channel is None:
            return f"DoIP {target:04X}"
        _, response = self.identifiers(target)
        return f"UDS {response:03X}" if self.addressing == "11bit" else f"UDS {response:08X}"

    def channel_settings(self) -> ChannelSettings:
        """The CAN channel; `channel` must be given."""
        return ChannelSettings(
            interface=self.interface, channel=self.channel or "", bitrate=self.bitrate
        )


class LinkSettings(LinkOptions):
    """What `[plugins.uds.links.NAME]` takes."""

    @model_validator(mode="after")
    def _check_way(self) -> Self:
        if len(self.ways) != 1:
            raise ValueError("give one of `channel`, `host` and `discover`")
        return self


class UdsSettings(LinkOptions):
    """What `[plugins.uds]` takes."""

    links: dict[LinkName, LinkSettings] = Field(default_factory=dict)
    """Several links to one vehicle: a table `[plugins.uds.links.NAME]` for each, with its
    `channel`, `host` or `discover` and whichever of the other keys are to differ from those of
    `[plugins.uds]`. NAME is 1 to 32 of a-z, 0-9, `_` and `-`."""
    probe_interval_s: Seconds = 60.0
    """Seconds between two looks whether a channel can be opened, or a gateway be reached."""

    @model_validator(mode="after")
    def _check_links(self) -> Self:
        if len(self.ways) + bool(self.links) != 1:
            raise ValueError(
                "give `channel`, `host` or `discover` for one link, or `[plugins.uds.links.NAME]` "
                "with one of them for each of several, and not both"
            )
        return self

    def names(self) -> tuple[str, ...]:
        """The links' names; that of an only one is its channel, address or way to find it."""
        return tuple(self.links) or self.ways

    def of(self, name: str) -> LinkOptions:
        """What is in force for the link *name*, one of `names`."""
        shared = {key: getattr(self, key) for key in LinkOptions.model_fields}
        if not self.links:
            return LinkOptions.model_construct(**shared)
        own = self.links[name]
        differing = {key: getattr(own, key) for key in own.model_fields_set}
        return LinkOptions.model_construct(**shared | differing)


def _number(key: Any) -> Any:
    if not isinstance(key, str):
        return key
    try:
        return int(key, 0)
    except ValueError:
        raise ValueError(f"{key!r} is no identifier; write it as `0x714`") from None
