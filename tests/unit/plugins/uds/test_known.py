"""What a car has is remembered, and no other car's control units are missed."""

from __future__ import annotations

from nexus_agent.testing import MemoryState
from nexus_plugins.uds.known import Known

CAR = {"vehicle_ref": "one"}
OTHER = {"vehicle_ref": "two"}


async def test_a_car_keeps_what_it_ever_had() -> None:
    known = Known(MemoryState())
    await known.add(CAR, {"can0": (1, 2)})
    await known.add(CAR, {"can0": (2, 3)})
    await known.add(OTHER, {"can0": (9,)})

    assert await known.of(CAR, ("can0", "can1")) == {"can0": (1, 2, 3), "can1": ()}


async def test_a_car_that_no_longer_tells_its_vin_is_the_one_that_stood_there() -> None:
    known = Known(MemoryState())
    await known.add(CAR, {"can0": (1, 2)})

    assert await known.of({}, ("can0",)) == {"can0": (1, 2)}


async def test_somebody_new_is_another_car() -> None:
    known = Known(MemoryState())
    await known.add({}, {"can0": (1, 2)})
    await known.add({}, {"can0": (1,)})
    assert await known.of({}, ("can0",)) == {"can0": (1, 2)}

    await known.add({}, {"can0": (1, 7)})
    assert await known.of({}, ("can0",)) == {"can0": (1, 7)}


async def test_the_car_that_was_away_longest_is_forgotten() -> None:
    known = Known(MemoryState())
    for number in range(1001):
        await known.add({"vehicle_ref": str(number)}, {"c": (1,)})

    assert await known.of({"vehicle_ref": "0"}, ("c",)) == {"c": ()}
    assert await known.of({"vehicle_ref": "1"}, ("c",)) == {"c": (1,)}
