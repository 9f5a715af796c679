"""The bucket that heads are published to; only who has one needs the S3 client."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

from adapters.s3_heads import Found, HeadBucket
from domain.audit import Head
from finetrail.blobs import s3_access
from finetrail.settings import S3Settings


def open_bucket(server: S3Settings, bucket: str, lock_days: int) -> HeadBucket:
    access = replace(s3_access(server), bucket=bucket, public_endpoint=None)
    return HeadBucket(access, timedelta(days=lock_days))


async def find_heads(
    server: S3Settings, bucket: str, log: str | None, known: Sequence[Head]
) -> Found:
    """What was published there, but for heads that are known.

    Raises:
        OSError: It does not answer, or there is no such bucket.
    """
    with closing(open_bucket(server, bucket, lock_days=1)) as place:
        return await place.find(log, known)
