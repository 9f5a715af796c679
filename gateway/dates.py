"""Spans of time in a query: days of UTC, or moments."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from litestar.params import QueryParameter

from gateway.problems import Problem, invalid

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

DateFrom = Annotated[str | None, QueryParameter(max_length=40, description="Created on this day (of UTC, as 2026-11-20) or later, or at this moment (as 2026-11-20T14:00:00Z).")]  # fmt: skip
DateTo = Annotated[str | None, QueryParameter(max_length=40, description="Created on this day or before, the whole day; or until this moment.")]  # fmt: skip


def first_moment(text: str | None) -> datetime | None:
    """When a span begins.

    Raises:
        Problem: It is neither a day nor a moment.
    """
    return None if text is None else _moment("date_from", text)


def behind(text: str | None) -> datetime | None:
    """The first moment that is no more in a span which ends with this day or moment.

    Raises:
        Problem: It is neither a day nor a moment.
    """
    if text is None:
        return None
    unit = timedelta(days=1) if _DAY.fullmatch(text) else timedelta(microseconds=1)
    try:
        return _moment("date_to", text) + unit
    except OverflowError:
        raise _no_moment("date_to") from None


def _moment(field: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        # In UTC at once: the first and the last days of the calendar have no place in all zones.
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise _no_moment(field) from None


def _no_moment(field: str) -> Problem:
    return invalid(field, "a day as 2026-11-20, or a moment as 2026-11-20T14:00:00Z")
