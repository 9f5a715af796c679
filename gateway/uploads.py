"""A dataset's bytes on their way in: checked while they stream, and nothing kept of what is wrong.

Bytes go to a blob writer and to the row parser at once. Whatever goes wrong before the last byte
leaves neither a file nor a row nor an event.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast, get_args

from litestar import Request
from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from domain.blobs import BlobRef
from domain.datasets.rows import RowReader
from domain.datasets.sniff import Format
from domain.datasets.tables import TableChoice
from domain.jobs.spec import RowKind
from gateway.naming import base_name, dataset_name
from gateway.ports import Blobs, BlobWriter
from gateway.problems import Problem, invalid
from gateway.table_choices import chosen

MEDIA_TYPES: Final = frozenset(
    {
        "text/csv",
        "text/tab-separated-values",
        "text/plain",
        "application/csv",
        "application/json",
        "application/jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/x-ndjson",
        "application/ndjson",
        "application/octet-stream",
        "application/gzip",
        "application/x-gzip",
        "application/vnd.apache.parquet",
    }
)
MULTIPART: Final = "multipart/form-data"
# Without a byte; a client that is gone without a word must not hold a file open.
IDLE_S: Final = 60.0
PIECE_BYTES: Final = 256 * 1024  # written and parsed at once
MAX_FIELDS: Final = 20
MAX_FIELD_BYTES: Final = 1024
MAX_COLUMNS_BYTES: Final = 16 * 1024  # the names of many columns
FORM_OVERHEAD_BYTES: Final = 64 * 1024  # of a form around its file
READ_ON_BYTES: Final = 16 * 1024 * 1024  # of a refused body, so that the client gets to the answer
TABLE_FIELDS: Final = ("schema", "target", "numeric", "categorical", "group", "ignored")
FIELDS: Final = (
    *("name", "filename", "format", "kind", "text_column", "label_column", "delimiter"),
    *TABLE_FIELDS,
)
KINDS: Final = get_args(RowKind)
FORMATS: Final = get_args(Format)
TOO_LATE: Final = frozenset(FIELDS) - {"name"}  # what the reading of the file depends on


@dataclass(frozen=True, slots=True)
class Asked:
    """What the sender said about the file; None where nothing was said."""

    name: str | None = None
    filename: str | None = None
    format: Format | None = None
    kind: RowKind | None = None
    text_column: str | None = None
    label_column: str | None = None
    delimiter: str | None = None
    table: TableChoice = field(default_factory=TableChoice)


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is stored and whose every line could be read."""

    asked: Asked
    blob: BlobRef
    reader: RowReader


async def receive(
    request: Request[Any, Any, Any], blobs: Blobs, asked: Asked, max_bytes: int
) -> Received:
    """Take the body of a request, raw or as a form.

    Raises:
        Problem: 400, 413, 415 or 422; nothing is left of the upload.
    """
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    multipart = media_type == MULTIPART
    _refuse_media_type(media_type)
    _refuse_announced(request, max_bytes + (FORM_OVERHEAD_BYTES if multipart else 0))
    body = _body(request)
    async with blobs.writer() as writer:
        intake = _Intake(writer, asked, max_bytes)
        if multipart:
            await _take_form(intake, body, options.get("boundary", ""))
        else:
            intake.begin(None, media_type)
            async for chunk in body:
                await intake.take(chunk)
        reader = await intake.finish()
        return Received(intake.asked, await writer.commit(), reader)


class _Intake:
    """Feeds one file to the writer and to the parser."""

    def __init__(self, writer: BlobWriter, asked: Asked, max_bytes: int) -> None:
        self._writer = writer
        self._max_bytes = max_bytes
        self._size = 0
        self._piece = bytearray()
        self._reader: RowReader | None = None
        self.asked = asked

    @property
    def begun(self) -> bool:
        return self._reader is not None

    def begin(self, filename: str | None, media_type: str) -> None:
        asked = self.asked
        named = base_name(asked.filename or filename) or None
        self.asked = replace(asked, filename=named)
        try:
            self._reader = RowReader(
                asked.format,
                asked.text_column,
                asked.label_column,
                asked.delimiter,
                kind=kind_of(asked),
                filename=named,
                content_type=media_type,
                table=asked.table,
            )
        except ValueError as error:
            raise invalid("delimiter", str(error)) from error

    def change(self, field: str, value: str) -> None:
        if field == "format" and value not in FORMATS:
            raise invalid("format", f"one of {', '.join(FORMATS)}", "body")
        if field == "kind" and value not in KINDS:
            raise invalid("kind", f"one of {', '.join(KINDS)}", "body")
        if field == "name":
            dataset_name(value, None)  # refused while nothing is stored yet
        if field in TABLE_FIELDS:
            self.asked = replace(self.asked, table=chosen(self.asked.table, field, value, "body"))
            return
        self.asked = replace(self.asked, **{field: cast("Any", value)})

    async def take(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._piece += chunk
        if len(self._piece) >= PIECE_BYTES:
            await self._pass_on()

    async def finish(self) -> RowReader:
        if self._reader is None:
            raise Problem("invalid_upload", "The form has no file; send it as the field `file`.")
        await self._pass_on()
        reader = self._reader
        await asyncio.to_thread(reader.check_rest)
        if reader.problem_count:
            raise _unreadable(reader)
        return reader

    async def _pass_on(self) -> None:
        piece, reader = bytes(self._piece), self._reader
        self._piece.clear()
        if reader is None or not piece:
            return
        if reader.stopped:
            self._refuse_the_rest(reader)
            return
        await self._writer.write(piece)
        await asyncio.to_thread(reader.check, piece)

    def _refuse_the_rest(self, reader: RowReader) -> None:
        """Nothing of the rest will be read; a client that has little left gets to send it."""
        if self._size > READ_ON_BYTES:
            raise _unreadable(reader)


def kind_of(asked: Asked) -> RowKind | None:
    """The kind that was asked for; whoever says what columns are for means a table.

    Raises:
        Problem: 400, what was asked for does not fit together.
    """
    kind: RowKind | None = "tabular" if asked.table.chosen else asked.kind
    if asked.kind not in {None, kind}:
        raise invalid("kind", "tabular, as columns of a table are named, or leave them out")
    if kind == "tabular" and asked.text_column:
        raise invalid("text_column", "a table has none; name its columns by their use")
    return kind


async def _take_form(intake: _Intake, body: AsyncIterator[bytes], boundary: str) -> None:
    field: MultipartSegment | None = None
    value = bytearray()
    try:
        with PushMultipartParser(boundary, max_segment_count=MAX_FIELDS) as parser:
            async for chunk in body:
                for event in parser.parse(chunk):
                    if isinstance(event, MultipartSegment):
                        field, value = _field(event, intake), bytearray()
                    elif field is not None and field.name == "file":
                        await intake.take(bytes(event or b""))
                    elif field is not None and event is not None:
                        value += event
                        if len(value) > _most_bytes(field.name):
                            raise _bad_form(f"the field {field.name!r} is too long")
                    elif field is not None:
                        intake.change(field.name, _text(bytes(value), field.name))
    except MultipartError as error:
        raise _bad_form(str(error) or type(error).__name__) from error


def _field(segment: MultipartSegment, intake: _Intake) -> MultipartSegment:
    if segment.name == "file":
        if intake.begun:
            raise _bad_form("it holds two files; upload one at a time")
        intake.begin(segment.filename, segment.content_type or "application/octet-stream")
    elif segment.name not in FIELDS:
        raise _bad_form(
            f"there is no field {segment.name[:80]!r}; known are file, {', '.join(FIELDS)}"
        )
    elif segment.filename is not None:
        raise _bad_form(f"{segment.name!r} is a text, not a file; the file's field is `file`")
    elif intake.begun and segment.name in TOO_LATE:
        raise _bad_form(f"the field {segment.name!r} must come before the file")
    return segment


def _most_bytes(name: str) -> int:
    return MAX_COLUMNS_BYTES if name in TABLE_FIELDS else MAX_FIELD_BYTES


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _bad_form(f"the field {name!r} is not UTF-8") from None


async def _body(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    more = True
    while more:
        try:
            async with asyncio.timeout(IDLE_S):
                message = await request.receive()
        except TimeoutError:
            raise Problem("invalid_upload", f"Nothing came for {IDLE_S:.0f} s.") from None
        if message["type"] != "http.request":
            raise Problem("invalid_upload", "The upload broke off; nothing of it was kept.")
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            yield chunk


def _refuse_media_type(media_type: str) -> None:
    if media_type and media_type != MULTIPART and media_type not in MEDIA_TYPES:
        raise Problem(
            "unsupported_media_type",
            f"A body of {media_type[:80]} is not taken; send the file as text/csv, "
            "application/x-ndjson, application/vnd.apache.parquet, application/gzip or "
            "application/octet-stream, or a form as multipart/form-data.",
            supported=sorted([*MEDIA_TYPES, MULTIPART]),
        )


def _refuse_announced(request: Request[Any, Any, Any], max_bytes: int) -> None:
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> Problem:
    return Problem("too_large", f"A file may have {max_bytes:,} bytes.", limit=max_bytes)


def _bad_form(what: str) -> Problem:
    return Problem("invalid_upload", f"The form cannot be taken: {what}.")


def _unreadable(reader: RowReader) -> Problem:
    first, total = reader.problems[0], reader.problem_count
    where = f"line {first.line}" + (f", {first.field}" if first.field else "")
    more = f" and {total - 1:,} more" if total > 1 else ""
    return Problem(
        "unreadable_dataset",
        f"{where}: {first.message}; expected {first.expected}{more}. Nothing was stored.",
        problems=[problem.model_dump() for problem in reader.problems],
        total=total,
    )
