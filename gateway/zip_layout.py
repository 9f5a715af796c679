"""A ZIP archive laid out before a byte of it is read: sizes and checksums come from the manifest.

Entries are stored, not deflated: weights hardly compress, and so the archive's length is known
exactly and its bytes are the same each time. ZIP64 fields appear only where a number needs them.
"""

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from domain.blobs import BlobRef

_DATE: Final = 0x21  # 1980-01-01, the first day that ZIP knows: the same archive on every day
_TIME: Final = 0
_UTF8: Final = 0x800  # names are UTF-8
_MODE: Final = 0o100644 << 16  # a regular file, rw-r--r--
_MAX32: Final = 0xFFFFFFFF  # this value itself says "look in the ZIP64 field"
_MAX16: Final = 0xFFFF
_PLAIN: Final = 20  # version needed to extract
_ZIP64: Final = 45

# The hash of a blob, offset and length. What is read is not checked here: whoever opens the archive
# compares its checksums, and a second time would make it half as fast.
ReadBlob = Callable[[str, int, int], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file: its bytes, or the blob that holds them."""

    path: str
    content: bytes | BlobRef
    size: int
    crc32: int


class ZipLayout:
    """The archive of these entries, in this order."""

    def __init__(self, entries: Sequence[ZipEntry]) -> None:
        self._parts: list[bytes | BlobRef] = []
        self.size = 0  # bytes of the whole archive
        directory = b""
        for entry in entries:
            directory += _directory_header(entry, self.size)
            self._add(_local_header(entry))
            self._add(entry.content)
        self._add(directory + _ending(len(entries), len(directory), self.size))

    async def read(
        self, read_blob: ReadBlob, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """The archive, or ``length`` bytes of it from ``offset`` on; nothing else is read."""
        end = self.size if length is None else offset + length
        start = 0
        for part in self._parts:
            size = _size(part)
            begin, stop = max(offset - start, 0), min(end - start, size)
            start += size
            if begin >= stop:
                continue
            if isinstance(part, bytes):
                yield part[begin:stop]
            else:
                async for chunk in read_blob(part.sha256, begin, stop - begin):
                    yield chunk

    def _add(self, part: bytes | BlobRef) -> None:
        self._parts.append(part)
        self.size += _size(part)


def _size(part: bytes | BlobRef) -> int:
    return len(part) if isinstance(part, bytes) else part.size


def _local_header(entry: ZipEntry) -> bytes:
    name = entry.path.encode()
    big = entry.size >= _MAX32
    extra = struct.pack("<HHQQ", 1, 16, entry.size, entry.size) if big else b""
    size = _MAX32 if big else entry.size
    fixed = struct.pack(
        "<IHHHHHIIIHH",
        0x04034B50,
        _ZIP64 if big else _PLAIN,
        _UTF8,
        0,  # stored
        _TIME,
        _DATE,
        entry.crc32,
        size,
        size,
        len(name),
        len(extra),
    )
    return fixed + name + extra


def _directory_header(entry: ZipEntry, offset: int) -> bytes:
    name = entry.path.encode()
    big = entry.size >= _MAX32
    far = offset >= _MAX32
    numbers = [entry.size, entry.size] * big + [offset] * far
    extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    size = _MAX32 if big else entry.size
    fixed = struct.pack(
        "<IHHHHHHIIIHHHHHII",
        0x02014B50,
        _ZIP64 | 3 << 8,  # made on Unix, so that the mode counts
        _ZIP64 if numbers else _PLAIN,
        _UTF8,
        0,
        _TIME,
        _DATE,
        entry.crc32,
        size,
        size,
        len(name),
        len(extra),
        0,
        0,
        0,
        _MODE,
        _MAX32 if far else offset,
    )
    return fixed + name + extra


def _ending(count: int, directory_size: int, offset: int) -> bytes:
    big = count >= _MAX16 or directory_size >= _MAX32 or offset >= _MAX32
    wide = b""
    if big:
        wide = struct.pack(
            "<IQHHIIQQQQ",
            0x06064B50,
            44,
            _ZIP64,
            _ZIP64,
            0,
            0,
            count,
            count,
            directory_size,
            offset,
        ) + struct.pack("<IIQI", 0x07064B50, 0, offset + directory_size, 1)
    few = min(count, _MAX16)
    return wide + struct.pack(
        "<IHHHHIIH",
        0x06054B50,
        0,
        0,
        few,
        few,
        min(directory_size, _MAX32),
        min(offset, _MAX32),
        0,
    )
