"""What a base model was when it was trained on: enough to tell that another one is not it."""

from pydantic import BaseModel, ConfigDict

from domain.blobs import FileEntry


class BaseModelRecord(BaseModel):
    """Recorded when a training starts; whatever loads the base model for the result checks it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str  # without the revision
    revision: str | None = None  # the commit, of a model from a hub
    license: str | None = None  # as its files state it
    parameters: int | None = None
    sha256: dict[str, str]  # by file name
    files: tuple[FileEntry, ...] = ()  # the bytes themselves, of a model that was made here
