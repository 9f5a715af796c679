"""What a job is asked to do: everything that decides its result, stated and recorded."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from domain.blobs import BlobRef

Method = Literal["sequence_classification"]
DEFAULT_BASE_MODEL = "finetrail/minilm"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # JSON has neither


class LoraConfig(_Part):
    rank: int = Field(default=8, ge=1, le=256)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ("query", "value")


class Hyperparameters(_Part):
    """Defaults reach a good classifier on a few hundred rows in well under a minute of CPU."""

    epochs: int = Field(default=3, ge=1, le=1000)
    batch_size: int = Field(default=16, ge=1, le=4096)  # rows per optimizer step
    learning_rate: float = Field(default=5e-3, gt=0, le=1)  # peak
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)  # share of all steps
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=128, ge=8, le=8192)  # tokens; longer texts are truncated
    checkpoint_every: int = Field(default=20, ge=1)  # optimizer steps
    lora: LoraConfig = LoraConfig()


class SplitConfig(_Part):
    """How rows are parted; a test file, when one is given, takes the place of the test share."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    validation_fraction: float = Field(default=0.1, ge=0, lt=0.9)
    test_fraction: float = Field(default=0.2, gt=0, lt=0.9)


class DatasetRef(_Part):
    """The bytes and the reading of them: enough to load the same rows for ever."""

    dataset_id: UUID
    name: str
    blob: BlobRef
    format: Literal["csv", "jsonl"]
    delimiter: str | None
    text_column: str
    label_column: str
    rows: int
    labels: tuple[str, ...]  # sorted


class JobSpec(_Part):
    """One JSON body of work; it never carries code."""

    method: Method = "sequence_classification"
    base_model: str = DEFAULT_BASE_MODEL
    model_name: str
    train: DatasetRef
    test: DatasetRef | None = None
    split: SplitConfig = SplitConfig()
    hyperparameters: Hyperparameters = Hyperparameters()
    seed: int = Field(default=0, ge=0, lt=2**32)
