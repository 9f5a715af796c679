"""Pages of lists: ``{"items": […], "next": …}``, newest first, by a cursor that survives new rows."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final, Generic, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response
from litestar.params import QueryParameter

from gateway.problems import Problem, invalid

T = TypeVar("T")
R = TypeVar("R")

MAX_SEQUENCE: Final = 2**63 - 1  # more does not fit into the column that is asked

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Items a page, 1 to 100.")]
Cursor = Annotated[
    str | None, QueryParameter(max_length=64, description="`next` of the page before.")
]


PageNumber = Annotated[
    int | None,
    QueryParameter(ge=1, le=1_000_000, description="Which page, from 1, instead of a `cursor`."),
]


class Page(msgspec.Struct, Generic[T]):
    """One page; ``next`` is null on the last one."""

    items: list[T]
    next: str | None = None


def encode_cursor(sequence: int, point: int | None = None) -> str:
    """Where a list goes on, and of a list of the past which point it shows."""
    text = str(sequence) if point is None else f"{sequence}@{point}"
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_position(cursor: str | None) -> tuple[int | None, int | None]:
    """The sequence to go on before, and the point.

    Raises:
        Problem: Nobody handed out such a cursor.
    """
    if cursor is None:
        return None, None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        before, _, point = text.partition("@")
        numbers = [int(before), int(point) if point else 0]
    except (binascii.Error, ValueError):
        raise _no_cursor() from None
    if not (0 < numbers[0] <= MAX_SEQUENCE and 0 <= numbers[1] <= MAX_SEQUENCE):
        raise _no_cursor()
    return numbers[0], numbers[1] if point else None


def decode_cursor(cursor: str | None) -> int | None:
    """The sequence to go on before in a list that shows the present only.

    Raises:
        Problem: Nobody handed out such a cursor for it.
    """
    before, point = decode_position(cursor)
    if point is not None:
        raise _no_cursor()
    return before


def _no_cursor() -> Problem:
    return invalid("cursor", "this is no cursor; take `next` of a page as it is")


def page_of(
    rows: Sequence[R],
    limit: int,
    sequence: Callable[[R], int],
    answer: Callable[[R], T],
    point: int | None = None,
) -> Page[T]:
    """A page of ``limit`` out of rows of which one more was asked for, to know if there is more."""
    shown = rows[:limit]
    more = len(rows) > limit
    onward = encode_cursor(sequence(shown[-1]), point) if more else None
    return Page([answer(row) for row in shown], onward)


class Paged(Protocol):
    """What comes in pages."""

    next: str | None


P = TypeVar("P", bound=Paged)


def linked(
    request: Request[Any, Any, Any],
    page: P,
    number: int | None = None,
    given: Mapping[str, str] = MappingProxyType({}),
) -> Response[P]:
    """The page, and where there is another its address in ``Link``: by number if it was asked so.

    What is ``given`` takes the place of what the request said.
    """
    if page.next is None:
        return Response(page)
    said = {"cursor", "page", *given}
    known = [pair for pair in request.query_params.multi_items() if pair[0] not in said]
    onward = ("cursor", page.next) if number is None else ("page", str(number + 1))
    url = f"{request.url.path}?{urlencode([*known, *given.items(), onward])}"
    return Response(page, headers={"Link": f'<{url}>; rel="next"'})
