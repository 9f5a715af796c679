"""A job's log goes on across the border between chunks and the stream, under the same ids."""

import gzip
import json
from uuid import UUID, uuid4

import pytest

from adapters.local_blobs import blob_path
from domain.blobs import BlobRef
from domain.job_logs.chunks import BadChunk, Said, chunk_name, pack, read_lines, unpack
from domain.messages import StreamId
from domain.telemetry import LogEmitted, LogLine
from gateway.log_archive import JobArchive, LogArchive
from gateway.logs import LogPage, log_topic, read_page
from tests.gateway.sse_client import Listener
from tests.gateway.test_sse import listening, logs
from tests.gateway.world import NOW, W, World

JOB = UUID(int=1)
pytestmark = pytest.mark.timeout(20)


async def archive(world: World, first: int, last: int, through: int | None = None) -> BlobRef:
    """Do what the handlers do: keep the telemetry between two sequences."""
    kept = [
        Said(each.sequence, 0, LogEmitted.model_validate_json(each.data).lines)
        for each in world.feed.telemetry
        if first <= each.sequence <= last
    ]
    async with world.blobs.writer() as writer:
        await writer.write(pack(kept))
        ref = await writer.commit()
    body = {
        "job_id": str(JOB),
        "name": chunk_name(kept),
        "chunk": ref.model_dump(),
        "first": first,
        "last": last,
        "lines": len(kept),
        "through": last if through is None else through,
    }
    subject = StreamId(W, "job_log", JOB).subject
    headers = {"ce-type": "LogsArchived", "ce-id": str(uuid4())}
    world.store._log.append((subject, headers, json.dumps(body).encode()))
    return ref


def forget(world: World, through: int) -> None:
    world.feed.telemetry = [m for m in world.feed.telemetry if m.sequence > through]
    world.feed.first["TELEMETRY"] = through + 1


def say(world: World, number: int) -> None:
    assert world.feed.log(JOB, f"line {number}") == number


@pytest.fixture
async def forgetful(world: World) -> World:
    """Twenty lines, of which the first ten are only in chunks."""
    for number in range(1, 21):
        say(world, number)
    await archive(world, 1, 4)
    await archive(world, 5, 12)
    forget(world, 10)
    return world


async def page(world: World, after: str | None = None, limit: int = 100) -> LogPage:
    archived = JobArchive(LogArchive(world.feed, world.blobs, W), JOB)
    topic = log_topic(W, JOB)
    return await read_page(world.feed, archived, topic, after=after, limit=limit, level="DEBUG")


def numbers(listener: Listener) -> list[int]:
    return [int(one.data["lines"][0]["message"].split()[1]) for one in listener.said]


async def test_a_stream_begins_in_the_archive_and_goes_on_in_the_log(forgetful: World) -> None:
    async with listening(forgetful, logs(forgetful)) as listener:
        await listener.until(20)

    assert [one.id for one in listener.said] == list(range(1, 21))
    assert numbers(listener) == list(range(1, 21))
    assert {one.event for one in listener.said} == {"log"}


@pytest.mark.parametrize("after", [1, 4, 7, 9, 10, 11, 15])
async def test_a_client_comes_back_on_either_side_of_the_border(
    forgetful: World, after: int
) -> None:
    async with listening(forgetful, logs(forgetful, after=after)) as listener:
        await listener.until(20 - after)

    assert [one.id for one in listener.said] == list(range(after + 1, 21))


async def test_pages_cross_the_border(forgetful: World) -> None:
    found, after = [], None
    while True:
        one = await page(forgetful, after, limit=3)
        found += [(item.sequence, item.message) for item in one.items]
        after = one.next
        if after is None:
            break

    assert found == [(number, f"line {number}") for number in range(1, 21)]


async def test_what_was_never_archived_is_a_gap(world: World) -> None:
    for number in range(1, 9):
        say(world, number)
    await archive(world, 1, 3)
    forget(world, 6)

    async with listening(world, logs(world, after=1)) as listener:
        said = await listener.until(5)

    assert [(one.event, one.id) for one in said] == [
        ("log", 2),
        ("log", 3),
        ("gap", None),
        ("log", 7),
        ("log", 8),
    ]
    assert said[2].data == {"after": 3, "first": 7}


async def test_a_chunk_that_was_altered_is_a_gap_and_not_the_end(forgetful: World) -> None:
    ref = await archive(forgetful, 11, 12)  # only to know a blob of the store
    first = json.loads(forgetful.store._log[-3][2])["chunk"]["sha256"]
    path = blob_path(forgetful.folder, first)
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    async with listening(forgetful, logs(forgetful)) as listener:
        await listener.until(16)

    assert [one.id for one in listener.said if one.event == "log"] == list(range(5, 21))
    assert (await page(forgetful)).items[0].sequence == 5
    assert ref.size


def lines(*texts: str) -> tuple[LogLine, ...]:
    return tuple(LogLine(time=NOW, message=text) for text in texts)


def test_a_chunk_gives_back_what_was_put_in() -> None:
    said = [Said(3, 1, lines("one", "two\nlines  and ☃")), Said(9, 2, lines("three"))]

    assert unpack(pack(said)) == said
    assert pack(said) == pack(said)
    assert chunk_name(said).startswith("log_20")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"plain", "not gzip"),
        (pack([Said(1, 0, lines("a"))])[:-3], "cut off"),
        (pack([Said(1, 0, lines("a"))]) + b"x", "something follows"),
    ],
)
def test_what_is_no_chunk_is_said_to_be_none(data: bytes, why: str) -> None:
    with pytest.raises(BadChunk, match=why):
        read_lines(data)


def test_a_chunk_that_would_fill_the_memory_is_not_unpacked() -> None:
    with pytest.raises(BadChunk, match="more than 32 MiB"):
        read_lines(gzip.compress(b" " * (33 * 1024 * 1024)))


def test_the_line_that_is_wrong_is_named() -> None:
    good = json.dumps({"time": NOW.isoformat(), "message": "x"})
    for bad, where in (('{"time": "x"}', "line 3: time"), ("{", "line 3: JSON")):
        text = f"{good}\n\n{bad}\n"
        with pytest.raises(BadChunk, match=where):
            read_lines(gzip.compress(text.encode()))
