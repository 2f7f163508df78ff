"""The link policy against awkward calendars: holds are true, and so are their ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nexus_agent.config import LinkSection, TrafficBudget
from nexus_agent.protocol import Stream
from nexus_agent.sync.policy import MEGABYTE, Hold, Policy, Usage

BERLIN: Final = ZoneInfo("Europe/Berlin")
ZONES: Final = [
    BERLIN,
    ZoneInfo("UTC"),
    ZoneInfo("Africa/Cairo"),  # summer time begins at midnight: that day has none
    ZoneInfo("Australia/Lord_Howe"),  # by half an hour
    ZoneInfo("Asia/Kathmandu"),
]
HELD: Final = [Stream.EVENT, Stream.TELEMETRY, Stream.LOG]
NOTHING: Final = Usage()

times = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02}:{t[1]:02}")
quiet_hours = st.lists(st.tuples(times, times).map("-".join), max_size=3).map(tuple)
budgets = st.builds(
    TrafficBudget,
    **{name: st.sampled_from([0.0, 1.0, 2.5]) for name in ("total", "event", "telemetry", "log")},
)
sections = st.builds(
    LinkSection, metered=st.booleans(), quiet_hours=quiet_hours, day_mb=budgets, month_mb=budgets
)
bytes_used = st.dictionaries(st.sampled_from(Stream), st.integers(0, 4 * MEGABYTE))
usages = st.builds(Usage, day=bytes_used, month=bytes_used)
moments = st.integers(
    *(int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2026, 2028))
).map(lambda seconds: seconds * 10**9)


def ns(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 10**9


def shown(hold: Hold | None, zone: ZoneInfo = BERLIN) -> tuple[str, str | None] | None:
    if hold is None:
        return None
    if hold.until is None:
        return hold.reason, None
    return hold.reason, f"{datetime.fromtimestamp(hold.until / 1e9, zone):%m-%d %H:%M}"


@given(sections, moments, usages, st.sampled_from(ZONES))
def test_alerts_are_never_held(
    section: LinkSection, now: int, usage: Usage, zone: ZoneInfo
) -> None:
    assert Policy(section, zone).hold(Stream.ALERT, now, usage) is None


@given(sections, moments, usages, st.sampled_from(ZONES), st.sampled_from(HELD))
def test_a_held_stream_goes_on_when_it_was_said_and_not_before(
    section: LinkSection, now: int, usage: Usage, zone: ZoneInfo, stream: Stream
) -> None:
    policy = Policy(section, zone)
    hold = policy.hold(stream, now, usage)
    assume(hold is not None)
    assert hold is not None
    assert hold.reason
    if hold.until is None:
        assert section.metered or section.quiet_hours
        return
    assert hold.until > now
    assert policy.hold(stream, hold.until, left(policy, now, hold.until, usage)) is None
    for quarter in range(1, 8):
        between = now + (hold.until - now) * quarter // 8
        still = policy.hold(stream, between, left(policy, now, between, usage))
        assert still is not None
        assert still.until == hold.until


def left(policy: Policy, now: int, then: int, usage: Usage) -> Usage:
    """What still counts at a later moment."""
    before, after = policy.local(now), policy.local(then)
    same_month = (before.year, before.month) == (after.year, after.month)
    return Usage(
        day=usage.day if before.date() == after.date() else {},
        month=usage.month if same_month else {},
    )


@given(moments, st.sampled_from(ZONES), st.tuples(times, times))
@example(ns("2026-03-29 01:59"), BERLIN, ("02:00", "02:30"))
@example(ns("2026-10-25 01:59"), BERLIN, ("02:00", "02:30"))
def test_quiet_hours_are_those_of_the_boxs_clock(
    now: int, zone: ZoneInfo, span: tuple[str, str]
) -> None:
    policy = Policy(LinkSection(quiet_hours=("-".join(span),)), zone)
    local = f"{datetime.fromtimestamp(now / 1e9, zone):%H:%M}"
    start, end = span
    inside = start <= local < end if start < end else local >= start or local < end
    assert (policy.hold(Stream.LOG, now, NOTHING) is not None) is inside


@given(moments, usages)
def test_without_settings_everything_may_go(now: int, usage: Usage) -> None:
    policy = Policy(LinkSection(), BERLIN)
    assert policy.open
    assert [policy.hold(stream, now, usage) for stream in Stream] == [None] * 4


@pytest.mark.parametrize(
    ("span", "now", "until"),
    [
        ("08:00-12:00", "2026-11-23 09:30", "11-23 12:00"),
        ("22:00-06:00", "2026-11-23 23:00", "11-24 06:00"),
        ("22:00-06:00", "2026-11-24 05:59", "11-24 06:00"),
        ("22:00-02:30", "2026-03-28 23:00", "03-29 03:00"),  # 02:30 is skipped
        ("22:00-02:30", "2026-10-24 23:00", "10-25 02:30"),
        ("12:00-12:00", "2026-11-23 15:00", None),
    ],
)
def test_quiet_hours_end(span: str, now: str, until: str | None) -> None:
    policy = Policy(LinkSection(quiet_hours=(span,)), BERLIN)
    assert shown(policy.hold(Stream.EVENT, ns(now), NOTHING)) == ("quiet hours", until)


@pytest.mark.parametrize(
    ("section", "reason", "until"),
    [
        ({"metered": True}, "the line is metered", None),
        ({"day_mb": {"total": 2}}, "the day's 2 MB are used up", "11-24 00:00"),
        ({"day_mb": {"log": 0.5}}, "the day's 0.5 MB for logs are used up", "11-24 00:00"),
        ({"month_mb": {"total": 3}}, "the month's 3 MB are used up", "12-01 00:00"),
        (
            {"day_mb": {"total": 2}, "quiet_hours": ["23:00-07:00"]},
            "the day's 2 MB are used up",
            "11-24 07:00",
        ),
    ],
)
def test_a_hold_says_why_and_until_when(
    section: dict[str, object], reason: str, until: str | None
) -> None:
    usage = Usage(day={Stream.ALERT: 1_500_000, Stream.LOG: 500_000}, month={Stream.LOG: 3_000_000})
    hold = Policy(LinkSection.model_validate(section), BERLIN).hold(
        Stream.LOG, ns("2026-11-23 15:00"), usage
    )
    assert shown(hold) == (reason, until)


def test_one_streams_budget_holds_no_other() -> None:
    policy = Policy(LinkSection(day_mb=TrafficBudget(telemetry=1)), BERLIN)
    usage = Usage(day={Stream.TELEMETRY: MEGABYTE})
    now = ns("2026-11-23 15:00")
    held = [stream for stream in Stream if policy.hold(stream, now, usage)]
    assert held == [Stream.TELEMETRY]


def test_a_day_without_a_midnight_ends_all_the_same() -> None:
    cairo = ZoneInfo("Africa/Cairo")
    policy = Policy(LinkSection(day_mb=TrafficBudget(total=1)), cairo)
    now = ns("2026-04-23 12:00", cairo)
    hold = policy.hold(Stream.LOG, now, Usage(day={Stream.LOG: MEGABYTE}))
    assert shown(hold, cairo) == ("the day's 1 MB are used up", "04-24 01:00")
    assert hold is not None
    assert hold.until is not None
    assert hold.until - now == timedelta(hours=12).total_seconds() * 1e9
