"""Files on their way to and from a server: read in pieces, written in one step."""

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx

from finetrail.client.errors import DownloadFailed

PIECE_BYTES: Final = 256 * 1024
Report = Callable[[int, int], None]  # bytes done, bytes in all

_TYPES: Final = {
    ".csv": "text/csv",
    ".tsv": "text/csv",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
}


def content_type(path: Path) -> str:
    return _TYPES.get(path.suffix.lower(), "application/octet-stream")


def pieces(path: Path, total: int, report: Report | None) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            if report:
                report(done, total)


def save_zip(response: httpx.Response, to: Path, report: Report | None) -> None:
    """Write the body beside ``to`` and rename it when it is whole and its checksums hold."""
    expected = int(response.headers.get("content-length", 0))
    aside = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        done = 0
        with aside.open("wb") as file:
            for piece in response.iter_bytes(PIECE_BYTES):
                file.write(piece)
                done += len(piece)
                if report:
                    report(done, expected)
            file.flush()
            os.fsync(file.fileno())
        if expected and done != expected:
            raise DownloadFailed(f"{done} bytes came of {expected}")
        _check(aside)
        aside.replace(to)
    finally:
        aside.unlink(missing_ok=True)


def _check(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise DownloadFailed(f"what came is no ZIP file: {error}") from error
    if damaged:
        raise DownloadFailed(f"{damaged} in the ZIP file is damaged")
