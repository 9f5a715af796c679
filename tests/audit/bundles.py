"""Bundles that are made in memory, and what an attacker may do to one."""

import copy
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from domain.audit import (
    START,
    Head,
    Key,
    chained_headers,
    event_hash,
    header_lines,
    key_id,
    moment,
)
from finetrail.audit.bundle import ArchivedEvent, BundleWriter
from tests.projections.archiving import history

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
FIRST = SigningKey(b"1" * 32)
SECOND = SigningKey(b"2" * 32)
STRANGER = SigningKey(b"3" * 32)


def key_of(signing: SigningKey, by: SigningKey) -> Key:
    public = bytes(signing.verify_key)
    key = Key(key_id(public), public.hex(), moment(NOW), key_id(bytes(by.verify_key)))
    return replace(key, signature=by.sign(key.statement()).signature.hex())


def head_of(signing: SigningKey, log: str, sequence: int, hash_: str) -> Head:
    head = Head(log, sequence, hash_, moment(NOW), key_id(bytes(signing.verify_key)))
    return replace(head, signature=signing.sign(head.statement()).signature.hex())


def archived() -> list[ArchivedEvent]:
    """The history of all events as the archive keeps it."""
    events, digest = [], START
    for message in history():
        headers = chained_headers(message.block)
        data = hashlib.sha256(message.data).digest()
        digest = event_hash(digest, message.sequence, message.subject.encode(), headers, data)
        lines = header_lines(headers)
        events.append(ArchivedEvent(message.sequence, message.subject, lines, message.data, digest))
    return events


@dataclass
class Files:
    """A bundle's files as lists of records, to be changed."""

    events: list[dict[str, Any]]
    heads: list[dict[str, Any]]
    keys: list[dict[str, Any]]
    others: dict[str, bytes] = field(default_factory=dict)

    def copy(self) -> "Files":
        return copy.deepcopy(self)

    def write(self, path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            for name, records in self._named():
                lines = "".join(json.dumps(record) + "\n" for record in records)
                archive.writestr(name, lines)
            for name, content in self.others.items():
                archive.writestr(name, content)
        return path

    def _named(self) -> Sequence[tuple[str, list[dict[str, Any]]]]:
        return (
            ("events.jsonl", self.events),
            ("heads.jsonl", self.heads),
            ("keys.jsonl", self.keys),
        )

    def hash_anew(self, start: int) -> None:
        """Make the lines from this place on agree with one another again, as an attacker would."""
        before = bytes.fromhex(self.events[start - 1]["hash"]) if start else START
        for event in self.events[start:]:
            event["data_sha256"] = hashlib.sha256(event["data"].encode()).hexdigest()
            headers = [(name.encode(), value.encode()) for name, value in event["headers"]]
            data = bytes.fromhex(event["data_sha256"])
            before = event_hash(before, event["sequence"], event["subject"].encode(), headers, data)
            event["hash"] = before.hex()


def heads_of(events: Sequence[ArchivedEvent], every: int, rotated_at: int) -> list[Head]:
    log = events[0].hash.hex()
    return [
        head_of(FIRST if at < rotated_at else SECOND, log, at, events[at - 1].hash.hex())
        for at in range(every, len(events) + 1, every)
    ]


def bundle(first: int = 1, last: int | None = None, *, every: int = 20) -> Files:
    """A bundle of these events, as the product writes it, with the head before them."""
    events = archived()
    heads = heads_of(events, every, rotated_at=60)
    chosen = events[first - 1 : last]
    before = [head for head in heads if head.sequence < first][-1:]
    within = [head for head in heads if first <= head.sequence <= chosen[-1].sequence]
    keys = [key_of(FIRST, FIRST), key_of(SECOND, FIRST)]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, closing(BundleWriter(archive)) as writer:
        with writer.events() as lines:
            lines.write(chosen)
        writer.finish([*before, *within], keys, NOW)
    return read(file)


def read(file: io.BytesIO) -> Files:
    with zipfile.ZipFile(file) as archive:
        records: dict[str, list[dict[str, Any]]] = {}
        for name in ("events.jsonl", "heads.jsonl", "keys.jsonl"):
            records[name] = [json.loads(line) for line in archive.read(name).splitlines()]
        others = {name: archive.read(name) for name in archive.namelist() if name not in records}
    # What is derived is not what these tests are about, but where they say so.
    others.pop("summary.json")
    return Files(records["events.jsonl"], records["heads.jsonl"], records["keys.jsonl"], others)
