"""The VIN: nothing cut off, nothing made up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_agent.plugin import Quality
from nexus_plugins.obd.answer import Reply, parse
from nexus_plugins.obd.vin import REQUEST, Vin, check_digit, decode, describe

CHARACTERS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
VINS = st.text(alphabet=CHARACTERS, min_size=17, max_size=17)


def can(data: bytes) -> Reply:
    return Reply("7E8", Quality.OK, (b"\x49\x02" + data,))


@given(VINS)
def test_any_vin_on_can(number: str) -> None:
    assert decode(can(b"\x01" + number.encode())) == Vin(Quality.OK, number)


@given(VINS)
def test_any_vin_in_five_parts_of_an_older_bus(number: str) -> None:
    data = b"\0\0\0" + number.encode()
    parts = [b"\x49\x02" + bytes([i + 1]) + data[4 * i : 4 * i + 4] for i in range(5)]

    assert decode(Reply("10", Quality.OK, tuple(parts))) == Vin(Quality.OK, number)
    assert decode(Reply("10", Quality.OK, tuple(parts[1:]))).quality is Quality.MALFORMED


@pytest.mark.parametrize("edge", ["0", "1", "2"])
def test_vins_that_begin_and_end_in_0_1_or_2_stay_whole(edge: str) -> None:
    number = f"{edge}D4GP00R55B12345{edge}"
    data = b"\x49\x02\x01" + number.encode()
    text = (
        f"7E8 10 14 {data[:6].hex(' ')}\r7E8 21 {data[6:13].hex(' ')}\r7E8 22 {data[13:].hex(' ')}"
    )

    (reply,) = parse(REQUEST, text).replies

    assert decode(reply).number == number


def test_leading_nul_padding_is_no_part_of_the_vin() -> None:
    assert decode(can(b"\x01\0\0\0" + b"1D4GP00R55B123450")).number == "1D4GP00R55B123450"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x01" + bytes(17),
        b"\x01" + b"1D4GP00R55B12345",
        b"\x01" + b"1D4GP00R55B1234567",
        b"\x01" + b"1D4GP00R55B12345\0",
        b"\x01" + b"1D4GP00R55B12345I",
        b"\x01" + b"1d4gp00r55b123456",
        b"\x02" + b"1D4GP00R55B123456",
    ],
)
def test_anything_else_is_malformed(data: bytes) -> None:
    found = decode(can(data))

    assert (found.quality, found.number) == (Quality.MALFORMED, None)


def test_the_number_stays_out_of_repr() -> None:
    assert "1D4GP" not in repr(decode(can(b"\x01" + b"1D4GP00R55B123456")))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("1M8GDM9AXKP042788", ("ok", None, None, "North America")),
        ("5YJSA1H12FFP71790", ("ok", "Tesla", 2015, "North America")),
        ("1HGCM82633A004352", ("ok", "Honda", 2003, "North America")),
        ("1HGCM82643A004352", ("wrong", "Honda", 2003, "North America")),
        ("WVWZZZ1JZ3W386752", ("not used", "Volkswagen", None, "Europe")),
        ("LSVAM4186C2184841", ("ok", None, None, "Asia")),
        ("LSVAM4187C2184841", ("wrong", None, None, "Asia")),
        ("JTDKB20U093000001", ("not used", "Toyota", None, "Asia")),
        ("7A8AA1A11A1000001", ("not used", None, None, "Oceania")),
        ("0ZZZZZZZZZZZZZZZZ", ("not used", None, None, None)),
    ],
)
def test_a_vin_says_no_more_than_its_region_prescribes(
    number: str, said: tuple[str, str | None, int | None, str | None]
) -> None:
    found = describe(number)

    assert (found["vin_check"], found["maker"], found["model_year"], found["region"]) == said


@given(VINS, st.integers(0, 16), st.sampled_from("0123456789"))
def test_one_wrong_digit_is_noticed_in_any_place_but_the_check_digits(
    number: str, place: int, other: str
) -> None:
    number = "1" + number[1:]
    number = number[:8] + check_digit(number) + number[9:]
    assert describe(number)["vin_check"] == "ok"
    if place in {0, 8} or not number[place].isdigit() or number[place] == other:
        return

    changed = number[:place] + other + number[place + 1 :]
    assert describe(changed)["vin_check"] == "wrong"


@given(VINS)
def test_any_vin_is_described(number: str) -> None:
    year = describe(number)["model_year"]

    assert year is None or (number[0] in "123457" and 1994 <= year <= 2039)


@given(st.lists(st.binary(max_size=24), min_size=1, max_size=6))
def test_any_bytes_are_a_vin_or_malformed(messages: list[bytes]) -> None:
    found = decode(Reply("10", Quality.OK, tuple(b"\x49\x02" + each for each in messages)))

    assert (found.number is not None) == (found.quality is Quality.OK)
