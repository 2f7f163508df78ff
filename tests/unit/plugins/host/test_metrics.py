from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.host.metrics import metrics
from nexus_plugins.host.reading import Cpu, Reading, Space, Traffic

BEFORE = Reading(
    at=100.0,
    cpu=Cpu(busy=10.0, total=100.0),
    load=(0.5, 0.25, 0.125),
    memory=Space(6_000_000_000, 2_000_000_000, 75.0),
    swap=Space(0, 1_000_000_000, 0.0),
    disks={"root": Space(90_000_000, 10_000_000, 90.0), "state": Quality.ABSENT},
    disk_io=Traffic(1000, 2000),
    network={"eth0": Traffic(5000, 6000)},
    temperatures={"coretemp": 55.0, "nvme": 41.25},
    clock_synchronised=True,
    boot_time=1_790_000_000.0,
)
NOW = replace(
    BEFORE,
    at=110.0,
    cpu=Cpu(busy=15.0, total=120.0),
    disk_io=Traffic(1500, 2000),
    network={"eth0": Traffic(5100, 6000)},
)


def entry(value: object, unit: str, quality: str = "ok") -> dict[str, object]:
    return {"value": value, "unit": unit, "quality": quality}


def test_cpu_is_the_busy_share_between_the_readings() -> None:
    assert metrics(BEFORE, NOW)["cpu"] == entry(25.0, "%")


def test_rates_are_per_second_between_the_readings() -> None:
    found = metrics(BEFORE, NOW)

    assert found["disk_read_rate"] == entry(50, "B/s")
    assert found["disk_write_rate"] == entry(0, "B/s")
    assert found["net_eth0_received"] == entry(5100, "B")
    assert found["net_eth0_received_rate"] == entry(10, "B/s")


def test_memory_and_disks_are_percent_and_megabytes() -> None:
    found = metrics(BEFORE, NOW)

    assert found["memory"] == entry(75.0, "%")
    assert found["memory_used"] == entry(6000, "MB")
    assert found["disk_root_free"] == entry(10, "MB")
    assert found["disk_state"] == entry(None, "%", "absent")


def test_zero_is_a_value() -> None:
    assert metrics(BEFORE, NOW)["swap"] == entry(0.0, "%")


def test_load_clock_uptime_and_boot_time_are_as_read() -> None:
    found = metrics(BEFORE, NOW)

    assert found["load_15m"] == entry(0.12, "1")
    assert found["clock_synchronised"] == entry(True, "1")
    assert found["uptime"] == entry(110, "s")
    assert found["boot_time"] == entry(1_790_000_000, "s")


def test_temperature_is_the_hottest_chip() -> None:
    found = metrics(BEFORE, NOW)

    assert found["temperature"] == entry(55.0, "°C")
    assert found["temperature_nvme"] == entry(41.2, "°C")


def test_a_broken_sensor_is_malformed_and_not_the_hottest() -> None:
    found = metrics(BEFORE, replace(NOW, temperatures={"acpitz": 255.0, "coretemp": 40.0}))

    assert found["temperature"] == entry(40.0, "°C")
    assert found["temperature_acpitz"] == entry(None, "°C", "malformed")


def test_where_no_sensor_can_be_believed_the_temperature_is_malformed() -> None:
    found = metrics(BEFORE, replace(NOW, temperatures={"acpitz": -273.2, "x": math.nan}))

    assert found["temperature"] == entry(None, "°C", "malformed")


def test_a_machine_without_sensors_has_no_temperature() -> None:
    found = metrics(BEFORE, replace(NOW, temperatures=Quality.ABSENT))

    assert found["temperature"] == entry(None, "°C", "absent")


def test_a_counter_that_began_anew_has_no_rate() -> None:
    found = metrics(BEFORE, replace(NOW, network={"eth0": Traffic(10, 6000)}))

    assert found["net_eth0_received_rate"] == entry(None, "B/s", "absent")
    assert found["net_eth0_received"] == entry(10, "B")


def test_an_interface_that_is_new_has_no_rate_yet() -> None:
    found = metrics(BEFORE, replace(NOW, network={"wlan0": Traffic(10, 20)}))

    assert found["net_wlan0_sent"] == entry(20, "B")
    assert found["net_wlan0_sent_rate"] == entry(None, "B/s", "absent")


def test_what_could_not_be_read_says_why() -> None:
    found = metrics(
        BEFORE,
        replace(
            NOW,
            cpu=Quality.MALFORMED,
            load=Quality.ABSENT,
            memory=Quality.REFUSED,
            disk_io=Quality.ABSENT,
            network=Quality.REFUSED,
            clock_synchronised=Quality.REFUSED,
        ),
    )

    assert found["cpu"] == entry(None, "%", "malformed")
    assert found["load_5m"] == entry(None, "1", "absent")
    assert found["memory_free"] == entry(None, "MB", "refused")
    assert found["disk_read_rate"] == entry(None, "B/s", "absent")
    assert found["network"] == entry(None, "B", "refused")
    assert found["clock_synchronised"] == entry(None, "1", "refused")


def test_a_first_reading_that_failed_leaves_no_rate() -> None:
    before = replace(BEFORE, cpu=Quality.REFUSED, disk_io=Quality.REFUSED, network=Quality.REFUSED)

    found = metrics(before, NOW)

    assert found["cpu"] == entry(None, "%", "absent")
    assert found["disk_read_rate"] == entry(None, "B/s", "absent")
    assert found["net_eth0_sent_rate"] == entry(None, "B/s", "absent")


@given(
    before=st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)),
    now=st.tuples(st.floats(0, 1e9), st.floats(0, 1e9)),
    seconds=st.floats(-10, 10),
)
def test_whatever_the_counters_do_cpu_is_a_share_or_absent(
    before: tuple[float, float], now: tuple[float, float], seconds: float
) -> None:
    found = metrics(
        replace(BEFORE, cpu=Cpu(*before)), replace(NOW, at=100 + seconds, cpu=Cpu(*now))
    )

    cpu = found["cpu"]
    assert (cpu["quality"] == "absent") == (cpu["value"] is None)
    assert cpu["value"] is None or 0 <= cpu["value"] <= 100
