"""One plausible value of each thing that messages are made of, with fixed ids and times."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from domain.jobs.spec import TINY, TINY_SFT, DatasetRef, JobSpec
from domain.work import (
    Environment,
    EvaluationSummary,
    Example,
    HeldWork,
    Presence,
    Scores,
    Segment,
    Supervision,
    TrainingCheckpoint,
)

NOW = datetime(2026, 11, 20, 17, 43, 5, tzinfo=UTC)
WORKSPACE = "default"
DATASET = UUID("01936f0e-0000-7000-8000-000000000001")
JOB = UUID("01936f0e-0000-7000-8000-000000000002")
MODEL = UUID("01936f0e-0000-7000-8000-000000000003")
VERSION = UUID("01936f0e-0000-7000-8000-000000000004")
EVALUATION = UUID("01936f0e-0000-7000-8000-000000000005")
AGENT = UUID("01936f0e-0000-7000-8000-000000000006")
OTHER_AGENT = UUID("01936f0e-0000-7000-8000-000000000007")
METHOD = "sequence_classification"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def blob(number: int = 1, size: int = 1000) -> BlobRef:
    return BlobRef(sha256=f"{number:064x}", size=size, crc32=number)


def file(path: str = "adapter_model.safetensors", number: int = 1) -> FileEntry:
    return FileEntry(path=path, blob=blob(number))


TRAIN = DatasetRef(
    dataset_id=DATASET,
    name="intents.csv",
    blob=blob(7),
    format="csv",
    delimiter=",",
    text_column="text",
    label_column="intent",
    rows=400,
    labels=("cancel", "refund"),
)
SPEC = JobSpec(model_name="support-intents", train=TRAIN)
ENVIRONMENT = Environment(
    device="cpu",
    device_name="Xeon",
    threads=2,
    python="3.11.7",
    packages={"torch": "2.13.0"},
    cpu_capability="AVX512",
    code="0.1.0",
)
ADAPTER = (file("adapter_config.json", 2), file("adapter_model.safetensors", 3))


def checkpoint(step: int = 20, epoch: int = 0) -> TrainingCheckpoint:
    return TrainingCheckpoint(step=step, epoch=epoch, files=(file("state.json", 4),))


def scores(accuracy: float) -> Scores:
    return Scores(
        accuracy=accuracy,
        f1=accuracy,
        precision=accuracy,
        recall=accuracy,
        latency_ms_p50=3.5,
        latency_ms_mean=4.0,
    )


SUMMARY = EvaluationSummary(
    rows=160,
    base=scores(0.9),
    untrained=scores(0.5),
    fine_tuned=scores(0.97),
    accuracy_delta=0.07,
    accuracy_delta_relative=0.0778,
    f1_delta=0.07,
    p_value=0.003,
    ci95=(0.03, 0.11),
    only_base_right=2,
    only_fine_tuned_right=13,
    verdict="better",
    examples=(
        Example(
            text="money back",
            expected="refund",
            base="cancel",
            fine_tuned="refund",
            winner="fine_tuned",
        ),
    ),
    seconds=12.5,
)


# The same for a language model.
CHATS = DatasetRef(
    dataset_id=DATASET,
    name="support.jsonl",
    blob=blob(8),
    format="jsonl",
    delimiter=None,
    kind="chat",
    text_column="messages",
    label_column="",
    rows=400,
    labels=(),
)
CHAT_SPEC = JobSpec(
    method="sft",
    base_model=TINY,
    model_name="support-chat",
    train=CHATS,
    hyperparameters=TINY_SFT,
)
MADE_HERE = BaseModelRecord(
    id=TINY,
    license="Apache-2.0",
    parameters=700_000,
    sha256={"config.json": f"{10:064x}", "model.safetensors": f"{11:064x}"},
    files=(file("base_model/config.json", 10), file("base_model/model.safetensors", 11)),
)
SUPERVISION = Supervision(
    rows=360,
    tokens=9000,
    supervised_tokens=900,
    truncated_rows=2,
    dropped_rows=1,
    longest_row=64,
    padding_share=0.4,
    example=(
        Segment(text="<|im_start|>user\nmoney back<|im_end|>\n", supervised=False),
        Segment(text="refund<|im_end|>", supervised=True),
    ),
)


def language_scores(accuracy: float, bits_per_byte: float) -> Scores:
    return Scores(
        accuracy=accuracy,
        f1=None,
        precision=None,
        recall=None,
        latency_ms_p50=None,
        latency_ms_mean=None,
        exact_match=accuracy,
        perplexity=2.5,
        bits_per_byte=bits_per_byte,
    )


CHAT_SUMMARY = SUMMARY.model_copy(
    update={
        "base": language_scores(0.2, 1.5),
        "untrained": None,
        "fine_tuned": language_scores(0.97, 0.1),
        "accuracy_delta": 0.77,
        "accuracy_delta_relative": 3.85,
        "f1_delta": None,
        "bits_per_byte_delta": -1.4,
    }
)


def presence(
    agent: UUID = AGENT,
    *held: HeldWork,
    slots: int = 1,
    boot_id: str = "boot-1",
    methods: tuple[str, ...] = (METHOD,),
    draining: bool = False,
) -> Presence:
    return Presence(
        agent_id=str(agent),
        name=f"box-{agent.int % 10}",
        boot_id=boot_id,
        slots=slots,
        held=held,
        accelerator="cpu",
        memory_bytes=8 * 1024**3,
        methods=methods,
        draining=draining,
    )
