"""What may be asked of a job's kept log."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from domain.blobs import BlobRef
from domain.messages import Command

CHUNK_NAME = r"^log_[0-9A-Za-z_.:+-]{1,60}\.jsonl\.gz$"
ChunkName = Annotated[str, Field(pattern=CHUNK_NAME)]
Sequence = Annotated[int, Field(ge=0)]


class ArchiveLogs(Command):
    type: Literal["ArchiveLogs"] = "ArchiveLogs"
    job_id: UUID
    name: ChunkName
    chunk: BlobRef
    first: Annotated[int, Field(ge=1)]
    last: Annotated[int, Field(ge=1)]
    lines: Annotated[int, Field(ge=1)]
    through: Sequence

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"the chunk ends at {self.last}, before it begins at {self.first}")
        return self


class TakeLogChunk(Command):
    type: Literal["TakeLogChunk"] = "TakeLogChunk"
    job_id: UUID
    name: ChunkName
    chunk: BlobRef
    lines: Annotated[int, Field(ge=1)]
    through: Sequence


JobLogCommand = ArchiveLogs | TakeLogChunk
