"""The event log over HTTP: who did what and when, as pages and as a stream."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Controller, Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from domain.catalog import UnknownType
from domain.messages import StreamId
from domain.sealing import SealedField
from domain.subjects import Aggregate
from domain.wire import decode_recorded
from gateway.authentication import Principal
from gateway.following import LastEventId, Streams, position_of, wants_stream
from gateway.hub import Encoder
from gateway.logs import require_job
from gateway.pages import Limit, Page
from gateway.ports import Feed, FeedMessage
from gateway.sealing import Sealing
from gateway.sse import Reading, encode
from projections import timeline
from projections.queries import Queries
from projections.timeline import TimelineRow

After = Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1, description="Events behind this sequence, oldest first; without it the newest.")]  # fmt: skip

# Events whose `name` may be sealed. What a person is called, only an admin is told.
SEALED: Final[Mapping[str, SealedField]] = MappingProxyType(
    {"KeyIssued": "key.name", "DatasetRegistered": "dataset.name", "PersonAdded": "person.name"}
)
ADMINS_ONLY: Final = frozenset({"PersonAdded"})

ENCODERS: Final = 256  # filters that are read with at once; of more, some are encoded twice

_log = logging.getLogger(__name__)


class Event(msgspec.Struct):
    """A fact of the log. `sequence` is its position; secrets and their hashes are left out.

    What is sealed in it is shown opened, and null where nobody can read it any more; in a stream of
    events it stays as it stands in the log.
    """

    sequence: int
    id: UUID
    type: str
    aggregate: Aggregate
    aggregate_id: UUID
    actor: str
    source: str
    correlation_id: UUID
    causation_id: UUID
    time: datetime
    data: dict[str, Any]


class Filter(msgspec.Struct, frozen=True):
    aggregate: Aggregate | None = None
    aggregate_id: UUID | None = None
    type: str | None = None
    actor: str | None = None


class EventsController(Controller):
    path = "/events"
    tags = ("events",)

    @get("/")
    async def list_events(
        self,
        request: Request[Principal, Any, Any],
        queries: NamedDependency[Queries],
        streams: NamedDependency[Streams],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
        aggregate: Annotated[Aggregate | None, QueryParameter()] = None,
        id: Annotated[UUID | None, QueryParameter()] = None,  # noqa: A002 - the API's word
        type: Annotated[str | None, QueryParameter(max_length=64)] = None,  # noqa: A002
        actor: Annotated[str | None, QueryParameter(max_length=200)] = None,
        after: After = None,
        limit: Limit = 20,
        last_event_id: LastEventId = None,
    ) -> Page[Event] | Stream:
        """The log in order, as a page of JSON or as a stream that goes on for ever.

        `Accept: text/event-stream` asks for the stream: it replays what comes behind `after` (all,
        if that is left out) and then says what happens.
        """
        chosen = Filter(aggregate, id, type, actor)
        if wants_stream(request):
            position = position_of(last_event_id, None if after is None else str(after))
            return streams.open(request, event_reading(workspace, chosen, position))
        page, more = await read_events(queries, workspace, chosen, after, limit)
        opened = await opened_events(sealing, page, is_admin=request.user.role == "admin")
        return Page([event_answer(row) for row in opened], more)


class JobEventsController(Controller):
    path = "/jobs/{job_id:uuid}/events"
    tags = ("jobs",)

    @get("/")
    async def job_events(
        self,
        job_id: FromPath[UUID],
        request: Request[Principal, Any, Any],
        feed: NamedDependency[Feed],
        queries: NamedDependency[Queries],
        streams: NamedDependency[Streams],
        workspace: NamedDependency[str],
        after: After = None,
        limit: Limit = 100,
        last_event_id: LastEventId = None,
    ) -> Page[Event] | Stream:
        """What happened in the life of a job, as a page or as a stream."""
        await require_job(feed, workspace, job_id)
        chosen = Filter("job", job_id)
        if wants_stream(request):
            position = position_of(last_event_id, None if after is None else str(after))
            return streams.open(request, event_reading(workspace, chosen, position))
        page, more = await read_events(queries, workspace, chosen, after, limit)
        return Page([event_answer(row) for row in page], more)


async def read_events(
    queries: Queries, workspace: str, chosen: Filter, after: int | None, limit: int
) -> tuple[Sequence[TimelineRow], str | None]:
    """Rows of a page, and where the next one goes on."""
    rows = await queries.events(
        workspace, **msgspec.structs.asdict(chosen), after=after, limit=limit + 1
    )
    if after is None:  # the newest: nothing comes behind them
        return rows[-limit:], None
    more = str(rows[limit - 1].sequence) if len(rows) > limit else None
    return rows[:limit], more


async def opened_events(
    sealing: Sealing, rows: Sequence[TimelineRow], *, is_admin: bool
) -> Sequence[TimelineRow]:
    """The rows as whoever asks may read them."""
    told = {row.sequence: field for row in rows if (field := SEALED.get(row.type)) is not None}
    shown = [row for row in rows if is_admin or row.type not in ADMINS_ONLY]
    opened = await sealing.opened(
        (told[row.sequence], row.data["name"]) for row in shown if row.sequence in told
    )
    return [
        replace(row, data={**row.data, "name": opened.said(told[row.sequence], row.data["name"])})
        if row.sequence in told
        else row
        for row in rows
    ]


def event_reading(workspace: str, chosen: Filter, after: int) -> Reading:
    topic = f"events.{workspace}"
    if chosen.aggregate is not None:
        topic += f".{chosen.aggregate}"
        if chosen.aggregate_id is not None:
            topic = StreamId(workspace, chosen.aggregate, chosen.aggregate_id).subject
    return Reading("EVENTS", topic, after, _encoder(chosen))


@lru_cache(ENCODERS)
def _encoder(chosen: Filter) -> Encoder:
    """One encoder a filter, so that what it makes is shared by all who read with that filter."""
    if chosen.type is None and chosen.actor is None and _topic_says_all(chosen):
        return encode_event

    def encode_chosen(message: FeedMessage) -> bytes:
        return encode_event(message) if _is_chosen(message, chosen) else b""

    return encode_chosen


def _topic_says_all(chosen: Filter) -> bool:
    return chosen.aggregate_id is None or chosen.aggregate is not None


def _is_chosen(message: FeedMessage, chosen: Filter) -> bool:
    row = _row(message)
    return row is not None and all(
        getattr(row, name) == value
        for name, value in msgspec.structs.asdict(chosen).items()
        if value is not None
    )


def encode_event(message: FeedMessage) -> bytes:
    """One function for all readers, so that an event is encoded once."""
    row = _row(message)
    if row is None:
        return b""
    return encode("event", msgspec.json.encode(event_answer(row)).decode(), row.sequence)


def _row(message: FeedMessage) -> TimelineRow | None:
    try:
        recorded = decode_recorded(message.subject, message.sequence, message.headers, message.data)
    except UnknownType:
        return None  # a newer writer's; whoever runs a build that knows it is shown it
    except ValueError as error:  # readers would come back for it for ever
        _log.error("event %d is not shown, for it is damaged: %s", message.sequence, error)
        return None
    return timeline.told(recorded)


def event_answer(row: TimelineRow) -> Event:
    return Event(
        sequence=row.sequence,
        id=row.id,
        type=row.type,
        aggregate=row.aggregate,
        aggregate_id=row.aggregate_id,
        actor=row.actor,
        source=row.source,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        time=row.time,
        data=row.data,
    )
