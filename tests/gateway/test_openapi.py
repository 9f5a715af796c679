"""The API's description of itself is whole, and its examples are true."""

import importlib
from typing import Any, get_type_hints

import msgspec
import pytest
from litestar import Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from pydantic import BaseModel

from gateway.access_matrix import ACCESS
from gateway.api_examples import REQUESTS, RESPONSES
from gateway.openapi_conditions import GUARDED, RANGED, TAGGED
from tests.gateway.world import World


async def described(world: World) -> dict[str, Any]:
    async with world.client(None) as client:
        answer = await client.get("/schema/openapi.json")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


async def test_every_route_is_described_with_its_problems(world: World) -> None:
    schema = await described(world)

    operations = {
        (method.upper(), path): operation
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert schema["openapi"].startswith("3.1")
    assert set(operations) == set(ACCESS) - {("GET", "/schema/openapi.json")}
    for (method, path), operation in operations.items():
        assert operation["description"], (method, path)
        for code, answer in operation["responses"].items():
            if code.startswith(("4", "5")):
                form = "json" if path.startswith("/v1/") else "problem+json"
                assert list(answer["content"]) == [f"application/{form}"], (method, path)
        public = ACCESS[method, path] == "public"
        assert ("401" in operation["responses"]) != public


async def test_answers_that_may_be_streams_are_described_as_both(world: World) -> None:
    schema = await described(world)

    content = schema["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]

    assert set(content) == {"application/json", "text/event-stream"}
    assert content["application/json"]["schema"]["$ref"].endswith("/ChatCompletion")
    event = content["text/event-stream"]["schema"]
    assert (event["required"], set(event["properties"])) == (["data"], {"id", "event", "data"})


async def test_routes_that_store_files_say_that_the_disk_may_be_full(world: World) -> None:
    paths = (await described(world))["paths"]

    assert "507" in paths["/api/v1/datasets"]["post"]["responses"]
    assert "507" in paths["/api/v1/blobs/{ticket}"]["put"]["responses"]


async def test_no_page_is_served_that_would_load_scripts(world: World) -> None:
    async with world.client("admin") as client:
        answers = [
            await client.get(path)
            for path in ("/schema", "/schema/swagger", "/schema/redoc", "/docs", "/")
        ]

    assert {answer.status_code for answer in answers} == {404}


def handlers(world: World) -> dict[tuple[str, str], HTTPRouteHandler]:
    return {
        (route.path_format, method.lower()): handler
        for route in world.gateway.litestar.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
    }


def decode(type_: Any, example: object) -> object:
    return msgspec.convert(example, type_, dec_hook=_models, strict=False)


def _models(type_: Any, value: object) -> object:
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        return type_.model_validate(value)
    raise NotImplementedError


@pytest.mark.parametrize("operation", sorted(REQUESTS), ids=str)
async def test_the_example_of_a_request_is_one(world: World, operation: tuple[str, str]) -> None:
    function = handlers(world)[operation].fn
    type_ = get_type_hints(function, vars(importlib.import_module(function.__module__)))["data"]

    assert decode(type_, REQUESTS[operation])


@pytest.mark.parametrize("operation", sorted(RESPONSES), ids=str)
async def test_the_example_of_an_answer_is_one(world: World, operation: tuple[str, str]) -> None:
    function = handlers(world)[operation].fn
    hints = get_type_hints(function, vars(importlib.import_module(function.__module__)))["return"]
    first = hints.__args__[0] if "Stream" in str(hints) and hasattr(hints, "__args__") else hints
    type_ = first.__args__[0] if getattr(first, "__origin__", None) is Response else first
    example = RESPONSES[operation]

    found = decode(type_, example)

    written = msgspec.json.decode(msgspec.json.encode(found))
    assert set(written) == set(example)


async def test_every_request_that_makes_something_can_be_repeated(world: World) -> None:
    schema = await described(world)
    answers = {"/api/v1/models/{name}/predict", "/v1/chat/completions", "/v1/completions"}
    by_token = {"/api/v1/agents/join"}  # its token is used once, whatever the request is called

    for path, operations in schema["paths"].items():
        if "post" in operations and path not in answers | by_token:
            names = {each["name"] for each in operations["post"].get("parameters", ())}
            assert "Idempotency-Key" in names, path


async def test_conditions_are_described_where_they_hold_and_nowhere_else(world: World) -> None:
    schema = await described(world)
    found = {
        (path, method): {code for code in operation["responses"] if code in {"206", "304", "412"}}
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    }

    assert {key for key, codes in found.items() if "206" in codes} == {
        (path, "get") for path in RANGED
    }
    assert {key for key, codes in found.items() if codes == {"412"}} == GUARDED
    guarded = {
        (path, method)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        if "If-Match" in {each["name"] for each in operation.get("parameters", ())}
    }
    assert guarded == GUARDED | {(path, method) for path in RANGED for method in ("get", "head")}
    assert {key for key, codes in found.items() if codes == {"304"}} == {
        (path, "get") for path in TAGGED
    }
