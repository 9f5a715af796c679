"""What people want to know: ended jobs, versions to activate, lost agents, dead letters, webhooks that are gone.

A view of the log and of what is open now; what of it somebody has read is kept for each key.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from litestar.response import Stream

from gateway.authentication import Principal
from gateway.commanding import Caller
from gateway.dead_letters import DeadLetter, Letters
from gateway.following import LastEventId, Streams, position_of, wants_stream
from gateway.pages import Cursor, Limit, Page, decode_cursor, encode_cursor
from gateway.ports import Feed, FeedMessage, ReadMarks
from gateway.problems import Problem
from gateway.sse import Reading, encode
from projections.queries import Queries
from projections.timeline import TimelineRow

LETTERS: Final = 20  # open dead letters that are shown, on the first page
NOTABLE: Final = (
    "JobSucceeded",
    "JobFailed",
    "JobCancelled",
    "JobInterrupted",
    "EvaluationCompleted",
    "EvaluationFailed",
    "WebhookDisabled",
)

Kind = Literal[
    "job_finished",
    "job_failed",
    "job_cancelled",
    "agent_lost",
    "evaluated",
    "activate",
    "evaluation_failed",
    "webhook_disabled",
    "dead_letter",
]
Unread = Annotated[bool, QueryParameter(description="Only what was not read.")]
Mark = Annotated[str, msgspec.Meta(pattern="^(?:dead-)?[0-9]{1,19}$")]


class Activation(msgspec.Struct):
    """What may be done about it: `POST /api/v1/models/{model}/activate`."""

    model: str
    version: int


class Notification(msgspec.Struct):
    """`id` is for marking it as read; `sequence` is the event's in the log, none for a dead letter."""

    id: str
    kind: Kind
    text: str
    time: datetime
    read: bool
    sequence: int | None
    aggregate: str | None
    aggregate_id: UUID | None
    activate: Activation | None = None


class News(msgspec.Struct):
    """There is another notification; `id` is its id in the list, `type` the event's."""

    id: str
    type: str
    time: str
    aggregate: str
    aggregate_id: str


class ReadBody(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[Mark], msgspec.Meta(min_length=1, max_length=1000)]


class Marked(msgspec.Struct):
    read: int


@dataclass(frozen=True, slots=True)
class Notifications:
    """Those of one workspace."""

    queries: Queries
    letters: Letters
    marks: ReadMarks
    workspace: str

    async def page(
        self, principal: Principal, before: int | None, limit: int, *, unread: bool
    ) -> Page[Notification]:
        rows = await self.queries.notable(self.workspace, NOTABLE, before=before, limit=limit + 1)
        found = [await self._told(row) for row in rows[:limit]]
        if before is None and principal.role == "admin":
            letters = (await self.letters.page(0, LETTERS)).items
            found = sorted([*found, *map(_letter, letters)], key=lambda one: one.time, reverse=True)
        read = await self._read(principal, [one.id for one in found])
        for one in found:
            one.read = one.id in read
        shown = [one for one in found if not (unread and one.read)]
        return Page(shown, encode_cursor(rows[limit - 1].sequence) if len(rows) > limit else None)

    async def mark(self, principal: Principal, ids: list[str]) -> int:
        try:
            return await self.marks.mark_read(self.workspace, principal.key_id, ids)
        except ConnectionError as error:
            raise Problem("webhooks_unavailable", "The database cannot be reached now.") from error

    async def _read(self, principal: Principal, ids: list[str]) -> frozenset[str]:
        try:
            return await self.marks.marked_read(self.workspace, principal.key_id, ids)
        except ConnectionError as error:
            raise Problem("webhooks_unavailable", "The database cannot be reached now.") from error

    async def _told(self, row: TimelineRow) -> Notification:
        kind, text, activate = await self._words(row)
        return Notification(
            id=str(row.sequence),
            kind=kind,
            text=text,
            time=row.time,
            read=False,
            sequence=row.sequence,
            aggregate=row.aggregate,
            aggregate_id=row.aggregate_id,
            activate=activate,
        )

    async def _words(self, row: TimelineRow) -> tuple[Kind, str, Activation | None]:
        match row.type:
            case "EvaluationCompleted":
                return await self._evaluated(row)
            case "EvaluationFailed":
                return "evaluation_failed", f"An evaluation has failed: {_said(row)}", None
            case "WebhookDisabled":
                return "webhook_disabled", f"A webhook was disabled: {_said(row)}", None
            case _:
                job = await self.queries.job(self.workspace, row.aggregate_id)
                name = job.row.model if job else str(row.aggregate_id)
                kinds: dict[str, tuple[Kind, str]] = {
                    "JobSucceeded": ("job_finished", f"The job for {name} has finished"),
                    "JobFailed": ("job_failed", f"The job for {name} has failed: {_said(row)}"),
                    "JobCancelled": ("job_cancelled", f"The job for {name} was cancelled"),
                }
                lost = f"The job for {name} was interrupted and goes on: {_said(row)}"
                return (*kinds.get(row.type, ("agent_lost", lost)), None)

    async def _evaluated(self, row: TimelineRow) -> tuple[Kind, str, Activation | None]:
        """Whether it should be activated, by what is in service now."""
        evaluation = await self.queries.evaluation(self.workspace, row.aggregate_id)
        model = await self.queries.model(self.workspace, UUID(row.data["model_id"]))
        if evaluation is None or evaluation.version_number is None or model is None:
            return "evaluated", "A version was evaluated", None
        number, summary = evaluation.version_number, row.data["summary"]
        said = f"Version {number} of {model.name} is {summary['verdict']} compared with its base"
        if model.active_number is None:
            if summary["verdict"] == "worse":
                return "evaluated", said, None
            text = f"{said}, and no version is in service: activate it?"
            return "activate", text, Activation(model.name, number)
        active = await self.queries.version(self.workspace, model.id, model.active_number)
        its = active.evaluation.summary if active and active.evaluation else None
        if model.active_number == number or its is None or not _scores_higher(summary, its):
            return "evaluated", said, None
        text = f"{said} and scores higher than version {model.active_number}, which is in service: activate it?"
        return "activate", text, Activation(model.name, number)


class NotificationsController(Controller):
    path = "/notifications"
    tags = ("notifications",)

    @get("/")
    async def list_notifications(
        self,
        request: Request[Principal, Any, Any],
        notifications: NamedDependency[Notifications],
        feed: NamedDependency[Feed],
        streams: NamedDependency[Streams],
        limit: Limit = 20,
        cursor: Cursor = None,
        unread: Unread = False,  # noqa: FBT002 - a query parameter
        last_event_id: LastEventId = None,
    ) -> Page[Notification] | Stream:
        """Newest first. Open dead letters stand on the first page, for the role admin.

        `Accept: text/event-stream` asks for a stream that says when there is another one: from now
        on, or behind `Last-Event-ID`. What it says in words is read from the list.
        """
        if wants_stream(request):
            end = (await feed.state("EVENTS")).last
            position = position_of(last_event_id, str(end))
            topic = f"events.{notifications.workspace}"
            return streams.open(request, Reading("EVENTS", topic, position, encode_news))
        return await notifications.page(request.user, decode_cursor(cursor), limit, unread=unread)

    @post("/read", status_code=200)
    async def read(
        self,
        caller: NamedDependency[Caller],
        data: JSONBody[ReadBody],
        notifications: NamedDependency[Notifications],
    ) -> Marked:
        """Mark these as read, for the key that asks. Twice is no error."""
        return Marked(await notifications.mark(caller.principal, data.ids))


def encode_news(message: FeedMessage) -> bytes:
    """That there is a notification; one function for all readers, so that it is encoded once."""
    type_ = message.headers.get("ce-type", "")
    if type_ not in NOTABLE:
        return b""
    _, _, aggregate, aggregate_id = message.subject.split(".")
    news = News(
        str(message.sequence), type_, message.headers.get("ce-time", ""), aggregate, aggregate_id
    )
    return encode("notification", msgspec.json.encode(news).decode(), message.sequence)


def _said(row: TimelineRow) -> str:
    return str(row.data.get("message") or row.data.get("reason") or "no reason was given")


def _scores_higher(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Of the same metric only; less bits are more."""
    metric = one.get("metric", "accuracy")
    mine, its = one["fine_tuned"].get(metric), other["fine_tuned"].get(metric)
    if metric != other.get("metric", "accuracy") or mine is None or its is None:
        return False
    return bool(mine < its) if metric == "bits_per_byte" else bool(mine > its)


def _letter(letter: DeadLetter) -> Notification:
    return Notification(
        id=f"dead-{letter.sequence}",
        kind="dead_letter",
        text=f"Dead letter {letter.sequence}, a {letter.type or 'message'}: {letter.reason}",
        time=letter.put_aside_at,
        read=False,
        sequence=None,
        aggregate=None,
        aggregate_id=None,
    )
