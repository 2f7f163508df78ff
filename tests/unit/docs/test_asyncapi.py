"""asyncapi.yaml says of the protocol what nexus_agent.protocol does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

import nexus_docs
from nexus_agent import protocol
from nexus_agent.protocol import (
    Ack,
    Command,
    CommandResult,
    CommandState,
    Presence,
    Segment,
    Signed,
    Stamp,
    Stream,
    Topic,
)

FILE = Path(nexus_docs.__file__).parents[1] / "reference" / "asyncapi.yaml"
SPEC: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
TIME = 1_795_420_800_000_000_000

DOCUMENTS: list[BaseModel] = [
    Presence(online=False, session="s"),
    Presence(
        online=True,
        session="s",
        time=protocol.format_time(TIME),
        interval=1800,
        epoch=2,
        next={Stream.EVENT: 7},
        closed={1: {Stream.EVENT: 41}},
        plugins={"obd": "running"},
    ),
    Ack(epoch=1, stream=Stream.EVENT, seq=42),
    Signed(document="{}"),
    Command(
        id="c-1",
        device="bay-1",
        counter=1,
        not_before=protocol.format_time(TIME),
        expires=protocol.format_time(TIME),
        name="obd.scan",
    ),
    CommandResult(id="c-1", name="obd.scan", state=CommandState.SUCCEEDED, result={"dtcs": []}),
]


def resolve(reference: str) -> Any:
    """What a `#/a/b` reference of the file stands for."""
    found: Any = SPEC
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def check(document: Any, schema: str) -> None:
    """Raise jsonschema.ValidationError unless *document* fits the schema of that name."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": SPEC["components"]}
    jsonschema.Draft202012Validator(whole).validate(document)


@pytest.fixture
def segment() -> Segment:
    stamp = Stamp(wall=TIME, mono=86_400_000_000_000, boot="b", synced=True)
    tails = protocol.encode_events(
        device="bay-1",
        source="obd",
        stamp=stamp,
        events=[("adapter.state", {"state": "connected"}), ("test.nothing", None)],
    )
    return protocol.seal(stream=Stream.EVENT, epoch=1, first=41, tails=tails, times=(TIME, TIME))


def test_it_is_asyncapi_3_and_every_reference_leads_somewhere() -> None:
    assert SPEC["asyncapi"].startswith("3.")
    found = list(references(SPEC))
    assert len(found) > 10
    for reference in found:
        assert resolve(reference), reference


def test_the_channels_are_the_topics_of_the_code() -> None:
    topic = Topic("bay-1")
    told = {
        name: channel["address"].format(device="bay-1", stream="alert")
        for name, channel in SPEC["channels"].items()
    }
    assert told == {
        "presence": topic.presence,
        "data": topic.data(Stream.ALERT),
        "ack": topic.ack,
        "command": topic.command,
        "desired": topic.desired,
    }


def test_every_channel_is_used_or_says_that_it_is_not() -> None:
    used = {operation["channel"]["$ref"] for operation in SPEC["operations"].values()}
    unused = {name for name in SPEC["channels"] if f"#/channels/{name}" not in used}
    assert unused == {"desired"}
    assert "Not used yet" in SPEC["channels"]["desired"]["description"]


def test_what_the_box_sends_is_up_and_what_it_receives_is_down() -> None:
    for operation in SPEC["operations"].values():
        way = "/up/" if operation["action"] == "send" else "/down/"
        assert way in resolve(operation["channel"]["$ref"])["address"]


def test_the_streams_are_those_of_the_code() -> None:
    assert SPEC["components"]["parameters"]["stream"]["enum"] == list(Stream)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: type(d).__name__)
def test_documents_that_the_code_writes_fit_their_schemas(document: BaseModel) -> None:
    text = document.model_dump_json(exclude_none=True)
    check(json.loads(text), type(document).__name__)


def test_what_the_code_refuses_the_schema_refuses() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({"v": 1, "epoch": 0, "stream": "event", "seq": 1}, "Ack")


def test_the_events_of_a_segment_fit_their_schema(segment: Segment) -> None:
    events = protocol.open_segment(segment)
    assert len(events) == 2
    for event in events:
        check(json.loads(event.raw), "Event")


def test_the_user_properties_of_a_message_fit_their_schema(segment: Segment) -> None:
    headers = SPEC["components"]["messages"]["segments"]["headers"]
    properties, _ = protocol.pack([segment, segment])
    assert {key for key, _ in properties} == set(headers["required"])
    for key, value in properties:
        jsonschema.Draft202012Validator(headers["properties"][key]).validate(value)
    reserved = set(headers["properties"]) - set(headers["required"])
    assert reserved == {protocol.PROPERTY_MAC}


def test_the_content_type_is_the_codes() -> None:
    assert SPEC["components"]["messages"]["segments"]["contentType"] == protocol.CONTENT_TYPE
