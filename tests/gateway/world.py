"""The gateway's surroundings in memory: the real rules and the real projections over a list of events."""

# ruff: noqa: ARG002, A002 - the names are those of the ports, and there is one workspace

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID, uuid5

import httpx

from adapters.local_blobs import LocalBlobs
from adapters.memory_event_store import MemoryEventStore
from adapters.memory_person_keys import MemoryPersonKeys
from adapters.xchacha_sealer import XChaChaSealer
from domain.access.access import access_id
from domain.access.commands import IssueKey
from domain.access.events import Role
from domain.agents.commands import EnrolAgent
from domain.catalog import aggregate_of
from domain.datasets.events import DatasetRegistered
from domain.errors import BusUnavailable, CommandTimeout, Rejected, StoreUnavailable
from domain.evaluations.commands import ClaimEvaluation, RecordResult, RunEvaluation
from domain.inference import (
    Begun,
    End,
    GenerateReply,
    GenerateRequest,
    Piece,
    Refused,
    TokenLogprob,
)
from domain.jobs.commands import ClaimJob, CompleteJob, RecordStart
from domain.jobs.spec import TINY_SFT, DatasetRef, JobSpec
from domain.messages import Command, Envelope, Event, Outcome, Recorded, StreamId
from domain.model_versions.commands import RecordReady, RegisterVersion
from domain.models.commands import ActivateModel, CreateModel, NumberVersion
from domain.models.events import ModelActivated
from domain.queues.commands import Enqueue, OfferSlots, Withdraw
from domain.queues.events import WorkAssigned, WorkKind, WorkWithdrawn
from domain.queues.queue import queue_id
from domain.request_figures import RequestFigures
from domain.subjects import derived_id, telemetry_subject
from domain.telemetry import LogEmitted, LogLine
from domain.work import (
    Environment,
    EvaluationSummary,
    Example,
    Failed,
    Prediction,
    PredictReply,
    PredictRequest,
    Scores,
)
from finetrail.blobs import BlobStore
from gateway.api_keys import NewKey, new_key
from gateway.app import Config, Gateway
from gateway.ports import Log
from handlers.commands import CommandDesk
from handlers.histories import Histories
from handlers.validation import validate
from projections import access_keys as key_rows
from projections import agents as agent_rows
from projections import datasets as dataset_rows
from projections import evaluations as evaluation_rows
from projections import jobs as job_rows
from projections import metrics as metric_rows
from projections import model_versions as version_rows
from projections import models as model_rows
from projections import people as person_rows
from projections import queue_ledger as ledger_rows
from projections import timeline as event_rows
from projections import webhooks as webhook_rows
from projections import work_items as work_rows
from projections.answers import (
    Activation,
    Belongings,
    Evaluation,
    Job,
    QueueStanding,
    Version,
    with_progress,
)
from projections.changes import KINDS, Changed, Place
from projections.durations import Durations, typical
from projections.model_filter import ALL_MODELS, ModelFilter
from projections.queries import Queries
from projections.registry import ReadModelUnavailable
from projections.view import View
from tests.delivery.memory import MemoryStore, Receivers, SimulatedTimer

W = "default"
PEPPER = b"a pepper for tests"
AGENT = UUID(int=77)
NOW = datetime(2026, 11, 20, 17, 43, 5, tzinfo=UTC)
R = TypeVar("R")


@dataclass(frozen=True)
class Message:
    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True)
class State:
    first: int
    last: int


class MemoryFeed:
    """Two streams in memory. ``deaf`` loses the live copy, ``away`` refuses everything."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store
        self.telemetry: list[Message] = []
        self.dead: list[Message] = []
        self.first: dict[Log, int] = {"EVENTS": 1, "TELEMETRY": 1}
        self.away = False
        self.deaf = False
        self.pages = 0
        self._live: dict[Log, set[asyncio.Queue[Message]]] = {"EVENTS": set(), "TELEMETRY": set()}
        self._told = 0

    def _messages(self, log: Log) -> Sequence[Message]:
        if self.away:
            raise StoreUnavailable("the log is away")
        if log == "TELEMETRY":
            return self.telemetry
        if log == "DEAD":
            return self.dead
        return [Message(n, *record) for n, record in enumerate(self._store._log, 1)]

    async def page(
        self, log: Log, subject: str, after: int, limit: int
    ) -> tuple[Sequence[Message], bool]:
        self.pages += 1
        await asyncio.sleep(0)
        prefix = subject.removesuffix(">")
        found = [
            message
            for message in self._messages(log)
            if message.sequence > after
            and (message.subject == subject or (prefix != subject and message.subject.startswith(prefix)))
        ]  # fmt: skip
        return found[:limit], len(found) > limit

    async def last(self, log: Log, subject: str) -> Message | None:
        before = subject.removesuffix("*")  # a wildcard stands for the id, which comes last
        found = [
            message
            for message in self._messages(log)
            if message.subject == subject or (before != subject and message.subject.startswith(before))
        ]  # fmt: skip
        return found[-1] if found else None

    async def state(self, log: Log) -> State:
        return State(self.first[log], self.first[log] - 1 + len(self._messages(log)))

    @asynccontextmanager
    async def live(self, log: Log) -> AsyncIterator[AsyncIterator[Message]]:
        if self.away:
            raise StoreUnavailable("the log is away")
        queue: asyncio.Queue[Message] = asyncio.Queue()
        self._live[log].add(queue)

        async def messages() -> AsyncIterator[Message]:
            while True:
                yield await queue.get()

        try:
            yield messages()
        finally:
            self._live[log].discard(queue)

    async def emit(
        self, workspace: str, job_id: UUID, lines: LogEmitted, *, message_id: UUID
    ) -> int:
        known = [m.sequence for m in self.telemetry if m.headers.get("id") == str(message_id)]
        return known[0] if known else self.log(job_id, *lines.lines, id=str(message_id))

    def log(self, job_id: UUID, *lines: LogLine | str, attempt: int = 0, id: str = "") -> int:
        """Put lines into a job's log as one message."""
        taken = [LogLine(time=NOW, message=one) if isinstance(one, str) else one for one in lines]
        message = Message(
            self.first["TELEMETRY"] + len(self.telemetry),
            telemetry_subject(W, "log", job_id, attempt),
            {"ce-type": "LogEmitted", "id": id},
            LogEmitted(lines=tuple(taken)).model_dump_json().encode(),
        )
        self.telemetry.append(message)
        self._tell("TELEMETRY", message)
        return message.sequence

    def tell_events(self) -> None:
        """Publish the live copy of what was appended since."""
        for number, record in enumerate(self._store._log[self._told :], self._told + 1):
            self._tell("EVENTS", Message(number, *record))
        self._told = len(self._store._log)

    def _tell(self, log: Log, message: Message) -> None:
        for queue in () if self.deaf else self._live[log]:
            queue.put_nowait(message)


class MemoryBus:
    """Decides at once, by the real rules; uploads are validated as the reaction would."""

    def __init__(self, store: MemoryEventStore, feed: MemoryFeed, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._feed = feed
        self._desk = CommandDesk(Histories(store), lambda: NOW)
        self.away = False
        self.silent = False  # takes commands, decides them, and loses the outcome
        self.sent: list[Envelope[Command]] = []

    async def send(self, envelope: Envelope[Command], *, timeout_s: float = 10.0) -> Outcome:
        self.sent.append(envelope)
        if self.away:
            raise BusUnavailable(envelope.id, "no acknowledgement")
        outcome = await self.decide(envelope)
        if self.silent:
            raise CommandTimeout(envelope.id, timeout_s)
        return outcome

    async def decide(self, envelope: Envelope[Command]) -> Outcome:
        try:
            outcome = await self._desk.decide(envelope)
        except Rejected as refused:
            return Outcome(status="rejected", sequence=0, code=refused.code, message=str(refused))
        self._feed.tell_events()
        for recorded in await self._store.everything(after=outcome.sequence - 1):
            if isinstance(recorded.event, DatasetRegistered):
                await self.decide(await self._validation(recorded, recorded.event))
        return outcome

    async def _validation(
        self, recorded: Recorded[Event], registered: DatasetRegistered
    ) -> Envelope[Command]:
        verdict = await validate(registered, self._blobs)
        id_ = uuid5(recorded.id, "validate")
        return envelope(verdict, recorded.stream.id, "reaction", id_=id_)


def envelope(
    command: Command, id_of: UUID, source: str, *, id_: UUID | None = None
) -> Envelope[Command]:
    return Envelope(
        id=id_ or uuid5(id_of, repr(command)),
        stream=StreamId(W, aggregate_of(command), id_of),
        source=source,
        actor=source,
        correlation_id=UUID(int=9),
        causation_id=None,
        sent_at=NOW,
        command=command,
    )


class MemoryQueries(Queries):
    """Folds the real projections over the log for every question."""

    def __init__(self, store: MemoryEventStore) -> None:
        self._store = store
        self.steps: list[metric_rows.StepRow] = []
        self.away = False

    def at(self, sequence: int) -> Any:
        past = MemoryQueries(self._store)
        past.sequence, past.away = sequence, self.away
        return past

    def changes(self, workspace: str, since: int, until: int) -> Any:
        return MemoryChanges(self.at(since), self.at(until), since, until)

    async def last_until(self, workspace: str, moment: datetime) -> int:
        found = await self._recorded()
        return max((one.sequence for one in found if one.recorded_at <= moment), default=0)

    async def _recorded(self) -> list[Recorded[Event]]:
        if self.away:
            raise ReadModelUnavailable("Postgres does not answer")
        found = await self._store.everything()
        return [one for one in found if self.sequence is None or one.sequence <= self.sequence]

    async def _fold(self, view: "View[Any, R]") -> list[R]:
        rows: dict[Any, R] = {}
        for recorded in await self._recorded():
            key = view.key(recorded)
            row = None if key is None else view.project(rows.get(key), recorded)
            if row is not None:
                rows[key] = row
        return list(rows.values())

    async def _newest(
        self, view: "View[Any, R]", limit: int, before: int | None, keep: Callable[[R], bool]
    ) -> list[R]:
        rows = [row for row in await self._fold(view) if keep(row)]
        rows.sort(key=lambda row: -row.created_sequence)
        return [row for row in rows if before is None or row.created_sequence < before][:limit]

    async def _by_id(self, view: "View[Any, R]", id_: UUID) -> R | None:
        return next((row for row in await self._fold(view) if row.id == id_), None)

    async def dataset(self, workspace: str, dataset_id: UUID) -> dataset_rows.DatasetRow | None:
        return await self._by_id(dataset_rows.VIEW, dataset_id)

    async def datasets(
        self, workspace: str, *, limit: int = 50, before: int | None = None
    ) -> list[dataset_rows.DatasetRow]:
        return await self._newest(dataset_rows.VIEW, limit, before, lambda _: True)

    async def job(self, workspace: str, job_id: UUID) -> Job | None:
        row = await self._by_id(job_rows.VIEW, job_id)
        return with_progress(row, self.steps[-1] if self.steps else None) if row else None

    async def jobs(
        self,
        workspace: str,
        *,
        status: Any = None,
        model: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        rows = await self._newest(
            job_rows.VIEW,
            limit,
            before,
            lambda row: status in (None, row.status) and model in (None, row.model),
        )
        return [with_progress(row, None) for row in rows]

    async def job_epochs(self, workspace: str, job_id: UUID) -> list[job_rows.EpochRow]:
        return [row for row in await self._fold(job_rows.EPOCHS) if row.job_id == job_id]

    async def job_steps(
        self, workspace: str, job_id: UUID, *, points: int = 500
    ) -> list[metric_rows.StepRow]:
        return self.steps[:points]

    async def model(self, workspace: str, name_or_id: str | UUID) -> model_rows.ModelRow | None:
        found = await self._fold(model_rows.VIEW)
        return next((row for row in found if name_or_id in {row.name, row.id}), None)

    async def models(
        self,
        workspace: str,
        chosen: ModelFilter = ALL_MODELS,
        *,
        limit: int = 50,
        before: int | None = None,
        offset: int = 0,
    ) -> list[model_rows.ModelRow]:
        versions = await self._fold(version_rows.VIEW)

        def is_chosen(row: model_rows.ModelRow) -> bool:
            statuses = {one.status for one in versions if one.model_id == row.id}
            statuses |= {"active"} if row.active_version_id else set()
            return (
                chosen.base_model in (None, row.base_model)
                and (chosen.status is None or chosen.status in statuses)
                and (chosen.created_from is None or row.created_at >= chosen.created_from)
                and (chosen.created_before is None or row.created_at < chosen.created_before)
            )

        rows = await self._newest(model_rows.VIEW, limit + offset, before, is_chosen)
        return rows[offset:]

    async def versions(
        self, workspace: str, model_id: UUID, *, limit: int = 50, before: int | None = None
    ) -> list[Version]:
        rows = await self._newest(
            version_rows.VIEW, limit, before, lambda row: row.model_id == model_id
        )
        return [await self._with_evaluation(row) for row in rows]

    async def activations(
        self, workspace: str, model_id: UUID, *, limit: int = 50, before: int | None = None
    ) -> list[Activation]:
        found: list[Activation] = []
        for one in await self._recorded():
            if isinstance(one.event, ModelActivated) and one.stream.id == model_id:
                if found:
                    until = {"until": one.recorded_at, "until_sequence": one.sequence}
                    found[-1] = replace(found[-1], **until)
                event = one.event
                at = (one.sequence, event.number, event.version_id, one.recorded_at, one.actor)
                found.append(Activation(*at, None, None))
        return [one for one in found[::-1] if before is None or one.sequence < before][:limit]

    async def version(self, workspace: str, model_id: UUID, number: int) -> Version | None:
        found = await self.versions(workspace, model_id)
        return next((one for one in found if one.row.number == number), None)

    async def _with_evaluation(self, row: version_rows.VersionRow) -> Version:
        found = [e for e in await self._fold(evaluation_rows.VIEW) if e.version_id == row.id]
        return Version(row, found[-1] if found else None)

    async def evaluation(self, workspace: str, evaluation_id: UUID) -> Evaluation | None:
        row = await self._by_id(evaluation_rows.VIEW, evaluation_id)
        return await self._with_number(row) if row else None

    async def evaluations(
        self,
        workspace: str,
        *,
        model: str | None = None,
        version: int | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Evaluation]:
        rows = await self._newest(
            evaluation_rows.VIEW, limit, before, lambda row: model in (None, row.model)
        )
        found = [await self._with_number(row) for row in rows]
        return [one for one in found if version in (None, one.version_number)]

    async def _with_number(self, row: evaluation_rows.EvaluationRow) -> Evaluation:
        version = await self._by_id(version_rows.VIEW, row.version_id)
        return Evaluation(row, version.number if version else None)

    async def evaluation_examples(
        self, workspace: str, evaluation_id: UUID
    ) -> list[dict[str, Any]] | None:
        rows = await self._fold(evaluation_rows.EXAMPLES)
        found = [row.examples for row in rows if row.evaluation_id == evaluation_id]
        return found[0] if found else None

    async def events(
        self,
        workspace: str,
        *,
        aggregate: Any = None,
        aggregate_id: UUID | None = None,
        type: str | None = None,
        actor: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[event_rows.TimelineRow]:
        if self.away:
            raise ReadModelUnavailable("Postgres does not answer")
        rows = [
            row
            for row in map(event_rows.told, await self._recorded())
            if aggregate in (None, row.aggregate)
            and aggregate_id in (None, row.aggregate_id)
            and type in (None, row.type)
            and actor in (None, row.actor)
            and row.sequence > (after or 0)
        ]
        return rows[-limit:] if after is None else rows[:limit]

    async def event(self, workspace: str, which: int | UUID) -> event_rows.TimelineRow | None:
        rows = map(event_rows.told, await self._recorded())
        return next((row for row in rows if which in (row.sequence, row.id)), None)

    async def last_queued(
        self, workspace: str, work_id: UUID, before: int
    ) -> event_rows.TimelineRow | None:
        found = [
            row
            for row in map(event_rows.told, await self._recorded())
            if row.type == "WorkQueued"
            and row.data["work_id"] == str(work_id)
            and row.sequence < before
        ]
        return found[-1] if found else None

    async def agents(self, workspace: str) -> list[agent_rows.AgentRow]:
        return await self._fold(agent_rows.VIEW)

    async def queue(self, workspace: str) -> QueueStanding:
        rows = [row for row in await self._fold(work_rows.VIEW) if row.status != "withdrawn"]
        ledgers = await self._fold(ledger_rows.VIEW)
        return QueueStanding(sorted(rows, key=lambda row: row.queued_sequence), *ledgers or [None])

    async def seconds_left(self, workspace: str) -> dict[UUID, float]:
        return {}

    async def durations(self, workspace: str) -> Durations:
        jobs = await self._fold(job_rows.VIEW)
        took = [(row.method, row.ended_at - row.started_at) for row in jobs if row.ended_at]
        return Durations(typical((method, span.total_seconds()) for method, span in took), {})

    async def keys(self, workspace: str) -> list[key_rows.AccessKeyRow]:
        return await self._fold(key_rows.VIEW)

    async def people(
        self, workspace: str, *, limit: int = 50, before: int | None = None
    ) -> list[person_rows.PersonRow]:
        return await self._newest(person_rows.VIEW, limit, before, lambda _: True)

    async def person(self, workspace: str, person_id: UUID) -> person_rows.PersonRow | None:
        return await self._by_id(person_rows.VIEW, person_id)

    async def forgotten_people(self, workspace: str) -> frozenset[UUID]:
        rows = await self._fold(person_rows.VIEW)
        return frozenset(row.id for row in rows if row.status == "forgotten")

    async def belongings(self, workspace: str, person_id: UUID) -> Belongings:
        datasets = [r for r in await self._fold(dataset_rows.VIEW) if r.person_id == person_id]
        theirs = {row.id for row in datasets}
        jobs = [
            row
            for row in await self._fold(job_rows.VIEW)
            if {row.dataset_id, row.test_dataset_id} & theirs
        ]
        versions = {row.version_id for row in jobs}
        return Belongings(
            keys=[row for row in await self._fold(key_rows.VIEW) if row.person_id == person_id],
            datasets=datasets,
            jobs=jobs,
            evaluations=[
                r for r in await self._fold(evaluation_rows.VIEW) if r.version_id in versions
            ],
        )

    async def notable(
        self, workspace: str, types: Sequence[str], *, before: int | None, limit: int
    ) -> list[event_rows.TimelineRow]:
        found = [event_rows.told(one) for one in await self._recorded()]
        chosen = [one for one in found if one.type in types]
        return [one for one in chosen[::-1] if before is None or one.sequence < before][:limit]

    async def webhooks(self, workspace: str) -> list[webhook_rows.WebhookRow]:
        return [row for row in await self._fold(webhook_rows.VIEW) if row.status != "removed"]

    async def webhook(self, workspace: str, webhook_id: UUID) -> webhook_rows.WebhookRow | None:
        found = [row for row in await self._fold(webhook_rows.VIEW) if row.id == webhook_id]
        return found[0] if found else None

    async def parked(self) -> dict[str, int]:
        return {}

    async def position(self, name: str = "registry") -> int:
        if self.away:
            raise ReadModelUnavailable("Postgres does not answer")
        return len(await self._store.everything())

    async def wait_for(
        self, sequence: int, timeout_s: float = 5.0, *, name: str = "registry"
    ) -> bool:
        return not self.away


@dataclass
class MemoryChanges:
    """Compares what was folded."""

    before: MemoryQueries
    after: MemoryQueries
    since: int
    until: int

    async def page(self, kinds: Sequence[int], start: Place | None, limit: int) -> list[Changed]:
        found: list[Changed] = []
        for kind in kinds:
            view = KINDS[kind].view
            keys = [column.name for column in view.table.primary_key]
            was = {tuple(getattr(r, k) for k in keys): r for r in await self.before._fold(view)}
            first: dict[Any, int] = {}
            for recorded in await self.after._recorded():
                key = view.key(recorded)
                if key is not None and recorded.sequence > self.since:
                    first.setdefault(key, recorded.sequence)
            for row in await self.after._fold(view):
                key = tuple(getattr(row, name) for name in keys)
                if row != was.get(key):
                    found.append(Changed(kind, first[key], was.get(key), row))
        found.sort(key=lambda one: (one.kind, one.first))
        place = (start.kind, start.after) if start else (-1, 0)
        return [one for one in found if (one.kind, one.first) > place][:limit]


@dataclass
class FakeInference:
    """Answers with the first label and a short text, or with what it is told to."""

    asked: list[PredictRequest] = field(default_factory=list)
    reply: PredictReply | None = None
    questions: list[tuple[GenerateRequest, UUID]] = field(default_factory=list)
    script: "Script | None" = None
    open: int = 0  # answers that somebody listens to now
    left_early: int = 0

    @asynccontextmanager
    async def generate(
        self, request: GenerateRequest, model_id: UUID
    ) -> AsyncIterator[AsyncIterator[GenerateReply]]:
        self.questions.append((request, model_id))
        ended = False

        async def replies() -> AsyncIterator[GenerateReply]:
            nonlocal ended
            async for reply in (self.script or answer())(request):
                ended = isinstance(reply, End | Refused)
                yield reply

        self.open += 1
        try:
            async with aclosing(replies()) as said:
                yield said
        finally:
            self.open -= 1
            self.left_early += not ended

    async def predict(self, request: PredictRequest, *, timeout_s: float) -> PredictReply:
        self.asked.append(request)
        if self.reply is not None:
            return self.reply
        scores = dict.fromkeys(request.labels, 0.0) | {request.labels[0]: 1.0}
        found = Prediction(label=request.labels[0], scores=scores)
        return PredictReply(
            request_id=request.request_id, predictions=(found,) * len(request.texts), seconds=0.01
        )


Script = Callable[[GenerateRequest], AsyncIterator[GenerateReply]]


def answer(*texts: str, reason: Any = "stop") -> Script:
    """A script that says these pieces, of one token each."""
    said = texts or ("It is ", "on its way.")

    async def replies(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        id_ = request.request_id
        yield Begun(request_id=id_, agent_id=str(AGENT), prompt_tokens=7)
        for number, text in enumerate(said):
            logprobs = token_logprobs(text, request.sampling.top_logprobs)
            yield Piece(request_id=id_, number=number, text=text, tokens=1, logprobs=logprobs)
        yield End(
            request_id=id_,
            reason=reason,
            prompt_tokens=7,
            completion_tokens=len(said),
            seconds=0.1,
            first_token_s=0.01,
        )

    return replies


def token_logprobs(text: str, top: int | None) -> tuple[TokenLogprob, ...]:
    if top is None:
        return ()
    others = [(text, -0.25), ("no", -1.5), ("maybe", -3.0)][:top]
    likeliest = tuple((one, logprob, tuple(one.encode())) for one, logprob in others)
    return (TokenLogprob(token=text, logprob=-0.25, bytes=tuple(text.encode()), top=likeliest),)


def refusal(code: str, message: str = "it cannot be done", *, retryable: bool = True) -> Script:
    async def replies(request: GenerateRequest) -> AsyncIterator[GenerateReply]:
        error = Failed(code=code, message=message, retryable=retryable)
        yield Refused(request_id=request.request_id, error=error)

    return replies


class MemoryRequests:
    """Keeps what gateways write; ``away`` refuses everything."""

    def __init__(self) -> None:
        self.kept: dict[tuple[object, ...], RequestFigures] = {}
        self.away = False

    async def write(self, gateway: UUID, figures: Sequence[RequestFigures]) -> None:
        self._refuse()
        for one in figures:
            self.kept[gateway, one.time, one.method, one.route, one.status] = one

    async def read(
        self, since: datetime, until: datetime, step_s: int, route: str | None
    ) -> Sequence[RequestFigures]:
        self._refuse()
        return [
            one
            for one in self.kept.values()
            if since <= one.time < until and route in {None, one.route}
        ]

    async def forget(self, before: datetime) -> None:
        self.kept = {key: one for key, one in self.kept.items() if one.time >= before}

    def _refuse(self) -> None:
        if self.away:
            raise ConnectionError("the database is away")


class World:
    """A gateway, its surroundings, and a key of each role."""

    roles: ClassVar[tuple[Role, ...]] = ("viewer", "editor", "admin")

    def __init__(
        self, folder: Path, *, max_upload_bytes: int = 1_000_000, blobs: BlobStore | None = None
    ) -> None:
        self.folder = folder
        self.store = MemoryEventStore()
        self.feed = MemoryFeed(self.store)
        self.blobs = blobs or LocalBlobs(folder)
        self.bus = MemoryBus(self.store, self.feed, self.blobs)
        self.queries = MemoryQueries(self.store)
        self.inference = FakeInference()
        self.requests = MemoryRequests()
        self.webhooks = MemoryStore()
        self.receivers = Receivers(SimulatedTimer())
        self.person_keys = MemoryPersonKeys()
        self.keys: dict[str, NewKey] = {}
        self.gateway = Gateway(
            Config(W, PEPPER, max_upload_bytes, heartbeat_s=0.2, ping_s=0.1),
            bus=self.bus,
            queries=self.queries,
            feed=self.feed,
            blobs=self.blobs,
            inference=self.inference,
            requests=self.requests,
            webhooks=self.webhooks,
            sender=self.receivers,
            marks=self.webhooks,
            person_keys=self.person_keys,
            sealer=XChaChaSealer(),
        )

    async def issue_keys(self) -> None:
        for role in self.roles:
            key = self.keys[role] = new_key(PEPPER, f"test {role}")
            issue = IssueKey(key_id=key.key_id, name=role, role=role, secret_hmac=key.secret_hmac)
            await self.decide(issue, access_id(W), "operator")

    async def decide(self, command: Command, id_: UUID, source: str = "reaction") -> int:
        outcome = await self.bus.decide(envelope(command, id_, source))
        assert outcome.status in {"recorded", "unchanged"}, outcome
        return outcome.sequence

    async def claim(self, claim: ClaimJob | ClaimEvaluation) -> None:
        """Have the scheduler give the attempt to the agent, which claims it."""
        work_id = claim.job_id if isinstance(claim, ClaimJob) else claim.evaluation_id
        kind: WorkKind = "train" if isinstance(claim, ClaimJob) else "evaluate"
        given = WorkAssigned(
            work_id=work_id, kind=kind, attempt=claim.attempt, agent_id=str(AGENT), reason="free"
        )
        stream = StreamId(W, "queue", queue_id(W))
        cause = envelope(Withdraw(work_id=work_id, reason=""), stream.id, "reaction")
        for event in (given, WorkWithdrawn(work_id=work_id, reason="it has ended")):
            revision = (await self.store.read(stream)).revision
            await self.store.append(
                stream, [event], expected_revision=revision, cause=cause, recorded_at=NOW
            )
            if event is given:
                await self.decide(claim, work_id, str(AGENT))

    def header(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[role].text}"}

    def client(self, role: str | None = "admin") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.gateway.app, raise_app_exceptions=False),
            base_url="http://127.0.0.1",
            headers=self.header(role) if role else {},
        )

    @property
    def events(self) -> int:
        return len(self.store._log)

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    async def uploaded(self, content: bytes = b"", name: str = "messages.csv") -> dict[str, Any]:
        async with self.client("editor") as client:
            answer = await client.post(
                "/api/v1/datasets",
                params={"filename": name},
                content=content or csv_rows(),
                headers={"Content-Type": "text/csv"},
            )
            assert answer.status_code == 201, answer.text
            body: dict[str, Any] = answer.json()
            return body

    async def submitted(self, model: str = "support") -> dict[str, Any]:
        dataset = await self.uploaded()
        async with self.client("editor") as client:
            body = {"model": model, "dataset_id": dataset["id"]}
            answer = await client.post("/api/v1/jobs", json=body)
            assert answer.status_code == 202, answer.text
            job: dict[str, Any] = answer.json()
            return job

    async def trained(self, model: str = "support", *, ready: bool = True) -> dict[str, Any]:
        """Carry a job through to a registered version that was evaluated; gives the job."""
        job = await self.submitted(model)
        job_id, agent = UUID(job["id"]), str(AGENT)
        claim = ClaimJob(job_id=job_id, attempt=1, boot_id="boot")
        await self.claim(claim)
        start = RecordStart(job_id=job_id, attempt=1, environment=ENVIRONMENT, **_FIGURES)
        await self.decide(start, job_id, agent)
        files = await self._adapter()
        complete = CompleteJob(job_id=job_id, attempt=1, adapter=files, **_RESULT)
        await self.decide(complete, job_id, agent)
        trained = await self.queries.job(W, job_id)
        assert trained is not None
        spec = JobSpec.model_validate(trained.row.spec)
        await self._registered(job_id, spec, files, ready=ready, result=_RESULT)
        return job

    async def talking(
        self, model: str = "support", *, active: bool = True, ready: bool = True
    ) -> UUID:
        """Register the next version of a language model; gives its id."""
        job_id = uuid5(AGENT, f"{model} {self.events}")
        ref = {"dataset_id": UUID(int=8), "name": model, "format": "jsonl", "delimiter": None}
        ref |= {"kind": "chat", "text_column": "messages", "label_column": "", "rows": 28}
        files = await self._adapter()
        spec = JobSpec(
            method="sft",
            base_model="finetrail/tiny",
            model_name=model,
            train=DatasetRef.model_validate(ref | {"labels": (), "blob": files[0].blob}),
            hyperparameters=TINY_SFT,
        )
        await self._registered(job_id, spec, files, ready=ready, result=_RESULT | {"labels": ()})
        version_id = derived_id(W, "version", str(job_id))
        if active:
            await self.activate(model, version_id)
        return version_id

    async def activate(self, model: str, version_id: UUID) -> None:
        model_id = derived_id(W, "model", model)
        activate = ActivateModel(model_id=model_id, version_id=version_id)
        await self.decide(activate, model_id, "gateway")

    async def _adapter(self) -> tuple[Any, ...]:
        from domain.blobs import FileEntry

        files = []
        for name, content in (("adapter_config.json", b"{}"), ("labels.json", b'["a", "b"]')):
            async with self.blobs.writer() as writer:
                await writer.write(content)
                files.append(FileEntry(path=f"lora_adapters/{name}", blob=await writer.commit()))
        return tuple(files)

    async def _registered(
        self, job_id: UUID, spec: JobSpec, files: Any, *, ready: bool, result: Any
    ) -> None:
        model = spec.model_name
        model_id = derived_id(W, "model", model)
        version_id = derived_id(W, "version", str(job_id))
        create = CreateModel(model_id=model_id, name=model, base_model=spec.base_model)
        await self.decide(create, model_id)
        number = NumberVersion(model_id=model_id, version_id=version_id, job_id=job_id)
        await self.decide(number, model_id)
        numbered = await self.queries.model(W, model)
        assert numbered is not None
        assert numbered.latest is not None
        register = RegisterVersion(
            version_id=version_id,
            model_id=model_id,
            model_name=model,
            number=numbered.latest,
            label="20261120-174305",
            job_id=job_id,
            spec=spec,
            environment=ENVIRONMENT,
            files=files,
            **result,
        )
        await self.decide(register, version_id)
        if ready:
            await self.decide(RecordReady(version_id=version_id), version_id)
            await self._evaluated(version_id)

    async def _evaluated(self, version_id: UUID) -> None:
        id_ = derived_id(W, "evaluation", str(version_id))
        await self.decide(RunEvaluation(evaluation_id=id_, version_id=version_id), id_)
        agent = str(AGENT)
        await self.claim(ClaimEvaluation(evaluation_id=id_, attempt=1, boot_id="boot"))
        outputs = (await self._adapter())[0].blob
        result = RecordResult(evaluation_id=id_, attempt=1, summary=SUMMARY, outputs=outputs)
        await self.decide(result, id_, agent)

    async def offered(self, agent_id: UUID = AGENT, **more: Any) -> None:
        """Have the scheduler count on an agent."""
        box = {"name": "box", "slots": 1, "accelerator": "cpu", "memory_bytes": 8_000_000_000}
        about = box | {"methods": ("sequence_classification",)} | more
        await self.decide(OfferSlots(agent_id=str(agent_id), **about), queue_id(W))

    async def enrolled(self) -> None:
        enrol = EnrolAgent(
            agent_id=AGENT,
            name="box",
            accelerator="cpu",
            memory_bytes=1,
            methods=("sequence_classification",),
        )
        await self.decide(enrol, AGENT, str(AGENT))
        queued = Enqueue(
            work_id=UUID(int=5), kind="train", method="sequence_classification", attempt=1
        )
        await self.decide(queued, queue_id(W))


@asynccontextmanager
async def running_world(folder: Path, blobs: BlobStore | None = None) -> AsyncIterator[World]:
    """A world whose keys are loaded and whose gateway follows its log."""
    world = World(folder, blobs=blobs)
    await world.issue_keys()
    running = asyncio.create_task(world.gateway.run())
    try:
        async with asyncio.timeout(5):
            await world.gateway.keyring.wait_for(world.events, 5)
        yield world
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def csv_rows(rows: int = 40) -> bytes:
    lines = [f"message number {n},{'delivery' if n % 2 else 'refund'}" for n in range(rows)]
    return ("text,label\n" + "\n".join(lines) + "\n").encode()


ENVIRONMENT = Environment(
    device="cpu",
    device_name="a processor",
    threads=2,
    python="3.11",
    packages={"torch": "2.13.0"},
    cpu_capability="AVX2",
    code="0.1.0",
)
_FIGURES: Any = {
    "total_steps": 30,
    "total_epochs": 3,
    "first_step": 0,
    "train_rows": 28,
    "validation_rows": 4,
    "test_rows": 8,
    "trainable_parameters": 10,
    "total_parameters": 100,
}
_RESULT: Any = {
    "labels": ("delivery", "refund"),
    "train_rows": 28,
    "trained_tokens": 900,
    "steps": 30,
    "seconds": 3.5,
    "final_loss": 0.05,
    "validation_accuracy": 0.97,
}
_SCORES = Scores(
    accuracy=0.9, f1=0.9, precision=0.9, recall=0.9, latency_ms_p50=8.0, latency_ms_mean=8.5
)
SUMMARY = EvaluationSummary(
    rows=8,
    base=_SCORES,
    untrained=_SCORES.model_copy(update={"accuracy": 0.5}),
    fine_tuned=_SCORES.model_copy(update={"accuracy": 1.0}),
    accuracy_delta=0.1,
    accuracy_delta_relative=0.11,
    f1_delta=0.1,
    p_value=0.5,
    ci95=(-0.05, 0.25),
    only_base_right=0,
    only_fine_tuned_right=1,
    verdict="inconclusive",
    examples=(
        Example(
            text="where?", expected="delivery", base="refund", fine_tuned="delivery", winner="fine_tuned"
        ),
    ),
    seconds=1.0,
)  # fmt: skip
