"""Links that work without a key: made for one thing, for a while, and recorded first."""

import asyncio
import hashlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from domain.blobs import BlobRef
from gateway import links
from tests.gateway.real_server import listening
from tests.gateway.world import World

VERSION = "/api/v1/models/support/versions/1"


async def linked(world: World, url: str, role: str = "viewer", **body: Any) -> dict[str, Any]:
    async with world.client(role) as client:
        answer = await client.post(f"{url}/links", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def events_of(world: World) -> list[dict[str, Any]]:
    async with world.client("viewer") as client:
        page = await client.get("/api/v1/events?type=LinkIssued&after=0&limit=100")
        found: list[dict[str, Any]] = page.json()["items"]
        return found


@pytest.mark.parametrize(
    ("body", "same"),
    [
        ({}, "download"),
        ({"path": "README.md"}, "files/README.md"),
        ({"path": "lora_adapters/labels.json"}, "files/lora_adapters/labels.json"),
    ],
)
async def test_a_link_gives_what_its_maker_could_download(
    world: World, body: dict[str, Any], same: str
) -> None:
    await world.trained()
    link = await linked(world, VERSION, **body)
    async with world.client("viewer") as client, world.client(None) as stranger:
        own = await client.get(f"{VERSION}/{same}")
        answer = await stranger.get(link["url"])
        part = await stranger.get(link["url"], headers={"Range": "bytes=2-"})
        head = await stranger.head(link["url"])

    assert (answer.status_code, part.status_code, head.status_code) == (200, 206, 200)
    assert answer.content == own.content
    assert part.content == own.content[2:]
    assert head.headers["content-length"] == str(len(own.content))
    for name in ("etag", "content-disposition"):
        assert answer.headers[name] == own.headers[name]


async def test_a_dataset_has_links_too_but_not_when_it_is_deleted(world: World) -> None:
    dataset = await world.uploaded()
    url = f"/api/v1/datasets/{dataset['id']}"
    link = await linked(world, url, minutes=1440)
    async with world.client("admin") as client, world.client(None) as stranger:
        answer = await stranger.get(link["url"])
        await client.delete(url)
        refused = await client.post(f"{url}/links", json={})

    assert hashlib.sha256(answer.content).hexdigest() == dataset["sha256"]
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")


async def test_every_link_is_in_the_log_without_what_it_consists_of(world: World) -> None:
    await world.trained()
    made = [
        await linked(world, VERSION, path="README.md", minutes=60),
        await linked(world, VERSION),
    ]
    recorded = await events_of(world)
    ticket = made[0]["url"].rpartition("/")[2]
    written = b"".join(bytes(str(record), "utf-8") for record in world.store._log)

    assert [event["data"]["link_id"] for event in recorded] == [link["id"] for link in made]
    assert [event["data"]["path"] for event in recorded] == ["README.md", None]
    assert {event["actor"] for event in recorded} == {f"key:{world.keys['viewer'].key_id}"}
    until = datetime.fromisoformat(recorded[0]["data"]["expires_at"])
    assert until == datetime.fromisoformat(made[0]["expires_at"])
    assert timedelta(0) < until - datetime.now(UTC) <= timedelta(minutes=60)
    assert ticket.encode() not in written
    assert ticket.partition(".")[2].encode() not in written


async def test_a_link_ends_with_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.trained()
    urls = [(await linked(world, VERSION, minutes=1, **body))["url"] for body in ({}, {"path": "lora_adapters/labels.json"})]  # fmt: skip
    now = links._now()
    async with world.client(None) as stranger:
        monkeypatch.setattr(links, "_now", lambda: now + 50)
        within = [(await stranger.get(url)).status_code for url in urls]
        monkeypatch.setattr(links, "_now", lambda: now + 61)
        after = [(await stranger.get(url)).json()["code"] for url in urls]

    assert within == [200, 200]
    assert after == ["ticket_expired"] * 2


async def test_a_link_that_was_tampered_with_gives_nothing(world: World) -> None:
    await world.trained()
    archive = (await linked(world, VERSION))["url"]
    file = (await linked(world, VERSION, path="lora_adapters/labels.json"))["url"]
    wrong = [
        archive[:-1],
        archive + "A",
        file.replace("/blobs/", "/archives/"),
        archive.replace("/archives/", "/blobs/"),
        archive.rpartition("/")[0] + "/fpk_x",
    ]
    async with world.client(None) as stranger:
        codes = [(await stranger.get(url)).json()["code"] for url in wrong]

    assert codes == ["ticket_invalid"] * len(wrong)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"minutes": 0}, "invalid_request"),
        ({"minutes": 1441}, "invalid_request"),
        ({"path": ""}, "invalid_request"),
        ({"path": "../../etc/passwd"}, "not_found"),
        ({"expires": 5}, "invalid_request"),
    ],
)
async def test_what_cannot_be_linked_is_refused_and_not_recorded(
    world: World, body: dict[str, Any], code: str
) -> None:
    await world.trained()
    async with world.client("viewer") as client:
        answer = await client.post(f"{VERSION}/links", json=body)

    assert answer.json()["code"] == code
    assert await events_of(world) == []


async def test_a_repeated_request_is_one_link(world: World) -> None:
    await world.trained()
    async with world.client("viewer") as client:
        client.headers["Idempotency-Key"] = "once"
        first = await client.post(f"{VERSION}/links", json={"minutes": 5})
        second = await client.post(f"{VERSION}/links", json={"minutes": 500})

    assert first.json() == second.json()
    assert len(await events_of(world)) == 1


async def test_a_link_that_cannot_be_recorded_is_not_made(world: World) -> None:
    await world.trained()
    world.bus.away = True
    async with world.client("viewer") as client:
        answer = await client.post(f"{VERSION}/links", json={})

    assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
    assert "url" not in answer.json()


async def test_the_stores_own_link_is_used_where_it_makes_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.trained()

    async def link(sha256: str, *, expires_s: int, filename: str) -> str | None:
        return f"https://store/{sha256}?for={expires_s}&as={filename}"

    monkeypatch.setattr(world.blobs, "link", link)
    made = await linked(world, VERSION, path="lora_adapters/labels.json", minutes=10)
    archive = await linked(world, VERSION)
    sha256 = hashlib.sha256(b'["a", "b"]').hexdigest()

    assert made["url"].startswith(f"https://store/{sha256}?for=")
    assert 590 <= int(made["url"].partition("for=")[2].partition("&")[0]) <= 600
    assert "/api/v1/archives/" in archive["url"]


async def test_no_log_line_holds_a_ticket(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.trained()
    link = await linked(world, VERSION, path="lora_adapters/labels.json")
    path = httpx.URL(link["url"]).path

    def broken(*_: object) -> BlobRef:
        raise RuntimeError("the disk is gone")

    with caplog.at_level(logging.DEBUG):
        async with listening(world) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
            for times in range(2):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                status = await reader.readline()
                assert status.split()[1] == (b"500" if times else b"200")
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(0 if times else 10)
                monkeypatch.setattr(world.blobs, "size", broken)
            writer.close()
    said = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)

    assert "failed" in said
    assert path.rpartition("/")[2] not in said
