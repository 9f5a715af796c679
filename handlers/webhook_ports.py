"""What telling webhooks needs of the world."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from domain.webhooks.deliveries import Answer, Attempt, Cursor, Delivery
from handlers.ports import Message


class LogState(Protocol):
    @property
    def last(self) -> int: ...


class EventLog(Protocol):
    """Reads the log; every call but ``live`` raises ``StoreUnavailable`` while it is away."""

    async def page(
        self, log: Literal["EVENTS"], subject: str, after: int, limit: int
    ) -> tuple[Sequence[Message], bool]:
        """Messages behind ``after`` in order, at most ``limit``, and whether there may be more."""
        ...

    async def state(self, log: Literal["EVENTS"]) -> LogState: ...

    def live(self, log: Literal["EVENTS"]) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Every message as it comes, at most once."""
        ...


class Timer(Protocol):
    """The time, and waiting for it; tests have their own, in which hours pass at once."""

    def now(self) -> datetime: ...

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        """Return when the event is set or the time has come."""
        ...


class Sender(Protocol):
    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post once and say what came of it; it never raises for what the receiver does."""
        ...


class WebhookStore(Protocol):
    """What is kept beside the log; every call raises ``ConnectionError`` while it is away."""

    def owned(self, workspace: str) -> AbstractAsyncContextManager["asyncio.Task[None] | None"]:
        """Be the one that delivers, or None where somebody else is; the task fails when it ends."""
        ...

    async def secret(self, webhook_id: UUID, id_: str) -> str | None: ...

    async def cursor(self, webhook_id: UUID) -> Cursor | None: ...

    async def place(self, webhook_id: UUID, cursor: Cursor, *, again: bool = False) -> None: ...

    async def take(
        self, webhook_id: UUID, before: int, after: int, deliveries: Sequence[Delivery]
    ) -> None: ...

    async def deliveries(self, webhook_id: UUID) -> list[Delivery]: ...

    async def record(
        self,
        webhook_id: UUID,
        attempts: Sequence[Attempt],
        waiting: Sequence[Delivery],
        done: Sequence[int],
    ) -> None: ...

    async def hasten(self, webhook_id: UUID, now: datetime) -> None: ...

    async def reopen(self, message_id: str, letter: int, now: datetime) -> Delivery | None: ...

    async def give_up(self, message_id: str) -> None: ...

    async def position(self, name: str) -> int: ...

    async def move(self, name: str, sequence: int) -> None: ...

    async def forget(self, webhook_id: UUID) -> None: ...

    async def prune(self, now: datetime, used: Collection[tuple[UUID, str]]) -> None: ...
