"""Blobs in a local folder: every file is named by the SHA-256 of what it holds, and appears whole or not at all.

All errors are `OSError`s, so that callers who may not import this module can still tell them apart.
"""

import asyncio
import errno
import hashlib
import os
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self
from uuid import uuid4

from domain.blobs import BlobRef

CHUNK: Final = 1024 * 1024  # bytes a read; larger ones gain nothing and hold memory for each reader
LEFTOVER_AGE_S: Final = 24 * 3600  # no upload takes a day, so its writer must be gone


class BlobMissing(FileNotFoundError):
    """The store holds no blob of that hash."""

    def __init__(self, sha256: str) -> None:
        super().__init__(errno.ENOENT, "there is no blob of this hash", sha256)


class BlobDamaged(OSError):
    """The stored bytes are not the ones that the hash names: the disk or somebody changed them."""

    def __init__(self, sha256: str) -> None:
        super().__init__(errno.EIO, "the stored bytes do not have this hash", sha256)


class NoSpace(OSError):
    """The disk or the quota is full; nothing of the write is left behind."""

    def __init__(self, folder: Path) -> None:
        super().__init__(errno.ENOSPC, "no space is left for blobs", str(folder))


class LocalBlobs:
    """A store below ``folder``, which may be shared by several processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aside = folder / "tmp"
        for created in (folder, self._aside, folder / "sha256"):
            created.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_leftovers(self._aside)

    def writer(self) -> "BlobWriter":
        """Take bytes whose hash is not known yet; to be used with ``async with``."""
        return BlobWriter(self._aside / uuid4().hex, self._folder)

    async def put_file(self, path: Path) -> BlobRef:
        async with self.writer() as writer:
            async for chunk in _chunks(_open_to_read(path)):
                await writer.write(chunk)
            return await writer.commit()

    async def read(
        self, sha256: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the bytes in pieces of at most 1 MiB; a blob that is read as a whole is verified.

        Raises:
            BlobMissing: Before the first piece.
            BlobDamaged: After the last one.
            ValueError: ``sha256`` is no hash.
        """
        path = blob_path(self._folder, sha256)
        try:
            file = _open_to_read(path)
        except FileNotFoundError:
            raise BlobMissing(sha256) from None
        digest = hashlib.sha256()
        whole = offset == 0 and length is None
        async for chunk in _chunks(file, offset, length):
            if whole:
                await asyncio.to_thread(digest.update, chunk)
            yield chunk
        if whole and digest.hexdigest() != sha256:
            raise BlobDamaged(sha256)

    async def size(self, sha256: str) -> int | None:
        """Bytes that the blob has, or None where there is no such blob."""
        path = blob_path(self._folder, sha256)
        return await asyncio.to_thread(_size, path)

    async def fetch(self, ref: BlobRef, to: Path) -> None:
        """Copy a blob to ``to``, which appears only when its bytes were verified.

        Raises:
            BlobMissing, BlobDamaged, NoSpace: As they say; ``to`` is as it was.
        """
        async with BlobWriter(to.with_name(f".{to.name}.{uuid4().hex}"), to.parent) as copy:
            async for chunk in self.read(ref.sha256):
                await copy.write(chunk)
            await copy.move(to)


class BlobWriter:
    """Computes size, SHA-256 and CRC-32 while bytes stream in; without a commit nothing is left."""

    def __init__(self, aside: Path, folder: Path) -> None:
        self._aside = aside
        self._folder = folder
        self._file: BinaryIO | None = None
        self._sha256 = hashlib.sha256()
        self._crc32 = 0
        self._size = 0

    async def __aenter__(self) -> Self:
        # Not in a thread: a cancelled task would not learn of the file that the thread still makes.
        with _space(self._folder):
            self._file = _create(self._aside)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()

    @property
    def size(self) -> int:
        """Bytes taken so far."""
        return self._size

    async def write(self, chunk: bytes) -> None:
        await asyncio.to_thread(self._write, chunk)

    async def commit(self) -> BlobRef:
        """Make the blob visible under its hash; where it exists already, that is all."""
        return await asyncio.to_thread(self._commit)

    async def move(self, to: Path) -> None:
        await asyncio.to_thread(self._move, to)

    def _open(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the writer is not open: use it with `async with`")
        return self._file

    def _write(self, chunk: bytes) -> None:
        with _space(self._folder):
            self._open().write(chunk)
        self._sha256.update(chunk)
        self._crc32 = zlib.crc32(chunk, self._crc32)
        self._size += len(chunk)

    def _commit(self) -> BlobRef:
        file = self._open()
        ref = BlobRef(sha256=self._sha256.hexdigest(), size=self._size, crc32=self._crc32)
        path = blob_path(self._folder, ref.sha256)
        if _size(path) != ref.size:
            with _space(self._folder):
                file.flush()
                os.fsync(file.fileno())
                _make_parents(path)
                self._aside.replace(path)
        _sync_folder(path.parent)  # also where another writer has just put it there
        return ref

    def _move(self, to: Path) -> None:
        with _space(self._folder):
            self._open().flush()
            self._aside.replace(to)

    def _discard(self) -> None:
        self._aside.unlink(missing_ok=True)
        if self._file is not None:
            with suppress(OSError):  # a full disk again, at the flush of what is thrown away
                self._file.close()  # waits for a thread that is still writing
            self._file = None


def blob_path(folder: Path, sha256: str) -> Path:
    """Where a blob lies: ``sha256/ab/cd/<hash>``.

    Raises:
        ValueError: The name is not 64 lower-case hexadecimal digits.
    """
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"{sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal")
    return folder / "sha256" / sha256[:2] / sha256[2:4] / sha256


async def _chunks(
    file: BinaryIO, offset: int = 0, length: int | None = None
) -> AsyncIterator[bytes]:
    left = length
    with file:
        file.seek(offset)
        while left is None or left > 0:
            chunk = await asyncio.to_thread(file.read, CHUNK if left is None else min(CHUNK, left))
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk


def _create(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _open_to_read(path: Path) -> BinaryIO:
    # No symbolic link: a child process that was fed bad data must not choose what is stored.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _make_parents(path: Path) -> None:
    """Create the two levels above a blob so that they survive a power cut too."""
    for parent in (path.parent.parent, path.parent):
        if not parent.is_dir():
            parent.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(parent.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(folder: Path) -> None:
    now = time.time()
    for path in folder.iterdir():
        try:
            if now - path.lstat().st_mtime > LEFTOVER_AGE_S:
                path.unlink()
        except FileNotFoundError:
            continue  # another process was quicker


@contextmanager
def _space(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(folder) from error
        raise
