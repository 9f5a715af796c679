"""What an agent on another machine asks for before it reads or brings a blob, on ``tickets.<w>.<agent>``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from domain.blobs import BlobRef


class TicketQuestion(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    verb: Literal["GET", "PUT"]
    blob: BlobRef


class TicketAnswer(BaseModel):
    """``path`` below the gateway's address; ``there`` when the blob need not be brought at all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str = ""
    there: bool = False
    unavailable: bool = False  # nothing was refused; ask again later
    refused: str = Field(default="", max_length=1000)  # why
