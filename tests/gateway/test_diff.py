"""What became different between two points of the log, over HTTP."""

from typing import Any

import httpx

from tests.gateway.world import NOW, World

Items = list[dict[str, Any]]


async def ask(world: World, role: str = "viewer", **params: Any) -> httpx.Response:
    async with world.client(role) as client:
        return await client.get("/api/v1/events/diff", params=params)


async def differences(world: World, **params: Any) -> Items:
    answer = await ask(world, **params)
    assert answer.status_code == 200, answer.text
    items: Items = answer.json()["items"]
    return items


def fields(item: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {one["field"]: (one["before"], one["after"]) for one in item["fields"]}


async def test_a_change_names_its_fields_before_and_after(world: World) -> None:
    await world.trained()
    before = world.events
    async with world.client("admin") as client:
        await client.post("/api/v1/models/support/activate", json={"version": 1})

    (model,) = await differences(world, **{"from": before})

    key = f"key:{world.keys['admin'].key_id}"
    assert (model["aggregate"], model["name"], model["change"]) == ("model", "support", "changed")
    assert model["before_sequence"] < model["sequence"] == before + 1
    changed = fields(model)
    assert changed["active_number"] == (None, 1)
    assert changed["activated_by"] == (None, key)
    assert set(changed) == {"active_number", "active_version_id", "activated_at", "activated_by"}


async def test_things_are_created_changed_and_deleted(world: World) -> None:
    kept, gone = await world.uploaded(name="kept.csv"), await world.uploaded(name="gone.csv")
    between = world.events
    async with world.client("admin") as client:
        await client.delete(f"/api/v1/datasets/{gone['id']}")
    await world.trained()

    first = await differences(world, **{"from": 0, "to": between, "aggregate": "dataset"})
    then = await differences(world, **{"from": between, "aggregate": "dataset"})

    assert [(one["id"], one["change"]) for one in first] == [
        (kept["id"], "created"),
        (gone["id"], "created"),
    ]
    assert fields(first[0])["status"] == (None, "valid")
    assert [(one["change"], one["name"]) for one in then] == [
        ("deleted", "gone"),
        ("created", "messages"),
    ]
    assert fields(then[0]) == {"status": ("valid", "deleted")}


async def test_pages_keep_both_points(world: World) -> None:
    await world.trained()
    whole = await differences(world, **{"from": 0, "limit": 100})
    first = (await ask(world, **{"from": 0, "limit": 2})).json()
    await world.trained("another")

    found, cursor = first["items"], first["next"]
    while cursor is not None:
        answer = await ask(world, cursor=cursor, limit=2)
        page = answer.json()
        assert (page["from_sequence"], page["to_sequence"]) == (0, first["to_sequence"])
        assert (page["next"] is None) == ("link" not in answer.headers)
        found, cursor = found + page["items"], page["next"]

    assert found == whole
    names = [one["aggregate"] for one in whole]
    others = ["access"] * 3 + ["person"] * 3  # each key has a holder
    assert names == ["dataset", "job", "model", "model_version", "evaluation", *others]


async def test_points_may_be_times(world: World) -> None:
    await world.uploaded()

    answer = await ask(world, **{"from": "2026-11-20T00:00:00Z", "to": NOW.isoformat()})

    assert answer.json()["from_sequence"] == 0
    assert answer.json()["to_sequence"] == world.events


async def test_what_cannot_be_compared_is_refused_with_what_can(world: World) -> None:
    await world.uploaded()
    refused: list[tuple[dict[str, Any], str, str]] = [
        ({}, "from", "it is required"),
        ({"to": 1}, "from", "it is required"),
        ({"from": 3, "to": 2}, "from", "behind `to`"),
        ({"from": "soon"}, "from", "with its zone"),
        ({"from": 1, "to": world.events + 1}, "to", "the log ends"),
        ({"from": world.events + 1}, "from", "the log ends"),
        ({"from": 1, "aggregate": "queue"}, "aggregate", "model_version"),
        ({"cursor": "1.2.3-x"}, "cursor", "no cursor"),
        ({"cursor": "9.2.3-4"}, "cursor", "no cursor"),
        ({"cursor": "1.2.3-9999999999999999999"}, "cursor", "no cursor"),
        ({"cursor": f"1.2.3-{world.events + 1}"}, "cursor", "the log ends"),
        ({"from": 1, "as_of": 2}, "as_of", "the present only"),
    ]

    for params, field, reason in refused:
        answer = await ask(world, **params)
        assert answer.status_code == 400, params
        assert answer.json()["errors"][0]["field"] == field, params
        assert reason in answer.json()["detail"], params


async def test_without_a_change_there_is_nothing_to_tell(world: World) -> None:
    assert await differences(world, **{"from": world.events}) == []
