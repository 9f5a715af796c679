"""Blobs in a bucket of any S3 server, named by the SHA-256 of what they hold.

A blob is kept in a private file while it is written, for its name is known only at the end. It is
then sent part by part, and shows only when the server has put all of them together.
"""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote
from uuid import uuid4

from minio.error import S3Error

from adapters.blob_files import (
    CHUNK,
    BlobDamaged,
    HashedFile,
    StoredBlob,
    checked_hash,
    fetch,
    is_hash,
    open_to_read,
    private_folder,
    ref_of,
    remove_leftovers,
)
from adapters.s3_requests import PREFIX, Body, S3Access, S3Requests
from domain.blobs import BlobRef

UPLOADS: Final = 4  # at a time, each with one part in memory
PART: Final = 16 * 1024 * 1024  # bytes; the larger, the more memory and the fewer requests
MOST_PARTS: Final = 10_000  # of one object, says S3
PAGE: Final = 1000  # objects of one answer to a listing
# A blob that is there and younger is not sent again. Collecting spares what is twice as old.
YOUNG: Final = timedelta(hours=1)

Put = Callable[[Path, BlobRef], Awaitable[BlobRef]]


class S3Blobs:
    """A store in one bucket; ``aside`` is a private folder for what is being written."""

    def __init__(self, access: S3Access, aside: Path) -> None:
        self._requests = S3Requests(access)
        self._client, self._bucket = self._requests.client, access.bucket
        self._aside = aside
        if aside.exists():
            remove_leftovers(aside)
        self._uploads = asyncio.Semaphore(UPLOADS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._requests.close()

    async def check(self) -> None:
        """Make the bucket where it is missing.

        Raises:
            BlobsAway: The server does not answer.
            OSError: It refuses the credentials, or the bucket is missing and may not be made.
        """
        await self._requests.call(self._requests.ensure_bucket)

    def writer(self) -> "S3BlobWriter":
        """Take bytes whose hash is not known yet; to be used with ``async with``."""
        return S3BlobWriter(private_folder(self._aside) / uuid4().hex, self._put)

    async def put_file(self, path: Path) -> BlobRef:
        return await self._put(path, await ref_of(path))

    async def read(
        self, sha256: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the bytes in pieces of at most 1 MiB; a blob that is read as a whole is verified.

        Raises:
            BlobMissing: Before the first piece.
            BlobDamaged: After the last one.
            BlobsAway: At any time.
            ValueError: ``sha256`` is no hash.
        """
        name = object_name(sha256)
        digest = hashlib.sha256()
        body = Body(self._requests)
        try:
            await body.open(name, offset, length)
            while chunk := await body.next(CHUNK, digest.update):
                yield chunk
        finally:
            body.close()
        if offset == 0 and length is None and digest.hexdigest() != sha256:
            raise BlobDamaged(sha256)

    async def size(self, sha256: str) -> int | None:
        """Bytes that the blob has, or None where there is no such blob."""
        name = object_name(sha256)
        found = await self._requests.call(lambda: self._found(name))
        return None if found is None else found.size

    async def fetch(self, ref: BlobRef, to: Path) -> None:
        """Copy a blob to ``to``, which appears only when its bytes were verified.

        Raises:
            BlobMissing, BlobDamaged, BlobsAway, NoSpace: As they say; ``to`` is as it was.
        """
        await fetch(self.read(ref.sha256), to, to.with_name(f".{to.name}.{uuid4().hex}"))

    async def stored(self) -> AsyncIterator[StoredBlob]:
        """Everything that is there, in no order that means anything."""
        listing = self._client.list_objects(self._bucket, prefix=PREFIX, recursive=True)
        while page := await self._requests.call(lambda: list(islice(listing, PAGE))):
            for each in page:
                sha256 = each.object_name.rpartition("/")[2]
                if is_hash(sha256) and each.object_name == _name(sha256):
                    yield StoredBlob(sha256, each.size, each.last_modified)

    async def delete(self, sha256: str, *, before: datetime | None = None) -> bool:
        """Remove a blob; one that is not there is no error.

        Args:
            before: when it was written last; a younger one stays, and the answer is False.
        """
        name = object_name(sha256)
        return await self._requests.call(lambda: self._deleted(name, before))

    async def link(self, sha256: str, *, expires_s: int, filename: str) -> str | None:
        """A URL by which anybody may get the blob for ``expires_s`` seconds, at most seven days.

        None where no public endpoint is set. Whether the blob is there is not looked at.
        """
        name, client = object_name(sha256), self._requests.public_client
        if client is None:
            return None
        disposition = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        url: str = client.presigned_get_object(
            self._bucket,
            name,
            expires=timedelta(seconds=expires_s),
            response_headers={
                "response-content-disposition": disposition,
                "response-content-type": "application/octet-stream",  # never shown as a page
            },
        )
        return url

    async def _put(self, path: Path, ref: BlobRef) -> BlobRef:
        given_up = threading.Event()
        async with self._uploads:
            try:
                await self._requests.call(lambda: self._upload(path, ref, given_up))
            finally:
                given_up.set()
        return ref

    def _upload(self, path: Path, ref: BlobRef, given_up: threading.Event) -> None:
        if self._is_young(ref):
            return
        with open_to_read(path) as file:
            try:
                self._send(file, ref, given_up)
            except S3Error as error:
                if error.code != "NoSuchBucket":
                    raise
                self._requests.ensure_bucket()
                self._send(file, ref, given_up)

    def _send(self, file: BinaryIO, ref: BlobRef, given_up: threading.Event) -> None:
        file.seek(0)
        self._client.put_object(
            self._bucket,
            _name(ref.sha256),
            _Checked(file, ref, given_up),
            ref.size,
            part_size=part_size(ref.size),
            num_parallel_uploads=1,
        )

    def _is_young(self, ref: BlobRef) -> bool:
        """Whether it is there, and was written so lately that nobody collects it."""
        found = self._found(_name(ref.sha256))
        return (
            found is not None
            and found.size == ref.size
            and datetime.now(UTC) - found.last_modified < YOUNG
        )

    def _deleted(self, name: str, before: datetime | None) -> bool:
        found = None if before is None else self._found(name)
        if before is not None and found is not None and found.last_modified >= before:
            return False
        self._client.remove_object(self._bucket, name)
        return True

    def _found(self, name: str) -> Any | None:
        try:
            return self._client.stat_object(self._bucket, name)
        except S3Error as error:
            if error.code == "NoSuchKey":  # of a missing bucket too: a HEAD has no words for more
                return None
            raise


class S3BlobWriter(HashedFile):
    """Without a commit nothing is left."""

    def __init__(self, aside: Path, put: Put) -> None:
        super().__init__(aside)
        self._put = put

    async def commit(self) -> BlobRef:
        """Make the blob visible under its hash; where it exists already, it counts as new again."""
        await asyncio.to_thread(self._flush)
        return await self._put(self._aside, self.ref)


class _Checked:
    """A file whose last bytes are given away only if all of them are what they should be.

    The server would show the blob as soon as it has them.
    """

    def __init__(self, file: BinaryIO, ref: BlobRef, given_up: threading.Event) -> None:
        self._file = file
        self._ref = ref
        self._given_up = given_up
        self._digest = hashlib.sha256()
        self._size = 0

    def read(self, size: int) -> bytes:
        _go_on(self._given_up)
        chunk = self._file.read(size)
        self._digest.update(chunk)
        self._size += len(chunk)
        if self._size >= self._ref.size and self._digest.hexdigest() != self._ref.sha256:
            raise BlobDamaged(self._ref.sha256)  # the file was changed meanwhile
        return chunk


def object_name(sha256: str) -> str:
    """The key of a blob: ``blobs/sha256/ab/cd/<hash>``.

    Raises:
        ValueError: The name is not 64 lower-case hexadecimal digits.
    """
    return _name(checked_hash(sha256))


def part_size(size: int) -> int:
    """Bytes of each part, so that there are not too many of them."""
    return max(PART, -(-size // MOST_PARTS))


def _name(sha256: str) -> str:
    return f"{PREFIX}{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _go_on(given_up: threading.Event) -> None:
    if given_up.is_set():
        raise InterruptedError("nobody waits for this upload any more")
