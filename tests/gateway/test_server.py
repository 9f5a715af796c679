"""The gateway behind a real socket: live streams, and a stop that does not wait for them."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from gateway.server import PortTaken, listen, serve
from tests.gateway.real_server import listening
from tests.gateway.world import World

pytestmark = pytest.mark.timeout(30)
SSE = {"Accept": "text/event-stream"}


@asynccontextmanager
async def served(world: World, role: str = "viewer") -> AsyncIterator[httpx.AsyncClient]:
    headers = world.header(role)
    async with (
        httpx.AsyncClient(headers=headers, trust_env=False, timeout=10) as client,
        listening(world) as url,  # stops first, while the client still holds its connections
    ):
        client.base_url = url
        yield client


async def said_by(source: EventSource) -> AsyncIterator[ServerSentEvent]:
    """Messages with data; the client library makes empty ones of `retry` and of comments."""
    async for message in source.aiter_sse():
        if message.data:
            yield message


async def test_lines_are_live_over_http_and_go_on_behind_the_last_id(world: World) -> None:
    job = (await world.submitted())["id"]
    world.feed.log(UUID(job), "old")
    async with served(world) as client:
        url = f"/api/v1/jobs/{job}/logs"
        async with aconnect_sse(client, "GET", url, headers=SSE) as source:
            messages = said_by(source)
            first = await anext(messages)
            world.feed.log(UUID(job), "new")
            second = await anext(messages)
        world.feed.log(UUID(job), "while away")
        again = SSE | {"Last-Event-ID": second.id}
        async with aconnect_sse(client, "GET", url, headers=again) as source:
            third = await anext(said_by(source))

    assert [message.id for message in (first, second, third)] == ["1", "2", "3"]
    assert source.response.headers["content-type"].startswith("text/event-stream")
    assert source.response.headers["cache-control"] == "no-store"
    assert {message.event for message in (first, second, third)} == {"log"}


@pytest.mark.parametrize(
    ("query", "accept", "stream"),
    [
        ("", "*/*", False),
        ("", "application/json", False),
        ("", "text/html", False),
        ("", "text/event-stream", True),
        ("", "text/event-stream, application/json;q=0.5", True),
        ("?follow=true", "*/*", True),
    ],
)
async def test_the_form_of_logs_is_chosen_by_accept_or_follow(
    world: World, query: str, accept: str, stream: bool
) -> None:
    job = (await world.trained())["id"]
    async with world.client("viewer") as client:
        answer = await client.get(f"/api/v1/jobs/{job}/logs{query}", headers={"Accept": accept})

    assert answer.headers["content-type"].startswith("text/event-stream") == stream
    assert ("event: end" in answer.text) == stream


async def test_a_position_that_is_none_is_refused_before_the_stream_begins(world: World) -> None:
    job = (await world.trained())["id"]
    async with world.client("viewer") as client:
        answer = await client.get(
            f"/api/v1/jobs/{job}/logs", headers=SSE | {"Last-Event-ID": "yesterday"}
        )

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


async def test_a_stop_ends_open_streams_at_once(world: World) -> None:
    job = (await world.submitted())["id"]
    async with served(world) as client:
        async with (
            aconnect_sse(client, "GET", f"/api/v1/jobs/{job}/logs", headers=SSE) as one,
            aconnect_sse(client, "GET", "/api/v1/events", headers=SSE) as two,
        ):
            await anext(said_by(two))
            began = time.monotonic()
            world.gateway.drain()
            ended = [line async for line in one.response.aiter_lines()]
            took = time.monotonic() - began
        ready = await client.get("/health/ready")

    assert ended
    assert took < 2
    assert ready.status_code == 503


async def test_a_server_with_open_streams_is_gone_within_two_seconds(world: World) -> None:
    job = (await world.submitted())["id"]
    known = world.gateway.hub.readers
    began = 0.0
    async with served(world) as client:
        request = client.build_request("GET", f"/api/v1/jobs/{job}/logs", headers=SSE)
        response = await client.send(request, stream=True)
        assert world.gateway.hub.readers == known + 1
        began = time.monotonic()
    took = time.monotonic() - began
    await response.aclose()

    assert took < 3
    assert world.gateway.hub.readers == known


async def test_a_client_that_goes_away_is_forgotten(world: World) -> None:
    job = (await world.submitted())["id"]
    known = world.gateway.hub.readers
    async with served(world) as client:
        async with aconnect_sse(client, "GET", f"/api/v1/jobs/{job}/logs", headers=SSE) as source:
            world.feed.log(UUID(job), "hello")
            await anext(said_by(source))
            listening = world.gateway.hub.readers
        async with asyncio.timeout(5):
            while world.gateway.hub.readers > known:
                await asyncio.sleep(0.01)

    assert listening == known + 1


async def test_a_stream_ends_when_its_key_is_revoked(world: World) -> None:
    job = (await world.submitted())["id"]
    async with world.client("admin") as admin:
        key = (await admin.post("/api/v1/keys", json={"name": "n", "role": "viewer"})).json()
        async with served(world) as client:
            headers = SSE | {"Authorization": f"Bearer {key['secret']}"}
            async with aconnect_sse(
                client, "GET", f"/api/v1/jobs/{job}/logs", headers=headers
            ) as source:
                await admin.delete(f"/api/v1/keys/{key['key_id']}")
                rest = [message async for message in said_by(source)]

    assert rest == []


async def test_a_download_over_http_is_as_long_as_it_says(world: World) -> None:
    await world.trained()
    async with served(world) as client:
        answer = await client.get("/api/v1/models/support/versions/1/download")

    assert len(answer.content) == int(answer.headers["content-length"])
    assert "server" not in answer.headers


async def test_an_upload_that_breaks_off_leaves_nothing(world: World) -> None:
    before = world.events
    async with served(world, "editor") as client:
        url = client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = (
            "POST /api/v1/datasets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/csv\r\n"
            f"Authorization: {world.header('editor')['Authorization']}\r\n"
            "Content-Length: 900000\r\n\r\n"
        )
        writer.write(head.encode() + b"text,label\n" + b"some text,a\n" * 40_000)
        await writer.drain()
        async with asyncio.timeout(5):
            while not world.files():
                await asyncio.sleep(0.01)
        writer.close()
        async with asyncio.timeout(5):
            while world.files():
                await asyncio.sleep(0.01)
        assert reader is not None

    assert world.events == before


async def test_a_port_that_is_taken_is_told_clearly(world: World) -> None:
    async with served(world) as client:
        port = client.base_url.port
        assert port is not None
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port} is taken"):
            await serve(world.gateway.app, "127.0.0.1", port, asyncio.Event())


async def test_a_stop_before_the_start_starts_nothing(world: World) -> None:
    stop = asyncio.Event()
    stop.set()

    async with asyncio.timeout(5):
        await serve(world.gateway.app, "127.0.0.1", 0, stop)


async def test_an_answer_is_sent_at_once_and_not_when_the_last_packet_was_acknowledged() -> None:
    nodelay: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        nodelay.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = listen("127.0.0.1", 0)
    async with await asyncio.start_server(accepted, sock=listener):
        with socket.create_connection(listener.getsockname()):
            assert await asyncio.wait_for(nodelay, 5)
