"""Files on their way to a server, read in pieces."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

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
