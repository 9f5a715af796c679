"""The blocking S3 SDK behind asyncio: threads of its own, time limits, and errors as `OSError`s."""

import asyncio
import errno
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeout

from adapters.blob_files import BlobMissing, BlobsAway, NoSpace

PREFIX: Final = "blobs/sha256/"
THREADS: Final = 32  # requests at a time; a thread that waits for the server costs nothing else
CONNECTIONS: Final = 64  # kept open; every download that is under way holds one
CONNECT_S: Final = 5.0
READ_S: Final = 60.0
# One more try hides a restart or a cut connection; what lasts longer is for callers, who can wait.
RETRIES: Final = urllib3.Retry(
    total=2,
    connect=1,
    read=1,
    backoff_factor=0.2,
    status_forcelist=(500, 502, 503, 504),
    respect_retry_after_header=False,  # it may ask for hours
)
FULL: Final = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
BUSY: Final = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
REFUSED: Final = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
EXISTS: Final = frozenset({"BucketAlreadyExists", "BucketAlreadyOwnedByYou"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class S3Access:
    """One bucket and who may use it."""

    endpoint: str  # host:port
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"  # signed into every request, so that the server need not be asked
    secure: bool = True  # TLS
    public_endpoint: str | None = None  # URL by which browsers reach it; without it no links


class S3Requests:
    """Requests to one bucket, each in a thread."""

    def __init__(self, access: S3Access) -> None:
        self.bucket = access.bucket
        self._access = access
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3")
        self._http = urllib3.PoolManager(
            maxsize=CONNECTIONS,
            timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
            retries=RETRIES,
        )
        self.client = self._client_at(access.endpoint, secure=access.secure)
        self.public_client: Minio | None = None
        if access.public_endpoint is not None:
            url = urlsplit(access.public_endpoint)
            self.public_client = self._client_at(url.netloc, secure=url.scheme == "https")

    def close(self) -> None:
        """Threads end after the request that they are in."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    async def call(self, work: Callable[[], T], name: str = "") -> T:
        """Do ``work`` in a thread; ``name`` is the object that it is about."""
        return await asyncio.wrap_future(self.submit(work, name))

    def submit(self, work: Callable[[], T], name: str = "") -> "Future[T]":
        def translated() -> T:
            with self._errors(name):
                return work()

        return self._threads.submit(translated)

    def ensure_bucket(self) -> None:
        """To be called in a thread."""
        try:  # not by HEAD, whose refusals have no reason in them
            next(self.client.list_objects(self.bucket, prefix=PREFIX), None)
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            self._make_bucket()

    def _make_bucket(self) -> None:
        try:
            self.client.make_bucket(self.bucket)
        except S3Error as error:
            if error.code in EXISTS:
                return  # another process was quicker
            raise OSError(
                errno.ENXIO,
                f"there is no bucket {self.bucket} at {self._access.endpoint}, and these "
                f"credentials may not make it ({error.code}: {error.message})",
            ) from error

    def _client_at(self, host: str, *, secure: bool) -> Minio:
        return Minio(
            host,
            access_key=self._access.access_key,
            secret_key=self._access.secret_key,
            region=self._access.region,
            secure=secure,
            http_client=self._http,
        )

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise self._refusal(error, name) from error
        except (MinioException, HTTPError) as error:
            raise self._absence(error) from error

    def _absence(self, error: Exception) -> BlobsAway:
        server = f"the S3 server at {self._access.endpoint}"
        cause = error.reason if isinstance(error, MaxRetryError) else error
        if isinstance(cause, HTTPTimeout) and not isinstance(cause, NewConnectionError):
            return BlobsAway(errno.ETIMEDOUT, f"{server} does not answer in time")
        if isinstance(cause, MinioException):
            return BlobsAway(errno.ECONNREFUSED, f"{server} gives an answer that is none: {cause}")
        return BlobsAway(errno.ECONNREFUSED, f"{server} cannot be reached: {cause}")

    def _refusal(self, error: Any, name: str) -> OSError:
        server = f"the S3 server at {self._access.endpoint}"
        said = f"{error.code}: {error.message}"
        if error.code == "NoSuchKey":
            return BlobMissing(name.rpartition("/")[2])
        if error.code == "NoSuchBucket":
            return OSError(errno.ENXIO, f"there is no bucket {self.bucket} at {server}")
        if error.code in FULL:
            return NoSpace(server)
        if error.code in REFUSED:
            return PermissionError(
                errno.EPERM,
                f"{server} refuses access to bucket {self.bucket} with these keys ({said})",
            )
        if error.code in BUSY:
            return BlobsAway(errno.ECONNREFUSED, f"{server} cannot answer now ({said})")
        return OSError(errno.EPROTO, f"{server} refuses a request ({said})")


class Body:
    """The bytes of one answer, read in threads one after the other; may be closed at any moment."""

    def __init__(self, requests: S3Requests) -> None:
        self._requests = requests
        self._pending: Future[Any] | None = None
        self._response: Any = None

    async def open(self, name: str, offset: int, length: int | None) -> None:
        await self._run(lambda: self._open(name, offset, length), name)

    async def next(self, size: int, see: Callable[[bytes], None]) -> bytes:
        """At most ``size`` bytes, which ``see`` is shown first; none at the end."""
        return await self._run(lambda: self._next(size, see))

    def close(self) -> None:
        """A thread that still reads closes it when it has done so: nobody waits for it here."""
        if self._pending is None or self._pending.done():
            self._close()
        else:
            self._pending.add_done_callback(lambda _: self._close())

    async def _run(self, work: Callable[[], T], name: str = "") -> T:
        future = self._pending = self._requests.submit(work, name)
        return await asyncio.wrap_future(future)

    def _open(self, name: str, offset: int, length: int | None) -> None:
        client, bucket = self._requests.client, self._requests.bucket
        if length == 0:  # for the SDK that means no limit
            client.stat_object(bucket, name)
            return
        try:
            self._response = client.get_object(bucket, name, offset=offset, length=length or 0)
        except S3Error as error:
            if error.code != "InvalidRange":  # it begins behind the end
                raise

    def _next(self, size: int, see: Callable[[bytes], None]) -> bytes:
        if self._response is None:
            return b""
        chunk: bytes = self._response.read(size)
        see(chunk)
        return chunk

    def _close(self) -> None:
        if self._response is not None:
            self._response.close()  # the rest is not wanted: the connection goes with it
            self._response.release_conn()
