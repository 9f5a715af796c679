"""People are told what has ended and what asks for a decision; what they have read is kept by key."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch
from uuid import UUID

from domain.webhooks.commands import AddWebhook, DisableWebhook
from gateway.following import Streams
from gateway.notifications import encode_news
from gateway.sse import EventStreams, Reading
from tests.gateway.sse_client import Listener
from tests.gateway.world import W, World

URL = "/api/v1/notifications"


async def told(world: World, role: str = "viewer", **params: Any) -> dict[str, Any]:
    async with world.client(role) as client:
        answer = await client.get(URL, params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def test_a_job_that_has_finished_and_a_version_to_activate_are_told(world: World) -> None:
    await world.trained()

    items = (await told(world))["items"]

    assert [item["kind"] for item in items] == ["activate", "job_finished"]
    assert items[0]["activate"] == {"model": "support", "version": 1}
    assert "no version is in service" in items[0]["text"]
    assert items[1]["text"] == "The job for support has finished"
    assert items[0]["sequence"] > items[1]["sequence"]


async def test_what_is_in_service_already_need_not_be_activated(world: World) -> None:
    await world.trained()
    async with world.client("admin") as client:
        await client.post("/api/v1/models/support/activate", json={"version": 1})

    (evaluated, _) = (await told(world))["items"]

    assert (evaluated["kind"], evaluated["activate"]) == ("evaluated", None)


async def test_what_was_read_is_kept_for_each_key(world: World) -> None:
    await world.trained()
    newest = (await told(world))["items"][0]["id"]
    async with world.client("viewer") as client:
        first = (await client.post(f"{URL}/read", json={"ids": [newest]})).json()
        again = (await client.post(f"{URL}/read", json={"ids": [newest]})).json()
        wrong = await client.post(f"{URL}/read", json={"ids": ["../x"]})

    assert (first["read"], again["read"], wrong.status_code) == (1, 0, 400)
    assert [item["read"] for item in (await told(world))["items"]] == [True, False]
    assert len((await told(world, unread=True))["items"]) == 1
    assert [item["read"] for item in (await told(world, "editor"))["items"]] == [False, False]


async def test_they_come_in_pages(world: World) -> None:
    await world.trained()

    first = await told(world, limit=1)
    second = await told(world, limit=1, cursor=first["next"])

    assert first["items"] + second["items"] == (await told(world))["items"]
    assert second["next"] is None


async def test_a_webhook_that_is_gone_is_told(world: World) -> None:
    id_ = UUID(int=5)
    add = AddWebhook(
        webhook_id=id_,
        url="https://a.example/",
        url_id="url_1111111111111111",
        key_id="key_1111111111111111",
    )
    await world.decide(add, id_, "gateway")
    await world.decide(DisableWebhook(webhook_id=id_, by="gone", reason="410"), id_, "delivery")

    (item,) = (await told(world))["items"]

    assert (item["kind"], item["text"]) == ("webhook_disabled", "A webhook was disabled: 410")
    assert item["aggregate_id"] == str(id_)


async def test_without_the_database_it_is_said_that_it_is_away(world: World) -> None:
    world.webhooks.away = True
    async with world.client("viewer") as client:
        answer = await client.get(URL)

    assert (answer.status_code, answer.json()["code"]) == (503, "webhooks_unavailable")


async def test_a_stream_says_when_there_is_another_one(world: World) -> None:
    await world.trained()
    known = [int(item["id"]) for item in (await told(world))["items"]]
    streams = EventStreams(world.gateway.hub, world.feed, heartbeat_s=0.05)

    chunks = streams.open(Reading("EVENTS", f"events.{W}", min(known) - 1, encode_news))
    listener = Listener(chunks)
    said = await listener.until(2)
    await chunks.aclose()  # type: ignore[attr-defined]

    assert [(one.event, one.id) for one in said] == [("notification", n) for n in sorted(known)]
    assert [one.data["type"] for one in said] == ["JobSucceeded", "EvaluationCompleted"]
    assert {one.data["id"] for one in said} == {str(n) for n in known}


async def test_a_stream_begins_with_what_comes_next(world: World) -> None:
    await world.trained()
    opened: list[Reading] = []
    open_ = Streams.open

    def noted(self: Streams, request: Any, reading: Reading) -> Any:
        opened.append(reading)
        return open_(self, request, replace(reading, ending=ended))

    async def ended() -> bytes:
        return b": end"

    with patch.object(Streams, "open", noted):
        async with world.client("viewer") as client:
            for headers in ({}, {"Last-Event-ID": "3"}):
                wanted = {"accept": "text/event-stream", **headers}
                answer = await client.get(URL, headers=wanted)
                assert answer.headers["content-type"].startswith("text/event-stream")

    assert [reading.after for reading in opened] == [world.events, 3]
