"""Events as the log's records, the same bytes for every store."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from domain.errors import NotStorable, PayloadTooLarge
from domain.messages import MAX_PAYLOAD, Command, Envelope, Event, event_id
from domain.wire import Headers, encode_event

Record = tuple[UUID, Headers, bytes]  # event id, headers, body
LARGEST: Final = 2**63 - 1  # that a table takes; one event with more would stop every projection


def encode_records(
    events: Sequence[Event], cause: Envelope[Command], recorded_at: datetime
) -> list[Record]:
    """Give each event its id and its bytes.

    Raises:
        PayloadTooLarge: One of them would not fit; none is to be stored.
        NotStorable: One could not be read back or projected, and would be in the way for ever.
    """
    return [_record(index, event, cause, recorded_at) for index, event in enumerate(events)]


def _record(index: int, event: Event, cause: Envelope[Command], recorded_at: datetime) -> Record:
    id_ = event_id(cause.id, index)
    headers, body = encode_event(event, event_id=id_, cause=cause, recorded_at=recorded_at)
    if len(body) > MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"{type(event).__name__} would take {len(body):,} bytes of at most {MAX_PAYLOAD:,}"
        )
    try:
        type(event).model_validate_json(body)
    except ValueError as error:
        raise NotStorable(f"{type(event).__name__} could not be read back: {error}") from error
    if (number := _too_large(event.model_dump())) is not None:
        raise NotStorable(f"{type(event).__name__} has a number that no table can hold: {number}")
    return id_, headers, body


def _too_large(value: object) -> int | None:
    """The first whole number in it that has more than 64 bits."""
    match value:
        case int():
            return None if -LARGEST <= value <= LARGEST else value
        case dict():
            inner: Iterable[object] = value.values()
        case list() | tuple() | set() | frozenset():
            inner = value
        case _:
            return None
    return next((found for each in inner if (found := _too_large(each)) is not None), None)
