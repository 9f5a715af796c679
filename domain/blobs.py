"""Names of stored bytes: a blob is called by the SHA-256 of what it holds."""

from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_PATH_CHARS: Final = 500  # ZIP takes 65,535 bytes, file systems 255 a part
REMEMBERED: Final = 1024  # paths: those of a kind of model are the same ones in every event

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@lru_cache(REMEMBERED)
def _below_a_folder(path: str) -> str:
    """The path, if it leads nowhere else on any system that unpacks it.

    Raises:
        ValueError: It does.
    """
    parts = path.split("/")
    plain = len(path) <= MAX_PATH_CHARS and path.isprintable()
    plain = plain and "\\" not in path and ":" not in path
    if not plain or not all(part.strip(". ") for part in parts):
        raise ValueError("a path below a folder, its parts parted by single slashes")
    return path


class BlobRef(BaseModel):
    """What is known of a blob without opening it; computed while its bytes streamed in."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: Sha256
    size: int = Field(ge=0)  # bytes
    crc32: int = Field(ge=0, le=0xFFFFFFFF)  # as ZIP wants it


class FileEntry(BaseModel):
    """One name in a manifest over blobs, e.g. ``lora_adapters/adapter_model.safetensors``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Annotated[str, AfterValidator(_below_a_folder)]
    blob: BlobRef
