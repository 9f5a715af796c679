"""What a job is asked to do: everything that decides its result, stated and recorded."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from domain.blobs import BlobRef
from domain.datasets.sniff import Format
from domain.datasets.tables import TableCounts, TableSchema
from domain.jobs.tabular import (
    GRADIENT_BOOSTING,
    TABULAR_DEFAULTS,
    TabularChoices,
    TabularConfig,
)

Method = Literal["sequence_classification", "sft", "dpo", "orpo", "kto", "simpo", "grpo", "tabular"]
RowKind = Literal[
    "classification",
    "chat",
    "instruction",
    "prompt_completion",
    "text",
    "preference",
    "kto",
    "tabular",
]
DEFAULT_BASE_MODEL = "finetrail/minilm"
TINY = "finetrail/tiny"
BASE_MODELS: dict[Method, str] = {
    "sequence_classification": DEFAULT_BASE_MODEL,
    "sft": TINY,
    "dpo": TINY,
    "orpo": TINY,
    "kto": TINY,
    "simpo": TINY,
    "grpo": TINY,
    "tabular": GRADIENT_BOOSTING,
}
LANGUAGE_METHODS: frozenset[Method] = frozenset({"sft", "dpo", "orpo", "kto", "simpo", "grpo"})
PREFERENCE_METHODS: frozenset[Method] = frozenset({"dpo", "orpo", "kto", "simpo"})
METHODS: dict[RowKind, Method] = {  # which one learns from such rows
    "classification": "sequence_classification",
    "chat": "sft",
    "instruction": "sft",
    "prompt_completion": "sft",
    "text": "sft",
    "preference": "dpo",
    "kto": "kto",
    "tabular": "tabular",
}
Tuning = Literal["lora", "qlora"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
OptimizerKind = Literal["adamw", "adamw_8bit"]
Reward = Literal["exact_match", "regular_expression", "numeric"]
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


class PreferenceConfig(_Part):
    """The words of the papers: DPO has a beta, SimPO beta and gamma, ORPO a lambda, KTO beta and weights."""

    beta: float = Field(default=0.1, gt=0)  # how far the answers may leave those of the base
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # share of pairs the wrong way round
    gamma: float = Field(default=1.0, ge=0)  # nats a token by which the better answer is to win
    lambda_: float = Field(default=0.1, ge=0)  # weight of the odds beside the likelihood
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)


class GrpoConfig(_Part):
    """Each prompt is answered so many times; what is better than the others becomes likelier.

    Every step is taken on answers sampled for it, so that there is no ratio to be clipped.
    """

    group_size: int = Field(default=8, ge=2, le=64)  # answers to a prompt
    max_new_tokens: int = Field(default=64, ge=1, le=4096)
    temperature: float = Field(default=1.0, gt=0, le=2)
    beta: float = Field(default=0.0, ge=0)  # weight of the divergence from the base
    reward: Reward = "exact_match"
    # Of a regular expression: an answer in which it is found gets 1, and if it has a group, only if
    # the group is the expected answer.
    pattern: str | None = Field(default=None, max_length=500)


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
    preference: PreferenceConfig = _later(PreferenceConfig())
    grpo: GrpoConfig = _later(GrpoConfig())
    lora: LoraConfig = LoraConfig()
    tabular: TabularConfig | None = Field(default=None, exclude_if=lambda value: value is None)

    def in_full(self) -> dict[str, Any]:
        """As JSON, also what is left out where it says nothing."""
        return {name: _in_full(each) for name, each in self}


class LoraChoices(_Part):
    """What is left out takes the method's default."""

    rank: int | None = Field(default=None, ge=1, le=256)
    alpha: float | None = Field(default=None, gt=0)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    target_modules: tuple[str, ...] | None = None
    rslora: bool | None = None
    dora: bool | None = None


class PreferenceChoices(_Part):
    """What is left out takes the method's default."""

    beta: float | None = Field(default=None, gt=0)
    label_smoothing: float | None = Field(default=None, ge=0, lt=0.5)
    gamma: float | None = Field(default=None, ge=0)
    lambda_: float | None = Field(default=None, ge=0)
    desirable_weight: float | None = Field(default=None, gt=0)
    undesirable_weight: float | None = Field(default=None, gt=0)


class GrpoChoices(_Part):
    """What is left out takes the method's default."""

    group_size: int | None = Field(default=None, ge=2, le=64)
    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    temperature: float | None = Field(default=None, gt=0, le=2)
    beta: float | None = Field(default=None, ge=0)
    reward: Reward | None = None
    pattern: str | None = Field(default=None, max_length=500)


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
    preference: PreferenceChoices = PreferenceChoices()
    grpo: GrpoChoices = GrpoChoices()
    tabular: TabularChoices | None = None


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
    if method in LANGUAGE_METHODS:
        defaults = _language_defaults(method, base_model)
    elif method == "tabular":
        own = TABULAR_DEFAULTS.get(base_model, {}) | {"tabular": TabularConfig()}
        defaults = defaults.model_copy(update=own)
    chosen = choices.model_dump(exclude_none=True)
    parts = {
        name: getattr(defaults, name).model_dump() | chosen.pop(name, {})
        for name in ("lora", "preference", "grpo")
    }
    merged = defaults.model_dump() | chosen | parts
    tabular = chosen.pop("tabular", {})
    if defaults.tabular is None:
        merged.pop("tabular", None)
    else:
        merged["tabular"] = defaults.tabular.model_dump() | tabular
    return Hyperparameters.model_validate(merged)


def _language_defaults(method: Method, base_model: str) -> Hyperparameters:
    tiny = base_model == TINY
    defaults = TINY_SFT if tiny else SFT
    if method == "sft":
        return defaults
    # Against a reference, or its own answers, a model is moved in smaller steps, and without noise.
    lora = defaults.lora.model_copy(update={"dropout": 0.0})
    changes: dict[str, Any] = {"learning_rate": 1e-3 if tiny else 5e-5, "lora": lora}
    if method == "simpo":  # of means over tokens, which are smaller than sums
        changes["preference"] = PreferenceConfig(beta=2.0)
    return defaults.model_copy(update=changes)


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
    format: Format  # as unpacked; whether it is packed is told by the content
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
        return {**self.model_dump(mode="json"), "hyperparameters": self.hyperparameters.in_full()}

    @property
    def people(self) -> frozenset[UUID]:
        """Whom all rows of a file are of: nobody, one person, or another for each file."""
        files = [self.train] if self.test is None else [self.train, self.test]
        return frozenset(ref.person_id for ref in files if ref.person_id is not None)

    @property
    def tested(self) -> DatasetRef:
        """What the rows of an evaluation are of."""
        return self.test or self.train
