"""Gzip on its way in: unpacked piece by piece, and given up where it would grow without end."""

import zlib
from collections.abc import Iterator
from typing import Final

from domain.datasets.problems import Problems
from domain.datasets.sniff import GZIP, Compression

# Text shrinks to a tenth or a hundredth. Deflate can shrink a thousandfold, which only a bomb does.
MAX_RATIO: Final = 200
RATIO_FROM_BYTES: Final = 16 * 1024 * 1024  # a small file may repeat itself, and does no harm
MAX_UNPACKED_BYTES: Final = 4 * 1024**3
_PIECE: Final = 256 * 1024
_WHOLE = "the whole file, as gzip has written it"


class Unpacker:
    """Passes on what is not packed; it is told by the first two bytes.

    Bytes are gathered to blocks first, so that the same file is given up at the same place however
    it was cut into chunks.
    """

    def __init__(self, problems: Problems, block_bytes: int) -> None:
        self._problems = problems
        self._block_bytes = block_bytes
        self._buffer = bytearray()
        self._member: zlib._Decompress | None = None
        self._taken = 0  # packed bytes
        self._given = 0
        self._told = False
        self.compression: Compression | None = None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        if self._told and self.compression is None:
            yield chunk
            return
        self._buffer += chunk
        if not self._told and len(self._buffer) >= len(GZIP):
            self._tell()
            if self.compression is None:
                yield self._rest()
                return
        while self._told and len(self._buffer) >= self._block_bytes:
            block = bytes(self._buffer[: self._block_bytes])
            del self._buffer[: self._block_bytes]
            yield from self._unpack(block)

    def finish(self) -> Iterator[bytes]:
        if not self._told:
            self._tell()
        if self.compression is None:
            yield self._rest()
            return
        yield from self._unpack(self._rest())
        if not self._problems.stopped() and self._member is not None and not self._member.eof:
            self._bad("the gzip file ends before its end")

    def _tell(self) -> None:
        self._told = True
        if self._buffer.startswith(GZIP):
            self.compression = "gzip"
            self._member = _member()

    def _rest(self) -> bytes:
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _unpack(self, data: bytes) -> Iterator[bytes]:
        while data and not self._problems.stopped():
            if self._member is None or self._member.eof:
                data = data.lstrip(b"\0")  # padding behind a member, as tapes have it
                if not data:
                    return
                self._member = _member()
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error as error:
                self._bad(f"the gzip file is damaged: {error}")
                return
            rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self._taken += len(data) - len(rest)
            self._given += len(piece)
            if self._is_bomb():
                return
            yield piece
            if not piece and len(rest) == len(data):
                return  # it waits for more
            data = rest

    def _is_bomb(self) -> bool:
        ratio = self._given > RATIO_FROM_BYTES and self._given > MAX_RATIO * self._taken
        if not ratio and self._given <= MAX_UNPACKED_BYTES:
            return False
        self._problems.stop(
            1,
            "unpacks_too_large",
            f"the gzip file holds more than {self._given:,} bytes in {self._taken:,}",
            f"at most {MAX_UNPACKED_BYTES:,} bytes, and at most {MAX_RATIO} times the packed ones;"
            " part it, or send it unpacked",
        )
        return True

    def _bad(self, what: str) -> None:
        self._problems.stop(1, "bad_gzip", what, _WHOLE)


def _member() -> "zlib._Decompress":
    return zlib.decompressobj(zlib.MAX_WBITS | 16)  # with the header and the checksum of gzip
