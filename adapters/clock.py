"""The time, where a process needs it; rules and tests are given theirs."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
