"""Settings: where a value comes from, and one line for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from nexus_agent.settings import Section, SettingsError, load


class Engine(Section):
    cylinders: int
    fuel: str = "petrol"


class Car(Section):
    engine: Engine
    seats: Annotated[int, Field(ge=1)] = 5
    extras: dict[str, dict[str, Any]] = Field(default_factory=dict)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "car.toml"


def outcome(file: Path, environ: dict[str, str] | None = None) -> str:
    """What becomes of the settings: taken, or the one line that refuses them."""
    try:
        load(Car, file, environ or {})
    except SettingsError as error:
        return str(error)
    return "taken"


def refusal(file: Path, environ: dict[str, str] | None = None) -> str:
    """What is said about *file*, without the file's name where it begins with that."""
    message = outcome(file, environ)
    assert message != "taken"
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{file}: ")


def test_the_file_wins_over_the_default_and_a_variable_over_the_file(file: Path) -> None:
    file.write_text("seats = 2\nengine.cylinders = 4\nengine.fuel = 'diesel'", "utf-8")
    car = load(Car, file, {"NEXUS_ENGINE__CYLINDERS": "6"})
    assert car == Car(engine=Engine(cylinders=6, fuel="diesel"), seats=2)


def test_a_variable_may_hold_a_list(file: Path) -> None:
    file.write_text("engine.cylinders = 4\n")
    environ = {"NEXUS_ENGINE__FUEL": "[::1]:80", "NEXUS_EXTRAS__A__B": "[1, 2]"}
    car = load(Car, file, environ)
    assert (car.engine.fuel, car.extras) == ("[::1]:80", {"a": {"b": [1, 2]}})


def test_a_variable_makes_the_section_that_the_file_has_not(file: Path) -> None:
    file.write_text("", "utf-8")
    environ = {"NEXUS_ENGINE__CYLINDERS": "3", "NEXUS_EXTRAS__ROOF__OPEN": "yes"}
    car = load(Car, file, environ)
    assert (car.engine.cylinders, car.extras) == (3, {"roof": {"open": "yes"}})


@pytest.mark.parametrize("variable", ["NEXUS_SOCKET", "NEXUS", "ENGINE__FUEL", "nexus_engine__x"])
def test_other_variables_are_left_aside(file: Path, variable: str) -> None:
    file.write_text("engine.cylinders = 4", "utf-8")
    assert load(Car, file, {variable: "x"}).engine == Engine(cylinders=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine.cylindres = 4", "engine.cylinders: is missing"),
        (
            "engine = {cylinders = 4, fule = 'x'}",
            "engine.fule: unknown key; did you mean 'fuel'?",
        ),
        (
            "engine = {cylinders = 4, xyz = 1}",
            "engine.xyz: unknown key; known here: cylinders, fuel",
        ),
        (
            "[engine]\ncylinders = 4\n[engin]\nx = 1",
            "engin: unknown key; did you mean 'engine'?",
        ),
        (
            "[engine]\ncylinders = 4\n[boot]",
            "boot: unknown key; known here: engine, extras, seats",
        ),
        ("", "engine: is missing"),
        ("engine = 3", "engine: input should be a valid dictionary or instance of Engine, not 3"),
        ("engine.cylinders = 1.5", "not 1.5"),
        ("engine.cylinders = 'four'", "not 'four'"),
        ("engine.cylinders = 4\nseats = 0", "seats: input should be greater than or equal to 1"),
        ('engine.cylinders = 4\n"two\\nlines" = 1', "unknown key"),
        ("engine.cylinders = ", "is not TOML: Invalid value (at end of document)"),
        ("seats = 1\nseats = 2", "is not TOML: Cannot overwrite a value"),
        ("seats = 2023-02-30", "is not TOML: "),
        ("seats = " + "9" * 5000, "is not TOML: "),
        ("seats = " + "[" * 5000 + "]" * 5000, "is not TOML: "),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line(file: Path, text: str, message: str) -> None:
    file.write_text(text, "utf-8")
    assert message in refusal(file)


def test_a_long_wrong_value_is_not_repeated_whole(file: Path) -> None:
    file.write_text(f"engine = '{'x' * 10_000}'", "utf-8")
    assert len(refusal(file)) < 300


def test_a_file_that_is_not_utf8_is_said_to_be_so(file: Path) -> None:
    file.write_bytes(b"engine.fuel = 'Super\xdf'")
    assert refusal(file) == "is not UTF-8 text"


@pytest.mark.parametrize(
    ("name", "why"), [("none.toml", "No such file or directory"), ("", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    assert refusal(tmp_path / name) == f"cannot be read: {why}"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("NEXUS_ENGINE__CYLINDERS", "four", "engine.cylinders: input should be a valid integer"),
        ("NEXUS_ENGINE__FULE", "x", "engine.fule: unknown key; did you mean 'fuel'?"),
        ("NEXUS_ENGIN__FUEL", "x", "engin: unknown key; did you mean 'engine'?"),
        ("NEXUS_SEATS__FRONT", "2", "'seats' is not a section of the file"),
        ("NEXUS_EXTRAS__ROOF", "x", "extras.roof: input should be a valid dictionary, not 'x'"),
        ("NEXUS___", "x", "unknown key"),
    ],
)
def test_a_wrong_variable_is_named_in_place_of_the_file(
    file: Path, variable: str, value: str, message: str
) -> None:
    file.write_text("seats = 2\nengine.cylinders = 4", "utf-8")
    said = refusal(file, {variable: value})
    assert said.startswith(f"{variable}: ")
    assert message in said


def test_what_the_file_has_wrong_is_not_blamed_on_a_variable_beside_it(file: Path) -> None:
    file.write_text("engine.cylinders = 'four'", "utf-8")
    assert refusal(file, {"NEXUS_ENGINE__FUEL": "diesel"}).startswith("engine.cylinders: ")


VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.datetimes(),
        st.dates(),
        st.times(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["engine", "seats", "extras"]) | st.text(), VALUES, max_size=4
)


def to_toml(value: Any) -> str:
    """*value* as TOML 1.0 on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(k)} = {to_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08X}" for character in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


@given(document=DOCUMENTS)
def test_any_document_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    lines = [f"{to_toml(key)} = {to_toml(value)}\n" for key, value in document.items()]
    file.write_text("".join(lines), "utf-8")
    said = outcome(file)
    assert len(said.splitlines()) == 1
    assert "is not TOML" not in said


@given(content=st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.toml"
    file.write_bytes(content)
    assert len(refusal(file)) > 0


@given(name=st.text(alphabet="ABCDEGINSTX_", max_size=20), value=st.text(max_size=5))
def test_any_variable_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "good.toml"
    file.write_text("engine.cylinders = 4", "utf-8")
    assert len(outcome(file, {f"NEXUS_{name}": value}).splitlines()) == 1
