"""Datasets over HTTP: upload, list, look into, delete."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Final, Literal, TypeVar, cast
from uuid import UUID

import msgspec
from litestar import Controller, HttpMethod, Request, Response, delete, get, post, route
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from domain.datasets.commands import DeleteDataset, RegisterDataset
from domain.datasets.conversations import Conversation, Message
from domain.datasets.preferences import PreferencePair
from domain.datasets.rows import Row, RowReader, TableRow
from domain.datasets.shapes import AnyRow
from domain.datasets.sniff import Format
from domain.datasets.tables import TableSchema as DomainTableSchema
from domain.jobs.spec import RowKind
from domain.messages import StreamId
from gateway.as_of import Listed, Readable, Shown, missing
from gateway.authentication import Principal
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.etags import IfMatch, require_revision
from gateway.hub import Hub, Mailbox
from gateway.naming import dataset_name
from gateway.pages import Limit, Page
from gateway.people import require_remembered
from gateway.ports import Blobs
from gateway.problems import Problem
from gateway.ranged import OCTETS, blob_content, ranged, require_blob
from gateway.sealing import Opened, Sealing
from gateway.table_choices import table_choice
from gateway.uploads import Asked, Received, receive
from projections.datasets import DatasetRow
from projections.queries import Queries

S = TypeVar("S")

VALIDATION_S: Final = 30.0  # hundreds of megabytes are read again within this
LOOK_S: Final = 0.25  # between looks at the read model when no event wakes us
PREVIEW_BYTES: Final = 16 * 1024 * 1024  # of the file; the first hundred rows of any real one

FileFormat = Annotated[Format | None, QueryParameter(description="Told by the content, then the name and the type, if left out. That a file is packed with gzip is always told by its content.")]  # fmt: skip
Kind = Annotated[RowKind | None, QueryParameter(description="What a row holds; told by the first row if left out, but a chosen column then means a classification.")]  # fmt: skip
TextColumn = Annotated[str | None, QueryParameter(max_length=200, description="Column with the text, the instruction, the prompt or the messages; found by its usual names if left out.")]  # fmt: skip
LabelColumn = Annotated[str | None, QueryParameter(max_length=200, description="Column with the label, the output or the completion.")]  # fmt: skip
Filename = Annotated[str | None, QueryParameter(max_length=1000, description="The file's own name; its ending helps to tell the format.")]  # fmt: skip
Name = Annotated[str | None, QueryParameter(max_length=1000, description="What to call the dataset; the file's name if left out.")]  # fmt: skip
PersonId = Annotated[UUID | None, QueryParameter(description="The person whom all the rows are of; they are deleted when that person is forgotten.")]  # fmt: skip
TableName = Annotated[Literal["diabetes"] | None, QueryParameter(description="Of a table: a schema that is known by name; then only its columns are used.")]  # fmt: skip
Target = Annotated[str | None, QueryParameter(max_length=200, description="Of a table: the column to tell; else one called target, label, class, outcome or diagnosis, else the last.")]  # fmt: skip
Numeric = Annotated[str | None, QueryParameter(max_length=16_000, description="Of a table: columns of numbers, parted by commas. What no field names is told by what stands in it.")]  # fmt: skip
Categorical = Annotated[str | None, QueryParameter(max_length=16_000, description="Of a table: columns of categories, parted by commas.")]  # fmt: skip
Group = Annotated[str | None, QueryParameter(max_length=16_000, description="Of a table: columns, such as a patient's number, whose equal values keep rows on one side of the split.")]  # fmt: skip
Ignored = Annotated[str | None, QueryParameter(max_length=16_000, description="Of a table: columns that are not used, parted by commas.")]  # fmt: skip
Delimiter = Annotated[str | None, QueryParameter(max_length=1, description="Of CSV: , ; | or a tab; found if left out.")]  # fmt: skip


class ExampleMessage(msgspec.Struct):
    """A message of the first conversation, its role before it, cut where it is long."""

    text: str
    supervised: bool  # whether it is learned


class TableColumn(msgspec.Struct):
    """What a column is for, and why: `chosen`, or the rule that told it."""

    name: str
    role: Literal["numeric", "categorical", "group", "ignored"]
    why: str
    categories: list[str]


class TableSchema(msgspec.Struct):
    """How the rows of a table are read, in training and in every question.

    `spellings` are further names of the classes, in lower case.
    """

    target: str
    target_why: str
    classes: list[str]
    spellings: dict[str, str]
    columns: list[TableColumn]


class Cleaning(msgspec.Struct):
    """A value that is read otherwise than it stands; null is missing."""

    line: int
    column: str
    was: str
    became: str | None
    why: Literal["blanks", "spelling", "decimal_comma", "unreadable", "missing", "unknown"]


class TableReport(msgspec.Struct):
    """How many values were cleaned, the first hundred of them, and which rows stay together."""

    cleaned: int
    by_reason: dict[str, int]
    first: list[Cleaning]
    missing: dict[str, int]
    groups: int
    largest_group: int


class Dataset(msgspec.Struct):
    """Rows of one kind, stored under their bytes' hash.

    `why` says by what kind and format were told. `person_id` is whom all of them are of. `name` is null once that person is forgotten.
    """

    id: UUID
    name: str | None
    status: Literal["pending", "valid", "rejected", "deleted"]
    sha256: str
    size: int
    format: str
    kind: RowKind
    text_column: str
    label_column: str
    rows: int
    labels: dict[str, int]
    duplicate_rows: int | None
    conflicting_texts: int | None
    messages: int | None
    supervised_messages: int | None
    example: list[ExampleMessage]
    table_schema: TableSchema | None
    table_report: TableReport | None
    compression: Literal["gzip"] | None
    why: str
    message: str | None
    created_at: datetime | None
    person_id: UUID | None
    forgotten: bool
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class ToolCallPreview(msgspec.Struct):
    """What an assistant asks a tool; `arguments` is a JSON object."""

    id: str
    name: str
    arguments: str


class MessagePreview(msgspec.Struct):
    """`tool_calls` are an assistant's; `tool_call_id` says which of them a tool's message answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    supervised: bool
    tool_calls: list[ToolCallPreview] | msgspec.UnsetType = msgspec.UNSET
    tool_call_id: str | msgspec.UnsetType = msgspec.UNSET


class RowPreview(msgspec.Struct):
    """A row as training reads it: a text and its label, messages, values, or answers to `messages`.

    Two answers are `chosen` and `rejected`; one is a `completion`, and `desirable` or not.
    """

    line: int
    values: dict[str, float | str | None] | msgspec.UnsetType = msgspec.UNSET  # of a table
    text: str | msgspec.UnsetType = msgspec.UNSET
    label: str | msgspec.UnsetType = msgspec.UNSET
    messages: list[MessagePreview] | msgspec.UnsetType = msgspec.UNSET
    raw: bool | msgspec.UnsetType = msgspec.UNSET  # joined as they stand, without a chat template
    tools: list[str] | msgspec.UnsetType = msgspec.UNSET  # a JSON object each
    chosen: str | msgspec.UnsetType = msgspec.UNSET
    rejected: str | msgspec.UnsetType = msgspec.UNSET
    completion: str | msgspec.UnsetType = msgspec.UNSET
    desirable: bool | msgspec.UnsetType = msgspec.UNSET


class DatasetsController(Controller):
    path = "/datasets"
    tags = ("datasets",)

    @post("/", opt={"any_body": True}, request_max_body_size=None, status_code=201)
    async def upload(
        self,
        request: Request[Principal, Any, Any],
        caller: NamedDependency[Caller],
        intake: NamedDependency["Intake"],
        name: Name = None,
        filename: Filename = None,
        format: FileFormat = None,  # noqa: A002
        kind: Kind = None,
        text_column: TextColumn = None,
        label_column: LabelColumn = None,
        delimiter: Delimiter = None,
        schema: TableName = None,
        target: Target = None,
        numeric: Numeric = None,
        categorical: Categorical = None,
        group: Group = None,
        ignored: Ignored = None,
        person_id: PersonId = None,
    ) -> Response[Dataset]:
        """Upload CSV, JSON Lines, JSON, Parquet or text, as the raw body or as a form with the field `file`.

        Each may be packed with gzip; it is stored as it came.

        To say what a column is for makes it a table of numbers and categories.

        The file is checked while it streams in; what cannot be read is refused by line and field,
        and nothing of it is kept. The answer waits until the stored bytes were validated.
        """
        table = table_choice(
            schema=schema,
            target=target,
            numeric=numeric,
            categorical=categorical,
            group=group,
            ignored=ignored,
        )
        asked = Asked(name, filename, format, kind, text_column, label_column, delimiter, table)
        dataset = await intake.take(request, caller, asked, person_id)
        headers = {"Location": f"/api/v1/datasets/{dataset.id}"}
        taken_only = dataset.note is not msgspec.UNSET
        return Response(dataset, status_code=202 if taken_only else 201, headers=headers)

    @get("/")
    async def list_datasets(
        self,
        listed: NamedDependency[Listed],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
        limit: Limit = 20,
    ) -> Response[Page[Dataset]]:
        """Newest first, deleted ones too."""
        rows = await listed.queries.datasets(workspace, limit=limit + 1, before=listed.before)
        opened = await opened_datasets(sealing, rows)
        return listed.page(
            rows, limit, lambda row: row.created_sequence, lambda row: dataset_answer(row, opened)
        )

    @get("/{dataset_id:uuid}")
    async def get_dataset(
        self,
        dataset_id: FromPath[UUID],
        shown: NamedDependency[Shown],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
    ) -> Response[Dataset]:
        """One dataset and what it holds."""
        row = await require_dataset(shown.queries, workspace, dataset_id)
        return shown.answered(dataset_answer(row, await opened_datasets(sealing, [row])))

    @get("/{dataset_id:uuid}/rows")
    async def rows(
        self,
        dataset_id: FromPath[UUID],
        queries: NamedDependency[Queries],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
        blobs: NamedDependency[Blobs],
        limit: Limit = 20,
    ) -> Page[RowPreview]:
        """The first rows, as training reads them."""
        row, _ = await require_readable(queries, sealing, workspace, dataset_id)
        return Page(await preview(blobs, row, limit))

    @route(
        "/{dataset_id:uuid}/content",
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        media_type=OCTETS,
    )
    async def content(
        self,
        request: Request[Principal, Any, Any],
        dataset_id: FromPath[UUID],
        queries: NamedDependency[Queries],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
        blobs: NamedDependency[Blobs],
    ) -> Response[None] | Stream:
        """The file as it was uploaded, byte for byte."""
        row, opened = await require_readable(queries, sealing, workspace, dataset_id)
        size = await require_blob(blobs, row.sha256)
        return ranged(request, blob_content(blobs, row.sha256, size, file_name(row, opened)))

    @delete("/{dataset_id:uuid}", status_code=200)
    async def delete_dataset(
        self,
        dataset_id: FromPath[UUID],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
        if_match: IfMatch = None,
    ) -> Dataset:
        """Nothing is trained on it any more; the lineage of what was trained stays."""
        row = await require_dataset(queries, workspace, dataset_id)
        require_revision(if_match, row.sequence)
        command = DeleteDataset(dataset_id=dataset_id)
        done = await commands.send(caller, "dataset", dataset_id, command)
        if done.readable:
            row = await require_dataset(queries, workspace, dataset_id)
        return dataset_answer(row, await opened_datasets(sealing, [row]), done)


class Intake:
    """Uploads of one workspace: bytes into the blob store, then the command, then its validation."""

    def __init__(
        self,
        blobs: Blobs,
        commands: Commands,
        queries: Queries,
        hub: Hub,
        sealing: Sealing,
        *,
        workspace: str,
        max_bytes: int,
    ) -> None:
        self._blobs = blobs
        self._commands = commands
        self._queries = queries
        self._hub = hub
        self._sealing = sealing
        self._workspace = workspace
        self._max_bytes = max_bytes

    async def take(
        self,
        request: Request[Principal, Any, Any],
        caller: Caller,
        asked: Asked,
        person_id: UUID | None,
    ) -> Dataset:
        dataset_name(asked.name, asked.filename)  # refused before a byte is read
        if person_id is not None:
            await require_remembered(self._queries, self._workspace, person_id)
        received = await receive(request, self._blobs, asked, self._max_bytes)
        name = dataset_name(received.asked.name, received.asked.filename)
        kept = name
        if person_id is not None:
            kept = await self._sealing.sealed(person_id, "dataset.name", name)
        register = _register(caller.resource_id, received, kept, person_id)
        subject = StreamId(self._workspace, "dataset", caller.resource_id).subject
        with self._hub.mailbox(subject) as box:
            done = await self._commands.send(caller, "dataset", caller.resource_id, register)
            row = await self._validated(caller.resource_id, box) if done.readable else None
        if row is None:
            return _as_asked(register, name, done)
        return dataset_answer(row, await opened_datasets(self._sealing, [row]))

    async def _validated(self, dataset_id: UUID, box: Mailbox) -> DatasetRow | None:
        """The dataset once it is judged, or as it is when that takes too long."""
        deadline = asyncio.get_running_loop().time() + VALIDATION_S
        while True:
            row = await self._queries.dataset(self._workspace, dataset_id)
            left = deadline - asyncio.get_running_loop().time()
            if (row and row.status != "pending") or left <= 0:
                return row
            for frame in await box.take(min(LOOK_S, left)):
                await self._queries.wait_for(frame.message.sequence, min(LOOK_S, left))


def _register(
    dataset_id: UUID, received: Received, name: str, person_id: UUID | None
) -> RegisterDataset:
    reader = received.reader
    if reader.format is None or reader.text_column is None or reader.label_column is None:
        raise RuntimeError("a file without problems has a format and two columns")
    return RegisterDataset(
        dataset_id=dataset_id,
        name=name,
        blob=received.blob,
        format=reader.format,
        delimiter=reader.delimiter,
        kind=reader.kind or "classification",
        text_column=reader.text_column,
        label_column=reader.label_column,
        rows=reader.row_count,
        labels=reader.labels,
        table=reader.schema,
        compression=reader.compression,
        why=reader.why,
        person_id=person_id,
    )


async def opened_datasets(sealing: Sealing, rows: list[DatasetRow]) -> Opened:
    return await sealing.opened(
        [("dataset.name", row.name) for row in rows if row.person_id is not None],
        [row.person_id for row in rows],
    )


def dataset_answer(row: DatasetRow, opened: Opened, done: Done | None = None) -> Dataset:
    return Dataset(
        id=row.id,
        name=_said(row, opened),
        status=row.status,
        sha256=row.sha256,
        size=row.size,
        format=row.format,
        kind=row.kind,
        text_column=row.text_column,
        label_column=row.label_column,
        rows=row.rows,
        labels=row.labels,
        duplicate_rows=row.duplicate_rows,
        conflicting_texts=row.conflicting_texts,
        messages=row.messages,
        supervised_messages=row.supervised_messages,
        example=[ExampleMessage(each["text"], each["supervised"]) for each in row.example],
        table_schema=_as_told(row.table_schema, TableSchema),
        table_report=_as_told(row.table_report, TableReport),
        compression="gzip" if row.compression else None,
        why=row.why,
        message=row.message,
        created_at=row.created_at,
        person_id=row.person_id,
        forgotten=row.person_id in opened.forgotten,
        sequence=row.sequence,
        note=note_of(done),
    )


def _as_asked(register: RegisterDataset, name: str, done: Done) -> Dataset:
    """What will be there once the read model is back."""
    return Dataset(
        id=register.dataset_id,
        name=name,
        status="pending",
        sha256=register.blob.sha256,
        size=register.blob.size,
        format=register.format,
        kind=register.kind,
        text_column=register.text_column,
        label_column=register.label_column,
        rows=register.rows,
        labels=register.labels,
        duplicate_rows=None,
        conflicting_texts=None,
        messages=None,
        supervised_messages=None,
        example=[],
        table_schema=_as_told(register.table.model_dump() if register.table else None, TableSchema),
        table_report=None,
        compression=register.compression,
        why=register.why,
        message=None,
        created_at=None,
        person_id=register.person_id,
        forgotten=False,
        sequence=done.sequence,
        note=note_of(done),
    )


def _as_told(found: dict[str, Any] | None, struct: type[S]) -> S | None:
    return None if found is None else msgspec.convert(found, struct)


async def require_dataset(queries: Readable, workspace: str, dataset_id: UUID) -> DatasetRow:
    row = await queries.dataset(workspace, dataset_id)
    if row is None:
        raise missing(queries, f"dataset {dataset_id}")
    return row


def require_kept(row: DatasetRow) -> DatasetRow:
    if row.status == "deleted":
        raise Problem("not_found", f"Dataset {row.id} was deleted.")
    return row


async def require_readable(
    queries: Queries, sealing: Sealing, workspace: str, dataset_id: UUID
) -> tuple[DatasetRow, Opened]:
    """A dataset whose rows may be shown: neither it was deleted nor whom it is of is forgotten."""
    row = require_kept(await require_dataset(queries, workspace, dataset_id))
    opened = await opened_datasets(sealing, [row])
    if row.person_id in opened.forgotten:
        raise Problem("not_found", f"Dataset {row.id} was of a person who is forgotten.")
    return row, opened


def _said(row: DatasetRow, opened: Opened) -> str | None:
    return row.name if row.person_id is None else opened.said("dataset.name", row.name)


def file_name(row: DatasetRow, opened: Opened) -> str:
    """What a download of it is called: its name, with the ending of its format, and no drive."""
    ending = {"text": ".txt"}.get(row.format, f".{row.format}")
    ending += ".gz" if row.compression else ""
    name = (_said(row, opened) or f"{row.id}").replace(":", "_")
    return name if name.lower().endswith(ending) else name + ending


async def preview(blobs: Blobs, row: DatasetRow, limit: int) -> list[RowPreview]:
    reader = RowReader(
        _format(row),
        row.text_column,
        row.label_column,
        row.delimiter,
        kind=row.kind,
        table=DomainTableSchema.model_validate(row.table_schema) if row.table_schema else None,
    )
    # The index of a Parquet file is at its end, and no row can be read without it.
    length = row.size if row.format == "parquet" else PREVIEW_BYTES
    found: list[AnyRow] = []
    async for chunk in blobs.read(row.sha256, 0, length):
        found += await asyncio.to_thread(_first, reader.take(chunk), limit - len(found))
        if len(found) >= limit:
            return [_row_preview(each) for each in found]
    found += await asyncio.to_thread(_first, reader.rest(), limit - len(found))
    return [_row_preview(each) for each in found]


def _first(rows: Iterator[AnyRow], limit: int) -> list[AnyRow]:
    return list(islice(rows, limit))


def _format(row: DatasetRow) -> Format:
    return cast("Format", row.format)


def _row_preview(row: AnyRow) -> RowPreview:
    if isinstance(row, Row):
        return RowPreview(row.line, text=row.text, label=row.label)
    if isinstance(row, TableRow):
        return RowPreview(row.line, values=dict(row.values), label=row.label)
    shown = list(row.messages if isinstance(row, Conversation) else row.prompt)
    found = RowPreview(row.line, messages=list(map(_message, shown)), raw=row.raw)
    if row.tools:
        found.tools = list(row.tools)
    if isinstance(row, PreferencePair):
        found.chosen, found.rejected = row.chosen, row.rejected
    elif not isinstance(row, Conversation):
        found.completion, found.desirable = row.completion, row.desirable
    return found


def _message(message: Message) -> MessagePreview:
    found = MessagePreview(message.role, message.content, message.supervised)
    if message.tool_calls:
        found.tool_calls = [
            ToolCallPreview(call.id, call.name, call.arguments) for call in message.tool_calls
        ]
    if message.tool_call_id:
        found.tool_call_id = message.tool_call_id
    return found
