"""What an agent and its child processes say to each other over pipes; free of torch, so both sides may read it."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from domain.inference import Begun, End, GenerateRequest, Piece, Refused, ServedModel
from domain.jobs.spec import DEFAULT_BASE_MODEL
from domain.work import (
    EvaluateAssignment,
    Fact,
    Failed,
    PredictReply,
    PredictRequest,
    TrainAssignment,
)

Device = Literal["auto", "cpu", "cuda"]

SIGN_S: Final = (
    5.0  # a serving child never says nothing for much longer, but while it loads a model
)
# What a serving child keeps in memory, of models that classify and of those that write.
BASES: Final = 2  # hundreds of megabytes each, or thousands
ADAPTERS: Final = 8  # a few megabytes each; more models than that are rarely in use at once
SLOTS: Final = 16  # texts that a serving child generates at once; their keys and values take memory


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChildFiles(_Line):
    """Where the agent has put the blobs that the assignment names."""

    train: Path
    test: Path | None = None
    adapter: Path | None = None  # a folder; an evaluation needs it
    checkpoint: Path | None = None  # a folder; the files of ``resume_from``
    base_model: Path | None = None  # a folder; the stored files of a pinned base model


class ChildInput(_Line):
    """The first line on the standard input of ``python -m gpu_agent.child``."""

    assignment: Annotated[TrainAssignment | EvaluateAssignment, Field(discriminator="kind")]
    work_dir: Path  # the child writes here and nowhere else
    files: ChildFiles
    models_folder: Path | None = None  # base models that are local folders lie below it
    made_folder: Path | None = None  # base models that are made here are kept below it
    device: Device = "auto"
    threads: int = Field(ge=1)  # where the assignment pins none


class ChildOrder(_Line):
    """Every later line."""

    stop: bool


class ServingInput(_Line):
    """The first line on the standard input of ``python -m gpu_agent.serving``."""

    threads: int = Field(ge=1)
    device: Device = "auto"
    models_folder: Path | None = None
    made_folder: Path | None = None
    base_model: str | None = None  # of classifiers, loaded before the first request


class ServingRequest(PredictRequest):
    """A request for predictions, and where its adapter lies on this machine."""

    order: Literal["predict"] = "predict"
    adapter_folder: Path


class ServedFolders(_Line):
    """Where the agent has put the files of a `ServedModel`."""

    adapter: Path | None = None
    base: Path | None = None  # the stored files of a base model that was made here


class GenerateOrder(_Line):
    order: Literal["generate"] = "generate"
    request: GenerateRequest
    folders: ServedFolders


class CancelOrder(_Line):
    """Nobody waits for the rest of this text; an unknown id is nothing wrong."""

    order: Literal["cancel"] = "cancel"
    request_id: str


class WarmOrder(_Line):
    """Load a model, so that its first request need not wait for it."""

    order: Literal["warm"] = "warm"
    warm_id: str
    served: ServedModel
    folders: ServedFolders


ServingOrder = Annotated[
    ServingRequest | GenerateOrder | CancelOrder | WarmOrder, Field(discriminator="order")
]
serving_order: TypeAdapter[ServingRequest | GenerateOrder | CancelOrder | WarmOrder] = TypeAdapter(
    ServingOrder
)


class ServingReady(_Line):
    """The first line a serving child writes."""

    kind: Literal["ready"] = "ready"


class Predicted(_Line):
    """The answer to a `ServingRequest`; they are answered in order."""

    kind: Literal["predicted"] = "predicted"
    reply: PredictReply


class Warmed(_Line):
    kind: Literal["warmed"] = "warmed"
    warm_id: str
    error: Failed | None = None


class Working(_Line):
    """A sign of life: for this long nothing else need come."""

    kind: Literal["working"] = "working"
    silence_s: float | None = None  # None: as long as usual


ServingReply = Annotated[
    ServingReady | Predicted | Warmed | Working | Begun | Piece | End | Refused,
    Field(discriminator="kind"),
]
serving_reply: TypeAdapter[
    ServingReady | Predicted | Warmed | Working | Begun | Piece | End | Refused
] = TypeAdapter(ServingReply)


_facts: TypeAdapter[Fact] = TypeAdapter(Fact)


def encode_fact(fact: Fact) -> bytes:
    return fact.model_dump_json().encode() + b"\n"


def decode_fact(line: bytes) -> Fact:
    """Raises ``pydantic.ValidationError`` for a line that is no fact."""
    return _facts.validate_json(line)


def needs_hub(base_model: str) -> bool:
    """Tell whether a name is a hub id with a revision, the only kind of base model a network may be asked for."""
    return "@" in base_model


def child_environment(threads: int, base_model: str | None = DEFAULT_BASE_MODEL) -> dict[str, str]:
    """Build what must be in a child's environment before torch is loaded, to be laid over the agent's own.

    Args:
        base_model: None where any may be asked for later, also one of a hub.
    """
    environment = {
        "OMP_NUM_THREADS": str(threads),
        # The default spins for ever at barriers: on a busy machine two threads then fall to a tenth
        # of their speed. Much less than this sleeps too early and costs a third on a quiet one.
        "GOMP_SPINCOUNT": "20000",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS sums in a fixed order only with this
        "TOKENIZERS_PARALLELISM": "false",  # its pool would compete with torch's threads
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if base_model is not None and not needs_hub(base_model):
        offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
        environment |= dict.fromkeys(offline, "1")
    return environment
