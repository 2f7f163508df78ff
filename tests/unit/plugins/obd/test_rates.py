"""Figures about polling, on a clock of the test's own."""

from __future__ import annotations

from nexus_agent.plugin import catalogue
from nexus_plugins.obd.rates import Rates

WANTED = {0x0C: ("engine_speed", 1.0), 0x05: ("coolant_temperature", 10.0)}


def test_without_questions_nothing_is_made_up() -> None:
    document = Rates(100.0).document("bay-1", 160.0, WANTED)

    assert (document["seconds"], document["questions"], document["answers"]) == (60.0, 0, 0)
    assert (document["latency_p50"], document["latency_p95"]) == (None, None)
    assert {value["achieved"] for value in document["values"]} == {None}


def test_latencies_are_of_the_questions_that_were_answered() -> None:
    rates = Rates(0.0)
    for milliseconds in range(1, 101):
        rates.asked(milliseconds / 1000)
    rates.asked(None)
    document = rates.document("bay-1", 60.0, {})

    assert (document["questions"], document["answers"]) == (101, 100)
    assert (document["latency_p50"], document["latency_p95"]) == (51.0, 96.0)


def test_the_achieved_interval_is_from_one_reading_to_the_next() -> None:
    rates = Rates(0.0)
    for now in (10.0, 12.0, 20.0):
        rates.read(0x0C, now)
    rates.read(0x05, 10.0)
    document = rates.document("bay-1", 60.0, WANTED)

    achieved = {value["pid"]: value["achieved"] for value in document["values"]}
    assert achieved == {0x05: None, 0x0C: 5.0}


def test_the_figures_are_what_the_catalogue_has() -> None:
    rates = Rates(0.0)
    rates.asked(0.02)
    rates.read(0x0C, 1.0)
    read = catalogue.vehicle.AdapterRates.read(rates.document("bay-1", 60.0, WANTED))

    assert read.latency_p50 == 20.0
    assert [value.name for value in read.values] == ["coolant_temperature", "engine_speed"]
