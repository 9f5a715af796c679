"""Refusals: the rules say no. None of them knows a status code."""

from typing import ClassVar


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


class VersionConflict(Exception):
    """Someone appended first; decide again on the longer history."""
