"""Why something happened: from an event back to the command it came of, to what led to that, to who began it."""

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import Controller, Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from domain.messages import StreamId
from domain.queues.events import WorkAssigned
from domain.subjects import GATEWAY_SOURCE, OPERATOR_SOURCE
from domain.wire import COMMAND_CAUSE, COMMAND_TYPE, client_address
from gateway.administration import opened_keys
from gateway.authentication import Principal
from gateway.events import Event, event_answer, opened_events
from gateway.pages import MAX_SEQUENCE
from gateway.ports import Feed
from gateway.problems import Problem, invalid
from gateway.sealing import Sealing
from projections.queries import Queries
from projections.timeline import TimelineRow

LONGEST: Final = 500  # links of a chain; every attempt of a job has half a dozen
KEY: Final = "key:"
BEGINNERS: Final = frozenset({GATEWAY_SOURCE, OPERATOR_SOURCE})
FROM_BEFORE: Final = (
    "What led to the last event is not known: it was written before that was recorded."
)
TOO_LONG: Final = f"The chain is longer than {LONGEST}; ask for the last of its events."


class CommandFacts(msgspec.Struct):
    """What was wanted. `type` is null where the event was written before that was recorded."""

    id: UUID
    type: str | None
    actor: str
    key_id: str | None
    key_name: str | None
    source: str
    because_of: UUID | None


class Link(msgspec.Struct):
    """An event and the command that it came of."""

    event: Event
    command: CommandFacts


class Beginning(msgspec.Struct):
    """The first command of the chain. `address` is the client's; only an admin is told it.

    Name and address are null once whoever holds the key is forgotten.
    """

    actor: str
    key_id: str | None
    key_name: str | None
    source: str
    request_id: UUID | None
    address: Annotated[str, msgspec.Meta(max_length=64)] | None


class Why(msgspec.Struct):
    """The event that was asked about comes first, what began it last."""

    chain: list[Link]
    began: Beginning
    complete: bool
    note: str | None


class WhyController(Controller):
    path = "/events"
    tags = ("events",)

    @get("/{event:str}/why")
    async def why(
        self,
        request: Request[Principal, Any, Any],
        event: FromPath[str],
        reasons: NamedDependency["Reasons"],
    ) -> Why:
        """What led to an event, named by its sequence or its id, back to who began it."""
        return await reasons.of(event, is_admin=request.user.role == "admin")


class Reasons:
    """Follows causes in the log of one workspace."""

    def __init__(self, queries: Queries, feed: Feed, sealing: Sealing, workspace: str) -> None:
        self._queries = queries
        self._feed = feed
        self._sealing = sealing
        self._workspace = workspace

    async def of(self, event: str, *, is_admin: bool) -> Why:
        row: TimelineRow | None = await self._find(event)
        names = await self._names()
        chain: list[Link] = []
        headers: Mapping[str, str] = {}
        known, cut = True, False
        while row is not None and not cut:
            headers = await self._headers(row)
            cause = await self._cause(row, headers)
            command = _command(row, headers, names, cause)
            (opened,) = await opened_events(self._sealing, [row], is_admin=is_admin)
            chain.append(Link(event_answer(opened), command))
            known = COMMAND_TYPE in headers or row.source in BEGINNERS
            row, cut = cause, len(chain) >= LONGEST
        first = chain[-1]
        from_request = first.command.source == GATEWAY_SOURCE
        began = Beginning(
            actor=first.command.actor,
            key_id=first.command.key_id,
            key_name=first.command.key_name,
            source=first.command.source,
            request_id=first.event.correlation_id if from_request else None,
            address=await self._address(headers) if is_admin else None,
        )
        note = TOO_LONG if cut and row is not None else None if known else FROM_BEFORE
        return Why(chain, began, note is None, note)

    async def _names(self) -> Mapping[str, str | None]:
        """Of keys, by their ids."""
        keys = await self._queries.keys(self._workspace)
        opened = await opened_keys(self._sealing, keys)
        return {
            key.key_id: None
            if key.person_id in opened.forgotten
            else opened.said("key.name", key.name)
            for key in keys
        }

    async def _address(self, headers: Mapping[str, str]) -> str | None:
        address = client_address(headers) or None
        opened = await self._sealing.opened([("key.address", address)])
        return opened.said("key.address", address)

    async def _find(self, event: str) -> TimelineRow:
        which = _named(event)
        row = await self._queries.event(self._workspace, which)
        if row is None:
            raise Problem("not_found", f"There is no event {event} in this workspace.")
        return row

    async def _cause(self, row: TimelineRow, headers: Mapping[str, str]) -> TimelineRow | None:
        """The event that led to this one's command."""
        told = headers.get(COMMAND_CAUSE)
        if told is not None:
            return await self._queries.event(self._workspace, UUID(told))
        if row.type == WorkAssigned.__name__:  # which work it would be, its command did not know
            work_id = UUID(row.data["work_id"])
            return await self._queries.last_queued(self._workspace, work_id, row.sequence)
        return None

    async def _headers(self, row: TimelineRow) -> Mapping[str, str]:
        subject = StreamId(self._workspace, row.aggregate, row.aggregate_id).subject
        found, _ = await self._feed.page("EVENTS", subject, row.sequence - 1, 1)
        return found[0].headers if found and found[0].sequence == row.sequence else {}


def _named(event: str) -> int | UUID:
    if event.isdecimal() and event.isascii() and len(event) <= len(str(MAX_SEQUENCE)):
        return min(int(event), MAX_SEQUENCE)
    try:
        return UUID(event)
    except ValueError:
        raise invalid("event", "the sequence of an event, or its id", "path") from None


def _command(
    row: TimelineRow,
    headers: Mapping[str, str],
    names: Mapping[str, str | None],
    cause: TimelineRow | None,
) -> CommandFacts:
    key_id = row.actor.removeprefix(KEY) if row.actor.startswith(KEY) else None
    return CommandFacts(
        id=row.causation_id,
        type=headers.get(COMMAND_TYPE),
        actor=row.actor,
        key_id=key_id,
        key_name=names.get(key_id or ""),
        source=row.source,
        because_of=cause.id if cause else None,
    )
