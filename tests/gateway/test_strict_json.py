"""A body is taken as its description says, not as texts might be read."""

from typing import Any

import pytest

from tests.gateway.world import World

JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"minutes": "60"}, "minutes"),
        ({"minutes": True}, "minutes"),
        ({"minutes": 60.5}, "minutes"),
        ({"minutes": "null"}, "minutes"),
    ],
)
async def test_a_text_is_no_number(world: World, body: dict[str, Any], field: str) -> None:
    dataset = await world.uploaded()
    async with world.client("viewer") as client:
        answer = await client.post(f"/api/v1/datasets/{dataset['id']}/links", json=body)

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("minutes", [60, 60.0, None])
async def test_a_whole_number_is_one_however_it_is_written(world: World, minutes: Any) -> None:
    dataset = await world.uploaded()
    async with world.client("viewer") as client:
        url = f"/api/v1/datasets/{dataset['id']}/links"
        answer = await client.post(url, json={"minutes": minutes})

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"hyperparameters": {"epochs": "3"}}, "hyperparameters: epochs: "),
        ({"hyperparameters": {"lora": {"rank": "8"}}}, "hyperparameters: lora.rank: "),
        ({"hyperparameters": {"learning_rate": True}}, "hyperparameters: learning_rate: "),
        ({"split": {"seed": "1"}}, "split: seed: "),
        ({"seed": "1"}, "seed: "),
    ],
)
async def test_parts_of_a_body_that_the_domain_knows_are_no_looser(
    world: World, part: dict[str, Any], said: str
) -> None:
    dataset = await world.uploaded()
    async with world.client("editor") as client:
        body = {"model": "support", "dataset_id": dataset["id"]}
        refused = await client.post("/api/v1/jobs", json=body | part)
        lists = {"hyperparameters": {"epochs": 2.0, "lora": {"target_modules": ["query"]}}}
        taken = await client.post("/api/v1/jobs", json=body | lists)

    assert refused.status_code == 400
    assert refused.json()["detail"].startswith(said)
    assert taken.status_code == 202, taken.text


@pytest.mark.parametrize("stream", [0, 1, "true", "0"])
async def test_only_true_and_false_are_truths(world: World, stream: Any) -> None:
    await world.talking("assistant")
    async with world.client("viewer") as client:
        body = {"model": "assistant", "prompt": "Once", "stream": stream}
        answer = await client.post("/v1/completions", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "stream"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"minutes": 5, "minutes": 5}', "minutes"),
        (b'{"minutes": 5, "m\\u0069nutes": 6}', "minutes"),
        (b'{"minutes": {"a": 1, "a": 2}}', "a"),
    ],
)
async def test_a_name_that_stands_twice_is_refused(world: World, body: bytes, name: str) -> None:
    dataset = await world.uploaded()
    async with world.client("viewer") as client:
        url, headers = f"/api/v1/datasets/{dataset['id']}/links", {"Content-Type": JSON}
        answer = await client.post(url, content=body, headers=headers)

    assert answer.status_code == 400
    assert answer.json()["detail"] == f"{name}: it stands there twice"


@pytest.mark.parametrize("depth", [100, 900, 990, 1100, 100_000])
async def test_no_depth_breaks_anything(world: World, depth: int) -> None:
    await world.talking("assistant")
    nested = b"[" * depth + b"]" * depth
    async with world.client("viewer") as client:
        body = b'{"model": "assistant", "prompt": "a", "stream": 0, "user": ' + nested + b"}"
        answer = await client.post("/v1/completions", content=body, headers={"Content-Type": JSON})

    assert answer.status_code == 400, answer.text
