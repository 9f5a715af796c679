"""What the server answers, as typed values. A field that a newer server adds is passed over."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

JobStatus = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
EvaluationStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
ENDED_JOB: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})
ENDED_EVALUATION: frozenset[EvaluationStatus] = frozenset({"completed", "failed", "cancelled"})


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Failure(_Answer):
    code: str
    message: str


class ExampleMessage(_Answer):
    text: str  # with the role before it
    supervised: bool  # whether it is learned


class TableColumn(_Answer):
    name: str
    role: str  # numeric, categorical, group or ignored
    why: str
    categories: list[str] = []


class TableSchema(_Answer):
    """How the rows of a table are read."""

    target: str
    target_why: str
    classes: list[str]
    spellings: dict[str, str] = {}
    columns: list[TableColumn]


class Cleaning(_Answer):
    """A value that is read otherwise than it stands; None is missing."""

    line: int
    column: str
    was: str
    became: str | None = None
    why: str


class TableReport(_Answer):
    cleaned: int  # values; the first hundred are listed
    by_reason: dict[str, int] = {}
    first: list[Cleaning] = []
    missing: dict[str, int] = {}  # by column
    groups: int = 0  # of rows that are not parted
    largest_group: int = 0


class Dataset(_Answer):
    id: str
    name: str | None  # None: whom it was of is forgotten
    status: Literal["pending", "valid", "rejected", "deleted"]
    sha256: str
    size: int  # bytes
    format: str
    kind: str = "classification"
    text_column: str
    label_column: str
    rows: int
    labels: dict[str, int]  # label -> rows
    duplicate_rows: int | None = None
    conflicting_texts: int | None = None  # the same text with different labels or answers
    messages: int | None = None  # of all conversations
    supervised_messages: int | None = None
    compression: str | None = None  # "gzip"
    why: str = ""  # it is read as of this kind and format
    example: list[ExampleMessage] = []
    table_schema: TableSchema | None = None  # of a table
    table_report: TableReport | None = None  # of a table that was validated
    message: str | None = None  # why it was rejected
    person_id: str | None = None  # whom all its rows are of
    created_at: datetime | None = None
    sequence: int = 0


class Progress(_Answer):
    epoch: int = 0  # the one under way, from 1; 0 before the first step
    epochs: int = 0
    step: int = 0  # done
    steps: int | None = None  # known once an attempt has started
    percent: float | None = None
    eta_s: float | None = None


class VersionRef(_Answer):
    model: str
    number: int
    id: str


class BaseModelFacts(_Answer):
    """What a base model was when it was trained on."""

    id: str
    revision: str | None = None  # the commit, of a model from a hub
    license: str | None = None
    parameters: int | None = None
    sha256: dict[str, str] = {}  # by file name
    stored: bool = False  # its files are kept with the version: it was made on an agent


class Segment(_Answer):
    text: str
    supervised: bool


class Supervision(_Answer):
    """What the loss of a language model is taken over, counted in its own tokens."""

    rows: int  # trained on
    tokens: int
    supervised_tokens: int
    truncated_rows: int
    dropped_rows: int  # of which truncation left nothing to learn from
    longest_row: int  # tokens, before truncation
    padding_share: float  # of padded batches; packing computes none of it
    example: tuple[Segment, ...] = ()  # one row as the model reads it


class Job(_Answer):
    id: str
    model: str
    base_model: str | None = None  # None: not decided yet, like the method
    base_model_record: BaseModelFacts | None = None  # once an attempt has started
    method: str | None = None
    status: JobStatus
    attempt: int = 0
    agent_id: str | None = None
    progress: Progress = Progress()
    loss: float | None = None
    tokens_per_s: float | None = None
    dataset_id: str
    test_dataset_id: str | None = None
    spec: dict[str, Any] = {}
    submitted_by: str = ""
    priority: int | None = None
    pool: str | None = None
    needs: dict[str, Any] = {}
    waiting: dict[str, Any] | None = None  # why, while it waits in the queue
    supervision: Supervision | None = None  # of a language model, once an attempt has started
    epochs: list[dict[str, Any]] = []
    error: Failure | None = None
    version: VersionRef | None = None
    evaluation_id: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    sequence: int = 0

    @property
    def ended(self) -> bool:
        return self.status in ENDED_JOB


class StepMetrics(_Answer):
    """One optimizer step."""

    step: int
    epoch: float
    loss: float  # mean cross-entropy, nats per row or, of a language model, per supervised token
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    eta_s: float
    time: datetime | None = None


class LogLine(_Answer):
    """One line of a job's log.

    ``sequence`` is that of the message the line came in; a message may hold several lines.
    """

    time: datetime | None = None
    level: str = "INFO"
    message: str
    source: str = "worker"
    text: str = ""  # "[HH:MM:SS] [LEVEL] message"
    attempt: int = 0
    sequence: int = 0


class Active(_Answer):
    number: int
    version_id: str
    activated_at: datetime | None = None
    activated_by: str | None = None


class Model(_Answer):
    id: str
    name: str
    base_model: str
    versions: int = 0  # how many there are
    latest: int | None = None
    active: Active | None = None
    created_at: datetime | None = None
    sequence: int = 0


class File(_Answer):
    path: str
    size: int
    sha256: str


class Scores(_Answer):
    accuracy: float  # of a language model: the likeliest label or, without labels, the exact answer
    f1: float | None = None  # macro; None where the answers are no labels
    precision: float | None = None  # macro
    recall: float | None = None  # macro
    latency_ms_p50: float | None = None  # of a language model: until its answer's first token
    latency_ms_mean: float | None = None
    exact_match: float | None = None  # generated answers that equal the expected one
    perplexity: float | None = None  # per supervised token, of a language model
    bits_per_byte: float | None = None  # of the answers' UTF-8; less is better
    loss: float | None = None  # of a table: nats a row


class Majority(_Answer):
    """Always the commonest class of the training rows, and the fine-tuned one against it."""

    label: str
    scores: Scores
    p_value: float
    ci95: tuple[float, float]
    verdict: Literal["better", "worse", "inconclusive"]


class ClassScores(_Answer):
    label: str
    precision: float
    recall: float
    f1: float
    rows: int


class Example(_Answer):
    text: str
    expected: str
    base: str
    fine_tuned: str
    winner: str


class EvaluationSummary(_Answer):
    """Base against fine-tuned on the same held-out rows, paired."""

    rows: int
    metric: Literal["accuracy", "bits_per_byte"] = "accuracy"  # what the verdict is about
    base: Scores
    untrained: Scores | None = None  # a classifier before its first step
    fine_tuned: Scores
    accuracy_delta: float  # fine-tuned minus base
    accuracy_delta_relative: float | None = None
    f1_delta: float | None = None
    p_value: float  # exact McNemar test of right answers, two-sided
    ci95: tuple[float, float]  # paired bootstrap of the metric's delta
    bits_per_byte_delta: float | None = None  # fine-tuned minus base; less is better
    only_base_right: int
    only_fine_tuned_right: int
    verdict: Literal["better", "worse", "inconclusive"]
    examples: tuple[Example, ...] = ()
    seconds: float
    generated_rows: int | None = None  # of a language model: those it answered in its own words
    majority: Majority | None = None  # of a table
    by_class: tuple[ClassScores, ...] = ()  # of a table

    @property
    def of_language_model(self) -> bool:
        return self.fine_tuned.bits_per_byte is not None


class Evaluation(_Answer):
    id: str
    model: str
    version: int
    status: EvaluationStatus
    summary: EvaluationSummary | None = None
    error: Failure | None = None
    created_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED_EVALUATION


class Version(_Answer):
    id: str
    model: str
    number: int
    label: str
    status: Literal["uploading", "ready", "error"]
    job_id: str
    method: str = "sequence_classification"
    base_model: str
    labels: list[str] = []
    files: list[File] = []
    size: int = 0
    lineage: dict[str, Any] = {}
    training: dict[str, Any] = {}
    evaluation: dict[str, Any] | None = None  # the summary without its examples, id and status
    created_at: datetime | None = None


class Link(_Answer):
    """Good for whoever holds it, until then."""

    id: str
    url: str
    expires_at: datetime


class Prediction(_Answer):
    label: str
    scores: dict[str, float] = {}  # softmax over all labels
    missing: list[str] = []  # of a row of a table: columns that told nothing

    @property
    def confidence(self) -> float | None:
        return self.scores.get(self.label)


class Event(_Answer):
    sequence: int  # position in the whole log
    id: str
    type: str
    aggregate: str
    aggregate_id: str
    actor: str
    source: str
    correlation_id: str | None = None
    causation_id: str | None = None
    time: datetime
    data: dict[str, Any] = Field(default_factory=dict)
