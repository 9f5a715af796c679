"""What an agent is handed and what its children tell it: the wire between scheduler, agent and child."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from domain.jobs.spec import JobSpec, Tuning
from domain.placement import DEFAULT_POOL


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Environment(_Message):
    """What the arithmetic depended on; the same values give the same bytes."""

    device: str  # "cpu" or "cuda:0"
    device_name: str
    threads: int
    python: str
    packages: dict[str, str]  # name -> version, of torch, transformers, peft, …
    cpu_capability: str
    code: str  # finetrail's own version


class TrainingCheckpoint(_Message):
    """A place to go on from: adapter, optimizer, scheduler, RNG and loop state, as blobs."""

    step: int  # optimizer steps done
    epoch: int  # epochs done
    files: tuple[FileEntry, ...]


class Segment(_Message):
    text: str
    supervised: bool


class Supervision(_Message):
    """What the loss of a language model is taken over, counted in its own tokens."""

    rows: int  # trained on
    tokens: int
    supervised_tokens: int
    truncated_rows: int
    dropped_rows: int  # of which truncation left nothing to learn from
    longest_row: int  # tokens, before truncation
    padding_share: float  # of padded batches; packing computes none of it
    example: tuple[Segment, ...]  # one row as the model reads it


class TrainAssignment(_Message):
    kind: Literal["train"] = "train"
    workspace: str
    job_id: UUID
    attempt: int
    spec: JobSpec
    resume_from: TrainingCheckpoint | None = None
    threads: int | None = None  # pinned by the first attempt that started
    base_model: BaseModelRecord | None = None  # pinned likewise
    correlation_id: UUID
    causation_id: UUID | None = None  # the event by which the work was given
    traceparent: str = ""  # W3C; of what asked for it


class EvaluateAssignment(_Message):
    kind: Literal["evaluate"] = "evaluate"
    workspace: str
    evaluation_id: UUID
    attempt: int
    spec: JobSpec
    labels: tuple[str, ...]
    adapter: tuple[FileEntry, ...]  # paths relative to the adapter folder
    threads: int | None = None
    base_model: BaseModelRecord | None = None
    correlation_id: UUID
    causation_id: UUID | None = None
    traceparent: str = ""


class StopWork(_Message):
    """Stop this attempt at the next step; sent on the same durable subject as the work itself."""

    kind: Literal["stop"] = "stop"
    workspace: str
    work_id: UUID
    attempt: int
    reason: str


Assignment = TrainAssignment | EvaluateAssignment
WorkMessage = Annotated[
    TrainAssignment | EvaluateAssignment | StopWork, Field(discriminator="kind")
]


class HeldWork(_Message):
    work_id: UUID
    attempt: int


class Presence(_Message):
    """Said by an agent every second on ``presence.<agent>``; not an event."""

    agent_id: str
    name: str
    boot_id: str  # another one means the process was started anew
    slots: int  # how many attempts it may hold at once
    held: tuple[HeldWork, ...]
    accelerator: str
    memory_bytes: int
    methods: tuple[str, ...]
    draining: bool = False
    pool: str = DEFAULT_POOL
    serving: Literal["starting", "ready"] = "ready"  # what is in service is warm, and it answers


# What a training or evaluation child writes, one JSON object a line.


class Started(_Message):
    fact: Literal["started"] = "started"
    environment: Environment
    total_steps: int
    total_epochs: int
    first_step: int  # steps already done when this attempt began
    train_rows: int
    validation_rows: int
    test_rows: int
    trainable_parameters: int
    total_parameters: int
    base_model: BaseModelRecord | None = None
    base_model_folder: str | None = None  # its files are to be stored: it was made here
    supervision: Supervision | None = None
    tuning: Tuning | None = None  # as it is done; not always what was asked for
    precision: str | None = None  # "float32", "bfloat16" or "float16"


class StepDone(_Message):
    fact: Literal["step"] = "step"
    step: int  # optimizer steps done, from 1
    epoch: float  # e.g. 1.25: a quarter into the second epoch
    loss: float  # mean cross-entropy, nats per row or, of a language model, per supervised token
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    step_s: float
    eta_s: float


class EpochDone(_Message):
    fact: Literal["epoch"] = "epoch"
    epoch: int  # epochs done, from 1
    step: int
    train_loss: float  # mean over the epoch
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class CheckpointWritten(_Message):
    """A complete folder on the agent's disk; the agent uploads it and then removes it."""

    fact: Literal["checkpoint"] = "checkpoint"
    step: int
    epoch: int
    folder: str


class MicroBatchHalved(_Message):
    """Memory ran out: fewer tokens are computed at once from here on, over batches of the same rows."""

    fact: Literal["micro_batch_halved"] = "micro_batch_halved"
    step: int  # the optimizer step that is done again, from 1
    micro_batch_tokens: int  # at once, from now on
    reason: str  # the first line of what torch said


class TrainingFinished(_Message):
    fact: Literal["finished"] = "finished"
    folder: str  # adapter files: adapter_config.json, adapter_model.safetensors, labels.json
    labels: tuple[str, ...]  # none of a language model
    train_rows: int
    trained_tokens: int
    steps: int
    seconds: float  # of this attempt's loop
    final_loss: float
    validation_accuracy: float | None
    best_step: int | None = None  # whose weights these are, where the best were kept


class LogLine(_Message):
    fact: Literal["log"] = "log"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]
    message: str


class Failed(_Message):
    """An outcome, not a traceback: out of memory, a loss that is not a number, data that cannot be read."""

    fact: Literal["failed"] = "failed"
    code: str
    message: str
    retryable: bool


class Stopped(_Message):
    fact: Literal["stopped"] = "stopped"
    step: int


class Scores(_Message):
    accuracy: float  # right answers; of a language model the most likely label or the exact answer
    f1: float | None  # macro; None where the answers are no labels
    precision: float | None  # macro
    recall: float | None  # macro
    # One text at a time, until it has its label or, of a language model, its answer's first token;
    # None where the system is not served.
    latency_ms_p50: float | None
    latency_ms_mean: float | None
    exact_match: float | None = None  # generated answers that equal the expected one
    perplexity: float | None = None  # per supervised token, of a language model
    bits_per_byte: float | None = None  # of the answers' UTF-8; comparable across tokenizers
    loss: float | None = None  # mean cross-entropy of the right class, nats a row; of a table


class ClassScores(_Message):
    """How well one class of a table is told from the others."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int  # held out


class Majority(_Message):
    """What always saying the commonest class of the training rows comes to."""

    label: str
    scores: Scores
    p_value: float  # exact McNemar test of the fine-tuned one against it
    ci95: tuple[float, float]
    verdict: Literal["better", "worse", "inconclusive"]  # on the fine-tuned one


class Example(_Message):
    text: str
    expected: str
    base: str
    fine_tuned: str
    winner: Literal["base", "fine_tuned", "both", "neither"]


class EvaluationSummary(_Message):
    """Base against fine-tuned on the same held-out rows, paired."""

    rows: int
    metric: Literal["accuracy", "bits_per_byte"] = "accuracy"  # what the verdict is about
    # The frozen encoder with logistic regression on the training rows, or the base. Of a table it is
    # logistic regression too, or the commonest class where that is what is evaluated.
    base: Scores
    untrained: Scores | None  # a classifier before its first step, its head at random
    fine_tuned: Scores
    accuracy_delta: float  # fine_tuned - base, absolute
    accuracy_delta_relative: float | None  # of the base's accuracy; None when that is 0
    f1_delta: float | None
    p_value: float  # exact McNemar test of right answers, two-sided, on the rows of the accuracy
    ci95: tuple[float, float]  # paired bootstrap of the metric's delta
    bits_per_byte_delta: float | None = None  # fine_tuned - base; less is better
    only_base_right: int
    only_fine_tuned_right: int
    verdict: Literal["better", "worse", "inconclusive"]
    examples: tuple[Example, ...]  # 20 side by side
    seconds: float
    generated_rows: int | None = None  # of a language model: those it answered in its own words
    majority: Majority | None = None  # of a table
    by_class: tuple[ClassScores, ...] = ()  # of a table: what the fine-tuned one says


class EvaluationFinished(_Message):
    fact: Literal["evaluated"] = "evaluated"
    summary: EvaluationSummary
    outputs_path: str  # JSON Lines, one row an example: text, expected, what each system answered


Fact = Annotated[
    Started
    | StepDone
    | EpochDone
    | CheckpointWritten
    | MicroBatchHalved
    | TrainingFinished
    | LogLine
    | Failed
    | Stopped
    | EvaluationFinished,
    Field(discriminator="fact"),
]


class PredictRequest(_Message):
    """On ``infer.<w>.<model>``: which version answers is the asker's choice, so a switch takes effect at once."""

    request_id: str
    workspace: str
    model_id: UUID
    version_id: UUID
    base_model: str
    labels: tuple[str, ...]
    adapter: tuple[FileEntry, ...]
    max_length: int
    texts: tuple[str, ...]
    rows: tuple[dict[str, float | str | None], ...] = ()  # of a table, in place of texts


class Prediction(_Message):
    label: str
    scores: dict[str, float]  # softmax over all labels
    missing: tuple[str, ...] = ()  # columns that were not told, or of which training knows no such


class PredictReply(_Message):
    request_id: str
    predictions: tuple[Prediction, ...] = ()
    seconds: float = 0.0
    error: Failed | None = None


__all__ = [
    "Assignment",
    "BaseModelRecord",
    "BlobRef",
    "CheckpointWritten",
    "ClassScores",
    "Environment",
    "EpochDone",
    "EvaluateAssignment",
    "EvaluationFinished",
    "EvaluationSummary",
    "Example",
    "Fact",
    "Failed",
    "HeldWork",
    "LogLine",
    "Majority",
    "MicroBatchHalved",
    "PredictReply",
    "PredictRequest",
    "Prediction",
    "Presence",
    "Scores",
    "Segment",
    "Started",
    "StepDone",
    "StopWork",
    "Stopped",
    "Supervision",
    "TrainAssignment",
    "TrainingCheckpoint",
    "TrainingFinished",
    "WorkMessage",
]
