"""What became different between two points of the log, over HTTP."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from domain.sealing import SealedField
from domain.subjects import Aggregate
from gateway.as_of import WHAT, Past
from gateway.authentication import Principal
from gateway.pages import MAX_SEQUENCE, Limit, linked
from gateway.problems import invalid
from gateway.sealing import Opened, Sealing
from projections.changes import KINDS, Changed, Place

CURSOR: Final = re.compile(r"([0-9])\.([0-9]{1,19})\.([0-9]{1,19})-([0-9]{1,19})")
# What places a row, and says nothing of the thing.
_BOOKKEEPING: Final = frozenset({"workspace", "created_sequence", "sequence"})
# Whose name may be sealed. What a person is called, only an admin is told.
_SEALED: Final[Mapping[str, SealedField]] = MappingProxyType(
    {"dataset": "dataset.name", "access": "key.name", "person": "person.name"}
)
_GONE: Final = frozenset({"deleted", "removed"})

From = Annotated[str | None, QueryParameter(name="from", max_length=40, description=f"The earlier point: {WHAT}. 0 is before everything.")]  # fmt: skip
To = Annotated[str | None, QueryParameter(name="to", max_length=40, description="The later point; now if left out.")]  # fmt: skip
Which = Annotated[Aggregate | None, QueryParameter(description="Only things of this kind; `access` are keys.")]  # fmt: skip
DiffCursor = Annotated[str | None, QueryParameter(max_length=80, description="`next` of the page before; it keeps both points.")]  # fmt: skip


class FieldChange(msgspec.Struct):
    """A column of the thing's row, before and after. Of what was created every `before` is null."""

    field: str
    before: Any
    after: Any


class Difference(msgspec.Struct):
    """What became of one thing. `sequence` is its revision at the later point."""

    aggregate: Aggregate
    id: str
    name: str | None
    change: Literal["created", "changed", "deleted"]
    before_sequence: int | None
    sequence: int
    fields: list[FieldChange]


class Differences(msgspec.Struct):
    """A page of what became different between two sequences of the log."""

    from_sequence: int
    to_sequence: int
    items: list[Difference]
    next: str | None


class DiffController(Controller):
    path = "/events/diff"
    tags = ("events",)

    @get("/")
    async def diff(
        self,
        request: Request[Principal, Any, Any],
        past: NamedDependency[Past],
        sealing: NamedDependency[Sealing],
        since: From = None,
        until: To = None,
        aggregate: Which = None,
        limit: Limit = 20,
        cursor: DiffCursor = None,
    ) -> Response[Differences]:
        """Which things were created, changed and deleted after one point and up to another.

        Kind after kind, and of each kind in the order of the first change. What has no row of its own
        (the queue, dead letters, links) is told by the events themselves.
        """
        kinds = _kinds(aggregate)
        if cursor is not None:
            start, points = _position(cursor)
        else:
            start, points = None, await _points(past, since, until)
        for point in points:  # of a cursor, too, they have to be there
            await past.point(str(point), "cursor" if cursor else "to")
        found = await past.changes(*points).page(kinds, start, limit + 1)
        shown = await _opened(sealing, found, is_admin=request.user.role == "admin")
        page = _page(shown, limit, points)
        return linked(request, page, given={"from": str(points[0]), "to": str(points[1])})


async def _opened(sealing: Sealing, found: Sequence[Changed], *, is_admin: bool) -> list[Changed]:
    """The same with names as whoever asks may read them; null where nobody can any more."""
    told = [_SEALED.get(KINDS[one.kind].aggregate) for one in found]
    opened = await sealing.opened(
        (field, row.name)
        for field, one in zip(told, found, strict=True)
        if field is not None and (is_admin or field != "person.name")
        for row in (one.before, one.after)
        if row is not None
    )
    return [
        one
        if field is None
        else replace(
            one, before=_named(one.before, field, opened), after=_named(one.after, field, opened)
        )
        for field, one in zip(told, found, strict=True)
    ]


def _named(row: Any, field: SealedField, opened: Opened) -> Any:
    return row and replace(row, name=opened.said(field, row.name))


async def _points(past: Past, since: str | None, until: str | None) -> tuple[int, int]:
    if since is None:
        raise invalid("from", f"it is required: {WHAT}")
    first = await past.point(since, "from")
    last = await past.end() if until is None else await past.point(until, "to")
    if first > last:
        raise invalid("from", f"it is behind `to`: sequence {first} against {last}")
    return first, last


def _kinds(aggregate: Aggregate | None) -> list[int]:
    chosen = [n for n, kind in enumerate(KINDS) if aggregate in {None, kind.aggregate}]
    if not chosen:
        with_rows = ", ".join(kind.aggregate for kind in KINDS)
        raise invalid("aggregate", f"things of this kind have no rows to compare; {with_rows} have")
    return chosen


def _position(cursor: str) -> tuple[Place, tuple[int, int]]:
    found = CURSOR.fullmatch(cursor)
    numbers = [int(part) for part in found.groups()] if found else [MAX_SEQUENCE + 1]
    if max(numbers) > MAX_SEQUENCE or numbers[0] >= len(KINDS):
        raise invalid("cursor", "this is no cursor; take `next` of a page as it is")
    kind, after, first, last = numbers
    return Place(kind, after), (first, last)


def _page(found: Sequence[Changed], limit: int, points: tuple[int, int]) -> Differences:
    shown = found[:limit]
    onward = None
    if len(found) > limit:
        onward = f"{shown[-1].kind}.{shown[-1].first}.{points[0]}-{points[1]}"
    return Differences(*points, [difference(one) for one in shown], onward)


def difference(one: Changed) -> Difference:
    kind, row = KINDS[one.kind], one.after
    *_, key = (column.name for column in kind.view.table.primary_key)
    return Difference(
        aggregate=kind.aggregate,
        id=str(getattr(row, key)),
        name=_name(row),
        change=_change(one),
        before_sequence=one.before and one.before.sequence,
        sequence=row.sequence,
        fields=list(_fields(one.before, row, {key, *_BOOKKEEPING})),
    )


def _change(one: Changed) -> Literal["created", "changed", "deleted"]:
    if one.before is None:
        return "created"
    was, now = (getattr(row, "status", None) in _GONE for row in (one.before, one.after))
    return "deleted" if now and not was else "changed"


def _fields(before: Any, after: Any, left_out: set[str]) -> list[FieldChange]:
    found = []
    for field in fields(after):
        if field.name not in left_out:
            was = None if before is None else getattr(before, field.name)
            now = getattr(after, field.name)
            if was != now:
                found.append(FieldChange(field.name, was, now))
    return found


def _name(row: Any) -> str | None:
    """What people call it: its own name or address, or that of its model; None if it is forgotten."""
    for named in ("name", "url"):
        if hasattr(row, named):
            name: str | None = getattr(row, named)
            return name
    number = getattr(row, "number", None)
    return row.model if number is None else f"{row.model} {number}"
