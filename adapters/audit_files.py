"""Files of heads and keys, one JSON object a line, that are only ever appended to."""

import asyncio
import errno
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from domain.audit import Head, Key, NotARecord, read_head, read_key

HEADS: Final = "heads.jsonl"
KEYS: Final = "keys.jsonl"
LOG_DIGITS: Final = 16  # of a log's id, in the name of a file
TAIL: Final = 4096  # bytes; a record has about 400
T = TypeVar("T")

_log = logging.getLogger(__name__)


class AuditFolder:
    """Implements `projections.publishing.HeadPlace` with two files in a folder.

    ``own`` is the folder of one installation; without it the files bear the name of their log, so
    that several may publish to one place.
    """

    def __init__(self, folder: Path, *, own: bool) -> None:
        self.name = "data directory" if own else "folder"
        self.where = str(folder)
        self._folder = folder
        self._own = own
        self._writing = threading.Lock()

    async def last(self, log: str) -> int:
        head = await asyncio.to_thread(last_head, self._file(log, HEADS))
        return head.sequence if head else 0

    async def put(self, heads: Sequence[Head], keys: Sequence[Key]) -> None:
        await asyncio.to_thread(self._put_alone, heads, keys)

    def _put_alone(self, heads: Sequence[Head], keys: Sequence[Key]) -> None:
        with self._writing:  # whoever stops waiting for a thread does not stop it
            self._put(heads, keys)

    def _put(self, heads: Sequence[Head], keys: Sequence[Key]) -> None:
        if not self._own and not self._folder.is_dir():  # a mount that is away must not be made
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(self._folder))
        heads_file, keys_file = (self._file(heads[0].log, name) for name in (HEADS, KEYS))
        known = {key.key for key in read_keys(keys_file)}
        append(keys_file, [key.record() for key in keys if key.key not in known])
        last = last_head(heads_file)
        after = last.sequence if last else 0
        append(heads_file, [head.record() for head in heads if head.sequence > after])

    def _file(self, log: str, name: str) -> Path:
        return self._folder / (name if self._own else f"{log[:LOG_DIGITS]}-{name}")


def read_heads(path: Path) -> list[Head]:
    """All heads of a file that may be missing; a line that is none is passed over, and said so."""
    return list(_read(path, read_head))


def read_keys(path: Path) -> list[Key]:
    return list(_read(path, read_key))


def append(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write lines behind those that are there, onto the disk; a torn last line is ended first."""
    if not records:
        return
    lines = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    with os.fdopen(descriptor, "r+b") as file:
        torn = bool(file.seek(0, os.SEEK_END)) and _last_byte(file.fileno()) != b"\n"
        file.write((b"\n" if torn else b"") + lines.encode())
        file.flush()
        os.fsync(file.fileno())


def last_head(path: Path) -> Head | None:
    """The last head of a file, without reading all of it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            return read_head(json.loads(line))
        except (NotARecord, ValueError):
            continue  # torn, or not the beginning of one
    return None


def _last_byte(descriptor: int) -> bytes:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1)


def _read(path: Path, read: Callable[[object], T]) -> Iterator[T]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        try:
            yield read(json.loads(line))
        except (NotARecord, ValueError) as error:
            _log.error("%s, line %d, is passed over: %s", path, number, error)
