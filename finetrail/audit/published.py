"""What was published of the log where this machine can add and not change."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from domain.audit import Head, Key
from finetrail.audit.difference import Finding
from finetrail.audit.sources import KnownHead
from finetrail.settings import Settings

if TYPE_CHECKING:
    from adapters.s3_heads import Found


@dataclass(slots=True)
class Published:
    """Heads and keys of a bucket, and a line on each place for a person."""

    heads: list[KnownHead] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


async def published(settings: Settings, log: str | None, known: Sequence[KnownHead]) -> Published:
    """Look into the bucket, and say of each place how much it had.

    Args:
        known: heads of all other places; those of the folder that is published to are counted.
    """
    found = Published()
    folder = settings.audit.publish_folder
    if folder is not None:
        place = folder.expanduser().absolute()
        there = sum(each.place.startswith(f"{place}/") for each in known)
        found.told.append(
            f"{there:,} heads in {place}" if place.is_dir() else f"not with {place}: it is away"
        )
    if settings.audit.publish_bucket is not None:
        await _look_into_bucket(settings, log, known, found)
    return found


async def _look_into_bucket(
    settings: Settings, log: str | None, known: Sequence[KnownHead], found: Published
) -> None:
    server, bucket = settings.blobs.s3, settings.audit.publish_bucket
    assert server is not None  # noqa: S101 - the settings see to it
    where = f"bucket {bucket} at {server.endpoint}"
    # Imported late: who publishes to no bucket needs no S3 client.
    module = importlib.import_module("finetrail.audit.bucket")
    try:
        there: Found = await module.find_heads(server, bucket, log, _once(known))
    except OSError as error:
        found.told.append(f"not with {where}: {error.strerror or error}")
        return
    found.heads += [KnownHead(head, where) for head in there.heads]
    found.keys += there.keys
    found.findings += [
        Finding(sequence, "head" if sequence else "key", f"{wrong} ({where})")
        for sequence, wrong in there.unreadable
    ]
    found.told.append(f"{there.known + len(there.heads):,} heads in {where}")


def _once(known: Sequence[KnownHead]) -> list[Head]:
    """Each as often as it differs: the same head is in several places."""
    return list(dict.fromkeys(each.head for each in known))
