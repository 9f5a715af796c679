"""Chunks that a kernel outside brings are taken into a job's log, each once."""

import gzip
import json
from typing import Any
from uuid import UUID

import httpx
import pytest

from domain.blobs import BlobRef
from domain.errors import StoreUnavailable
from domain.job_logs.commands import ArchiveLogs
from tests.gateway.world import NOW, World


def chunk(*texts: str, **more: str) -> bytes:
    lines = [json.dumps({"time": NOW.isoformat(), "message": text, **more}) for text in texts]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


async def bring(
    world: World, job: str, data: bytes, name: str = "log_1.jsonl.gz", role: str = "editor"
) -> httpx.Response:
    async with world.client(role) as client:
        return await client.post(
            f"/api/v1/jobs/{job}/logs/chunks",
            params={"name": name},
            content=data,
            headers={"content-type": "application/gzip"},
        )


async def lines(world: World, job: str) -> list[dict[str, Any]]:
    async with world.client("viewer") as client:
        page = (await client.get(f"/api/v1/jobs/{job}/logs", params={"limit": 1000})).json()
    found: list[dict[str, Any]] = page["items"]
    return found


async def test_lines_of_a_chunk_stand_in_the_jobs_log(world: World) -> None:
    job = (await world.submitted())["id"]

    answer = await bring(world, job, chunk("one", "two", source="kernel", level="WARNING"))

    assert answer.status_code == 201
    assert answer.json()["lines"] == 2
    assert answer.json()["known"] is False
    found = await lines(world, job)
    assert [(each["message"], each["source"], each["level"]) for each in found] == [
        ("one", "kernel", "WARNING"),
        ("two", "kernel", "WARNING"),
    ]


async def test_a_chunk_is_taken_in_once_under_whatever_name(world: World) -> None:
    job = (await world.submitted())["id"]
    data = chunk(*(f"line {number}" for number in range(250)))

    first = await bring(world, job, data)
    again = await bring(world, job, data)
    renamed = await bring(world, job, data, "log_2.jsonl.gz")

    assert [each.json()["known"] for each in (first, again, renamed)] == [False, True, True]
    assert [each["message"] for each in await lines(world, job)] == [
        f"line {number}" for number in range(250)
    ]


async def test_a_name_stands_for_one_chunk(world: World) -> None:
    job = (await world.submitted())["id"]
    await bring(world, job, chunk("one"))

    other = await bring(world, job, chunk("another"))

    assert (other.status_code, other.json()["code"]) == (409, "log_chunk_differs")
    assert len(await lines(world, job)) == 1


async def test_a_chunk_that_broke_off_goes_on_where_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = (await world.submitted())["id"]
    data = chunk(*(f"line {number}" for number in range(250)))
    emit, told = world.feed.emit, 0

    async def breaks(*args: Any, **kwargs: Any) -> int:
        nonlocal told
        told += 1
        if told == 2:
            raise StoreUnavailable("away")
        return await emit(*args, **kwargs)

    monkeypatch.setattr(world.feed, "emit", breaks)
    broken = await bring(world, job, data)
    again = await bring(world, job, data)

    assert broken.status_code == 503
    assert again.json()["known"] is False
    assert [each["message"] for each in await lines(world, job)] == [
        f"line {number}" for number in range(250)
    ]


async def test_the_chunks_of_a_job_are_listed_page_by_page(world: World) -> None:
    job = (await world.submitted())["id"]
    for number in range(3):
        await bring(world, job, chunk(f"line {number}"), f"log_{number}.jsonl.gz")
    ref = BlobRef(sha256="ab" * 32, size=9, crc32=1)
    archive = ArchiveLogs(
        job_id=UUID(job), name="log_x.jsonl.gz", chunk=ref, first=1, last=3, lines=3, through=3
    )
    await world.decide(archive, UUID(job))

    found: list[dict[str, Any]] = []
    after: Any = 0
    async with world.client("viewer") as client:
        while after is not None:
            asked = {"limit": 3, "after": after}
            answer = await client.get(f"/api/v1/jobs/{job}/logs/chunks", params=asked)
            found += answer.json()["items"]
            after = answer.json()["next"]
        missing = await client.get(f"/api/v1/jobs/{UUID(int=9)}/logs/chunks")

    assert [(each["name"], each["source"], each["lines"], each["first"]) for each in found] == [
        *((f"log_{number}.jsonl.gz", "brought", 1, None) for number in range(3)),
        ("log_x.jsonl.gz", "archived", 3, 1),
    ]
    assert [each["sequence"] for each in found] == sorted(each["sequence"] for each in found)
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"plain text", "not gzip"),
        (gzip.compress(b"", mtime=0), "no lines"),
        (gzip.compress(b'{"message": "x"}', mtime=0), "line 1: time"),
        (chunk("x")[:-4], "cut off"),
    ],
)
async def test_what_is_no_chunk_is_refused_and_leaves_nothing(
    world: World, data: bytes, why: str
) -> None:
    job = (await world.submitted())["id"]

    answer = await bring(world, job, data)

    assert answer.status_code == 400
    assert why in answer.text
    assert await lines(world, job) == []


async def test_names_paths_and_jobs_are_checked(world: World) -> None:
    job = (await world.submitted())["id"]

    assert (await bring(world, job, chunk("x"), "../x")).status_code == 400
    assert (await bring(world, str(UUID(int=9)), chunk("x"))).status_code == 404
    assert (await bring(world, job, chunk("x"), role="viewer")).status_code == 403
