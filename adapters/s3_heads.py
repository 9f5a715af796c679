"""Signed heads in a bucket that lets nobody change them for a while, where the server can do that."""

import hashlib
import io
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from minio.commonconfig import COMPLIANCE
from minio.error import S3Error
from minio.retention import Retention

from adapters.s3_requests import EXISTS, S3Access, S3Requests
from domain.audit import Head, Key, NotARecord, read_head, read_key

# What servers say to a lock in a bucket that was made without one, or that know none.
WITHOUT_LOCK: Final = frozenset({"InvalidRequest", "InvalidBucketState", "NotImplemented"})
TYPE: Final = "application/json"

_NAME: Final = re.compile(r"[0-9a-f]{64}/(?:heads/(?P<sequence>\d{20})|keys/[0-9a-f]{16})\.json")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Found:
    """What a bucket has: how many heads that were known, and whatever else."""

    known: int = 0
    heads: list[Head] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)  # sequence, what is wrong


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

    async def find(self, log: str | None, known: Sequence[Head]) -> Found:
        """What lies there of this log, or of all logs where there is nothing of this one.

        Every version is looked at: one that was put over a head, or hides it, changes nothing.

        Raises:
            OSError: It does not answer, or there is no such bucket.
        """
        return await self._requests.call(lambda: self._find(log, known))

    def close(self) -> None:
        self._requests.close()

    def _put(self, heads: Sequence[Head], keys: Sequence[Key]) -> None:
        self._ensure_bucket()
        log = heads[0].log
        for key in keys:
            if not self._is_there(f"{log}/keys/{key.key}.json"):
                self._write(f"{log}/keys/{key.key}.json", key.record())
        for head in heads:
            self._write(_name(head), head.record())

    def _find(self, log: str | None, known: Sequence[Head]) -> Found:
        found = Found()
        # The ETag of an object that was put in one piece is its MD5 sum, so what is known need not
        # be read; a server that gives other ones is asked for every head.
        sums = {(_name(head), _md5(_body(head.record()))) for head in known}
        prefix = f"{log}/" if log and self._is_there(f"{log}/") else ""
        for each in self._versions(prefix):
            fits = _NAME.fullmatch(each.object_name)
            if fits is None:
                continue
            if (each.object_name, each.etag) in sums:
                found.known += 1
                continue
            sequence = int(fits["sequence"] or 0)
            try:
                record = json.loads(self._read(each.object_name, each.version_id))
                if sequence:
                    found.heads.append(read_head(record))
                else:
                    found.keys.append(read_key(record))
            except (NotARecord, ValueError) as error:
                found.unreadable.append((sequence, f"{each.object_name}: {error}"))
        return found

    def _versions(self, prefix: str) -> Iterator[Any]:
        listing = self._requests.client.list_objects(
            self._requests.bucket, prefix=prefix, recursive=True, include_version=True
        )
        return (each for each in listing if not each.is_delete_marker)

    def _read(self, name: str, version: str | None) -> bytes:
        answer = self._requests.client.get_object(self._requests.bucket, name, version_id=version)
        try:
            body: bytes = answer.read()
            return body
        finally:
            answer.close()
            answer.release_conn()

    def _write(self, name: str, record: dict[str, Any]) -> None:
        body = _body(record)
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


def _name(head: Head) -> str:
    """Twenty digits, so that a listing has them in order."""
    return f"{head.log}/heads/{head.sequence:020}.json"


def _body(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
