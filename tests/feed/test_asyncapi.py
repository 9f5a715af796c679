"""The description of what is published is whole, is checked in, and agrees with what is published."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from domain.catalog import COMMANDS, EVENTS, UPCASTS
from domain.feed import HIDDEN
from gateway.asyncapi import document
from gateway.message_schemas import _portable, event_schema, event_versions
from tests.gateway.world import running_world

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "domain").glob("golden*/*.json"))
SHIPPED = [path for path in GOLDEN if path.name.partition(".")[0] in EVENTS]


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document()


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    if isinstance(part, list):
        for value in part:
            yield from references(value)


def at(described: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/"), reference
    found: Any = described
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_the_copy_in_the_documentation_is_up_to_date(described: dict[str, Any]) -> None:
    kept = json.loads((ROOT / "docs" / "reference" / "asyncapi.json").read_text())

    assert kept == described, "run `finetrail feed schema --output docs/reference/asyncapi.json`"


def test_it_has_the_form_of_asyncapi_3(described: dict[str, Any]) -> None:
    assert described["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(described["info"])
    key = re.compile(r"[\w.\-]+")
    for kind in described["components"].values():
        assert all(key.fullmatch(name) for name in kind)
    assert all(set(server) >= {"host", "protocol"} for server in described["servers"].values())
    for channel in described["channels"].values():
        placeholders = set(re.findall(r"{(\w+)}", channel["address"]))
        assert placeholders == set(channel["parameters"])
        assert channel["messages"]
    for operation in described["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert operation["channel"]["$ref"].startswith("#/channels/")
        own = f"{operation['channel']['$ref']}/messages/"
        assert all(one["$ref"].startswith(own) for one in operation["messages"])


def test_every_reference_leads_somewhere_and_nothing_is_there_twice(
    described: dict[str, Any],
) -> None:
    for reference in references(described):
        assert at(described, reference), reference
    addresses = [channel["address"] for channel in described["channels"].values()]
    assert len(addresses) == len(set(addresses))
    used = set(references(described))
    for kind in ("messages", "parameters", "schemas", "securitySchemes"):
        for name in described["components"][kind]:
            assert f"#/components/{kind}/{name}" in used, f"{name} is used by nothing"


def test_every_schema_is_one_in_both_dialects(described: dict[str, Any]) -> None:
    for schema in described["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
        Draft202012Validator.check_schema(schema)


def test_every_event_in_every_version_has_a_message_and_every_command_too(
    described: dict[str, Any],
) -> None:
    fed, commands = set(), set()
    for operation in described["operations"].values():
        names = {at(described, one["$ref"])["$ref"].split("/")[-1] for one in operation["messages"]}
        if operation["channel"]["$ref"].startswith("#/channels/feed."):
            fed |= names
        elif operation["action"] == "receive":
            commands |= names

    assert fed == set(EVENTS) | {f"{type_}.v{version}" for type_, version in UPCASTS}
    assert commands == set(COMMANDS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_a_payload_as_it_was_shipped_holds_to_the_schema_of_its_version(path: Path) -> None:
    name, version = path.name.removesuffix(".json").split(".v")
    (schema,) = [
        event_schema(each)
        for each in event_versions()
        if (each.event_type, each.version) == (name, int(version))
    ]
    payload = json.loads(path.read_bytes())

    Draft202012Validator(schema).validate(payload)
    assert not HIDDEN & set(schema.get("properties", ()))
    if schema.get("required"):
        assert not Draft202012Validator(schema).is_valid({})


async def test_document_and_schemas_are_served_to_everybody(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world, world.client(None) as client:
        whole = await client.get("/asyncapi")
        listed = (await client.get("/schema/events")).json()["items"]
        one = await client.get("/schema/events/JobSucceeded/1.json")
        missing = [
            await client.get(f"/schema/events/{path}")
            for path in ("JobSucceeded/99.json", "JobSucceeded/1", "Nothing/1.json")
        ]

    assert whole.headers["content-type"].startswith("application/vnd.aai.asyncapi+json")
    assert whole.json() == document()
    assert {each["schema"] for each in listed} >= {"/schema/events/JobSucceeded/1.json"}
    assert len(listed) == len(list(event_versions()))
    assert one.headers["content-type"].startswith("application/schema+json")
    assert one.json()["$id"] == "urn:finetrail:event:JobSucceeded:1"
    assert [answer.status_code for answer in missing] == [404, 404, 404]


def test_a_tuple_of_unlike_items_is_refused_rather_than_described_for_one_dialect() -> None:
    pair = {"prefixItems": [{"type": "number"}, {"type": "number"}], "minItems": 2}

    assert _portable({"a": [pair]}) == {"a": [{"items": {"type": "number"}, "minItems": 2}]}
    with pytest.raises(ValueError, match="unlike"):
        _portable({"prefixItems": [{"type": "number"}, {"type": "string"}]})
