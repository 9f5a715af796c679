"""Lives of datasets, jobs, models and evaluations as they stand in the log, for tests and benches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from domain.access.access import access_id
from domain.access.commands import RevokeKey
from domain.access.events import KeyIssued, KeyRevoked
from domain.agents.events import (
    AgentDrained,
    AgentEnrolled,
    AgentInvited,
    AgentJoined,
    AgentRevoked,
)
from domain.blobs import BlobRef, FileEntry
from domain.catalog import aggregate_of
from domain.datasets.events import (
    DatasetDeleted,
    DatasetRegistered,
    DatasetRejected,
    DatasetValidated,
)
from domain.dead_letters.dead_letter import letter_id
from domain.dead_letters.events import DeadLetterDiscarded, DeadLetterRetried, LetterFacts
from domain.evaluations.events import (
    EvaluationCancelled,
    EvaluationCompleted,
    EvaluationFailed,
    EvaluationInterrupted,
    EvaluationRequested,
    EvaluationStarted,
)
from domain.jobs.events import (
    CancellationRequested,
    CheckpointSaved,
    EpochCompleted,
    JobCancelled,
    JobClaimed,
    JobFailed,
    JobInterrupted,
    JobReprioritised,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    MicroBatchHalved,
)
from domain.jobs.spec import DatasetRef, Hyperparameters, JobSpec
from domain.links.events import LinkIssued
from domain.messages import Command, Envelope, Event, Recorded, StreamId, event_id
from domain.model_versions.events import ModelFailed, ModelReady, VersionRegistered
from domain.models.events import ModelActivated, ModelCreated, VersionNumbered
from domain.people.events import PersonAdded, PersonForgotten
from domain.queues.events import (
    PolicySet,
    SlotsOffered,
    SlotsWithdrawn,
    WorkAssigned,
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
)
from domain.queues.policy import QueuePolicy
from domain.queues.queue import queue_id
from domain.sealing import Sealed
from domain.subjects import telemetry_subject
from domain.telemetry import MetricsLogged, StepMetrics
from domain.webhooks.events import (
    WebhookAdded,
    WebhookChanged,
    WebhookDisabled,
    WebhookEnabled,
    WebhookRemoved,
    WebhookReplayed,
    WebhookSecretRotated,
)
from domain.wire import decode_recorded, encode_event
from domain.work import (
    Environment,
    EvaluationSummary,
    Example,
    Scores,
    Segment,
    TrainingCheckpoint,
)

WORKSPACE = "default"
START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SPACE = UUID("7c0e3f52-5a0b-5f7e-8f4e-0d6f3f1f0a55")
AGENT = UUID("01935a3e-0000-7000-8000-000000000001")
# A true one: the server that a stack runs takes no other into its configuration.
PUBLIC_KEY = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK"
STEPS_PER_EPOCH = 10


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a source delivers it."""

    sequence: int
    subject: str
    headers: dict[str, str]
    data: bytes
    pending: int = 0

    @property
    def type(self) -> str:
        return self.headers.get("ce-type", "")

    @property
    def recorded(self) -> Recorded[Event]:
        return decode_recorded(self.subject, self.sequence, self.headers, self.data)


@dataclass
class Log:
    """Gives events their place and their envelope."""

    workspace: str = WORKSPACE
    messages: list[Stored] = field(default_factory=list)

    def add(self, *events: Event, actor: str = "key:3f9a2c1b") -> "Log":
        for event in events:
            sequence = len(self.messages) + 1
            command_id = uuid5(SPACE, f"command {sequence}")
            stream = StreamId(
                self.workspace, aggregate_of(event), _stream_id(event, self.workspace)
            )
            cause: Envelope[Command] = Envelope(
                id=command_id,
                stream=stream,
                source="gateway",
                actor=actor,
                correlation_id=uuid5(SPACE, f"correlation {sequence}"),
                causation_id=None,
                sent_at=START,
                # Which command it was does not travel with the event.
                command=RevokeKey(key_id="unused"),
            )
            headers, data = encode_event(
                event,
                event_id=event_id(command_id, 0),
                cause=cause,
                recorded_at=START + timedelta(seconds=sequence),
            )
            self.messages.append(Stored(sequence, stream.subject, headers, data))
        return self


def id_of(*parts: object) -> UUID:
    return uuid5(SPACE, " ".join(map(str, parts)))


def blob(name: str, size: int = 100) -> BlobRef:
    return BlobRef(sha256=id_of("blob", name).hex * 2, size=size, crc32=size)


def dataset_registered(name: str) -> DatasetRegistered:
    return DatasetRegistered(
        dataset_id=id_of("dataset", name),
        name=name,
        blob=blob(name),
        format="csv",
        delimiter=",",
        text_column="text",
        label_column="label",
        rows=40,
        labels={"no": 20, "yes": 20},
    )


def dataset_validated(name: str) -> DatasetValidated:
    return DatasetValidated(
        dataset_id=id_of("dataset", name),
        duplicate_rows=1,
        conflicting_texts=0,
        longest_text_chars=80,
        mean_text_chars=31.5,
    )


def chat_registered(name: str) -> DatasetRegistered:
    chat = {"kind": "chat", "format": "jsonl", "delimiter": None, "labels": {}}
    columns = {"text_column": "messages", "label_column": ""}
    return dataset_registered(name).model_copy(update=chat | columns)


def chat_validated(name: str) -> DatasetValidated:
    example = (Segment(text="user: why?", supervised=False), Segment(text="so", supervised=True))
    counts = {"messages": 80, "supervised_messages": 40, "example": example}
    return dataset_validated(name).model_copy(update=counts)


def dataset_rejected(name: str) -> DatasetRejected:
    return DatasetRejected(
        dataset_id=id_of("dataset", name), code="too_few_rows", message="40 rows are too few"
    )


def spec(model: str, epochs: int = 2) -> JobSpec:
    registered = dataset_registered("tickets")
    train = DatasetRef(
        dataset_id=registered.dataset_id,
        name=registered.name,
        blob=registered.blob,
        format=registered.format,
        delimiter=registered.delimiter,
        text_column=registered.text_column,
        label_column=registered.label_column,
        rows=registered.rows,
        labels=("no", "yes"),
    )
    return JobSpec(
        model_name=model, train=train, hyperparameters=Hyperparameters(epochs=epochs), seed=7
    )


ENVIRONMENT = Environment(
    device="cpu",
    device_name="a processor",
    threads=2,
    python="3.11.9",
    packages={"torch": "2.13.0", "peft": "0.18.0"},
    cpu_capability="AVX2",
    code="0.1.0",
)


def submitted(job: str, model: str = "intents", epochs: int = 2) -> JobSubmitted:
    return JobSubmitted(job_id=id_of("job", job), spec=spec(model, epochs))


def claimed(job: str, attempt: int = 1) -> JobClaimed:
    return JobClaimed(
        job_id=id_of("job", job), attempt=attempt, agent_id=str(AGENT), boot_id=f"boot {attempt}"
    )


def started(job: str, attempt: int = 1, epochs: int = 2, first_step: int = 0) -> JobStarted:
    return JobStarted(
        job_id=id_of("job", job),
        attempt=attempt,
        environment=ENVIRONMENT,
        total_steps=epochs * STEPS_PER_EPOCH,
        total_epochs=epochs,
        first_step=first_step,
        train_rows=28,
        validation_rows=4,
        test_rows=8,
        trainable_parameters=74_000,
        total_parameters=22_700_000,
    )


def epoch_completed(job: str, epoch: int, attempt: int = 1) -> EpochCompleted:
    return EpochCompleted(
        job_id=id_of("job", job),
        attempt=attempt,
        epoch=epoch,
        step=epoch * STEPS_PER_EPOCH,
        train_loss=1 / epoch,
        validation_loss=1.1 / epoch,
        validation_accuracy=1 - 0.5 / epoch,
        seconds=2.5,
    )


def checkpoint_saved(job: str, step: int, attempt: int = 1) -> CheckpointSaved:
    files = (FileEntry(path="state.safetensors", blob=blob(f"{job} {step}")),)
    checkpoint = TrainingCheckpoint(step=step, epoch=step // STEPS_PER_EPOCH, files=files)
    return CheckpointSaved(job_id=id_of("job", job), attempt=attempt, checkpoint=checkpoint)


def interrupted(job: str, attempt: int = 1) -> JobInterrupted:
    return JobInterrupted(job_id=id_of("job", job), attempt=attempt, reason="the agent is silent")


def adapter_files(job: str) -> tuple[FileEntry, ...]:
    return (
        FileEntry(path="adapter_config.json", blob=blob(f"{job} config", 300)),
        FileEntry(path="adapter_model.safetensors", blob=blob(f"{job} adapter", 700)),
    )


def succeeded(job: str, attempt: int = 1, epochs: int = 2) -> JobSucceeded:
    return JobSucceeded(
        job_id=id_of("job", job),
        attempt=attempt,
        adapter=adapter_files(job),
        labels=("no", "yes"),
        train_rows=28,
        trained_tokens=4_000,
        steps=epochs * STEPS_PER_EPOCH,
        seconds=5.25,
        final_loss=0.125,
        validation_accuracy=0.75,
    )


def failed(job: str, attempt: int = 1) -> JobFailed:
    return JobFailed(
        job_id=id_of("job", job), attempt=attempt, code="loss_not_finite", message="the loss is NaN"
    )


def cancelled(job: str, attempt: int = 1) -> JobCancelled:
    return JobCancelled(job_id=id_of("job", job), attempt=attempt)


def cancellation_requested(job: str, attempt: int = 1) -> CancellationRequested:
    return CancellationRequested(job_id=id_of("job", job), attempt=attempt, agent_id=str(AGENT))


def model_created(model: str = "intents") -> ModelCreated:
    return ModelCreated(model_id=id_of("model", model), name=model, base_model="finetrail/minilm")


def version_numbered(job: str, number: int, model: str = "intents") -> VersionNumbered:
    return VersionNumbered(
        model_id=id_of("model", model),
        version_id=id_of("version", job),
        number=number,
        job_id=id_of("job", job),
    )


def version_registered(job: str, number: int, model: str = "intents") -> VersionRegistered:
    return VersionRegistered(
        version_id=id_of("version", job),
        model_id=id_of("model", model),
        model_name=model,
        number=number,
        label="20261120-090000",
        job_id=id_of("job", job),
        spec=spec(model),
        environment=ENVIRONMENT,
        labels=("no", "yes"),
        files=adapter_files(job),
        train_rows=28,
        trained_tokens=4_000,
        steps=20,
        seconds=5.25,
        final_loss=0.125,
        validation_accuracy=0.75,
    )


def model_ready(job: str, model: str = "intents") -> ModelReady:
    return ModelReady(version_id=id_of("version", job), model_id=id_of("model", model))


def model_failed(job: str, model: str = "intents") -> ModelFailed:
    return ModelFailed(
        version_id=id_of("version", job),
        model_id=id_of("model", model),
        message="a file is missing",
    )


def activated(job: str, number: int, model: str = "intents") -> ModelActivated:
    return ModelActivated(
        model_id=id_of("model", model),
        version_id=id_of("version", job),
        number=number,
        previous_version_id=None,
    )


def evaluation_requested(
    job: str, evaluation: str = "first", model: str = "intents"
) -> EvaluationRequested:
    return EvaluationRequested(
        evaluation_id=id_of("evaluation", job, evaluation),
        version_id=id_of("version", job),
        model_id=id_of("model", model),
        job_id=id_of("job", job),
        spec=spec(model),
        labels=("no", "yes"),
        adapter=adapter_files(job),
        threads=2,
    )


def evaluation_started(job: str, evaluation: str = "first", attempt: int = 1) -> EvaluationStarted:
    return EvaluationStarted(
        evaluation_id=id_of("evaluation", job, evaluation),
        attempt=attempt,
        agent_id=str(AGENT),
        boot_id=f"boot {attempt}",
    )


def evaluation_interrupted(
    job: str, evaluation: str = "first", attempt: int = 1
) -> EvaluationInterrupted:
    return EvaluationInterrupted(
        evaluation_id=id_of("evaluation", job, evaluation), attempt=attempt, reason="silent"
    )


def summary() -> EvaluationSummary:
    base, tuned = (
        Scores(accuracy=a, f1=a, precision=a, recall=a, latency_ms_p50=1.5, latency_ms_mean=None)
        for a in (0.5, 0.9)
    )
    example = Example(text="yes?", expected="yes", base="no", fine_tuned="yes", winner="fine_tuned")
    return EvaluationSummary(
        rows=8,
        base=base,
        untrained=base,
        fine_tuned=tuned,
        accuracy_delta=0.4,
        accuracy_delta_relative=0.8,
        f1_delta=0.4,
        p_value=0.03,
        ci95=(0.1, 0.7),
        only_base_right=0,
        only_fine_tuned_right=3,
        verdict="better",
        examples=(example,) * 3,
        seconds=1.5,
    )


def evaluation_completed(
    job: str, evaluation: str = "first", model: str = "intents", attempt: int = 1
) -> EvaluationCompleted:
    return EvaluationCompleted(
        evaluation_id=id_of("evaluation", job, evaluation),
        version_id=id_of("version", job),
        model_id=id_of("model", model),
        attempt=attempt,
        summary=summary(),
        outputs=blob(f"{job} outputs"),
    )


def evaluation_failed(job: str, evaluation: str = "first") -> EvaluationFailed:
    return EvaluationFailed(
        evaluation_id=id_of("evaluation", job, evaluation), attempt=1, code="oom", message="memory"
    )


def evaluation_cancelled(job: str, evaluation: str = "first") -> EvaluationCancelled:
    return EvaluationCancelled(
        evaluation_id=id_of("evaluation", job, evaluation), attempt=1, agent_id=""
    )


def queued(work: UUID, attempt: int = 1) -> WorkQueued:
    return WorkQueued(work_id=work, kind="train", method="sequence_classification", attempt=attempt)


def assigned(work: UUID, attempt: int = 1) -> WorkAssigned:
    return WorkAssigned(
        work_id=work,
        kind="train",
        attempt=attempt,
        agent_id=str(AGENT),
        reason="first in the queue",
    )


def slots_offered() -> SlotsOffered:
    return SlotsOffered(
        agent_id=str(AGENT),
        name="a machine",
        slots=1,
        methods=("sequence_classification",),
        accelerator="cpu",
        memory_bytes=2**34,
    )


def withdrawn(work: UUID) -> WorkWithdrawn:
    return WorkWithdrawn(work_id=work, reason="it is over")


def enrolled(name: str = "a machine") -> AgentEnrolled:
    return AgentEnrolled(
        agent_id=AGENT,
        name=name,
        accelerator="cpu",
        memory_bytes=2**34,
        methods=("sequence_classification",),
    )


def invited(name: str = "a machine") -> AgentInvited:
    return AgentInvited(
        agent_id=AGENT,
        name=name,
        token_hmac="0" * 64,
        expires_at=datetime(2026, 3, 1, tzinfo=UTC),
        invited_by="key:3f9a2c1b",
    )


def joined(name: str = "a machine") -> AgentJoined:
    return AgentJoined(agent_id=AGENT, name=name, public_key=PUBLIC_KEY, invited_by="key:3f9a2c1b")


def key_issued(key_id: str = "3f9a2c1b") -> KeyIssued:
    return KeyIssued(key_id=key_id, name="a person", role="editor", secret_hmac="0" * 64)


def whole_life(
    job: str,
    *,
    model: str = "intents",
    number: int = 1,
    epochs: int = 2,
    attempts: int = 1,
    end: str = "succeeded",
    evaluation: str = "completed",
) -> Iterator[Event]:
    """What one job leaves in the log of all aggregates, from its submission to an evaluated version."""
    work = id_of("job", job)
    yield submitted(job, model, epochs)
    yield model_created(model)
    for attempt in range(1, attempts + 1):
        yield queued(work, attempt)
        yield assigned(work, attempt)
        yield claimed(job, attempt)
        yield started(job, attempt, epochs, (attempt - 1) * STEPS_PER_EPOCH)
        yield epoch_completed(job, min(attempt, epochs), attempt)
        yield checkpoint_saved(job, attempt * STEPS_PER_EPOCH, attempt)
        if attempt < attempts:
            yield interrupted(job, attempt)
    if end == "failed":
        yield from (failed(job, attempts), withdrawn(work))
    elif end == "cancelled":
        yield cancellation_requested(job, attempts)
        yield from (cancelled(job, attempts), withdrawn(work))
    elif end == "succeeded":
        yield from (succeeded(job, attempts, epochs), withdrawn(work))
        yield from _evaluated_version(job, model, number, evaluation)


def _evaluated_version(job: str, model: str, number: int, evaluation: str) -> Iterator[Event]:
    yield version_numbered(job, number, model)
    yield version_registered(job, number, model)
    yield model_ready(job, model)
    yield evaluation_requested(job, model=model)
    yield queued(id_of("evaluation", job, "first"))
    if evaluation == "cancelled":
        yield evaluation_cancelled(job)
        return
    yield evaluation_started(job)
    yield evaluation_interrupted(job)
    yield evaluation_started(job, attempt=2)
    if evaluation == "failed":
        yield evaluation_failed(job)
    else:
        yield evaluation_completed(job, model=model, attempt=2)
    yield activated(job, number, model)


def models_created_once(events: Iterable[Event]) -> list[Event]:
    """As the decider has it: whoever asks for a model that is there means the same one."""
    seen: set[UUID] = set()
    valid: list[Event] = []
    for event in events:
        if not isinstance(event, ModelCreated) or event.model_id not in seen:
            valid.append(event)
        if isinstance(event, ModelCreated):
            seen.add(event.model_id)
    return valid


def everything() -> list[Event]:
    """A history that holds every type of event at least once."""
    return models_created_once(_everything())


def _everything() -> list[Event]:
    return [
        key_issued(),
        invited(),
        joined(),
        enrolled(),
        dataset_registered("tickets"),
        dataset_validated("tickets"),
        dataset_registered("poor"),
        dataset_rejected("poor"),
        DatasetDeleted(dataset_id=id_of("dataset", "poor")),
        person_added("ana"),
        person_forgotten("ana"),
        *whole_life("one", attempts=2),
        *whole_life("two", number=2, end="succeeded", evaluation="failed"),
        *whole_life("three", end="failed"),
        *whole_life("four", end="cancelled"),
        *whole_life("five", model="other", end="succeeded", evaluation="cancelled"),
        *whole_life("six", end="running"),
        MicroBatchHalved(
            job_id=id_of("job", "six"), attempt=1, step=3, micro_batch_tokens=512, reason="memory"
        ),
        JobReprioritised(job_id=id_of("job", "six"), priority=70),
        WorkReprioritised(work_id=id_of("job", "six"), priority=70),
        slots_offered(),
        SlotsWithdrawn(agent_id=str(AGENT), reason="silent for 11 s"),
        PolicySet(number=1, policy=QueuePolicy(patience=7)),
        version_numbered("seven", 3),
        version_registered("seven", 3),
        model_failed("seven"),
        AgentDrained(agent_id=AGENT),
        key_issued("aaaaaaaa"),
        KeyRevoked(key_id="aaaaaaaa"),
        AgentRevoked(agent_id=AGENT),
        link_issued("tickets"),
        DeadLetterRetried(letter=dead_letter(1), reason="fixed"),
        DeadLetterDiscarded(letter=dead_letter(2), reason="not wanted"),
        *whole_life_of_a_webhook(),
    ]


def dead_letter(sequence: int) -> LetterFacts:
    return LetterFacts(
        sequence=sequence,
        kind="commands",
        subject=f"commands.gateway.{WORKSPACE}.job.{id_of('job', 'one')}",
        message_type="CancelJob",
        message_id=str(id_of("command", "one")),
        failure="RuntimeError: broken",
    )


def whole_life_of_a_webhook() -> list[Event]:
    id_, url, key = id_of("webhook", "chat"), "url_1111111111111111", "key_1111111111111111"
    return [
        WebhookAdded(
            webhook_id=id_,
            url="https://hooks.example.org/***",
            url_id=url,
            event_types=("job.*",),
            description="",
            key_id=key,
        ),
        WebhookChanged(
            webhook_id=id_,
            url="https://hooks.example.org/b",
            url_id=url,
            event_types=None,
            description="chat",
        ),
        WebhookSecretRotated(
            webhook_id=id_,
            key_id="key_2222222222222222",
            old_key_id=key,
            old_valid_until=START + timedelta(days=1),
        ),
        WebhookReplayed(webhook_id=id_, after=1),
        WebhookDisabled(webhook_id=id_, by="gone", reason="410"),
        WebhookEnabled(webhook_id=id_),
        WebhookRemoved(webhook_id=id_),
    ]


def person_added(name: str) -> PersonAdded:
    person_id = id_of("person", name)
    return PersonAdded(person_id=person_id, name=Sealed(person_id, bytes(range(48))).text)


def person_forgotten(name: str) -> PersonForgotten:
    return PersonForgotten(person_id=id_of("person", name), reason="asked")


def link_issued(dataset: str) -> LinkIssued:
    return LinkIssued(
        link_id=id_of("link", dataset),
        resource="dataset",
        resource_id=id_of("dataset", dataset),
        path=None,
        expires_at=START + timedelta(minutes=15),
    )


def step(number: int, loss: float | None = None) -> StepMetrics:
    return StepMetrics(
        step=number,
        epoch=number / STEPS_PER_EPOCH,
        loss=1 / number if loss is None else loss,
        learning_rate=0.002,
        grad_norm=0.5,
        tokens_per_s=900.0,
        eta_s=20.0 - number,
        time=START + timedelta(seconds=number),
    )


def reported(
    sequence: int, job: str, attempt: int, steps: Sequence[StepMetrics], workspace: str = WORKSPACE
) -> Stored:
    subject = telemetry_subject(workspace, "metrics", id_of("job", job), attempt)
    headers = {"ce-type": "MetricsLogged"}
    data = MetricsLogged(steps=tuple(steps)).model_dump_json().encode()
    return Stored(sequence, subject, headers, data)


def _stream_id(event: Event, workspace: str) -> UUID:
    aggregate = aggregate_of(event)
    if aggregate == "access":
        return access_id(workspace)
    if aggregate == "queue":
        return queue_id(workspace)
    if isinstance(event, DeadLetterRetried | DeadLetterDiscarded):
        return letter_id(workspace, event.letter.sequence)
    fields: dict[str, Any] = event.model_dump(include={f"{aggregate}_id", "version_id"})
    id_: UUID = fields["version_id" if aggregate == "model_version" else f"{aggregate}_id"]
    return id_
