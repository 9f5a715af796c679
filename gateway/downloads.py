"""A version as a ZIP archive: its adapter, a base model made here, a model card and its figures."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import msgspec

from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from gateway.model_card import model_card
from gateway.registry import evaluation_of, lineage_of, training_of
from gateway.zip_layout import ZipEntry, ZipLayout
from projections.answers import Version
from projections.model_versions import VersionRow

MEDIA_TYPE: Final = "application/zip"


@dataclass(frozen=True, slots=True)
class Archive:
    layout: ZipLayout
    etag: str
    filename: str

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Length": str(self.layout.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(self.filename)}",
            "ETag": self.etag,
            "Cache-Control": "no-cache",  # keep it, but ask by its tag
        }


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
    return Archive(ZipLayout(entries), etag, filename)


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
