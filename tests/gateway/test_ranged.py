"""Downloads that go on where they broke off: ranges, conditions, and bytes that are found damaged."""

import asyncio
import hashlib
import io
import shutil
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.local_blobs import blob_path
from domain.blobs import BlobRef, FileEntry
from gateway.problems import Problem
from gateway.ranged import span_of
from gateway.zip_layout import ZipEntry, ZipLayout
from tests.gateway.real_server import listening
from tests.gateway.world import World

ZIP = "/api/v1/models/support/versions/1/download"
FILES = "/api/v1/models/support/versions/1/files"
MiB = 1024 * 1024


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_a_range_is_a_slice(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    asked = {
        f"bytes={first}-": content[first:],
        f"bytes=-{last}": content[-last:] if last else b"",
        f"bytes={first}-{last}": content[first : last + 1],
    }

    for header, expected in asked.items():
        nothing = first >= size if not header.startswith("bytes=-") else last == 0
        if size == 0 or (header.endswith(f"={first}-{last}") and first > last):
            assert span_of([header], size) is None
        elif nothing:
            with pytest.raises(Problem) as refused:
                span_of([header], size)
            assert refused.value.headers["Content-Range"] == f"bytes */{size}"
        else:
            span = span_of([header], size)
            assert span is not None
            assert content[span.offset : span.offset + span.length] == expected


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["bytes=-"],
        ["bytes=5-2"],
        ["bytes=0-1,4-5"],
        ["bytes=0-1", "bytes=4-5"],
        ["lines=0-1"],
        ["bytes=a-b"],
        ["bytes=+1-2"],
        ["bytes=٣-٤"],
        ["bytes=" + "9" * 5000 + "-"],
        ["bytes=" + "0-1," * 5000],
    ],
)
def test_what_is_not_one_range_is_answered_with_the_whole(values: list[str]) -> None:
    assert span_of(values, 10) is None


@given(st.text(max_size=40), st.integers(0, 10))
def test_no_header_breaks_the_answer(text: str, size: int) -> None:
    try:
        span = span_of([f"bytes={text}"], size)
    except Problem:
        span = None

    assert span is None or 0 <= span.offset < span.offset + span.length <= size


@given(st.lists(st.binary(max_size=40), max_size=4), st.data())
async def test_any_part_of_an_archive_can_be_read_alone(
    files: list[bytes], data: st.DataObject
) -> None:
    blobs = {hashlib.sha256(content).hexdigest(): content for content in files}
    refs = [BlobRef(sha256=sha, size=len(blob), crc32=0) for sha, blob in blobs.items()]
    entries = [ZipEntry(f"{n}", ref, ref.size, 0) for n, ref in enumerate(refs)]
    layout = ZipLayout([*entries, ZipEntry("text", b"some text", 9, 0)])

    async def read_blob(sha256: str, offset: int, length: int) -> AsyncIterator[bytes]:
        assert length > 0
        yield blobs[sha256][offset : offset + length]

    whole = b"".join([piece async for piece in layout.read(read_blob)])
    offset = data.draw(st.integers(0, layout.size))
    length = data.draw(st.integers(0, layout.size - offset))
    part = b"".join([piece async for piece in layout.read(read_blob, offset, length)])

    assert len(whole) == layout.size
    assert part == whole[offset : offset + length]


async def test_a_zip_a_file_and_a_dataset_answer_alike(world: World) -> None:
    job = await world.trained()
    urls = [
        ZIP,
        f"{FILES}/lora_adapters/labels.json",
        f"{FILES}/README.md",
        f"/api/v1/datasets/{job['dataset_id']}/content",
    ]
    async with world.client("viewer") as client:
        for url in urls:
            whole = await client.get(url)
            head = await client.head(url)
            etag, size = whole.headers["etag"], len(whole.content)
            assert (whole.status_code, head.status_code, head.content) == (200, 200, b"")
            assert whole.headers["accept-ranges"] == "bytes"
            assert int(whole.headers["content-length"]) == size
            for name in ("content-length", "etag", "accept-ranges", "content-disposition"):
                assert head.headers[name] == whole.headers[name]

            part = await client.get(url, headers={"Range": "bytes=3-6"})
            assert (part.status_code, part.content) == (206, whole.content[3:7])
            assert part.headers["content-range"] == f"bytes 3-6/{size}"
            assert part.headers["content-length"] == "4"
            assert part.headers["etag"] == etag
            rest = await client.get(url, headers={"Range": "bytes=5-", "If-Range": etag})
            assert (rest.status_code, rest.content) == (206, whole.content[5:])
            for changed in ('"other"', f"W/{etag}", "Sun, 06 Nov 1994 08:49:37 GMT"):
                again = await client.get(url, headers={"Range": "bytes=5-", "If-Range": changed})
                assert (again.status_code, again.content) == (200, whole.content)
            behind = await client.get(url, headers={"Range": f"bytes={size}-"})
            assert (behind.status_code, behind.json()["code"]) == (416, "range_not_satisfiable")
            assert behind.headers["content-range"] == f"bytes */{size}"
            ignored = await client.head(url, headers={"Range": "bytes=3-6"})
            assert (ignored.status_code, ignored.headers["content-length"]) == (200, str(size))

            for held in (etag, f'"other", {etag}', f"W/{etag}", "*"):
                known = await client.get(url, headers={"If-None-Match": held, "Range": "bytes=0-0"})
                assert (known.status_code, known.content) == (304, b"")
                assert known.headers["etag"] == etag
            other = await client.get(url, headers={"If-Match": '"other"'})
            assert (other.status_code, other.json()["code"]) == (412, "precondition_failed")


@pytest.mark.parametrize(
    "path",
    [
        "lora_adapters",
        "labels.json",
        "lora_adapters/%2e%2e/README.md",
        "lora_adapters%2Flabels.json%00",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "%2e%2e/%2e%2e/config.json",
    ],
)
async def test_only_names_of_the_manifest_are_files(world: World, path: str) -> None:
    await world.trained()
    async with world.client("viewer") as client:
        answer = await client.get(f"{FILES}/{path}")

    assert answer.status_code == 404
    assert answer.json()["code"] in {"not_found", "route_not_found"}


async def test_the_file_of_a_deleted_dataset_is_not_given_out(world: World) -> None:
    dataset = await world.uploaded()
    url = f"/api/v1/datasets/{dataset['id']}"
    async with world.client("admin") as client:
        content = await client.get(f"{url}/content")
        await client.delete(url)
        gone = await client.get(f"{url}/content")

    assert hashlib.sha256(content.content).hexdigest() == dataset["sha256"]
    assert "messages.csv" in content.headers["content-disposition"]
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


async def test_a_download_is_never_called_after_a_drive(world: World) -> None:
    dataset = await world.uploaded(name="C:")
    async with world.client() as client:
        content = await client.get(f"/api/v1/datasets/{dataset['id']}/content")

    assert dataset["name"] == "C:"
    assert content.headers["content-disposition"].endswith("''C_.csv")


async def test_a_blob_that_is_lost_is_said_before_a_byte_is_sent(world: World) -> None:
    dataset = await world.uploaded()
    blob_path(world.folder, dataset["sha256"]).unlink()
    async with world.client("viewer") as client:
        answer = await client.get(f"/api/v1/datasets/{dataset['id']}/content")

    assert (answer.status_code, answer.json()["code"]) == (404, "blob_missing")


async def test_damaged_bytes_break_off_or_are_found_in_the_archive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await registered(world, monkeypatch, size=3 * MiB)
    damaged = blob_path(world.folder, ref.sha256)
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    async with (
        httpx.AsyncClient(headers=world.header("viewer"), trust_env=False) as client,
        listening(world) as url,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{url}{FILES}/weights.bin")
        archive = zipfile.ZipFile(io.BytesIO((await client.get(f"{url}{ZIP}")).content))

    assert archive.testzip() == "weights.bin"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_goes_on_with_what_it_was_killed_in(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await registered(world, monkeypatch, size=8 * MiB)
    target = tmp_path / "model.zip"
    async with world.client("viewer") as client:
        etag = (await client.head(ZIP)).headers["etag"]
        whole = (await client.get(ZIP)).content
    async with listening(world) as url:
        key = world.keys["viewer"].text
        curl = ["curl", "-sS", "--fail", "-H", f"Authorization: Bearer {key}", "-o", str(target)]
        killed = await asyncio.create_subprocess_exec(*curl, "--limit-rate", "4M", url + ZIP)
        async with asyncio.timeout(20):
            while not target.exists() or target.stat().st_size < MiB:
                await asyncio.sleep(0.01)
        killed.kill()
        await killed.wait()
        broken = target.stat().st_size
        goes_on = ["-C", "-", "-H", f"If-Range: {etag}", "-w", "%{http_code} %{size_download}"]
        resumed = await asyncio.create_subprocess_exec(
            *curl, *goes_on, url + ZIP, stdout=asyncio.subprocess.PIPE
        )
        said = (await resumed.communicate())[0].decode()

    assert 0 < broken < len(whole)
    assert said == f"206 {len(whole) - broken}"
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(whole).digest()
    assert zipfile.ZipFile(io.BytesIO(whole)).testzip() is None


async def registered(world: World, monkeypatch: pytest.MonkeyPatch, *, size: int) -> BlobRef:
    """A version ``support`` 1 with one file of this size."""
    pattern = hashlib.sha256(b"weights").digest()
    async with world.blobs.writer() as writer:
        await writer.write((pattern * (size // len(pattern) + 1))[:size])
        ref = await writer.commit()

    async def files() -> tuple[Any, ...]:
        return (FileEntry(path="weights.bin", blob=ref),)

    monkeypatch.setattr(world, "_adapter", files)
    await world.talking("support")
    return ref
