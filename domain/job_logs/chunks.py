"""How log lines lie in a chunk: one JSON object a line, gzip around it, the same bytes for the same lines."""

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import groupby
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domain.telemetry import LogLine

L = TypeVar("L", bound=BaseModel)

MAX_BYTES: Final = 32 * 1024 * 1024  # unpacked; a bomb is not unpacked any further


class BadChunk(ValueError):
    """These bytes are no chunk; the message says which line is wrong and why."""


@dataclass(frozen=True, slots=True)
class Said:
    """One telemetry message: the lines that share a sequence."""

    sequence: int
    attempt: int
    lines: tuple[LogLine, ...]


class _Line(LogLine):
    model_config = ConfigDict(frozen=True, extra="ignore")

    sequence: int = Field(ge=1)
    attempt: int = Field(ge=0)


def chunk_name(messages: Sequence[Said]) -> str:
    """``log_<time of the first line>.jsonl.gz``."""
    time = messages[0].lines[0].time.astimezone(UTC)
    return f"log_{time:%Y%m%dT%H%M%S.%fZ}.jsonl.gz"


def pack(messages: Sequence[Said]) -> bytes:
    """Lines in the order given."""
    text = "".join(
        json.dumps(
            {
                "sequence": message.sequence,
                "attempt": message.attempt,
                **line.model_dump(mode="json"),
            },
            ensure_ascii=False,
        )
        + "\n"
        for message in messages
        for line in message.lines
    )
    return gzip.compress(text.encode(), mtime=0)


def unpack(data: bytes) -> list[Said]:
    """The messages of a chunk that `pack` made.

    Raises:
        BadChunk: It is none.
    """
    lines = _read(data, _Line)
    return [
        Said(sequence, attempt, tuple(LogLine(**_bare(line)) for line in group))
        for (sequence, attempt), group in groupby(lines, lambda line: (line.sequence, line.attempt))
    ]


def read_lines(data: bytes) -> list[LogLine]:
    """The lines of a chunk that somebody else made: ``time`` and ``message``, perhaps more.

    Raises:
        BadChunk: It is none.
    """
    return _read(data, LogLine)


def _read(data: bytes, kind: type[L]) -> list[L]:
    found = []
    for number, text in enumerate(_unpacked(data).splitlines(), 1):
        if not text.strip():
            continue
        try:
            found.append(kind.model_validate_json(text))
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise BadChunk(f"line {number}: {where or 'JSON'}: {wrong['msg']}") from error
    if not found:
        raise BadChunk("it holds no lines")
    return found


def _unpacked(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # gzip alone
    try:
        text = unpacker.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise BadChunk(f"it is not gzip: {error}") from error
    if unpacker.unconsumed_tail:
        raise BadChunk(f"it holds more than {MAX_BYTES // 1024**2} MiB unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise BadChunk("its gzip is cut off, or something follows it")
    return text


def _bare(line: _Line) -> dict[str, object]:
    return line.model_dump(exclude={"sequence", "attempt"})
