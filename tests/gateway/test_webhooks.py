"""Webhooks over HTTP: secrets are shown once, addresses without what may be a secret, tests are sent."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks.webhooks import Webhook

from domain.webhooks.deliveries import Answer, Attempt, Cursor, Delivery
from tests.gateway.world import World

URL = "https://hooks.example.org/a"
SECRET_URL = "https://me:pass@hooks.example.org/a?token=zzz-9"


async def added(world: World, **body: Any) -> dict[str, Any]:
    async with world.client("admin") as client:
        answer = await client.post("/api/v1/webhooks", json={"url": URL} | body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def shown(world: World, webhook_id: str, role: str = "viewer") -> dict[str, Any]:
    async with world.client(role) as client:
        answer = await client.get(f"/api/v1/webhooks/{webhook_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def whole_log(world: World) -> str:
    return "".join(record[2].decode() for record in world.store._log)


async def test_a_secret_is_shown_once_and_stands_in_no_event(world: World) -> None:
    made = await added(world, description="chat")

    found = await shown(world, made["id"])

    assert made["secret"].startswith("whsec_")
    assert "secret" not in found
    assert made["secret"] not in await whole_log(world)
    assert (found["status"], found["key_id"]) == ("enabled", made["key_id"])
    assert world.webhooks.secrets[UUID(made["id"]), made["key_id"]] == made["secret"]


async def test_nobody_is_shown_what_may_be_a_secret_in_an_address(world: World) -> None:
    made = await added(world, url=SECRET_URL)

    for role in ("viewer", "admin"):
        assert (await shown(world, made["id"], role))[
            "url"
        ] == "https://***@hooks.example.org/a?***"
    log = await whole_log(world)
    assert "me:pass" not in log
    assert "zzz-9" not in log
    assert SECRET_URL in world.webhooks.secrets.values()


async def test_the_same_request_gives_the_same_webhook_and_secret(world: World) -> None:
    async with world.client("admin") as client:
        answers = [
            await client.post(
                "/api/v1/webhooks", json={"url": URL}, headers={"Idempotency-Key": "once"}
            )
            for _ in range(2)
        ]
        listed = await client.get("/api/v1/webhooks")

    first, second = (answer.json() for answer in answers)
    assert (first["id"], first["secret"]) == (second["id"], second["secret"])
    assert len(listed.json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://hooks.example.org/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": "https://localhost/"}, "url"),
        ({"url": "ftp://hooks.example.org/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://hooks.example.org:99999/"}, "url"),
        ({"url": "https://hooks.example.org/a b"}, "url"),
        ({"url": "https://hooks.example.org/\r\nX: y"}, "url"),
        ({"url": URL, "event_types": ["job.exploded"]}, "event_types"),
        ({"url": URL, "event_types": []}, "event_types"),
    ],
)
async def test_what_cannot_be_told_is_refused_with_the_reason(
    world: World, body: dict[str, Any], field: str
) -> None:
    async with world.client("admin") as client:
        answer = await client.post("/api/v1/webhooks", json=body)
        listed = await client.get("/api/v1/webhooks")

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == field
    assert listed.json()["items"] == []


async def test_types_that_may_be_chosen_are_listed(world: World) -> None:
    async with world.client("viewer") as client:
        types = (await client.get("/api/v1/webhooks/event-types")).json()["items"]

    assert {"job.succeeded", "job.*", "webhook.disabled"} <= set(types)
    made = await added(world, event_types=["job.succeeded", "model.*", "job.succeeded"])
    assert (await shown(world, made["id"]))["event_types"] == ["job.succeeded", "model.*"]


async def test_a_change_leaves_what_it_does_not_name(world: World) -> None:
    made = await added(world, event_types=["job.*"], description="chat")
    url = f"/api/v1/webhooks/{made['id']}"
    async with world.client("admin") as client:
        first = (await client.patch(url, json={"description": "pager"})).json()
        second = (await client.patch(url, json={"event_types": None})).json()
        third = (await client.patch(url, json={"url": SECRET_URL})).json()
        stale = await client.patch(url, json={}, headers={"If-Match": '"1"'})

    assert (first["description"], first["event_types"]) == ("pager", ["job.*"])
    assert (second["description"], second["event_types"]) == ("pager", None)
    assert third["url"] == "https://***@hooks.example.org/a?***"
    assert stale.status_code == 412


async def test_a_webhook_is_disabled_enabled_and_removed(world: World) -> None:
    made = await added(world)
    url = f"/api/v1/webhooks/{made['id']}"
    async with world.client("admin") as client:
        disabled = (await client.post(f"{url}/disable", json={"reason": "holidays"})).json()
        enabled = (await client.post(f"{url}/enable")).json()
        removed = await client.delete(url)
        gone = await client.get(url)
        again = await client.post(f"{url}/enable")

    assert (disabled["status"], disabled["disabled_by"]) == ("disabled", "person")
    assert disabled["reason"] == "holidays"
    assert (enabled["status"], enabled["reason"]) == ("enabled", None)
    assert removed.json()["status"] == "removed"
    assert (gone.status_code, again.status_code) == (404, 404)


async def test_a_new_secret_is_shown_and_the_old_one_is_good_for_a_day(world: World) -> None:
    made = await added(world)
    async with world.client("admin") as client:
        rotated = (await client.post(f"/api/v1/webhooks/{made['id']}/rotate-secret")).json()

    left = datetime.fromisoformat(rotated["old_key_valid_until"]) - datetime.now(UTC)
    assert rotated["secret"] != made["secret"]
    assert rotated["old_key_id"] == made["key_id"]
    assert 23.9 < left.total_seconds() / 3600 <= 24
    assert (await shown(world, made["id"]))["key_id"] == rotated["key_id"]


async def test_a_test_is_sent_at_once_and_the_receivers_answer_is_told(world: World) -> None:
    made = await added(world)
    world.receivers.answers[URL] = lambda _: Answer(0.0123, status=202, text="thank you")
    async with world.client("admin") as client:
        said = (await client.post(f"/api/v1/webhooks/{made['id']}/test")).json()
        logged = (await client.get(f"/api/v1/webhooks/{made['id']}/deliveries")).json()

    ((_, headers, body, _),) = world.receivers.posted
    sent = Webhook(made["secret"]).verify(body, headers)
    assert (sent["type"], sent["data"]["webhook_id"]) == ("webhook.test", made["id"])
    assert (said["status"], said["answer"], said["latency_ms"]) == (202, "thank you", 12.3)
    assert (said["outcome"], said["event_sequence"]) == ("test", None)
    assert logged["items"] == [said]


async def test_while_a_secret_rotates_a_test_bears_both_signatures(world: World) -> None:
    made = await added(world)
    async with world.client("admin") as client:
        rotated = (await client.post(f"/api/v1/webhooks/{made['id']}/rotate-secret")).json()
        await client.post(f"/api/v1/webhooks/{made['id']}/test")

    ((_, headers, body, _),) = world.receivers.posted
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(body, headers)


async def test_what_was_tried_comes_in_pages_newest_first(world: World) -> None:
    made = await added(world)
    id_ = UUID(made["id"])
    world.webhooks.log += [
        Attempt(id_, n, f"msg_{n}", "job.failed", 1, datetime.now(UTC), "failed", Answer(0.1, 500))
        for n in range(1, 6)
    ]
    async with world.client("editor") as client:
        first = (await client.get(f"/api/v1/webhooks/{id_}/deliveries?limit=3")).json()
        rest = (
            await client.get(f"/api/v1/webhooks/{id_}/deliveries?limit=3&cursor={first['next']}")
        ).json()

    seen = [item["event_sequence"] for item in first["items"] + rest["items"]]
    assert seen == [5, 4, 3, 2, 1]
    assert rest["next"] is None


async def test_it_is_told_how_far_a_webhook_has_come_and_what_waits(world: World) -> None:
    made = await added(world)
    id_ = UUID(made["id"])
    world.webhooks.cursors_[id_] = Cursor(17, 17)
    world.webhooks.rows[id_, 16] = Delivery(id_, 16, "msg_1", "job.failed", "l", datetime.now(UTC))

    found = await shown(world, made["id"])

    assert (found["cursor"], found["waiting"]) == (17, 1)


async def test_a_replay_begins_at_a_sequence_or_a_time(world: World) -> None:
    made = await added(world)
    url = f"/api/v1/webhooks/{made['id']}/replay"
    async with world.client("admin") as client:
        by_sequence = await client.post(url, json={"from_sequence": 3})
        by_time = await client.post(url, json={"from_time": "2020-01-01T00:00:00Z"})
        both = await client.post(
            url, json={"from_sequence": 3, "from_time": "2020-01-01T00:00:00Z"}
        )
        neither = await client.post(url, json={})
        beyond = await client.post(url, json={"from_sequence": 999})
        events = (await client.get("/api/v1/events?type=WebhookReplayed&after=0")).json()

    assert (by_sequence.status_code, by_time.status_code) == (202, 202)
    assert [event["data"]["after"] for event in events["items"]] == [2, 0]
    assert {answer.status_code for answer in (both, neither, beyond)} == {400}


async def test_without_the_database_it_is_said_that_it_is_away(world: World) -> None:
    made = await added(world)
    world.webhooks.away = True
    async with world.client("admin") as client:
        answers = [
            await client.get("/api/v1/webhooks"),
            await client.post("/api/v1/webhooks", json={"url": URL}),
            await client.get(f"/api/v1/webhooks/{made['id']}/deliveries"),
        ]

    assert {(each.status_code, each.json()["code"]) for each in answers} == {
        (503, "webhooks_unavailable")
    }


async def test_without_its_secret_a_webhook_cannot_be_tested(world: World) -> None:
    made = await added(world)
    world.webhooks.secrets.clear()
    async with world.client("admin") as client:
        answer = await client.post(f"/api/v1/webhooks/{made['id']}/test")

    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_incomplete")
