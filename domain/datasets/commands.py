"""What may be asked of a dataset."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.blobs import BlobRef
from domain.datasets.sniff import Compression, Format
from domain.datasets.tables import TableReport, TableSchema
from domain.jobs.spec import RowKind
from domain.messages import Command
from domain.sealing import MAX_SEALED
from domain.work import Segment


class RegisterDataset(Command):
    """The handler looks the person up and fills ``forgotten``."""

    type: Literal["RegisterDataset"] = "RegisterDataset"
    dataset_id: UUID
    name: str = Field(min_length=1, max_length=MAX_SEALED)  # sealed where it is a person's
    blob: BlobRef
    format: Format
    delimiter: str | None = None
    kind: RowKind = "classification"
    text_column: str
    label_column: str
    rows: int = Field(ge=1)
    labels: dict[str, int]
    table: TableSchema | None = None
    compression: Compression | None = None
    why: str = Field(default="", max_length=1000)
    person_id: UUID | None = None  # whom all its rows are of
    forgotten: bool = False


class RecordValidation(Command):
    """The verdict over the stored bytes; ``problem`` is empty when they hold."""

    type: Literal["RecordValidation"] = "RecordValidation"
    dataset_id: UUID
    duplicate_rows: int = 0
    conflicting_texts: int = 0
    longest_text_chars: int = 0
    mean_text_chars: float = 0.0
    messages: int = 0
    supervised_messages: int = 0
    example: tuple[Segment, ...] = ()
    table: TableReport | None = None
    problem_code: str = ""
    problem: str = ""


class DeleteDataset(Command):
    type: Literal["DeleteDataset"] = "DeleteDataset"
    dataset_id: UUID


DatasetCommand = RegisterDataset | RecordValidation | DeleteDataset
