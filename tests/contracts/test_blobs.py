"""What every blob store must do, written once and run against each of them."""

import asyncio
import dataclasses
import errno
import hashlib
import os
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from adapters import s3_requests
from adapters.blob_files import BlobDamaged, BlobMissing, BlobsAway, NoSpace, StoredBlob
from adapters.local_blobs import LocalBlobs, blob_path
from adapters.s3_blobs import MOST_PARTS, PART, S3Blobs, object_name, part_size
from domain.blobs import BlobRef
from finetrail.blobs import BlobStore as Blobs
from finetrail.blobs import open_blobs
from finetrail.cli import app
from finetrail.settings import BlobSettings, S3Settings, Settings
from tests.gateway.world import csv_rows, running_world
from tests.infra import free_port
from tests.seaweed import ADMIN, READER, SeaweedServer

pytestmark = pytest.mark.asyncio(loop_scope="function")

HELLO = b"hello, blobs"
MEBIBYTE = 1024 * 1024
Alter = Callable[[str, bytes], Awaitable[None]]


async def put(blobs: Blobs, *chunks: bytes) -> BlobRef:
    async with blobs.writer() as writer:
        for chunk in chunks:
            await writer.write(chunk)
        return await writer.commit()


async def content(blobs: Blobs, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(sha256, offset, length)])


async def listed(blobs: Blobs) -> list[StoredBlob]:
    return sorted([blob async for blob in blobs.stored()], key=lambda blob: blob.sha256)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


class BlobsContract:
    """A subclass gives the store as ``blobs``, the folder that it writes to as ``folder``, and
    ``alter``, which changes what lies under a name behind the store's back."""

    async def test_what_was_written_is_read_back(self, blobs: Blobs) -> None:
        ref = await put(blobs, b"hello, ", b"blobs")

        assert await content(blobs, ref.sha256) == HELLO

    async def test_the_reference_tells_size_hash_and_checksum(self, blobs: Blobs) -> None:
        ref = await put(blobs, HELLO)

        assert ref == BlobRef(
            sha256=hashlib.sha256(HELLO).hexdigest(), size=len(HELLO), crc32=zlib.crc32(HELLO)
        )

    async def test_nothing_at_all_is_a_blob_too(self, blobs: Blobs) -> None:
        ref = await put(blobs)

        assert (ref.size, await content(blobs, ref.sha256)) == (0, b"")

    async def test_a_blob_that_is_not_committed_does_not_exist(self, blobs: Blobs) -> None:
        async with blobs.writer() as writer:
            await writer.write(HELLO)

        assert await blobs.size(hashlib.sha256(HELLO).hexdigest()) is None

    async def test_a_blob_is_not_visible_before_its_commit(self, blobs: Blobs) -> None:
        sha256 = hashlib.sha256(HELLO).hexdigest()

        async with blobs.writer() as writer:
            await writer.write(HELLO)
            before = await blobs.size(sha256)
            await writer.commit()

        assert (before, await blobs.size(sha256)) == (None, len(HELLO))

    async def test_writing_the_same_bytes_again_gives_the_same_reference(
        self, blobs: Blobs
    ) -> None:
        first = await put(blobs, HELLO)

        assert await put(blobs, HELLO) == first
        assert await content(blobs, first.sha256) == HELLO

    async def test_many_writers_of_the_same_bytes_do_not_disturb_one_another(
        self, blobs: Blobs
    ) -> None:
        refs = await asyncio.gather(*(put(blobs, HELLO) for _ in range(8)))

        assert len(set(refs)) == 1
        assert await content(blobs, refs[0].sha256) == HELLO

    async def test_a_part_is_read_by_offset_and_length(self, blobs: Blobs) -> None:
        ref = await put(blobs, HELLO)

        assert await content(blobs, ref.sha256, 7) == b"blobs"
        assert await content(blobs, ref.sha256, 7, 2) == b"bl"
        assert await content(blobs, ref.sha256, 0, 0) == b""
        assert await content(blobs, ref.sha256, 5, 1000) == HELLO[5:]
        assert await content(blobs, ref.sha256, 1000) == b""

    async def test_a_large_blob_is_read_in_pieces_of_a_mebibyte(self, blobs: Blobs) -> None:
        ref = await put(blobs, bytes(MEBIBYTE), bytes(MEBIBYTE), b"end")

        sizes = [len(chunk) async for chunk in blobs.read(ref.sha256)]

        assert sizes == [MEBIBYTE, MEBIBYTE, 3]

    async def test_a_file_is_put_as_it_is(self, blobs: Blobs, tmp_path: Path) -> None:
        path = tmp_path / "a file"
        path.write_bytes(HELLO)

        ref = await blobs.put_file(path)

        assert await content(blobs, ref.sha256) == HELLO
        assert path.read_bytes() == HELLO

    async def test_a_symbolic_link_is_not_put(self, blobs: Blobs, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to("/etc/hostname")

        with pytest.raises(OSError):
            await blobs.put_file(link)

    async def test_a_missing_blob_says_so(self, blobs: Blobs, tmp_path: Path) -> None:
        ref = BlobRef(sha256="0" * 64, size=1, crc32=0)

        with pytest.raises(BlobMissing):
            await content(blobs, ref.sha256)
        with pytest.raises(BlobMissing):
            await blobs.fetch(ref, tmp_path / "copy")
        assert list(tmp_path.glob("*copy*")) == []

    @pytest.mark.parametrize("name", ["", "abc", "../" * 21 + "a", "A" * 64, "0" * 63 + "/"])
    async def test_a_name_that_is_no_hash_is_refused(self, blobs: Blobs, name: str) -> None:
        with pytest.raises(ValueError, match="not a SHA-256"):
            await blobs.size(name)
        with pytest.raises(ValueError, match="not a SHA-256"):
            await content(blobs, name)

    async def test_a_fetched_blob_is_a_file_of_the_same_bytes(
        self, blobs: Blobs, tmp_path: Path
    ) -> None:
        ref = await put(blobs, HELLO)
        to = tmp_path / "copy"

        await blobs.fetch(ref, to)

        assert to.read_bytes() == HELLO
        assert [path.name for path in tmp_path.glob("*copy*")] == ["copy"]

    async def test_reading_may_end_early(self, blobs: Blobs) -> None:
        ref = await put(blobs, bytes(3 * MEBIBYTE))

        chunks = blobs.read(ref.sha256)
        first = await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]

        assert len(first) == MEBIBYTE

    async def test_nothing_is_left_when_the_writer_is_cancelled(
        self, blobs: Blobs, folder: Path
    ) -> None:
        started = asyncio.Event()

        async def upload() -> None:
            async with blobs.writer() as writer:
                while True:
                    await writer.write(bytes(MEBIBYTE))
                    started.set()

        task = asyncio.create_task(upload())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert files(folder) == []
        assert await listed(blobs) == []

    async def test_damage_is_found_when_the_whole_is_read_or_fetched(
        self, blobs: Blobs, alter: Alter, tmp_path: Path
    ) -> None:
        ref = await put(blobs, HELLO)
        await alter(ref.sha256, b"HELLO, blobs")

        with pytest.raises(BlobDamaged):
            await content(blobs, ref.sha256)
        with pytest.raises(BlobDamaged):
            await blobs.fetch(ref, tmp_path / "copy")
        assert list(tmp_path.glob("*copy*")) == []

    async def test_a_blob_cut_short_is_repaired_by_writing_it_again(
        self, blobs: Blobs, alter: Alter
    ) -> None:
        ref = await put(blobs, HELLO)
        await alter(ref.sha256, b"hello")

        await put(blobs, HELLO)

        assert await content(blobs, ref.sha256) == HELLO

    async def test_everything_that_is_there_is_listed_with_size_and_age(self, blobs: Blobs) -> None:
        refs = sorted([await put(blobs, HELLO), await put(blobs)], key=lambda ref: ref.sha256)

        found = await listed(blobs)

        assert [(blob.sha256, blob.size) for blob in found] == [
            (ref.sha256, ref.size) for ref in refs
        ]
        for blob in found:
            assert abs(datetime.now(UTC) - blob.modified_at) < timedelta(minutes=1)

    async def test_what_is_no_blob_is_not_listed(self, blobs: Blobs, alter: Alter) -> None:
        await alter("ab" * 31 + "zz", b"somebody put it there")

        assert await listed(blobs) == []

    async def test_a_deleted_blob_is_gone_and_may_be_written_again(self, blobs: Blobs) -> None:
        ref, other = await put(blobs, HELLO), await put(blobs, b"other")

        await blobs.delete(ref.sha256)
        await blobs.delete(ref.sha256)

        assert await blobs.size(ref.sha256) is None
        assert [blob.sha256 for blob in await listed(blobs)] == [other.sha256]
        assert await put(blobs, HELLO) == ref
        assert await content(blobs, ref.sha256) == HELLO

    async def test_only_an_older_blob_is_deleted_where_that_is_asked(self, blobs: Blobs) -> None:
        ref, day = await put(blobs, HELLO), timedelta(days=1)

        assert not await blobs.delete(ref.sha256, before=datetime.now(UTC) - day)
        assert await content(blobs, ref.sha256) == HELLO
        assert await blobs.delete(ref.sha256, before=datetime.now(UTC) + day)
        assert await blobs.delete(ref.sha256, before=datetime.now(UTC) - day)
        assert await blobs.size(ref.sha256) is None

    async def test_a_large_blob_takes_little_memory_to_write_and_to_fetch(
        self, blobs: Blobs, tmp_path: Path
    ) -> None:
        tracemalloc.start()
        try:
            async with blobs.writer() as writer:
                for number in range(64):
                    await writer.write(bytes([number]) * MEBIBYTE)
                ref = await writer.commit()
            await blobs.fetch(ref, tmp_path / "copy")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert (tmp_path / "copy").stat().st_size == ref.size == 64 * MEBIBYTE
        assert peak < 48 * MEBIBYTE


class TestLocalBlobs(BlobsContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "blobs"

    @pytest.fixture
    def blobs(self, folder: Path) -> Blobs:
        return LocalBlobs(folder)

    @pytest.fixture
    def alter(self, folder: Path) -> Alter:
        async def write(name: str, content: bytes) -> None:
            path = folder / "sha256" / name[:2] / name[2:4] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        return write

    async def test_a_folder_has_no_links(self, blobs: Blobs) -> None:
        ref = await put(blobs, HELLO)

        assert await blobs.link(ref.sha256, expires_s=60, filename="a") is None

    async def test_a_blob_that_is_written_again_is_young_again(
        self, blobs: Blobs, folder: Path
    ) -> None:
        ref = await put(blobs, HELLO)
        os.utime(blob_path(folder, ref.sha256), (1, 1))

        await put(blobs, HELLO)

        (blob,) = await listed(blobs)
        assert datetime.now(UTC) - blob.modified_at < timedelta(minutes=1)

    async def test_leftovers_of_a_killed_writer_go_and_what_is_being_written_stays(
        self, blobs: LocalBlobs, folder: Path
    ) -> None:
        (folder / "tmp" / "leftover").write_bytes(b"half a blob")

        async with blobs.writer() as writer:
            await writer.write(HELLO)
            LocalBlobs(folder)
            left = [path.name for path in (folder / "tmp").iterdir()]
            ref = await writer.commit()

        assert len(left) == 1
        assert left != ["leftover"]
        assert await content(blobs, ref.sha256) == HELLO

    async def test_a_blob_replaced_by_a_link_is_not_followed(
        self, blobs: Blobs, folder: Path
    ) -> None:
        ref = await put(blobs, HELLO)
        path = blob_path(folder, ref.sha256)
        path.unlink()
        path.symlink_to("/etc/hostname")

        with pytest.raises(OSError):
            await content(blobs, ref.sha256)

    async def test_a_full_disk_is_named_and_leaves_nothing(
        self, blobs: Blobs, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)

        with pytest.raises(NoSpace, match="no space is left"):
            await put(blobs, HELLO)
        assert files(folder) == []


@pytest.mark.infra
class TestS3Blobs(BlobsContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "aside"

    @pytest.fixture
    async def blobs(self, seaweed: SeaweedServer, folder: Path) -> AsyncIterator[Blobs]:
        async with S3Blobs(seaweed.access("blobs"), folder) as blobs:
            await blobs.check()
            yield blobs
            await asyncio.to_thread(seaweed.remove_all, "blobs")

    @pytest.fixture
    def alter(self, seaweed: SeaweedServer) -> Alter:
        async def write(name: str, content: bytes) -> None:
            key = f"blobs/sha256/{name[:2]}/{name[2:4]}/{name}"
            await asyncio.to_thread(seaweed.put, "blobs", key, content)

        return write

    async def test_a_missing_bucket_is_made(self, seaweed: SeaweedServer, folder: Path) -> None:
        async with S3Blobs(seaweed.access("not-there-yet"), folder) as blobs:
            ref = await put(blobs, HELLO)

            assert await content(blobs, ref.sha256) == HELLO

    async def test_a_missing_bucket_that_may_not_be_made_is_named(
        self, seaweed: SeaweedServer, folder: Path
    ) -> None:
        async with S3Blobs(seaweed.access("readable", READER), folder) as blobs:
            with pytest.raises(OSError, match=r"no bucket readable at .*may not make it"):
                await blobs.check()
            with pytest.raises(OSError, match="no bucket readable"):
                await content(blobs, "0" * 64)

    @pytest.mark.parametrize(
        ("keys", "reason"),
        [
            ((ADMIN[0], "wrong"), "SignatureDoesNotMatch"),
            (("nobody", "x"), "InvalidAccessKeyId"),
            (READER, "AccessDenied"),
        ],
    )
    async def test_wrong_keys_are_told(
        self, blobs: Blobs, seaweed: SeaweedServer, folder: Path, keys: Any, reason: str
    ) -> None:
        async with S3Blobs(seaweed.access("blobs", keys), folder) as locked_out:
            with pytest.raises(PermissionError, match=f"refuses access to bucket blobs.*{reason}"):
                await locked_out.check()
            with pytest.raises(PermissionError):
                await put(locked_out, HELLO)
            with pytest.raises(PermissionError):
                await content(locked_out, "0" * 64)

        assert await listed(blobs) == []

    async def test_a_stack_that_may_not_use_its_bucket_is_not_started(
        self, seaweed: SeaweedServer, tmp_path: Path
    ) -> None:
        environment = {
            "FINETRAIL_DATA_DIR": str(tmp_path / "data"),
            "FINETRAIL_BLOBS__S3__ENDPOINT": seaweed.endpoint,
            "FINETRAIL_BLOBS__S3__BUCKET": "blobs",
            "FINETRAIL_BLOBS__S3__ACCESS_KEY": ADMIN[0],
            "FINETRAIL_BLOBS__S3__SECRET_KEY": "wrong",
            "FINETRAIL_BLOBS__S3__SECURE": "false",
        }

        done = await asyncio.to_thread(CliRunner().invoke, app, ["up"], env=environment)

        assert done.exit_code == 1
        assert "SignatureDoesNotMatch" in done.stderr
        assert not (tmp_path / "data").exists()

    async def test_a_link_gives_the_blob_to_anybody_as_a_file_of_that_name(
        self, blobs: Blobs
    ) -> None:
        ref = await put(blobs, HELLO)

        url = await blobs.link(ref.sha256, expires_s=60, filename='größe "1".bin')

        assert url is not None
        answer = await get(url)
        assert (answer.status_code, answer.content) == (200, HELLO)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert (
            answer.headers["content-disposition"]
            == "attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22.bin"
        )

    async def test_a_link_that_was_tampered_with_is_refused(self, blobs: Blobs) -> None:
        ref, other = await put(blobs, HELLO), await put(blobs, b"other")

        url = await blobs.link(ref.sha256, expires_s=60, filename="a")

        assert url is not None
        tampered = [
            url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"),
            url.replace(object_name(ref.sha256), object_name(other.sha256)),
            url.replace("filename", "filenane"),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.partition("?")[0],
        ]
        assert [(await get(each)).status_code for each in tampered] == [403] * 5

    async def test_a_link_ends(self, blobs: Blobs) -> None:
        ref = await put(blobs, HELLO)
        url = await blobs.link(ref.sha256, expires_s=1, filename="a")
        assert url is not None

        async with asyncio.timeout(20):
            while (answer := await get(url)).status_code == 200:
                await asyncio.sleep(0.05)

        assert (answer.status_code, HELLO in answer.content) == (403, False)

    async def test_without_a_public_endpoint_there_are_no_links(
        self, seaweed: SeaweedServer, folder: Path
    ) -> None:
        inner = dataclasses.replace(seaweed.access("blobs"), public_endpoint=None)

        async with S3Blobs(inner, folder) as blobs:
            assert await blobs.link("0" * 64, expires_s=60, filename="a") is None

    async def test_a_blob_that_grew_old_is_sent_again(
        self, blobs: Blobs, alter: Alter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ref = await put(blobs, HELLO)
        await alter(ref.sha256, b"HELLO, blobs")

        monkeypatch.setattr("adapters.s3_blobs.YOUNG", timedelta(0))
        await put(blobs, HELLO)

        assert await content(blobs, ref.sha256) == HELLO

    async def test_a_file_that_changes_while_it_is_sent_never_becomes_a_blob(
        self, blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(bytes(PART + 1))

        def change(*_: Any) -> bool:
            with path.open("r+b") as file:
                file.seek(PART)
                file.write(b"x")
            return False

        monkeypatch.setattr(S3Blobs, "_is_young", change)
        with pytest.raises(BlobDamaged):
            await blobs.put_file(path)

        assert await listed(blobs) == []

    async def test_the_gateway_keeps_uploads_there(
        self, blobs: Blobs, folder: Path, tmp_path: Path
    ) -> None:
        async with running_world(tmp_path / "unused", blobs) as world:
            dataset = await world.uploaded(csv_rows())
            async with world.client("viewer") as client:
                rows = await client.get(f"/api/v1/datasets/{dataset['id']}/rows")

        assert rows.status_code == 200, rows.text
        assert [blob.size for blob in await listed(blobs)] == [len(csv_rows())]
        assert files(folder) == world.files() == []

    async def test_the_gateway_tells_that_they_are_away_and_when_to_try_again(
        self, folder: Path, tmp_path: Path
    ) -> None:
        async with (
            S3Blobs(nowhere(free_port()), folder) as blobs,
            running_world(tmp_path / "unused", blobs) as world,
            world.client("editor") as client,
        ):
            before = world.events
            answer = await client.post(
                "/api/v1/datasets", content=csv_rows(), headers={"Content-Type": "text/csv"}
            )

        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert answer.headers["retry-after"] == "2"
        assert (world.events, files(folder)) == (before, [])

    async def test_a_server_that_is_away_is_told_at_once(self, folder: Path) -> None:
        async with S3Blobs(nowhere(free_port()), folder) as blobs:
            for call in calls(blobs):
                with pytest.raises(BlobsAway, match="cannot be reached") as caught:
                    await call
                assert caught.value.errno == errno.ECONNREFUSED

        assert files(folder) == []

    async def test_a_server_that_is_silent_is_given_up(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3_requests, "READ_S", 0.1)

        async with answering(None) as port, S3Blobs(nowhere(port), folder) as blobs:
            for call in calls(blobs):
                with pytest.raises(BlobsAway, match="does not answer in time") as caught:
                    await call
                assert caught.value.errno == errno.ETIMEDOUT

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            ("507 Insufficient Storage", "InsufficientStorage", NoSpace),
            ("400 Bad Request", "XMinioStorageFull", NoSpace),
            ("403 Forbidden", "RequestTimeTooSkewed", PermissionError),
            ("429 Too Many Requests", "SlowDown", BlobsAway),
            ("503 Service Unavailable", "ServiceUnavailable", BlobsAway),
            ("404 Not Found", "NoSuchKey", BlobMissing),
            ("400 Bad Request", "InvalidRequest", OSError),
        ],
    )
    async def test_what_the_server_says_becomes_an_error_of_ours(
        self, folder: Path, status: str, code: str, kind: type[OSError]
    ) -> None:
        body = f"<Error><Code>{code}</Code><Message>so it is</Message></Error>".encode()
        answer = http_answer(status, body, "application/xml")

        async with answering(answer) as port, S3Blobs(nowhere(port), folder) as blobs:
            with pytest.raises(kind):
                await content(blobs, "0" * 64)

    async def test_what_is_no_s3_server_is_told(self, folder: Path) -> None:
        page = http_answer("200 OK", b"<html>hello</html>", "text/html")
        error = http_answer("502 Bad Gateway", b"<html>sorry</html>", "text/html")

        for answer in (error, page.replace(b"200 OK", b"418 Teapot")):
            async with answering(answer) as port, S3Blobs(nowhere(port), folder) as blobs:
                with pytest.raises(BlobsAway):
                    await content(blobs, "0" * 64)

    async def test_an_answer_that_breaks_off_is_no_blob(self, folder: Path, tmp_path: Path) -> None:
        cut = http_answer("200 OK", HELLO, "application/octet-stream")[:-5]

        async with answering(cut) as port, S3Blobs(nowhere(port), folder) as blobs:
            ref = BlobRef(sha256=hashlib.sha256(HELLO).hexdigest(), size=len(HELLO), crc32=0)
            with pytest.raises(BlobsAway):
                await blobs.fetch(ref, tmp_path / "copy")

        assert list(tmp_path.glob("*copy*")) == []

    async def test_settings_choose_it_and_a_server_that_is_away_keeps_nobody_from_starting(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        bucket = S3Settings.model_validate(
            {
                "endpoint": f"127.0.0.1:{free_port()}",
                "bucket": "blobs",
                "access_key": "a",
                "secret_key": "s",
                "secure": False,
            }
        )

        async with open_blobs(Settings(data_dir=tmp_path, blobs=BlobSettings(s3=bucket))) as blobs:
            assert isinstance(blobs, S3Blobs)

        assert "blobs cannot be read or written now" in caplog.text
        async with open_blobs(Settings(data_dir=tmp_path)) as blobs:
            assert isinstance(blobs, LocalBlobs)


async def test_no_blob_has_more_parts_than_a_server_takes() -> None:
    assert part_size(0) == part_size(64 * MEBIBYTE) == PART
    assert part_size(10 * MOST_PARTS * PART + 1) * MOST_PARTS > 10 * MOST_PARTS * PART


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


def nowhere(port: int) -> s3_requests.S3Access:
    return s3_requests.S3Access(f"127.0.0.1:{port}", "blobs", "a", "s", secure=False)


def calls(blobs: Blobs) -> list[Awaitable[Any]]:
    return [
        put(blobs, HELLO),
        content(blobs, "0" * 64),
        blobs.size("0" * 64),
        listed(blobs),
        blobs.delete("0" * 64),
    ]


def http_answer(status: str, body: bytes, media_type: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + body


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[int]:
    """A server that says the same to everybody, or nothing at all."""
    over = asyncio.Event()

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()
        await server.wait_closed()
