"""Questions about the past over HTTP: which point is meant, and what the answer says of it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.gateway.world import NOW, World

HEADER = "as-of-sequence"


async def get(world: World, path: str, **params: Any) -> httpx.Response:
    async with world.client("admin") as client:
        return await client.get(f"/api/v1{path}", params=params)


async def put_into_service(world: World, number: int) -> None:
    async with world.client("admin") as client:
        answer = await client.post("/api/v1/models/support/activate", json={"version": number})
        assert answer.status_code == 200


@pytest.fixture
async def things(world: World) -> list[str]:
    """Of each kind one that is there now, and was not in the beginning."""
    job = await world.trained()
    await put_into_service(world, 1)
    evaluation = (await get(world, "/evaluations")).json()["items"][0]["id"]
    return [
        f"/datasets/{job['dataset_id']}",
        f"/jobs/{job['id']}",
        "/models/support",
        "/models/support/versions/1",
        f"/evaluations/{evaluation}",
    ]


async def test_a_thing_is_shown_as_it_was_in_every_point(world: World, things: list[str]) -> None:
    for path in things:
        before: dict[str, Any] | None = None
        for sequence in range(world.events + 1):
            answer = await get(world, path, as_of=sequence)
            if answer.status_code == 404:
                assert before is None, "what is there stays there"
                assert f"at sequence {sequence}" in answer.json()["detail"]
                continue
            before = answer.json()
            assert answer.headers[HEADER] == str(sequence)
            assert answer.headers["etag"].startswith(f'"{before["sequence"]}-')
            assert before["sequence"] <= sequence
        now = await get(world, path)
        assert now.json() == before
        assert HEADER not in now.headers


async def test_what_is_known_of_the_past_is_not_sent_again(world: World, things: list[str]) -> None:
    first = await get(world, things[2], as_of=world.events)
    async with world.client() as client:
        again = await client.get(
            f"/api/v1{things[2]}",
            params={"as_of": world.events},
            headers={"If-None-Match": first.headers["etag"]},
        )

    assert (again.status_code, again.headers[HEADER]) == (304, str(world.events))


async def test_a_version_is_in_service_from_its_activation_until_the_next(world: World) -> None:
    await world.trained()
    await put_into_service(world, 1)
    first = world.events
    await world.trained()
    between = world.events
    await put_into_service(world, 2)

    actives = [
        (await get(world, "/models/support", as_of=at)).json()["active"]
        for at in (first - 1, first, between, between + 1)
    ]
    spans = (await get(world, "/models/support/activations")).json()["items"]
    then = (await get(world, "/models/support/activations", as_of=between)).json()["items"]

    assert [one and one["number"] for one in actives] == [None, 1, 1, 2]
    assert [(one["number"], one["until_sequence"]) for one in spans] == [
        (2, None),
        (1, between + 1),
    ]
    assert [(one["number"], one["until_sequence"]) for one in then] == [(1, None)]
    assert spans[0]["activated_by"].startswith("key:")


async def test_a_time_means_the_last_event_recorded_until_then(
    world: World, things: list[str]
) -> None:
    for zone in ("Z", "+00:00", " 00:00"):  # a `+` that nobody escaped is a space
        at = NOW.isoformat().removesuffix("+00:00") + zone
        answer = await get(world, things[0], as_of=at)
        assert (answer.status_code, answer.headers[HEADER]) == (200, str(world.events))
    just_before = (NOW - timedelta(microseconds=1)).isoformat()
    assert (await get(world, things[0], as_of=just_before)).status_code == 404
    elsewhere = "2026-11-20T18:43:05+01:00"
    assert (await get(world, things[0], as_of=elsewhere)).status_code == 200


async def test_a_point_that_is_none_is_refused_with_what_would_be_one(
    world: World, things: list[str]
) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    refused = {
        str(world.events + 1): f"the log ends at sequence {world.events}",
        "9" * 19: f"the log ends at sequence {world.events}",
        tomorrow: "in the future",
        "2026-11-20": "with its zone",
        "2026-11-20T14:00:00": "with its zone",
        "2026-13-20T14:00:00Z": "with its zone",
        "0001-01-01T00:00:00+14:00": "with its zone",
        "yesterday": "with its zone",
        "-1": "with its zone",
        "1.5": "with its zone",
        "٣": "with its zone",
        "": "with its zone",
    }

    for text, reason in refused.items():
        for path in (things[0], "/models"):
            answer = await get(world, path, as_of=text)
            assert answer.status_code == 400, text
            assert answer.json()["errors"][0]["field"] == "as_of"
            assert reason in answer.json()["detail"], text


async def test_a_route_that_shows_the_present_refuses_to_be_asked_about_the_past(
    world: World, things: list[str]
) -> None:
    for path in ("/jobs", "/queue", "/events", f"{things[1]}/metrics", f"{things[0]}/rows"):
        answer = await get(world, path, as_of="1")
        assert answer.status_code == 400, path
        assert "the present only" in answer.json()["detail"]


async def test_lists_show_what_there_was_and_their_pages_keep_the_point(world: World) -> None:
    for model in ("a", "b", "c"):
        await world.trained(model)
    point = world.events
    expected = (await get(world, "/models")).json()["items"]
    await world.trained("d")
    await world.trained("a")

    found, cursor, link = [], None, ""
    while True:
        asked = {"cursor": cursor} if cursor else {"as_of": NOW.isoformat() if link else point}
        answer = await get(world, "/models", limit=1, **asked)
        assert answer.headers[HEADER] == str(point)
        found += answer.json()["items"]
        link, cursor = answer.headers.get("link", ""), answer.json()["next"]
        if cursor is None:
            break
        assert f"as_of={point}" in link
    by_number = [
        (await get(world, "/models", limit=1, page=n, as_of=point)).json()["items"]
        for n in range(1, 5)
    ]

    assert [one["name"] for one in expected] == ["c", "b", "a"]
    assert found == expected
    assert by_number == [[one] for one in expected] + [[]]


async def test_a_cursor_of_the_present_and_one_of_the_past_are_not_mixed(world: World) -> None:
    for model in ("a", "b"):
        await world.trained(model)
    now = (await get(world, "/models", limit=1)).json()["next"]
    then = (await get(world, "/models", limit=1, as_of=world.events)).json()["next"]

    mixed = await get(world, "/models", cursor=now, as_of="1")
    elsewhere = await get(world, "/jobs", cursor=then)
    beside = await get(world, "/models", cursor=then, as_of="1")

    assert mixed.status_code == 400
    assert "begin a new one" in mixed.json()["detail"]
    assert elsewhere.status_code == 400
    assert beside.headers[HEADER] == str(world.events)


async def test_filters_choose_among_what_there_was(world: World) -> None:
    await world.trained("a")
    before = world.events
    await put_into_service_of(world, "a")

    counts = [
        len((await get(world, "/models", status="active", as_of=at)).json()["items"])
        for at in (before, before + 1)
    ]

    assert counts == [0, 1]


async def put_into_service_of(world: World, model: str) -> None:
    async with world.client("admin") as client:
        path = f"/api/v1/models/{quote(model)}/activate"
        assert (await client.post(path, json={"version": 1})).status_code == 200


async def test_agents_of_the_past_say_nothing_of_their_presence(world: World) -> None:
    await world.enrolled()
    (then,) = (await get(world, "/agents", as_of=world.events)).json()["items"]
    (now,) = (await get(world, "/agents")).json()["items"]
    one = f"/agents/{now['id']}"

    assert (await get(world, one)).json() == now
    assert (await get(world, one, as_of=world.events)).json() == then
    assert "at sequence 1" in (await get(world, one, as_of=1)).json()["detail"]
    assert (then["name"], then["connected"], then["slots"]) == ("box", None, None)
    assert now["connected"] is False
    assert (await get(world, "/agents", as_of=1)).json()["items"] == []


async def test_keys_of_the_past_are_those_that_were_in_force(world: World) -> None:
    async with world.client() as client:
        made = (await client.post("/api/v1/keys", json={"name": "x", "role": "viewer"})).json()
        await client.delete(f"/api/v1/keys/{made['key_id']}")

    names = [
        {one["name"] for one in (await get(world, "/keys", as_of=at)).json()["items"]}
        for at in (made["sequence"] - 1, made["sequence"], world.events)
    ]

    assert names == [set(world.roles), {*world.roles, "x"}, set(world.roles)]
    one = f"/keys/{made['key_id']}"
    assert (await get(world, one, as_of=made["sequence"])).json()["name"] == "x"
    assert "There was no such key" in (await get(world, one, as_of=world.events)).text
    assert "There is no such key" in (await get(world, one)).text


async def test_while_the_log_is_away_no_point_of_it_can_be_told(world: World) -> None:
    world.feed.away = True
    away = await get(world, "/models", as_of="1")
    world.feed.away = False
    world.queries.away = True
    behind = await get(world, "/models", as_of="1")

    assert (away.status_code, away.json()["code"]) == (503, "log_unavailable")
    assert (behind.status_code, behind.json()["code"]) == (503, "read_model_unavailable")
