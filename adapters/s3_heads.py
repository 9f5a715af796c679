"""Signed heads in a bucket that lets nobody change them for a while, where the server can do that."""

import io
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from minio.commonconfig import COMPLIANCE
from minio.error import S3Error
from minio.retention import Retention

from adapters.s3_requests import EXISTS, S3Access, S3Requests
from domain.audit import Head, Key

# What servers say to a lock in a bucket that was made without one, or that know none.
WITHOUT_LOCK: Final = frozenset({"InvalidRequest", "InvalidBucketState", "NotImplemented"})
TYPE: Final = "application/json"

_log = logging.getLogger(__name__)


class HeadBucket:
    """Implements `projections.publishing.HeadPlace`: an object for each head and each key.

    They are named by log and sequence. A bucket that is missing is made with object lock.
    """

    name = "bucket"

    def __init__(self, access: S3Access, lock: timedelta) -> None:
        self.where = f"{access.endpoint}/{access.bucket}"
        self._requests = S3Requests(access)
        self._lock: timedelta | None = lock

    async def last(self, log: str) -> None:
        """Nobody lists a million objects to find out."""

    async def put(self, heads: Sequence[Head], keys: Sequence[Key]) -> None:
        await self._requests.call(lambda: self._put(heads, keys))

    def close(self) -> None:
        self._requests.close()

    def _put(self, heads: Sequence[Head], keys: Sequence[Key]) -> None:
        self._ensure_bucket()
        log = heads[0].log
        for key in keys:
            if not self._is_there(f"{log}/keys/{key.key}.json"):
                self._write(f"{log}/keys/{key.key}.json", key.record())
        for head in heads:
            # Twenty digits, so that a listing has them in order.
            self._write(f"{log}/heads/{head.sequence:020}.json", head.record())

    def _write(self, name: str, record: dict[str, Any]) -> None:
        body = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        try:
            self._put_object(name, body, self._retention())
        except S3Error as error:
            if self._lock is None or error.code not in WITHOUT_LOCK:
                raise
            _log.warning(
                "%s has no object lock, so its heads can be changed by whoever may write there (%s)",
                self.where,
                error.message,
            )
            self._lock = None
            self._put_object(name, body, None)

    def _put_object(self, name: str, body: bytes, retention: Any) -> None:
        self._requests.client.put_object(
            self._requests.bucket,
            name,
            io.BytesIO(body),
            len(body),
            content_type=TYPE,
            retention=retention,
        )

    def _retention(self) -> Any:
        return self._lock and Retention(COMPLIANCE, datetime.now(UTC) + self._lock)

    def _is_there(self, name: str) -> bool:
        listing = self._requests.client.list_objects(self._requests.bucket, prefix=name)
        return next(iter(listing), None) is not None

    def _ensure_bucket(self) -> None:
        try:
            next(self._requests.client.list_objects(self._requests.bucket), None)
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            self._make_bucket()

    def _make_bucket(self) -> None:
        for lock in (True, False):
            try:
                self._requests.client.make_bucket(self._requests.bucket, object_lock=lock)
            except S3Error as error:
                if error.code in EXISTS:
                    return
                if not lock or error.code not in WITHOUT_LOCK:
                    raise
            else:
                return
