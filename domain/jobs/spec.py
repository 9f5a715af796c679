"""What a job is asked to do: everything that decides its result, stated and recorded."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from domain.blobs import BlobRef
from domain.datasets.tables import TableCounts, TableSchema
from domain.jobs.tabular import (
    GRADIENT_BOOSTING,
    TABULAR_DEFAULTS,
    TabularChoices,
    TabularConfig,
)

Method = Literal["sequence_classification", "sft", "tabular"]
RowKind = Literal["classification", "chat", "instruction", "prompt_completion", "tabular"]
DEFAULT_BASE_MODEL = "finetrail/minilm"
TINY = "finetrail/tiny"
BASE_MODELS: dict[Method, str] = {
    "sequence_classification": DEFAULT_BASE_MODEL,
    "sft": TINY,
    "tabular": GRADIENT_BOOSTING,
}
METHODS: dict[RowKind, Method] = {  # which one learns from such rows
    "classification": "sequence_classification",
    "chat": "sft",
    "instruction": "sft",
    "prompt_completion": "sft",
    "tabular": "tabular",
}
Tuning = Literal["lora", "qlora"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
OptimizerKind = Literal["adamw", "adamw_8bit"]
ALL_LINEAR = "all-linear"  # as a target module: every linear layer but the output head


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)  # JSON has neither


def _later(default: Any, **rules: Any) -> Any:
    """Declare a field that came later; its default can never change.

    It is left out where it is written, because agents of an older build refuse what is new.
    """
    return Field(default=default, exclude_if=lambda value: value == default, **rules)


def _in_full(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _in_full(each) for name, each in value}
    return list(value) if isinstance(value, tuple) else value


class LoraConfig(_Part):
    rank: int = Field(default=8, ge=1, le=256)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ("query", "value")
    # Scale by alpha / √rank instead of alpha / rank (Kalajdzievski 2023).
    rslora: bool = _later(False)
    # Learn the length of each row of the weights apart from its direction (Liu et al. 2024).
    dora: bool = _later(False)


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
    tuning: Tuning = _later("lora")
    # "qlora" becomes "lora" where nothing can quantise, and the job's start says so.
    qlora_fallback: bool = _later(False)
    schedule: Schedule = _later("linear")  # of the learning rate, behind the warm-up
    # What is frozen is kept in it, and what is trained in float32.
    precision: Precision = _later("auto")
    optimizer: OptimizerKind = _later("adamw")
    gradient_checkpointing: bool = _later(False)  # less memory, and a third more time
    micro_batch_tokens: int | None = _later(None, ge=1)  # at once; None: the method's own
    early_stopping_patience: int | None = _later(None, ge=1)  # epochs without a better one
    keep_best: bool = _later(False)  # the weights of the epoch with the least validation loss
    compile: bool = _later(False)
    group_by_length: bool = _later(True)  # rows of like length in a batch; of a classification only
    lora: LoraConfig = LoraConfig()
    tabular: TabularConfig | None = Field(default=None, exclude_if=lambda value: value is None)


class LoraChoices(_Part):
    """What is left out takes the method's default."""

    rank: int | None = Field(default=None, ge=1, le=256)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    target_modules: tuple[str, ...] | None = None
    rslora: bool | None = None
    dora: bool | None = None


class HyperparameterChoices(_Part):
    """What is left out takes the default of the method and the base model."""

    epochs: int | None = Field(default=None, ge=1, le=1000)
    batch_size: int | None = Field(default=None, ge=1, le=4096)  # rows per optimizer step
    learning_rate: float | None = Field(default=None, gt=0, le=1)  # peak
    warmup_ratio: float | None = Field(default=None, ge=0, lt=1)  # share of all steps
    weight_decay: float | None = Field(default=None, ge=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    max_length: int | None = Field(default=None, ge=8, le=8192)  # tokens
    checkpoint_every: int | None = Field(default=None, ge=1)  # optimizer steps
    tuning: Tuning | None = None
    qlora_fallback: bool | None = None
    schedule: Schedule | None = None
    precision: Precision | None = None
    optimizer: OptimizerKind | None = None
    gradient_checkpointing: bool | None = None
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    early_stopping_patience: int | None = Field(default=None, ge=1)  # epochs
    keep_best: bool | None = None
    compile: bool | None = None
    group_by_length: bool | None = None
    lora: LoraChoices = LoraChoices()
    tabular: TabularChoices = TabularChoices()


# Dropout is what LoRA was published with; it costs time in every step, so it is here to be seen.
SFT = Hyperparameters(
    epochs=3,
    batch_size=16,
    learning_rate=2e-4,
    warmup_ratio=0.03,
    weight_decay=0.0,
    max_length=1024,
    checkpoint_every=50,
    lora=LoraConfig(rank=16, alpha=32.0, dropout=0.05, target_modules=(ALL_LINEAR,)),
)
# A model of less than a million parameters learns little from small steps.
TINY_SFT = SFT.model_copy(update={"epochs": 5, "batch_size": 32, "learning_rate": 5e-3})


def hyperparameters(
    method: Method, base_model: str, choices: HyperparameterChoices
) -> Hyperparameters:
    """Lay what was chosen over the defaults."""
    defaults = Hyperparameters()
    if method == "sft":
        defaults = TINY_SFT if base_model == TINY else SFT
    elif method == "tabular":
        own = TABULAR_DEFAULTS.get(base_model, {}) | {"tabular": TabularConfig()}
        defaults = defaults.model_copy(update=own)
    chosen = choices.model_dump(exclude_none=True)
    lora = defaults.lora.model_dump() | chosen.pop("lora", {})
    merged = defaults.model_dump() | chosen | {"lora": lora}
    tabular = chosen.pop("tabular", {})
    if defaults.tabular is None:
        merged.pop("tabular", None)
    else:
        merged["tabular"] = defaults.tabular.model_dump() | tabular
    return Hyperparameters.model_validate(merged)


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
    kind: RowKind = "classification"
    text_column: str  # what is answered; of a chat "messages"
    label_column: str  # the answer; of a chat empty
    rows: int
    labels: tuple[str, ...]  # sorted; none but of a classification
    table: TableSchema | None = Field(default=None, exclude_if=lambda value: value is None)
    cleaned: TableCounts | None = Field(default=None, exclude_if=lambda value: value is None)
    # Whom all its rows are of: nothing that lasts may quote them. Left out where it says nothing,
    # because agents of an older build refuse what is new.
    person_id: UUID | None = Field(default=None, exclude_if=lambda value: value is None)


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

    def in_full(self) -> dict[str, Any]:
        """As JSON, with every hyperparameter, also those that are left out where they say nothing."""
        every = _in_full(self.hyperparameters)
        return {**self.model_dump(mode="json"), "hyperparameters": every}

    @property
    def people(self) -> frozenset[UUID]:
        """Whom all rows of a file are of: nobody, one person, or another for each file."""
        files = [self.train] if self.test is None else [self.train, self.test]
        return frozenset(ref.person_id for ref in files if ref.person_id is not None)

    @property
    def tested(self) -> DatasetRef:
        """What the rows of an evaluation are of."""
        return self.test or self.train
