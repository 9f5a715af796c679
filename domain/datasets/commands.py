"""What may be asked of a dataset."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.blobs import BlobRef
from domain.messages import Command


class RegisterDataset(Command):
    type: Literal["RegisterDataset"] = "RegisterDataset"
    dataset_id: UUID
    name: str = Field(min_length=1, max_length=200)
    blob: BlobRef
    format: Literal["csv", "jsonl"]
    delimiter: str | None = None
    text_column: str
    label_column: str
    rows: int = Field(ge=1)
    labels: dict[str, int]


class RecordValidation(Command):
    """The verdict over the stored bytes; ``problem`` is empty when they hold."""

    type: Literal["RecordValidation"] = "RecordValidation"
    dataset_id: UUID
    duplicate_rows: int = 0
    conflicting_texts: int = 0
    longest_text_chars: int = 0
    mean_text_chars: float = 0.0
    problem_code: str = ""
    problem: str = ""


class DeleteDataset(Command):
    type: Literal["DeleteDataset"] = "DeleteDataset"
    dataset_id: UUID


DatasetCommand = RegisterDataset | RecordValidation | DeleteDataset
