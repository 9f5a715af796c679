"""Blobs in a local folder: every file is named by the SHA-256 of what it holds, and appears whole or not at all."""

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from adapters.blob_files import (
    BlobDamaged,
    BlobMissing,
    HashedFile,
    StoredBlob,
    checked_hash,
    chunks_of,
    fetch,
    is_hash,
    open_to_read,
    private_folder,
    remove_leftovers,
    space,
)
from domain.blobs import BlobRef


class LocalBlobs:
    """A store below ``folder``, which may be shared by several processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)
        self._aside = private_folder(folder / "tmp")
        private_folder(folder / "sha256")
        remove_leftovers(self._aside)

    def writer(self) -> "BlobWriter":
        """Take bytes whose hash is not known yet; to be used with ``async with``."""
        return BlobWriter(self._aside / uuid4().hex, self._folder)

    async def put_file(self, path: Path) -> BlobRef:
        async with self.writer() as writer:
            async for chunk in chunks_of(open_to_read(path)):
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
            file = open_to_read(path)
        except FileNotFoundError:
            raise BlobMissing(sha256) from None
        digest = hashlib.sha256()
        whole = offset == 0 and length is None
        async for chunk in chunks_of(file, offset, length):
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
        await fetch(self.read(ref.sha256), to, to.with_name(f".{to.name}.{uuid4().hex}"))

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """Everything that is there, in no order that means anything."""
        for shelf in await asyncio.to_thread(_entries, self._folder / "sha256"):
            for blob in await asyncio.to_thread(_blobs_on, shelf):
                yield blob

    async def delete(self, sha256: str, *, before: datetime | None = None) -> bool:
        """Remove a blob; one that is not there is no error.

        Args:
            before: when it was written last; a younger one stays, and the answer is False.
        """
        path = blob_path(self._folder, sha256)
        return await asyncio.to_thread(_deleted, path, before)

    async def link(self, sha256: str, *, expires_s: int, filename: str) -> str | None:  # noqa: ARG002
        """None: a folder has no links of its own."""
        checked_hash(sha256)
        return None


class BlobWriter(HashedFile):
    """Without a commit nothing is left."""

    def __init__(self, aside: Path, folder: Path) -> None:
        super().__init__(aside)
        self._folder = folder

    async def commit(self) -> BlobRef:
        """Make the blob visible under its hash; where it exists already, it counts as new again."""
        return await asyncio.to_thread(self._commit)

    def _commit(self) -> BlobRef:
        file, ref = self._flush(), self.ref
        path = blob_path(self._folder, ref.sha256)
        if not _refreshed(path, ref.size):
            with space(self._folder):
                os.fsync(file.fileno())
                _make_parents(path)
                self._aside.replace(path)
        _sync_folder(path.parent)  # also where another writer has just put it there
        return ref


def blob_path(folder: Path, sha256: str) -> Path:
    """Where a blob lies: ``sha256/ab/cd/<hash>``.

    Raises:
        ValueError: The name is not 64 lower-case hexadecimal digits.
    """
    checked_hash(sha256)
    return folder / "sha256" / sha256[:2] / sha256[2:4] / sha256


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _refreshed(path: Path, size: int) -> bool:
    """Whether it is there; if so it is young again, and is not collected before it is referred to."""
    if _size(path) != size:
        return False
    try:
        os.utime(path, follow_symlinks=False)
    except FileNotFoundError:  # collected this very moment
        return False
    return True


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _blobs_on(shelf: Path) -> list[StoredBlob]:
    """The blobs of ``sha256/ab``; whatever else somebody has put there is passed over."""
    found = []
    for path in (path for folder in _entries(shelf) for path in _entries(folder)):
        with suppress(FileNotFoundError):  # deleted this very moment
            info = path.lstat()
            if is_hash(path.name) and stat.S_ISREG(info.st_mode):
                modified_at = datetime.fromtimestamp(info.st_mtime, UTC)
                found.append(StoredBlob(path.name, info.st_size, modified_at))
    return found


def _deleted(path: Path, before: datetime | None) -> bool:
    with suppress(FileNotFoundError):
        if before is not None and path.lstat().st_mtime >= before.timestamp():
            return False
        path.unlink()
    return True


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
