"""Pages of lists: ``{"items": […], "next": …}``, newest first, by a cursor that survives new rows."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

import msgspec
from litestar.params import QueryParameter

from gateway.problems import invalid

T = TypeVar("T")
R = TypeVar("R")

Limit = Annotated[int, QueryParameter(ge=1, le=100, description="Items a page, 1 to 100.")]
Cursor = Annotated[
    str | None, QueryParameter(max_length=64, description="`next` of the page before.")
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
    if number < 1:
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
