"""What goes wrong: the rules say no, someone was first, the log is away. None knows a status code."""

from typing import ClassVar
from uuid import UUID


class Rejected(Exception):
    """A rule refuses the command; sending the same again does not help unless the state changes."""

    code: ClassVar[str] = "rejected"


class NotFound(Rejected):
    """The thing the command speaks of does not exist in this workspace."""

    code = "not_found"


class StaleAttempt(Rejected):
    """A report came from an attempt that no longer holds the work: its sender must stop."""

    code = "stale_attempt"


class NotYours(Rejected):
    """The sender is not the agent that holds this attempt."""

    code = "not_yours"


class PayloadTooLarge(Rejected):
    """What would be recorded does not fit into one event; larger things are blobs, named by it."""

    code = "payload_too_large"


class NotStorable(Rejected):
    """What would be recorded could not be read back, as a number that JSON does not have."""

    code = "not_storable"


class VersionConflict(Exception):
    """Someone appended first; decide again on the longer history."""


class CommandTimeout(Exception):
    """No outcome came in time; the command itself is safe in the stream and will be decided.

    Sending the same command again is safe: what it led to is answered, not repeated.
    """

    def __init__(self, command_id: UUID, timeout_s: float) -> None:
        super().__init__(f"command {command_id} was taken, but not decided within {timeout_s:g} s")
        self.command_id = command_id
        self.timeout_s = timeout_s


class BusUnavailable(Exception):
    """The stream did not take the command; send the same again when the log is back."""

    def __init__(self, command_id: UUID, reason: str) -> None:
        super().__init__(f"command {command_id} was not taken: {reason or 'no acknowledgement'}")
        self.command_id = command_id
        self.reason = reason


class StoreUnavailable(Exception):
    """The log cannot be read or written now; the same call may succeed later."""
