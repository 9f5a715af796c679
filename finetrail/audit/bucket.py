"""The bucket that heads are published to; only who has one needs the S3 client."""

from dataclasses import replace
from datetime import timedelta

from adapters.s3_heads import HeadBucket
from finetrail.blobs import s3_access
from finetrail.settings import S3Settings


def open_bucket(server: S3Settings, bucket: str, lock_days: int) -> HeadBucket:
    access = replace(s3_access(server), bucket=bucket, public_endpoint=None)
    return HeadBucket(access, timedelta(days=lock_days))
