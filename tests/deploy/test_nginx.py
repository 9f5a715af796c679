"""deploy/nginx.conf with the real nginx: encrypted, and as if it were not there."""

import asyncio
import getpass
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from domain.models.commands import CreateModel
from tests.certificates import make_certificate
from tests.deploy.compose import ROOT
from tests.gateway.real_server import listening
from tests.gateway.world import World, csv_rows, running_world
from tests.infra import free_port

pytestmark = [
    pytest.mark.infra,
    pytest.mark.timeout(60),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="it needs nginx"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="it needs openssl"),
]

START_S = 20.0
VERSION = "/api/v1/models/support/versions/1/download"


@asynccontextmanager
async def nginx(folder: Path, upstream: int) -> AsyncIterator[int]:
    """Run it in front of a port; gives its own."""
    make_certificate(folder)
    (folder / "server.pem").rename(folder / "tls.pem")
    (folder / "server.key").rename(folder / "tls.key")
    port, text = free_port(), (ROOT / "deploy/nginx.conf").read_text()
    for wanted, here in (
        ("listen 8443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("server 127.0.0.1:8420;", f"server 127.0.0.1:{upstream};"),
    ):
        assert text.count(wanted) == 1
        text = text.replace(wanted, here)
    if os.geteuid() == 0:  # its workers would be nobody, who may not walk to a test's folder
        text = f"user {getpass.getuser()};\n{text}"
    (folder / "nginx.conf").write_text(text)
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            ["nginx", "-p", str(folder), "-c", "nginx.conf"], stdout=said, stderr=said
        )
    try:
        async with asyncio.timeout(START_S):
            while not await _listens(port):
                assert process.poll() is None, (folder / "said").read_text()
                await asyncio.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=folder / "ca.pem")


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(START_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_uploads_ranges_and_events_pass_as_without_it(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    async with running_world(tmp_path / "blobs") as world, listening(world) as url:
        await world.trained()
        async with (
            nginx(folder, int(url.rpartition(":")[2])) as port,
            httpx.AsyncClient(
                base_url=f"https://localhost:{port}",
                verify=trusting(folder),
                headers=world.header("admin"),
            ) as client,
        ):
            ready = await client.get("/health/ready")
            rows = csv_rows(20_000)
            sent = await client.post(
                "/api/v1/datasets",
                params={"filename": "rows.csv"},
                content=rows,
                headers={"Content-Type": "text/csv"},
            )
            whole = await client.get(VERSION)
            part = {"Range": "bytes=10-19", "If-Range": whole.headers["etag"]}
            ranged = await client.get(VERSION, headers=part)
            stale = await client.get(VERSION, headers=part | {"If-Range": '"older"'})
            stranger = await client.get("/health/ready", headers={"Host": "elsewhere.example"})
            await _an_event_comes_at_once(world, client)

    assert ready.status_code == 200
    assert sent.is_success, sent.text
    assert len(rows) > 500_000
    assert (ranged.status_code, ranged.content) == (206, whole.content[10:20])
    assert (stale.status_code, stale.content) == (200, whole.content)
    assert (stranger.status_code, stranger.json()["code"]) == (400, "invalid_host")


async def _an_event_comes_at_once(world: World, client: httpx.AsyncClient) -> None:
    model, events = uuid4(), {"Accept": "text/event-stream"}
    async with client.stream("GET", "/api/v1/events", headers=events) as answer:
        lines = answer.aiter_lines()
        await world.decide(CreateModel(model_id=model, name="later", base_model="b"), model)
        async with asyncio.timeout(START_S):
            async for line in lines:
                if line.startswith("data:") and '"later"' in line:
                    return
    raise AssertionError("the stream has ended")


async def test_nothing_is_kept_back_in_either_direction(tmp_path: Path) -> None:
    heard = bytearray()
    answer: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say() -> None:
            while True:
                writer.write(await answer.get())
                await writer.drain()

        saying = asyncio.create_task(say())
        while part := await reader.read(65536):
            heard.extend(part)
        saying.cancel()
        writer.close()

    upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with upstream, nginx(tmp_path, upstream.sockets[0].getsockname()[1]) as port:
        reader, writer = await asyncio.open_connection(
            "localhost", port, ssl=trusting(tmp_path), family=2
        )
        writer.write(
            b"POST /x?a=%2Fb HTTP/1.1\r\nHost: finetrail.example.org:8443\r\nContent-Length: 3000000000\r\n"
            b"Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nAuthorization: Bearer k\r\n\r\nhalf"
        )
        await eventually(lambda: heard.endswith(b"half"))  # while the other one is not sent yet
        writer.write(b"more")
        await eventually(lambda: heard.endswith(b"halfmore"))
        answer.put_nowait(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        async with asyncio.timeout(START_S):
            got = await reader.readuntil(b"first")  # while the answer has not ended
        writer.transport.abort()  # a polite end waits for the rest of the answer

    head = bytes(heard).partition(b"\r\n\r\n")[0].decode()
    assert head.startswith("POST /x?a=%2Fb HTTP/1.1\r\n")
    assert "\r\nHost: finetrail.example.org:8443\r\n" in head + "\r\n"
    assert "\r\nAuthorization: Bearer k" in head
    assert "connection:" not in head.lower()
    assert got.startswith(b"HTTP/1.1 200")
