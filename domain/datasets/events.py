"""What happens to a dataset."""

from typing import Literal
from uuid import UUID

from domain.blobs import BlobRef
from domain.datasets.sniff import Compression, Format
from domain.datasets.tables import TableReport, TableSchema
from domain.jobs.spec import RowKind
from domain.messages import Event
from domain.work import Segment


class DatasetRegistered(Event):
    """The bytes are stored and every line of them could be read."""

    type: Literal["DatasetRegistered"] = "DatasetRegistered"
    dataset_id: UUID
    name: str  # sealed where it is a person's
    blob: BlobRef
    format: Format
    delimiter: str | None
    kind: RowKind = "classification"
    text_column: str
    label_column: str
    rows: int
    labels: dict[str, int]  # label -> rows
    table: TableSchema | None = None  # how the rows of a table are read
    compression: Compression | None = None  # of the stored bytes
    why: str = ""  # they are read as of this kind and format
    person_id: UUID | None = None  # whom all its rows are of; no event quotes them then


class DatasetValidated(Event):
    """The stored bytes were read again as a whole; what they hold is stated."""

    type: Literal["DatasetValidated"] = "DatasetValidated"
    dataset_id: UUID
    duplicate_rows: int
    conflicting_texts: int  # the same text under different labels
    longest_text_chars: int
    mean_text_chars: float
    messages: int = 0  # of all conversations
    supervised_messages: int = 0  # what a language model is to learn
    example: tuple[Segment, ...] = ()  # one conversation, message by message
    table: TableReport | None = None  # what of a table is read otherwise than it stands


class DatasetRejected(Event):
    type: Literal["DatasetRejected"] = "DatasetRejected"
    dataset_id: UUID
    code: str
    message: str


class DatasetDeleted(Event):
    type: Literal["DatasetDeleted"] = "DatasetDeleted"
    dataset_id: UUID


DatasetEvent = DatasetRegistered | DatasetValidated | DatasetRejected | DatasetDeleted
