"""`finetrail backup restore`: a backup into a stack that holds nothing yet.

The log keeps its sequences, so positions of readers and projections mean what they meant. EVENTS is
made last: until it is there the stack counts as empty, whatever else was written.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client

from adapters.nats_event_source import NatsEventSource
from adapters.nats_feed import NatsFeed
from finetrail import backup_database, backup_log, backup_secrets, deployment
from finetrail.audit.verify import verify_source
from finetrail.backup import REACTIONS
from finetrail.backup_files import BackupDamaged, BackupReader, Report
from finetrail.blob_references import blobs_in
from finetrail.blobs import BlobStore, open_blobs
from finetrail.bootstrap import FIXED, admin_connection, stream_configs
from finetrail.forgotten_blobs import forgotten
from finetrail.settings import Settings
from finetrail.stack.data_format import refuse_newer
from finetrail.stack.errors import StackError
from finetrail.stack.state import StackPaths, load_secrets, write_private
from finetrail.stack.supervisor import EmbeddedStack

PAGE: Final = 500
SELDOM: Final = "2m"  # every write of its own would make a restore a hundred times as long
BLOB: Final = "blobs/sha256/"
NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back."""

    log_sequence: int
    blobs: int
    rows: int
    same_keys: bool  # API keys of the former stack are good here


async def restore(
    settings: Settings,
    backup: BackupReader,
    report: Report,
    *,
    passphrase: str | None = None,
    new_keys: bool = False,
) -> Restored:
    """Restore into the empty stack of these settings, which are not resolved yet.

    Servers that the settings leave to us are started for it, and ended again.

    Raises:
        StackError: The stack is not empty, the backup is damaged or a newer build's, or the
            former stack's secrets are neither in it nor here. Nothing was changed then.
    """
    manifest = backup.manifest
    refuse_newer(manifest.written, f"The stack of the backup {backup.path}")
    _check_directory(settings)
    await backup.check(report)
    report(f"verified  {len(manifest.files)} files, {manifest.size:,} bytes")
    same_keys = _bring_secrets(settings, backup, passphrase, new_keys=new_keys)
    async with EmbeddedStack(settings, report=report, sync_interval=SELDOM) as stack:
        await backup_database.check_empty(stack.settings.postgres_dsn)
        async with admin_connection(stack.settings) as nc:
            await _check_log_empty(nc)
            blobs = await _blobs(stack.settings, backup)
            report(f"blobs     {blobs}")
            rows = await backup_database.load(stack.settings.postgres_dsn, backup)
            report(f"database  {rows} rows")
            await _streams(nc, stack.settings, backup, report)
        await deployment.make_streams(stack.settings)
        async with admin_connection(stack.settings) as nc:
            await _repeat_reactions(nc, manifest.reactions_after)
            await backup_log.reserve(nc, "DEAD", "dead.restored", manifest.dead_letters)
            last = await _check_log(nc, stack.settings, manifest.log_sequence)
            report(f"log       complete to {last}; every blob that it names is there")
            report(f"audit     {await _check_chain(nc, stack.settings)}")
        if same_keys and settings.nats.url is None:
            stack.paths.first_start_done.touch()  # else an admin key would be made once more
    await asyncio.to_thread(os.sync)  # what the servers have written; nothing counts before this
    return Restored(last, blobs, rows, same_keys)


def _check_directory(settings: Settings) -> None:
    paths = StackPaths(settings.folder)
    ours = [paths.nats] * (settings.nats.url is None)
    ours += [paths.postgres] * (settings.postgres.dsn is None)
    for place in ours:
        if place.exists():
            raise StackError(
                f"There is a stack in {paths.root} already: {place} exists. Nothing was changed.",
                "Restore into another FINETRAIL_DATA_DIR, or move that one away.",
            )


def _bring_secrets(
    settings: Settings, backup: BackupReader, passphrase: str | None, *, new_keys: bool
) -> bool:
    """Put the former stack's secrets where this one finds them; whether its API keys are good here."""
    paths, manifest = StackPaths(settings.folder), backup.manifest
    files: Mapping[str, bytes] = {}
    if passphrase is not None:
        if manifest.secrets != "encrypted":
            raise StackError("There are no secrets in this backup that a passphrase could open.")
        with backup.open(backup_secrets.FILE) as locked:
            files = backup_secrets.unlock(locked.read(), passphrase)
    there = [name for name in files if (paths.root / name).exists()]
    if there:
        raise StackError(
            f"{paths.root / there[0]} exists already. Nothing was changed.",
            "Restore into another FINETRAIL_DATA_DIR, or move the file away.",
        )
    if not _same_pepper(settings, backup, files) and not new_keys:
        how = (
            "Name its passphrase by --passphrase-file"
            if manifest.secrets == "encrypted"
            else "It was made without its secrets: put the former stack's secrets.json into "
            "FINETRAIL_DATA_DIR, or set FINETRAIL_GATEWAY__API_KEY_PEPPER"
        )
        raise StackError(
            "The API keys of the backup would not work here: they depend on the former stack's "
            "secrets. Nothing was changed.",
            f"{how}; or give up the keys by --new-keys.",
        )
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in files.items():
        write_private(paths.root / name, data.decode())
    return _same_pepper(settings, backup, {})


def _same_pepper(settings: Settings, backup: BackupReader, files: Mapping[str, bytes]) -> bool:
    paths, pepper = StackPaths(settings.folder), settings.gateway.api_key_pepper
    if pepper is None and "secrets.json" in files:
        return True  # they are that stack's
    if pepper is None and not paths.secrets.exists():
        return False
    known = load_secrets(paths) if paths.secrets.exists() else None
    text = pepper.get_secret_value() if pepper else known.api_key_pepper if known else ""
    return backup_secrets.same_pepper(backup.manifest.pepper, text.encode())


async def _check_log_empty(nc: Client) -> None:
    for name in backup_log.STREAMS:
        info = await backup_log.stream_info(nc, name)
        if info is not None and info["state"]["last_seq"]:
            raise StackError(
                f"The stream {name} is not empty: it reaches to {info['state']['last_seq']}. "
                "Nothing was changed.",
                "Restore into an empty stack: another FINETRAIL_DATA_DIR, or a NATS account of "
                "its own.",
            )


async def _blobs(settings: Settings, backup: BackupReader) -> int:
    count = 0
    async with open_blobs(settings) as blobs:
        for file in backup.manifest.files:
            if not file.path.startswith(BLOB):
                continue
            async with blobs.writer() as writer:
                async for chunk in backup.read(file.path):
                    await writer.write(chunk)
                if writer.ref.sha256 != file.path.rpartition("/")[2]:
                    raise BackupDamaged(f"{file.path} does not hold what its name says.")
                await writer.commit()
            count += 1
        for named in backup.manifest.named_blobs:
            if await blobs.size(named.sha256) != named.size:
                raise StackError(
                    f"The blob {named.sha256} is not in the store, and the backup only names it.",
                    f"Bring back the blobs of the {backup.manifest.blob_store} first.",
                )
    return count + len(backup.manifest.named_blobs)


async def _streams(nc: Client, settings: Settings, backup: BackupReader, report: Report) -> None:
    wanted = {
        config["name"]: config
        for config in stream_configs(
            replicas=settings.nats.replicas, events_max_bytes=settings.nats.events_max_bytes
        )
    }
    parts = sorted(backup.manifest.streams, key=lambda part: part.name == "EVENTS")
    for part in parts:
        if part.name not in wanted:
            raise StackError(f"This build knows no stream {part.name}.")
        await backup_log.delete_empty(nc, part.name)
        # What cannot be changed later is as this stack needs it: a cluster writes telemetry so.
        config = {key: value for key, value in part.config.items() if key not in FIXED}
        for key in (*FIXED, "num_replicas"):
            if key in wanted[part.name]:
                config[key] = wanted[part.name][key]
        done = await backup_log.restore(
            nc, config, part.state, backup.read(part.file, backup_log.PIECE)
        )
        last = done["state"]["last_seq"]
        if last < part.last_sequence:
            raise BackupDamaged(
                f"The snapshot of {part.name} reaches to {last} instead of {part.last_sequence}."
            )
        report(f"log       {part.name} to {last}")


async def _repeat_reactions(nc: Client, after: int) -> None:
    if await backup_log.acknowledged(nc, "EVENTS", REACTIONS) > after:
        await backup_log.rewind(nc, "EVENTS", REACTIONS, after)


async def _check_log(nc: Client, settings: Settings, least: int) -> int:
    """Read the log from its first event to its last, and look for every blob that it names.

    Raises:
        StackError: An event or a blob is missing.
    """
    feed, reached, more = NatsFeed(nc), 0, True
    gone = await forgotten(nc)
    known: set[str] = set()
    missing: list[str] = []
    async with open_blobs(settings) as blobs:
        while more:
            page, more = await feed.page("EVENTS", "events.>", reached, PAGE)
            for message in page:
                if message.sequence != reached + 1:
                    raise StackError(f"The restored log lacks event {reached + 1}.")
                reached = message.sequence
                missing += await _missing(blobs, gone.without_theirs(message.data), known)
    if reached < least:
        raise StackError(f"The restored log ends at {reached} instead of {least}.")
    if missing:
        raise StackError(
            f"The log was restored, but {len(missing)} blobs that it names are missing, such as "
            f"{', '.join(missing[:NAMED])}.",
            "They were missing when the backup was made; `finetrail doctor --blobs` lists them.",
        )
    return reached


async def _check_chain(nc: Client, settings: Settings) -> str:
    """Compare the log with the archive and the heads that came with it; say what that proves.

    Raises:
        StackError: An event is not as it was archived or signed.
    """
    source = NatsEventSource(nc, "EVENTS")
    found = await verify_source(source, settings, (), _unheard, restored=True)
    if not found.holds:
        first = min(found.findings, key=lambda finding: finding.sequence)
        raise StackError(
            f"The log was restored, but it does not hold: event {first.sequence}, {first.way}"
            f"{': ' if first.detail else ''}{first.detail}.",
            "It was like that when the backup was made. Do not start this stack: keep it as "
            "evidence, and restore an earlier backup into another FINETRAIL_DATA_DIR; see "
            "docs/how-to/prove-what-happened.md.",
        )
    if not found.compared:
        return f"the chain is not checked: {found.without_archive}"
    proven = f"proven up to event {found.proven}" if found.proven else "nothing of it was signed"
    later = f"; {found.later} heads were signed after the backup" if found.later else ""
    return f"as it was archived up to event {found.archived}, {proven}{later}"


def _unheard(_events: int, _of: int) -> None:
    """A restore says what it has done, not how far it is."""


async def _missing(blobs: BlobStore, data: bytes, known: set[str]) -> list[str]:
    found: list[Any] = []
    for blob, purpose in blobs_in(data):
        if blob.sha256 not in known:
            known.add(blob.sha256)
            if await blobs.size(blob.sha256) != blob.size:
                found.append(f"{blob.sha256} ({purpose})")
    return found
