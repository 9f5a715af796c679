"""How a message of the log is read, and what it means when it cannot be."""

import logging
from collections.abc import Sequence

from domain.catalog import UnknownType
from domain.messages import Event, Recorded
from domain.wire import decode_recorded
from projections.ports import Message

_log = logging.getLogger(__name__)


class Unreadable(Exception):
    """A message that must not be passed over cannot be read; trying again does not help."""


def event_type(message: Message) -> str:
    return message.type


def read_event(message: Message) -> Sequence[Recorded[Event]]:
    """Read an event; one of a newer writer is passed over.

    Raises:
        Unreadable: The log is damaged. A view without this event would be wrong for ever.
    """
    try:
        return [decode_recorded(message.subject, message.sequence, message.headers, message.data)]
    except UnknownType as error:
        _log.info("event %d is passed over: %s", message.sequence, error)
        return []
    except ValueError as error:
        raise Unreadable(f"event {message.sequence} on {message.subject}: {error}") from error
