"""Writes evidence bundles: a ZIP of plain files that anybody can check without us."""

import base64
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

from domain.audit import Head, Key, headers_in
from domain.blobs import BlobRef
from finetrail.audit import offline
from finetrail.audit.readme import readme
from finetrail.blob_references import blobs_in

SPOOLED: Final = 16 * 1024 * 1024  # bytes of blobs.jsonl that stay in memory


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """An event as the archive keeps it."""

    sequence: int
    subject: str
    headers: bytes  # in lines
    data: bytes
    hash: bytes


@dataclass(slots=True)
class Contents:
    """What a bundle says of itself; the verifier counts again."""

    first: int = 0
    last: int = 0
    events: int = 0
    withheld: int = 0
    types: Counter[str] = field(default_factory=Counter)
    actors: Counter[str] = field(default_factory=Counter)
    began: str = ""
    ended: str = ""
    blobs: dict[str, BlobRef] = field(default_factory=dict)

    def count(self, event: ArchivedEvent, *, withheld: bool) -> None:
        headers = dict(headers_in(event.headers))
        time = headers.get(b"ce-time", b"").decode("utf-8", "replace")
        self.first, self.last = self.first or event.sequence, event.sequence
        self.began, self.ended = self.began or time, time
        self.events += 1
        self.withheld += withheld
        self.types[headers.get(b"ce-type", b"").decode("utf-8", "replace")] += 1
        self.actors[headers.get(b"ce-actor", b"").decode("utf-8", "replace")] += 1


class BundleWriter:
    """To be given events in order, then `finish`ed, then closed."""

    def __init__(self, archive: zipfile.ZipFile, *, data: bool = True) -> None:
        self.contents = Contents()
        self._archive = archive
        self._data = data
        self._blobs: IO[bytes] = SpooledTemporaryFile(max_size=SPOOLED)  # noqa: SIM115 - see close

    def close(self) -> None:
        self._blobs.close()

    @contextmanager
    def events(self) -> Iterator["EventLines"]:
        """Events are written inside of the block, and nothing else."""
        with self._archive.open(offline.EVENTS, "w", force_zip64=True) as file:
            yield EventLines(file, self._blobs, self.contents, with_data=self._data)

    @contextmanager
    def blob(self, sha256: str) -> Iterator[IO[bytes]]:
        """The bytes of one blob; they hardly get any smaller."""
        info = zipfile.ZipInfo(f"blobs/{sha256}", date_time=(1980, 1, 1, 0, 0, 0))
        with self._archive.open(info, "w", force_zip64=True) as file:
            yield file

    def finish(self, heads: Sequence[Head], keys: Sequence[Key], made_at: datetime) -> None:
        write = self._archive.writestr
        self._blobs.seek(0)
        with self._archive.open(offline.BLOBS, "w", force_zip64=True) as file:
            while chunk := self._blobs.read(1 << 20):
                file.write(chunk)
        write(offline.HEADS, b"".join(_line(head.record()) for head in heads))
        write(offline.KEYS, b"".join(_line(key.record()) for key in keys))
        write(offline.SUMMARY, json.dumps(self._summary(heads, keys, made_at), indent=2) + "\n")
        write("README.txt", readme(self.contents, heads, keys, made_at))
        write("verify.py", Path(offline.__file__).read_bytes())

    def _summary(
        self, heads: Sequence[Head], keys: Sequence[Key], made_at: datetime
    ) -> dict[str, Any]:
        contents = self.contents
        return {
            "format": 1,
            "made_at": made_at.isoformat(),
            "made_by": f"finetrail {version('finetrail')}",
            "log": heads[-1].log if heads else None,
            "first": contents.first,
            "last": contents.last,
            "began": contents.began,
            "ended": contents.ended,
            "events": contents.events,
            "without_data": contents.withheld,
            "types": dict(contents.types),
            "actors": dict(contents.actors),
            "blobs": len(contents.blobs),
            "heads": len(heads),
            "signed_up_to": heads[-1].sequence if heads else 0,
            "keys": [key.key for key in keys],
            "personal_data": contents.withheld < contents.events,
        }


class EventLines:
    def __init__(
        self, file: IO[bytes], blobs: IO[bytes], contents: Contents, *, with_data: bool
    ) -> None:
        self._file = file
        self._blobs = blobs
        self._contents = contents
        self._with_data = with_data

    def write(self, events: Iterable[ArchivedEvent]) -> None:
        for event in events:
            self._file.write(_line(event_record(event, with_data=self._with_data)))
            self._contents.count(event, withheld=not self._with_data)
            for blob, purpose in blobs_in(event.data):
                self._contents.blobs.setdefault(blob.sha256, blob)
                self._blobs.write(
                    _line(
                        {
                            "sha256": blob.sha256,
                            "size": blob.size,
                            "sequence": event.sequence,
                            "purpose": purpose,
                        }
                    )
                )


def event_record(event: ArchivedEvent, *, with_data: bool = True) -> dict[str, Any]:
    """A line of events.jsonl."""
    return {
        "sequence": event.sequence,
        "hash": event.hash.hex(),
        "subject": event.subject,
        "headers": [[_text(name), _text(value)] for name, value in headers_in(event.headers)],
        "data_sha256": hashlib.sha256(event.data).hexdigest(),
        "data": _text(event.data) if with_data else None,
    }


def _text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
