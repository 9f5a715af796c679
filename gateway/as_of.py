"""Asking about the past: which point of the log a request means, and how its answer says so.

A time means the last event that was recorded then or before, by the `time` of events. Those come from
the clocks of several handlers, so an event may stand behind one with a slightly later time; the point
is behind all events that had been recorded by then. The answer names its sequence, which means the
same point for ever.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers.base import BaseRouteHandler
from litestar.params import QueryParameter

from gateway.authentication import Principal
from gateway.etags import Revised, answered
from gateway.pages import Cursor, Page, decode_position, linked, page_of
from gateway.ports import Feed
from gateway.problems import Problem, invalid
from projections.changes import Changes
from projections.past import PastQueries
from projections.queries import Queries

HEADER: Final = "As-Of-Sequence"
PARAMETER: Final = "as_of"
READ_S: Final = 5.0  # a projection follows the log within milliseconds
WHAT: Final = "a sequence of the log, or a time with its zone as 2026-11-20T14:00:00Z"

_SEQUENCE: Final = re.compile(r"[0-9]{1,19}")
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)"
    r"([Zz]|[+ -][0-9]{2}:[0-9]{2})"
)

AsOf = Annotated[
    str | None,
    QueryParameter(
        name=PARAMETER,
        max_length=40,
        description="As it was then: a sequence of the log, or a time with its zone "
        f"(as 2026-11-20T14:00:00Z). The answer's `{HEADER}` says which event that is.",
    ),
]
Readable = Queries | PastQueries
A = TypeVar("A", bound=Revised)
R = TypeVar("R")
T = TypeVar("T")


class Past:
    """The log of one workspace, to find points in it."""

    def __init__(self, queries: Queries, feed: Feed, workspace: str) -> None:
        self.queries = queries
        self._feed = feed
        self._workspace = workspace

    async def point(self, text: str, field: str = PARAMETER) -> int:
        """The sequence that a request means, once everything up to there can be read.

        Raises:
            Problem: It means none, or one that is not there yet.
        """
        moment = None if _SEQUENCE.fullmatch(text) else _moment(text, field)
        if moment is not None and moment > datetime.now(UTC):
            raise invalid(field, "that is in the future; nothing has been recorded then yet")
        last = (await self._feed.state("EVENTS")).last
        if moment is None and int(text) > last:
            raise invalid(field, f"the log ends at sequence {last}")
        if not await self.queries.wait_for(last if moment else int(text), READ_S):
            raise Problem(
                "read_model_unavailable", "The read model has not come that far yet; ask again."
            )
        if moment is None:
            return int(text)
        return await self.queries.last_until(self._workspace, moment)

    async def end(self) -> int:
        """The last sequence of the log, once everything up to there can be read."""
        return await self.point(str((await self._feed.state("EVENTS")).last))

    def changes(self, since: int, until: int) -> Changes:
        return self.queries.changes(self._workspace, since, until)


class Shown:
    """What a request about one thing or all of a kind reads, and how it is answered."""

    def __init__(self, request: Request[Principal, Any, Any], queries: Readable) -> None:
        self.queries = queries
        self._request = request

    def answered(self, answer: A) -> Response[A]:
        return _said(answered(self._request, answer), self.queries.sequence)

    def whole(self, items: list[T]) -> Response[Page[T]]:
        """A list that comes on one page."""
        return _said(Response(Page(items)), self.queries.sequence)


class Listed:
    """What a request for a list reads, from where on, and how it is answered."""

    def __init__(
        self, request: Request[Principal, Any, Any], queries: Readable, before: int | None
    ) -> None:
        self.queries = queries
        self.before = before
        self._request = request

    def page(
        self,
        rows: Sequence[R],
        limit: int,
        sequence: Callable[[R], int],
        answer: Callable[[R], T],
        number: int | None = None,
    ) -> Response[Page[T]]:
        """A page of rows of which one more was asked for; the next one shows the same point."""
        point = self.queries.sequence
        page = page_of(rows, limit, sequence, answer, point)
        given = {} if point is None else {PARAMETER: str(point)}
        return _said(linked(self._request, page, number, given), point)


async def provide_shown(
    request: Request[Principal, Any, Any], past: NamedDependency[Past], as_of: AsOf = None
) -> Shown:
    if as_of is None:
        return Shown(request, past.queries)
    return Shown(request, past.queries.at(await past.point(as_of)))


async def provide_listed(
    request: Request[Principal, Any, Any],
    past: NamedDependency[Past],
    as_of: AsOf = None,
    cursor: Cursor = None,
) -> Listed:
    """A cursor of a list of the past means the point of its first page, whatever is said beside it."""
    before, point = decode_position(cursor)
    if point is None and as_of is not None:
        if cursor is not None:
            raise invalid("cursor", f"it goes on with a list without {PARAMETER}; begin a new one")
        point = await past.point(as_of)
    elif point is not None:
        point = await past.point(str(point))
    return Listed(request, past.queries if point is None else past.queries.at(point), before)


def past_is_known(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Refuse a question about the past where only the present would be answered."""
    if PARAMETER not in connection.query_params:
        return
    if not {"shown", "listed"} & set(handler.parsed_fn_signature.parameters):
        raise invalid(PARAMETER, "this route shows the present only")


def missing(queries: Readable, what: str) -> Problem:
    if queries.sequence is None:
        return Problem("not_found", f"There is no {what}.")
    return Problem("not_found", f"There was no {what} at sequence {queries.sequence}.")


def _said(response: Response[R], sequence: int | None) -> Response[R]:
    if sequence is not None:
        response.headers[HEADER] = str(sequence)
    return response


def _moment(text: str, field: str) -> datetime:
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise invalid(field, WHAT)
    day, time, zone = found.groups()
    try:
        # In a query `+` means a space, so this is what becomes of a zone that was not escaped.
        return datetime.fromisoformat(f"{day}T{time}{zone.replace(' ', '+')}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(field, WHAT) from None
