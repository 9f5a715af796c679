"""Pages of lists: ``{"items": […], "next": …}``, newest first, by a cursor that survives new rows."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Generic, TypeVar
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response
from litestar.params import QueryParameter

from gateway.problems import invalid

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


def encode_cursor(sequence: int) -> str:
    return base64.urlsafe_b64encode(str(sequence).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str | None) -> int | None:
    """The sequence to go on before.

    Raises:
        Problem: Nobody handed out such a cursor.
    """
    if cursor is None:
        return None
    try:
        number = int(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise invalid("cursor", "this is no cursor; take `next` of a page as it is") from None
    if not 0 < number <= MAX_SEQUENCE:
        raise invalid("cursor", "this is no cursor; take `next` of a page as it is")
    return number


def page_of(
    rows: Sequence[R], limit: int, sequence: Callable[[R], int], answer: Callable[[R], T]
) -> Page[T]:
    """A page of ``limit`` out of rows of which one more was asked for, to know if there is more."""
    shown = rows[:limit]
    more = len(rows) > limit
    return Page(
        [answer(row) for row in shown], encode_cursor(sequence(shown[-1])) if more else None
    )


def linked(
    request: Request[Any, Any, Any], page: Page[T], number: int | None = None
) -> Response[Page[T]]:
    """The page, and where there is another its address in ``Link``: by number if it was asked so."""
    if page.next is None:
        return Response(page)
    known = [
        pair for pair in request.query_params.multi_items() if pair[0] not in {"cursor", "page"}
    ]
    onward = ("cursor", page.next) if number is None else ("page", str(number + 1))
    url = f"{request.url.path}?{urlencode([*known, onward])}"
    return Response(page, headers={"Link": f'<{url}>; rel="next"'})
