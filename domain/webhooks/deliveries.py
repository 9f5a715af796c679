"""What is kept of deliveries beside the log: where each webhook stands, what waits, what was tried."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

# `open` waits for its next attempt; `exhausted` has had its last one and is about to be put aside.
DeliveryStatus = Literal["open", "exhausted", "dead"]
Outcome = Literal["delivered", "failed", "dead", "test"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one webhook has come."""

    sequence: int  # of the log: everything up to here was delivered, or waits among its deliveries
    handled: int  # of the last event of the webhook itself that was acted upon


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook."""

    webhook_id: UUID
    sequence: int
    message_id: str
    type: str
    lane: str  # the event's subject: what is in one lane goes in order
    due_at: datetime
    attempts: int = 0
    status: DeliveryStatus = "open"
    failure: str = ""
    retry_of: int | None = None  # the dead letter whose retry this is


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said, or why nothing was heard of it."""

    latency_s: float
    status: int | None = None
    error: str = ""
    text: str = ""  # its beginning
    retry_after: str = ""  # the header as it came

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def failure(self) -> str:
        """Why it was no success, in words."""
        if self.status is None:
            return self.error
        if 300 <= self.status < 400:
            return f"the receiver answered {self.status}; redirects are not followed"
        return f"the receiver answered {self.status}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A line of the delivery log."""

    webhook_id: UUID
    sequence: int  # 0 for a test, which is no event
    message_id: str
    type: str
    attempt: int
    at: datetime
    outcome: Outcome
    answer: Answer
    id: int = 0  # in the delivery log; 0 until it is written
