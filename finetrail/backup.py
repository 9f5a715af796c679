"""`finetrail backup create`: log, database, blobs and secrets of a stack, while it runs.

The order makes the copy consistent without stopping anybody. The database comes first: what it knows
of the log (a webhook's position, an archived event) may then lie behind the log, which is caught up,
and never before it. The log comes next, its streams in the order in which messages move on. The blobs
come last, because an event comes after the blobs that it names: whatever the log speaks of is there.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client

from adapters.blob_files import BlobDamaged, BlobMissing, is_hash
from adapters.local_blobs import blob_path
from finetrail import backup_database, backup_log, backup_secrets
from finetrail.backup_files import (
    FORMAT,
    BackupFile,
    BackupWriter,
    Manifest,
    NamedBlob,
    Report,
    StreamPart,
    blob_file,
    writing,
)
from finetrail.blob_references import mentioned, open_log, referenced
from finetrail.blobs import BlobStore, open_blobs
from finetrail.settings import Settings
from finetrail.stack.data_format import this_build
from finetrail.stack.errors import StackError
from finetrail.stack.state import StackPaths

REACTIONS: Final = "reactions"  # the durable consumer of EVENTS


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a backup is to be made."""

    copy_blobs: bool = True  # else they are only named, and must be kept by other means
    link_blobs: bool = False  # hard links where the file system has them
    passphrase: str | None = None  # without one the secrets are left out


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup has become."""

    path: Path
    manifest: Manifest
    seconds: float


class _Gathering:
    """Notes every file that goes into the backup."""

    def __init__(self, writer: BackupWriter) -> None:
        self._writer = writer
        self.files: list[BackupFile] = []

    async def add(self, path: str, chunks: AsyncIterator[bytes]) -> BackupFile:
        file = await self._writer.add(path, chunks)
        self.files.append(file)
        return file

    async def link(self, path: str, source: Path, sha256: str) -> BackupFile | None:
        file = await self._writer.link(path, source, sha256)
        if file is not None:
            self.files.append(file)
        return file

    async def finish(self, manifest: Manifest) -> None:
        await self._writer.finish(manifest)


async def create(settings: Settings, target: Path, wanted: Wanted, report: Report) -> Made:
    """Back up the stack of these settings.

    Raises:
        StackError: A part of it cannot be read, or there is something at ``target``.
        OSError: The blob store is away, or the disk is full.
    """
    began = time.monotonic()
    created_at = datetime.now(UTC)
    pepper = backup_secrets.pepper_check(settings.api_key_pepper)
    with writing(target) as writer:
        files = _Gathering(writer)
        tables = await backup_database.dump(settings.postgres_dsn, files)
        report(f"database  {len(tables)} tables, {sum(table.rows for table in tables)} rows")
        async with open_log(settings) as nc:
            log = await _log(nc, files, report)
            blobs = await _blobs(settings, nc, files, wanted, report)
        kept = wanted.passphrase is not None
        if wanted.passphrase is not None:
            secret = backup_secrets.kept_secrets(
                StackPaths(settings.folder), settings.audit.key_file
            )
            locked = backup_secrets.lock(secret, wanted.passphrase)
            await files.add(backup_secrets.FILE, _whole(locked))
        manifest = Manifest(
            format=FORMAT,
            written=this_build(),
            created_at=created_at,
            workspace=settings.workspace,
            log_sequence=log.sequence,
            reactions_after=log.reactions_after,
            dead_letters=log.dead_letters,
            streams=tuple(log.streams),
            tables=tables,
            blobs="copied" if wanted.copy_blobs else "named",
            blob_store=_store(settings),
            named_blobs=tuple(blobs.named),
            missing_blobs=tuple(blobs.missing),
            secrets="encrypted" if kept else "left out",
            pepper=pepper,
            files=tuple(files.files),
        )
        await files.finish(manifest)
    return Made(target, manifest, time.monotonic() - began)


@dataclass(slots=True)
class _Log:
    sequence: int
    reactions_after: int
    dead_letters: int
    streams: list[StreamPart]


async def _log(nc: Client, files: _Gathering, report: Report) -> _Log:
    """Every stream, and from where reactions are to be repeated.

    What a reaction asks for is put into COMMANDS before its event counts as dealt with. So the
    position is asked for before COMMANDS is taken: every command up to there is in the backup, or
    was decided and is in the log. Those behind it are asked for once more after a restore, under
    the same ids.
    """
    reactions_after = await backup_log.acknowledged(nc, "EVENTS", REACTIONS)
    streams = []
    for name in backup_log.STREAMS:
        if await backup_log.stream_info(nc, name) is None:
            raise StackError(f"The log has no stream {name}.", "Start the stack once, or check it.")
        streams.append(await _stream(nc, name, files))
        report(f"log       {name} to {streams[-1].last_sequence}")
    dead = await backup_log.stream_info(nc, "DEAD")
    sequence = next(part.last_sequence for part in streams if part.name == "EVENTS")
    return _Log(sequence, reactions_after, dead["state"]["last_seq"] if dead else 0, streams)


async def _stream(nc: Client, name: str, files: _Gathering) -> StreamPart:
    path = f"log/{name}.snapshot"
    async with backup_log.snapshot(nc, name) as taken:
        await files.add(path, taken.chunks())
    state: dict[str, Any] = taken.state
    return StreamPart(
        name=name, file=path, config=taken.config, state=state, last_sequence=state["last_seq"]
    )


@dataclass(slots=True)
class _Blobs:
    named: list[NamedBlob]
    missing: list[str]


async def _blobs(
    settings: Settings, nc: Client, files: _Gathering, wanted: Wanted, report: Report
) -> _Blobs:
    """All that the log names by now, which is at least what its snapshot names."""
    needed = {reference.blob.sha256 async for reference in referenced(nc)}
    others = {digest for digest in await mentioned(nc) if is_hash(digest)} - needed
    found, size = _Blobs([], []), 0
    async with open_blobs(settings, make=False) as blobs:
        for sha256 in sorted(needed | others):
            stored = await blobs.size(sha256)
            if stored is None:
                if sha256 in needed:  # the others are digests of something else
                    found.missing.append(sha256)
                continue
            if not wanted.copy_blobs:
                found.named.append(NamedBlob(sha256=sha256, size=stored))
            elif not await _copied(settings, blobs, sha256, files, link=wanted.link_blobs):
                found.missing.append(sha256)
                continue
            size += stored
    verb = "copied" if wanted.copy_blobs else "named"
    report(f"blobs     {len(needed)} that events refer to, {size:,} bytes {verb}")
    return found


async def _copied(
    settings: Settings, blobs: BlobStore, sha256: str, files: _Gathering, *, link: bool
) -> bool:
    """Whether the blob is in the backup as its name says."""
    path = blob_file(sha256)
    if link and settings.blobs.s3 is None:
        source = blob_path(settings.blobs_folder, sha256)
        if await files.link(path, source, sha256) is not None:
            return True
    try:
        await files.add(path, blobs.read(sha256))
    except (BlobDamaged, BlobMissing):
        return False
    return True


def _store(settings: Settings) -> str:
    s3 = settings.blobs.s3
    return f"bucket {s3.bucket} at {s3.endpoint}" if s3 else f"folder {settings.blobs_folder}"


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data
