"""Puts the archive's runner together from the settings."""

import importlib

from nats.aio.client import Client

from adapters.audit_files import AuditFolder
from adapters.nats_event_source import NatsEventSource
from finetrail.audit.key_file import FOLDER, open_key
from finetrail.settings import Settings
from projections.archive import Archiver, Pace
from projections.publishing import HeadPlace


def build_archiver(nc: Client, settings: Settings) -> Archiver:
    pace = Pace(settings.audit.sign_seconds, settings.audit.sign_events)
    source = NatsEventSource(nc, "EVENTS")
    return Archiver(source, settings.postgres_dsn, open_key(settings), _places(settings), pace)


def _places(settings: Settings) -> list[HeadPlace]:
    places: list[HeadPlace] = [AuditFolder(settings.folder / FOLDER, own=True)]
    audit = settings.audit
    if audit.publish_folder is not None:
        places.append(AuditFolder(audit.publish_folder.expanduser().absolute(), own=False))
    if audit.publish_bucket is not None and settings.blobs.s3 is not None:
        # Imported late: who publishes to no bucket needs no S3 client.
        bucket = importlib.import_module("finetrail.audit.bucket")
        lock_days = audit.publish_lock_days
        places.append(bucket.open_bucket(settings.blobs.s3, audit.publish_bucket, lock_days))
    return places
