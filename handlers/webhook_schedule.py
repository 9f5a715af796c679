"""When a delivery is tried again: the schedule of the Standard Webhooks specification, and what overrules it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from domain.webhooks.deliveries import Answer

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
# Seconds before each attempt, counted from the one before it.
SCHEDULE_S: Final = (
    0,
    5,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
JITTER: Final = (
    0.1  # of the pause, at most, is added: receivers that come back are not all met at once
)
LONGEST_S: Final = 24 * HOUR  # that a receiver may put us off
THROTTLED_S: Final = 60  # by a receiver that asks for less and does not say how long
THROTTLING: Final = frozenset({429, 502, 504})
GONE: Final = 410

Random = Callable[[], float]  # from 0 to 1


def next_attempt(attempts: int, now: datetime, random: Random) -> datetime | None:
    """When to try once more after so many attempts; None when there were enough."""
    if attempts >= len(SCHEDULE_S):
        return None
    pause = SCHEDULE_S[attempts]
    return now + timedelta(seconds=pause * (1 + JITTER * random()))


def put_off(answer: Answer, now: datetime) -> datetime | None:
    """Until when the receiver wants to be left alone; None where it has not said so."""
    if answer.status not in THROTTLING:
        return None
    asked = _retry_after(answer.retry_after, now)
    return now + timedelta(seconds=THROTTLED_S if asked is None else min(asked, LONGEST_S))


def _retry_after(text: str, now: datetime) -> float | None:
    """Seconds, as a number or as the date of HTTP; None where it is neither."""
    text = text.strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - now).total_seconds())
