"""What may be emitted, what is refused, and what a console makes of a newer box's events."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.protocol import ProtocolError, Quality, Stream
from nexus_agent.protocol.catalogue import CATALOGUE, EventData, Measured, Vocabulary, box, vehicle

PID = {"ecu": "7E8", "pid": 12, "name": "engine_speed", "value": 800.5, "unit": "rpm"}
SPEED = {**PID, "quality": "ok"}
VIN = "1HGCM82633A004352"


class Reading(EventData):
    """A type of a plugin's own."""

    type: ClassVar[str] = "own.reading"
    rate: ClassVar[str] = "now and then"

    value: float


def check(kind: str, data: Any, stream: Stream, emits: Any = ()) -> Any:
    [(_, checked)] = Vocabulary(emits).checked([(kind, data)], stream)
    return checked


def test_what_fits_is_taken_as_it_is() -> None:
    assert check("telemetry.pid", SPEED, Stream.TELEMETRY) == SPEED


def test_a_model_is_made_plain_and_says_only_what_it_was_given() -> None:
    model = vehicle.TelemetryPid(**PID, quality=Quality.OK)
    assert check("telemetry.pid", model, Stream.TELEMETRY) == SPEED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pid": "12"}, "telemetry.pid: pid: "),
        ({"pid": 256}, "telemetry.pid: pid: "),
        ({"quality": "guessed"}, "telemetry.pid: quality: "),
        ({"more": 1}, "telemetry.pid: more: "),
        ({"unit": None}, "telemetry.pid: unit: "),
        ({"value": None}, "there is a value where quality is ok"),
        ({"quality": "absent"}, "there is a value where quality is ok"),
        ({"value": [1]}, "telemetry.pid: value"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_key_that_is_wrong(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ProtocolError, match=words):
        check("telemetry.pid", {**SPEED, **change}, Stream.TELEMETRY)


def test_a_refusal_does_not_quote_a_vin() -> None:
    with pytest.raises(ProtocolError) as refused:
        check("telemetry.pid", {**SPEED, "vin": f"{VIN} "}, Stream.TELEMETRY)
    assert VIN not in str(refused.value)


def test_a_stream_that_is_not_its_own_is_refused() -> None:
    with pytest.raises(ProtocolError, match="goes on telemetry, not on alert"):
        check("telemetry.pid", SPEED, Stream.ALERT)


def test_a_type_that_nobody_declared_is_refused() -> None:
    with pytest.raises(ProtocolError, match="does not declare it in `emits`"):
        check("own.reading", {"value": 1.0}, Stream.EVENT, ["own.other"])


def test_a_declared_type_may_say_anything() -> None:
    assert check("own.reading", ["any"], Stream.EVENT, ["own.reading"]) == ["any"]


def test_a_type_of_a_plugins_own_is_held_to_its_model() -> None:
    assert check("own.reading", {"value": 1.5}, Stream.EVENT, [Reading]) == {"value": 1.5}
    with pytest.raises(ProtocolError, match=r"own\.reading: value: "):
        check("own.reading", {"value": "much"}, Stream.EVENT, [Reading])


def test_a_model_of_another_type_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"its data is that of own\.reading"):
        check("telemetry.pid", Reading(value=1.0), Stream.TELEMETRY)


def test_a_word_that_is_not_in_the_list_is_refused_at_the_box_and_read_at_the_console() -> None:
    state = {"adapter": "a", "state": "asleep", "detail": ""}
    with pytest.raises(ProtocolError, match="state: use one of connected, "):
        check("adapter.state", state, Stream.EVENT)
    assert vehicle.AdapterState.read(state).state == "asleep"


def test_keys_of_a_newer_box_are_left_aside_at_any_depth() -> None:
    newer = {"adapter": "a", "state": "lost", "detail": "", "x": 1, "abilities": {"y": 2}}
    assert vehicle.AdapterState.read(newer).abilities == vehicle.Abilities()


def test_figures_of_the_host_are_read_by_their_names() -> None:
    figure = {"value": 12.5, "unit": "%", "quality": "ok", "of a newer box": 1}
    assert box.HostMetrics.read({"cpu": figure}).figures == {
        "cpu": Measured(value=12.5, unit="%", quality=Quality.OK)
    }


@pytest.mark.parametrize("kind", CATALOGUE)
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_reading_what_is_no_such_event_is_a_clear_error(kind: str, data: Any) -> None:
    try:
        read = CATALOGUE[kind].read(data)
    except ProtocolError as error:
        refusal = str(error)
    else:
        assert kind == "host.metrics"
        assert isinstance(read, box.HostMetrics)
        return
    assert refusal.startswith(f"event {kind}: ")
