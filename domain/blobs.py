"""Names of stored bytes: a blob is called by the SHA-256 of what it holds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BlobRef(BaseModel):
    """What is known of a blob without opening it; computed while its bytes streamed in."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: Sha256
    size: int = Field(ge=0)  # bytes
    crc32: int = Field(ge=0, le=0xFFFFFFFF)  # as ZIP wants it


class FileEntry(BaseModel):
    """One name in a manifest over blobs, e.g. ``lora_adapters/adapter_model.safetensors``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    blob: BlobRef
