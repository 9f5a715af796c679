"""What blob stores share: their errors, and files that are hashed while they are written.

All errors are `OSError`s, so that callers who may not import this module can still tell them apart.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from domain.blobs import BlobRef

CHUNK: Final = 1024 * 1024  # bytes a read; larger ones gain nothing and hold memory for each reader


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

    def __init__(self, place: Path | str) -> None:
        super().__init__(errno.ENOSPC, "no space is left for blobs", str(place))


class BlobsAway(ConnectionError):
    """The store does not answer, or not in time; ``errno`` is ETIMEDOUT or ECONNREFUSED."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as the store lists it; when it was written last, not what it holds."""

    sha256: str
    size: int
    modified_at: datetime  # aware, UTC


class HashedFile:
    """Computes size, SHA-256 and CRC-32 while bytes stream into ``aside``; leaving removes the file."""

    def __init__(self, aside: Path) -> None:
        self._aside = aside
        self._file: BinaryIO | None = None
        self._sha256 = hashlib.sha256()
        self._crc32 = 0
        self._size = 0

    async def __aenter__(self) -> Self:
        # Not in a thread: a cancelled task would not learn of the file that the thread still makes.
        with space(self._aside.parent):
            self._file = _create(self._aside)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._aside.unlink(missing_ok=True)
        if self._file is not None:
            with suppress(OSError):  # a full disk again, at the flush of what is thrown away
                self._file.close()  # waits for a thread that is still writing
            self._file = None

    @property
    def size(self) -> int:
        """Bytes taken so far."""
        return self._size

    @property
    def ref(self) -> BlobRef:
        """Names the bytes taken so far."""
        return BlobRef(sha256=self._sha256.hexdigest(), size=self._size, crc32=self._crc32)

    async def write(self, chunk: bytes) -> None:
        await asyncio.to_thread(self._write, chunk)

    async def move(self, to: Path) -> None:
        await asyncio.to_thread(self._move, to)

    def _open(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("the writer is not open: use it with `async with`")
        return self._file

    def _write(self, chunk: bytes) -> None:
        with space(self._aside.parent):
            self._open().write(chunk)
        self._sha256.update(chunk)
        self._crc32 = zlib.crc32(chunk, self._crc32)
        self._size += len(chunk)

    def _flush(self) -> BinaryIO:
        file = self._open()
        with space(self._aside.parent):
            file.flush()
        return file

    def _move(self, to: Path) -> None:
        self._flush()
        with space(self._aside.parent):
            self._aside.replace(to)


def is_hash(name: str) -> bool:
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def checked_hash(sha256: str) -> str:
    """The hash itself.

    Raises:
        ValueError: The name is not 64 lower-case hexadecimal digits.
    """
    if not is_hash(sha256):
        raise ValueError(f"{sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal")
    return sha256


async def fetch(chunks: AsyncIterator[bytes], to: Path, aside: Path) -> None:
    """Write ``chunks`` to ``to``, which appears only when all of them have come."""
    async with HashedFile(aside) as copy:
        async for chunk in chunks:
            await copy.write(chunk)
        await copy.move(to)


async def chunks_of(
    file: BinaryIO, offset: int = 0, length: int | None = None
) -> AsyncIterator[bytes]:
    """Read and close ``file``."""
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


async def ref_of(path: Path) -> BlobRef:
    """Read a file to name what it holds."""
    return await asyncio.to_thread(_ref_of, path)


def open_to_read(path: Path) -> BinaryIO:
    # No symbolic link: a child process that was fed bad data must not choose what is stored.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def private_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers have left; those at work hold a lock, which the kernel takes back."""
    for path in folder.iterdir():
        # Locked, gone by now, or nothing that a writer makes.
        with suppress(OSError), open_to_read(path) as file:
            _lock(file)
            path.unlink()


@contextmanager
def space(place: Path | str) -> Iterator[None]:
    """Say `NoSpace` where a disk or a quota is full."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(place) from error
        raise


def _ref_of(path: Path) -> BlobRef:
    digest, crc32, size = hashlib.sha256(), 0, 0
    with open_to_read(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            crc32 = zlib.crc32(chunk, crc32)
            size += len(chunk)
    return BlobRef(sha256=digest.hexdigest(), size=size, crc32=crc32)


def _create(path: Path) -> BinaryIO:
    """A new file that is locked for as long as it is open."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        file = os.fdopen(os.open(path, flags, 0o600), "wb")
        try:
            _lock(file)
            if os.fstat(file.fileno()).st_nlink:
                return file
        except BlockingIOError:
            path.unlink(missing_ok=True)
        except OSError:  # a file system without locks, where nobody takes it for a leftover
            return file
        file.close()  # just now somebody took it for one


def _lock(file: BinaryIO) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
