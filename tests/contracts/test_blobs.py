"""What every blob store must do, written once and run against each of them."""

import asyncio
import errno
import hashlib
import os
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pytest

from adapters.blob_files import BlobDamaged, BlobMissing, NoSpace
from adapters.local_blobs import LocalBlobs, blob_path
from domain.blobs import BlobRef

pytestmark = pytest.mark.asyncio(loop_scope="function")

HELLO = b"hello, blobs"
MEBIBYTE = 1024 * 1024


class Writer(Protocol):
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    async def write(self, chunk: bytes) -> None: ...
    async def commit(self) -> BlobRef: ...


class Blobs(Protocol):
    def writer(self) -> Writer: ...
    async def put_file(self, path: Path) -> BlobRef: ...
    def read(
        self, sha256: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]: ...
    async def size(self, sha256: str) -> int | None: ...
    async def fetch(self, ref: BlobRef, to: Path) -> None: ...


async def put(blobs: Blobs, *chunks: bytes) -> BlobRef:
    async with blobs.writer() as writer:
        for chunk in chunks:
            await writer.write(chunk)
        return await writer.commit()


async def content(blobs: Blobs, sha256: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(sha256, offset, length)])


class BlobsContract:
    """A subclass gives the store as the fixture ``blobs``."""

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


class TestLocalBlobs(BlobsContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "blobs"

    @pytest.fixture
    def blobs(self, folder: Path) -> Blobs:
        return LocalBlobs(folder)

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

        assert [path for path in folder.rglob("*") if path.is_file()] == []

    async def test_leftovers_of_a_killed_writer_go_after_a_day(self, folder: Path) -> None:
        LocalBlobs(folder)
        (folder / "tmp" / "old").write_bytes(b"half a blob")
        (folder / "tmp" / "young").write_bytes(b"half a blob")
        two_days_ago = time.time() - 2 * 24 * 3600
        os.utime(folder / "tmp" / "old", (two_days_ago, two_days_ago))

        LocalBlobs(folder)

        assert [path.name for path in (folder / "tmp").iterdir()] == ["young"]

    async def test_damage_is_found_when_the_whole_is_read_or_fetched(
        self, blobs: Blobs, folder: Path, tmp_path: Path
    ) -> None:
        ref = await put(blobs, HELLO)
        blob_path(folder, ref.sha256).write_bytes(b"HELLO, blobs")

        with pytest.raises(BlobDamaged):
            await content(blobs, ref.sha256)
        with pytest.raises(BlobDamaged):
            await blobs.fetch(ref, tmp_path / "copy")
        assert list(tmp_path.glob("*copy*")) == []

    async def test_a_blob_cut_short_is_repaired_by_writing_it_again(
        self, blobs: Blobs, folder: Path
    ) -> None:
        ref = await put(blobs, HELLO)
        blob_path(folder, ref.sha256).write_bytes(b"hello")

        await put(blobs, HELLO)

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
        assert [path for path in folder.rglob("*") if path.is_file()] == []
