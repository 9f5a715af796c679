"""Bytes of a known length over HTTP, whole or from where a broken download stopped (RFC 9110, 14).

One range is answered with 206. Several ranges, another unit and what is no range are answered with
the whole, as the RFC allows: a client that asks for several reads a 200 as well.
"""

import asyncio
import errno
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from litestar import MediaType, Request, Response
from litestar.response import Stream

from gateway.etags import holds, meant
from gateway.ports import Blobs
from gateway.problems import Problem

OCTETS: Final = "application/octet-stream"
# 18 digits are more bytes than there are disks; int() refuses texts of thousands.
_RANGE: Final = re.compile(r"bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)

Read = Callable[[int, int], AsyncIterator[bytes]]  # offset, length


class Span(NamedTuple):
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that can be had: how many, which, and what to call them."""

    size: int
    etag: str  # strong: other bytes have another
    filename: str
    media_type: str
    read: Read

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Accept-Ranges": "bytes",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(self.filename, safe='')}",
            "ETag": self.etag,
            "Cache-Control": "private, no-cache",  # keep it, but ask by its tag
        }


def blob_content(
    blobs: Blobs, sha256: str, size: int, filename: str, media_type: str = OCTETS
) -> Content:
    def read(offset: int, length: int) -> AsyncIterator[bytes]:
        pieces = blobs.read(sha256, offset, length)
        return checked(pieces, sha256) if length == size else pieces

    return Content(size, f'"{sha256}"', filename, media_type, read)


async def checked(pieces: AsyncIterator[bytes], sha256: str) -> AsyncIterator[bytes]:
    """Pass pieces on, the last one only if all of them together have this hash.

    So a download of damaged bytes breaks off, instead of ending as if nothing were wrong. A piece
    is hashed while the one before it is sent.
    """
    loop, digest = asyncio.get_running_loop(), hashlib.sha256()
    held = b""
    async for piece in pieces:
        hashing = loop.run_in_executor(None, digest.update, piece)
        if held:
            yield held
        await hashing
        held = piece
    if digest.hexdigest() != sha256:
        raise OSError(errno.EIO, "the stored bytes do not have this hash", sha256)
    if held:
        yield held


async def require_blob(blobs: Blobs, sha256: str) -> int:
    """How many bytes a blob has: asked before an answer begins, which could only break off later.

    Raises:
        Problem: The store does not have it.
    """
    size = await blobs.size(sha256)
    if size is None:
        raise Problem(
            "blob_missing",
            f"The store holds no blob {sha256}; `finetrail doctor --blobs` lists all it lacks.",
        )
    return size


def ranged(request: Request[Any, Any, Any], content: Content) -> Response[None] | Stream:
    """Answer a GET or a HEAD for these bytes, with all its conditions.

    Raises:
        Problem: 412 for another ``If-Match``, 416 for a range behind the end.
    """
    if not meant(request.headers.getall("if-match", []), content.etag):
        raise Problem("precondition_failed", "These are other bytes than `If-Match` names.")
    if holds(request.headers.getall("if-none-match", []), content.etag):
        kept = ("ETag", "Cache-Control")
        headers = {name: content.headers[name] for name in kept}
        return Response(None, status_code=304, headers=headers, media_type=MediaType.JSON)
    if request.method == "HEAD":
        sizes = {"Content-Length": str(content.size), "Content-Type": content.media_type}
        return Response(None, headers=content.headers | sizes, media_type=MediaType.JSON)
    span = _asked(request, content)
    if span is None:
        headers = content.headers | {"Content-Length": str(content.size)}
        pieces = content.read(0, content.size)
        return Stream(pieces, headers=headers, media_type=content.media_type)
    last = span.offset + span.length - 1
    headers = content.headers | {
        "Content-Range": f"bytes {span.offset}-{last}/{content.size}",
        "Content-Length": str(span.length),
    }
    pieces = content.read(*span)
    return Stream(pieces, status_code=206, headers=headers, media_type=content.media_type)


def _asked(request: Request[Any, Any, Any], content: Content) -> Span | None:
    """The range to send; None for the whole."""
    if request.headers.get("if-range", content.etag).strip() != content.etag:
        return None  # what the client has a part of is no more
    return span_of(request.headers.getall("range", []), content.size)


def span_of(values: Sequence[str], size: int) -> Span | None:
    """The one range that the ``Range`` lines of a request ask for; None for the whole.

    Raises:
        Problem: It lies behind the end.
    """
    match = _RANGE.fullmatch(values[0].strip()) if len(values) == 1 else None
    if match is None or size == 0:
        return None
    first, last = match[1], match[2]
    if first:
        if last and int(last) < int(first):
            return None  # no range
        begin, end = int(first), min(int(last or size), size - 1)
    elif last:
        begin, end = max(size - int(last), 0), size - 1
    else:
        return None  # no range
    if begin >= size:
        raise Problem(
            "range_not_satisfiable",
            f"There are {size:,} bytes, counted from 0.",
            headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"},
        )
    return Span(begin, end - begin + 1)
