"""Which blob store the settings mean; every process opens it here."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from adapters.blob_files import StoredBlob
from adapters.local_blobs import LocalBlobs
from adapters.s3_blobs import S3Blobs
from adapters.s3_requests import S3Access
from domain.blobs import BlobRef
from finetrail.settings import S3Settings, Settings
from finetrail.stack.errors import StackError

_log = logging.getLogger(__name__)


class BlobWriter(Protocol):
    @property
    def size(self) -> int: ...
    @property
    def ref(self) -> BlobRef: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    async def write(self, chunk: bytes) -> None: ...
    async def commit(self) -> BlobRef: ...


class BlobStore(Protocol):
    """What every store can do; `tests/contracts/test_blobs.py` says what it promises."""

    def writer(self) -> BlobWriter: ...
    async def put_file(self, path: Path) -> BlobRef: ...
    def read(
        self, sha256: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]: ...
    async def size(self, sha256: str) -> int | None: ...
    async def fetch(self, ref: BlobRef, to: Path) -> None: ...
    def stored(self) -> AsyncIterator[StoredBlob]: ...
    async def delete(self, sha256: str, *, before: datetime | None = None) -> bool: ...
    async def link(self, sha256: str, *, expires_s: int, filename: str) -> str | None: ...


@asynccontextmanager
async def open_blobs(settings: Settings, *, make: bool = True) -> AsyncIterator[BlobStore]:
    """The store of these settings; an S3 server that is away now may come back later.

    Args:
        make: a bucket that is missing is made at once.

    Raises:
        OSError: The S3 server refuses the credentials, or the bucket cannot be made.
    """
    if settings.blobs.s3 is None:
        yield LocalBlobs(settings.blobs_folder)
        return
    async with S3Blobs(s3_access(settings.blobs.s3), settings.folder / "uploads") as blobs:
        try:
            if make:
                await blobs.check()
        except ConnectionError as away:
            _log.warning("blobs cannot be read or written now: %s", away)
        yield blobs


async def check_store(settings: Settings) -> None:
    """Say what is wrong with the store before anything is started; a server may still be away.

    Raises:
        StackError: The S3 server refuses the credentials, or the bucket cannot be made.
    """
    try:
        async with open_blobs(settings):
            return
    except OSError as error:
        raise StackError(
            f"{error.strerror}.", "Check FINETRAIL_BLOBS__S3__… and docs/how-to/use-s3.md."
        ) from error


def s3_access(settings: S3Settings) -> S3Access:
    return S3Access(
        endpoint=settings.endpoint,
        bucket=settings.bucket,
        access_key=settings.access_key,
        secret_key=settings.secret_key.get_secret_value(),
        region=settings.region,
        secure=settings.secure,
        public_endpoint=settings.public_endpoint,
    )
