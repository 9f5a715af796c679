"""Compares the blob store with the log: what is missing or altered, and what nobody refers to."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from adapters.blob_files import StoredBlob
from adapters.local_blobs import LocalBlobs, blob_path
from domain.blobs import BlobRef
from finetrail.blob_references import Reference, mentioned, open_log, referenced
from finetrail.blobs import BlobStore, open_blobs
from finetrail.settings import Settings

# A store may take a blob that is an hour old for a new one, and the event comes after the blob.
LEAST_AGE: Final = timedelta(hours=2)
NAMED: Final = 5  # references of one blob that are kept to be named

Damage = Literal["missing", "size differs", "altered"]


@dataclass(frozen=True, slots=True)
class DamagedBlob:
    """A blob that the log refers to and the store does not hold as it should."""

    blob: BlobRef
    damage: Damage
    stored_size: int | None
    references: Sequence[Reference]  # the first few
    count: int  # of all references


@dataclass(slots=True)
class Checked:
    blobs: int = 0
    size: int = 0
    damaged: list[DamagedBlob] = field(default_factory=list)


@dataclass(slots=True)
class _Wanted:
    blob: BlobRef
    references: list[Reference] = field(default_factory=list)
    count: int = 0


@dataclass(slots=True)
class Copied:
    """What went from a folder into the store; ``damaged`` does not hold what its name says."""

    blobs: int = 0
    size: int = 0
    there: int = 0  # already
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Collection:
    """Blobs that nothing refers to; ``deleted`` tells whether they are gone now."""

    blobs: Sequence[StoredBlob]
    deleted: bool

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)


async def check_blobs(settings: Settings) -> Checked:
    """Read every blob that an event refers to, whole.

    Raises:
        StackError: The log cannot be read.
        OSError: The store is away, or refuses.
    """
    wanted: dict[str, _Wanted] = {}
    async with open_log(settings) as nc:
        async for reference in referenced(nc):
            found = wanted.setdefault(reference.blob.sha256, _Wanted(reference.blob))
            found.count += 1
            if len(found.references) < NAMED:
                found.references.append(reference)
    checked = Checked(len(wanted), sum(each.blob.size for each in wanted.values()))
    async with open_blobs(settings) as blobs:
        for each in wanted.values():
            size = await blobs.size(each.blob.sha256)
            damage = await _damage(blobs, each.blob, size)
            if damage is not None:
                checked.damaged.append(
                    DamagedBlob(each.blob, damage, size, each.references, each.count)
                )
    return checked


async def collect(
    settings: Settings, *, now: datetime, older_than: timedelta, delete: bool
) -> Collection:
    """List what nothing refers to and was written longer ago than ``older_than``; perhaps delete it.

    The log is read first: what it comes to refer to later was stored, or stored again, since then,
    and so is too young.

    Raises:
        StackError: The log cannot be read, or a part of it is missing.
        ValueError: Younger ones than two hours are never deleted.
        OSError: The store is away, or refuses.
    """
    if delete and older_than < LEAST_AGE:
        raise ValueError(
            "blobs younger than 2 hours are not deleted: what was just stored is not recorded yet"
        )
    async with open_log(settings) as nc:
        kept = await mentioned(nc)
    found, before = [], now - older_than
    async with open_blobs(settings) as blobs:
        async for blob in blobs.stored():
            if blob.sha256 in kept or blob.modified_at >= before:
                continue
            if delete and not await blobs.delete(blob.sha256, before=before):
                continue  # stored again since it was listed: its event may be on its way
            found.append(blob)
    return Collection(found, delete)


async def copy_folder(settings: Settings, folder: Path) -> Copied:
    """Put every blob of a folder store into the store of the settings; what is there stays.

    Raises:
        NotADirectoryError: ``folder`` is not one of a folder store.
        OSError: The store is away, or refuses.
    """
    if not (folder / "sha256").is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "holds no blobs: it has no folder sha256", folder)
    source, copied = LocalBlobs(folder), Copied()
    async with open_blobs(settings) as blobs:
        async for blob in source.stored():
            if await blobs.size(blob.sha256) == blob.size:
                copied.there += 1
                continue
            ref = await blobs.put_file(blob_path(folder, blob.sha256))
            if ref.sha256 == blob.sha256:
                copied.blobs += 1
                copied.size += blob.size
            else:  # stored under its true name, where nobody looks for it
                copied.damaged.append(blob.sha256)
    return copied


async def _damage(blobs: BlobStore, ref: BlobRef, size: int | None) -> Damage | None:
    if size is None:
        return "missing"
    if size != ref.size:
        return "size differs"
    try:
        async for _ in blobs.read(ref.sha256):
            pass
    except OSError as error:
        if error.errno == errno.EIO:
            return "altered"
        if error.errno == errno.ENOENT:
            return "missing"
        raise
    return None
