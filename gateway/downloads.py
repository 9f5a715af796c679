"""A version as a ZIP archive, or its files one by one: its adapter, a model card and its figures.

Where the base model was made here, and so can be had from nowhere else, it is in the archive too.
"""

import hashlib
import json
import zlib
from asyncio import gather
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec

from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from gateway.model_card import model_card
from gateway.ports import Blobs
from gateway.problems import Problem
from gateway.ranged import OCTETS, Content, blob_content, require_blob
from gateway.registry import evaluation_of, lineage_of, training_of
from gateway.zip_layout import ZipEntry, ZipLayout
from projections.answers import Version
from projections.model_versions import VersionRow

MEDIA_TYPE: Final = "application/zip"


@dataclass(frozen=True, slots=True)
class Archive:
    entries: Sequence[ZipEntry]
    etag: str
    filename: str

    async def content(self, blobs: Blobs) -> Content:
        """The ZIP.

        Raises:
            Problem: The store lacks a blob of it.
        """
        refs = [entry.content for entry in self.entries if isinstance(entry.content, BlobRef)]
        await gather(*(require_blob(blobs, ref.sha256) for ref in refs))
        layout = ZipLayout(self.entries)
        read = partial(layout.read, blobs.read)
        return Content(layout.size, self.etag, self.filename, MEDIA_TYPE, read)

    def entry(self, path: str) -> ZipEntry:
        """The entry of this name.

        Raises:
            Problem: There is none; nothing is looked for under a name that is not in the manifest.
        """
        for entry in self.entries:
            if entry.path == path:
                return entry
        names = ", ".join(entry.path for entry in self.entries[:20])
        raise Problem("not_found", f"There is no such file in this version; it has {names}.")

    async def file(self, blobs: Blobs, path: str) -> Content:
        """One file of it, by its name in the archive."""
        entry = self.entry(path)
        filename = PurePosixPath(entry.path).name
        if isinstance(entry.content, BlobRef):
            await require_blob(blobs, entry.content.sha256)
            return blob_content(blobs, entry.content.sha256, entry.size, filename)
        return _of_text(entry.content, filename)


def archive_of(version: Version) -> Archive:
    """Laid out from the manifest alone; the same version and figures give the same bytes."""
    entries = [_blob_entry(file) for file in sorted(version.row.files, key=lambda f: f["path"])]
    entries += [
        ZipEntry(file.path, file.blob, file.blob.size, file.blob.crc32)
        for file in _base_model_files(version.row)
    ]
    entries.append(_text_entry("README.md", model_card(version)))
    entries.append(_text_entry("metrics.json", _metrics(version)))
    manifest = json.dumps(
        [[entry.path, entry.size, entry.crc32, _hash(entry)] for entry in entries]
    )
    etag = f'"{hashlib.sha256(manifest.encode()).hexdigest()}"'
    filename = f"{version.row.model}-v{version.row.number}.zip"
    return Archive(entries, etag, filename)


def _of_text(content: bytes, filename: str) -> Content:
    async def read(offset: int, length: int) -> AsyncIterator[bytes]:
        yield content[offset : offset + length]

    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    return Content(len(content), etag, filename, OCTETS, read)


def _blob_entry(file: dict[str, Any]) -> ZipEntry:
    blob = BlobRef(sha256=file["sha256"], size=file["size"], crc32=file["crc32"])
    return ZipEntry(file["path"], blob, blob.size, blob.crc32)


def _base_model_files(row: VersionRow) -> tuple[FileEntry, ...]:
    record = row.base_model_record
    return BaseModelRecord.model_validate(record).files if record else ()


def _text_entry(path: str, text: str) -> ZipEntry:
    content = text.encode()
    return ZipEntry(path, content, len(content), zlib.crc32(content))


def _hash(entry: ZipEntry) -> str:
    if isinstance(entry.content, BlobRef):
        return entry.content.sha256
    return hashlib.sha256(entry.content).hexdigest()


def _metrics(version: Version) -> str:
    figures = {
        "model": version.row.model,
        "version": version.row.number,
        "training": msgspec.to_builtins(training_of(version.row)),
        "evaluation": evaluation_of(version.evaluation),
        "lineage": msgspec.to_builtins(lineage_of(version.row)),
    }
    return json.dumps(figures, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
