"""Forecasts in figures."""

from __future__ import annotations

import pytest

from nexus_agent.config import LinkSection
from nexus_agent.protocol import Stream
from nexus_agent.sync.forecast import Forecast, offline, online
from nexus_agent.sync.policy import MEGABYTE, Usage

TELEMETRY = Stream.TELEMETRY
DAY = 86_400


def section(**keys: object) -> LinkSection:
    return LinkSection.model_validate(keys)


@pytest.mark.parametrize(
    ("waiting", "settings", "used", "rate", "expected"),
    [
        (0, section(), 0, 1.2, Forecast("nothing")),
        (312, section(), 0, 1.2, Forecast("line", 260, 1.2 * MEGABYTE, "second")),
        (312, section(), 0, 0, Forecast("unknown")),
        (312, section(metered=True), 0, 1.2, Forecast("metered")),
        (
            312,
            section(day_mb={"total": 50}),
            50,
            1.2,
            Forecast("budget", 7 * DAY, 50 * MEGABYTE, "day"),
        ),
        (
            312,
            section(day_mb={"total": 50}),
            0,
            1.2,
            Forecast("budget", 6 * DAY, 50 * MEGABYTE, "day"),
        ),
        (
            12,
            section(day_mb={"total": 50}),
            0,
            1.2,
            Forecast("line", 10, 1.2 * MEGABYTE, "second"),
        ),
        (
            312,
            section(day_mb={"total": 50}, month_mb={"telemetry": 100}),
            0,
            1.2,
            Forecast("budget", 90 * DAY, 100 * MEGABYTE, "month"),
        ),
    ],
)
def test_the_slowest_limit_counts(
    waiting: float, settings: LinkSection, used: int, rate: float, expected: Forecast
) -> None:
    usage = Usage(day={TELEMETRY: used * MEGABYTE}, month={TELEMETRY: used * MEGABYTE})
    sizes = {TELEMETRY: int(waiting * MEGABYTE)}
    found = online(sizes, settings, usage, rate * MEGABYTE, 0)
    assert found == expected


def test_a_backlog_that_grows_has_no_end() -> None:
    settings = section(day_mb={"total": 50})
    found = online({TELEMETRY: 312 * MEGABYTE}, settings, Usage(), MEGABYTE, 60 * MEGABYTE / DAY)
    assert found == Forecast("budget", None, 50 * MEGABYTE, "day", growing=True)


@pytest.mark.parametrize(
    ("used", "quota", "intake", "seconds"),
    [(100, 1000, 10, 90), (2000, 1000, 10, 0), (100, 1000, 0, None), (100, 0, 10, None)],
)
def test_offline_the_quota_is_what_counts(
    used: int, quota: int, intake: float, seconds: float | None
) -> None:
    assert offline(used, quota, intake).seconds == seconds
