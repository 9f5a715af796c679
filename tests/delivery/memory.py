"""Delivery without servers: a log, a store and receivers in memory, and a clock in which hours pass at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from domain.errors import StoreUnavailable
from domain.messages import Command, Envelope, Event, StreamId
from domain.subjects import Aggregate
from domain.webhooks.deliveries import Answer, Attempt, Cursor, Delivery
from domain.webhooks.events import WebhookAdded
from domain.webhooks.messages import secret_text
from domain.wire import Headers, encode_event
from handlers.courier import Means
from handlers.dead_letters import DeadLetters
from handlers.dispatch import Dispatch

WEBHOOK = UUID(int=0xB00C)
URL_ID, KEY_ID = "url_1111111111111111", "key_1111111111111111"
SECRET = secret_text(b"s" * 32)
URL = "https://hooks.example.org/a"
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
DEADLINE_S = 10.0


@dataclass(frozen=True)
class Message:
    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True)
class State:
    last: int


class MemoryLog:
    """One stream, with readers of its live copy."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.away = False
        self._readers: set[asyncio.Queue[Message]] = set()

    def append(self, aggregate: Aggregate, id_: UUID, event: Event) -> int:
        sequence = len(self.messages) + 1
        stream = StreamId("default", aggregate, id_)
        cause: Envelope[Command] = Envelope(
            id=UUID(int=sequence),
            stream=stream,
            source="gateway",
            actor="key:Ab3dEf7h",
            correlation_id=UUID(int=sequence),
            causation_id=None,
            sent_at=START,
            command=Command(),
        )
        headers, data = encode_event(
            event, event_id=UUID(int=sequence << 16), cause=cause, recorded_at=START
        )
        message = Message(sequence, stream.subject, headers, data)
        self.messages.append(message)
        for reader in self._readers:
            reader.put_nowait(message)
        return sequence

    async def page(
        self, _log: str, subject: str, after: int, limit: int
    ) -> tuple[Sequence[Message], bool]:
        if self.away:
            raise StoreUnavailable("the log is away")
        prefix = subject.rstrip("*>")
        found = [one for one in self.messages[after:] if one.subject.startswith(prefix)]
        return found[:limit], len(found) > limit

    async def state(self, _log: str) -> State:
        return State(len(self.messages))

    @asynccontextmanager
    async def live(self, _log: str) -> AsyncIterator[AsyncIterator[Message]]:
        queue: asyncio.Queue[Message] = asyncio.Queue()
        self._readers.add(queue)

        async def messages() -> AsyncIterator[Message]:
            while True:
                yield await queue.get()

        try:
            yield messages()
        finally:
            self._readers.discard(queue)


class MemoryStore:
    """As the one in Postgres; it outlives the process that is killed."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[UUID, str], str] = {}
        self.cursors_: dict[UUID, Cursor] = {}
        self.rows: dict[tuple[UUID, int], Delivery] = {}
        self.log: list[Attempt] = []
        self.positions: dict[str, int] = {}
        self.read: set[tuple[str, str]] = set()
        self.away = False

    @asynccontextmanager
    async def owned(self, _workspace: str) -> AsyncIterator["asyncio.Task[None] | None"]:
        watching: asyncio.Task[None] = asyncio.create_task(_for_ever())
        try:
            yield watching
        finally:
            watching.cancel()

    async def secret(self, webhook_id: UUID, id_: str) -> str | None:
        return self.secrets.get((webhook_id, id_))

    async def cursor(self, webhook_id: UUID) -> Cursor | None:
        self._ask()
        return self.cursors_.get(webhook_id)

    async def place(self, webhook_id: UUID, cursor: Cursor, *, again: bool = False) -> None:
        self._ask()
        self.cursors_[webhook_id] = cursor
        for key, row in list(self.rows.items()):
            if again and row.status == "open" and row.sequence > cursor.sequence:
                del self.rows[key]

    async def take(
        self, webhook_id: UUID, before: int, after: int, deliveries: Sequence[Delivery]
    ) -> None:
        self._ask()
        assert self.cursors_[webhook_id].sequence == before
        self.cursors_[webhook_id] = replace(self.cursors_[webhook_id], sequence=after)
        self.rows.update({(webhook_id, one.sequence): one for one in deliveries})

    async def deliveries(self, webhook_id: UUID) -> list[Delivery]:
        self._ask()
        rows = [row for (id_, _), row in sorted(self.rows.items()) if id_ == webhook_id]
        return [row for row in rows if row.status != "dead"]

    async def record(
        self,
        webhook_id: UUID,
        attempts: Sequence[Attempt],
        waiting: Sequence[Delivery],
        done: Sequence[int],
    ) -> None:
        self._ask()
        self.log += attempts
        self.rows.update({(webhook_id, one.sequence): one for one in waiting})
        for sequence in done:
            self.rows.pop((webhook_id, sequence), None)

    async def hasten(self, webhook_id: UUID, now: datetime) -> None:
        for key, row in self.rows.items():
            if row.status == "open" and key[0] == webhook_id:
                self.rows[key] = replace(row, due_at=now)

    async def reopen(self, message_id: str, letter: int, now: datetime) -> Delivery | None:
        for key, row in self.rows.items():
            if (row.message_id, row.status) == (message_id, "dead"):
                self.rows[key] = replace(
                    row, status="open", attempts=0, due_at=now, retry_of=letter
                )
                return self.rows[key]
        return None

    async def give_up(self, message_id: str) -> None:
        for key, row in list(self.rows.items()):
            if (row.message_id, row.status) == (message_id, "dead"):
                del self.rows[key]

    async def position(self, name: str) -> int:
        return self.positions.get(name, 0)

    async def move(self, name: str, sequence: int) -> None:
        self.positions[name] = sequence

    async def forget(self, webhook_id: UUID) -> None:
        self.cursors_.pop(webhook_id, None)
        for key in [key for key in self.rows if key[0] == webhook_id]:
            del self.rows[key]

    async def keep_secret(self, webhook_id: UUID, id_: str, value: str) -> str:
        self._ask()
        return self.secrets.setdefault((webhook_id, id_), value)

    async def cursors(self) -> dict[UUID, Cursor]:
        self._ask()
        return self.cursors_

    async def waiting(self) -> dict[UUID, int]:
        self._ask()
        return Counter(id_ for (id_, _), row in self.rows.items() if row.status == "open")

    async def attempts(
        self, webhook_id: UUID, *, before: int | None = None, limit: int = 50
    ) -> list[Attempt]:
        self._ask()
        numbered = [replace(one, id=number) for number, one in enumerate(self.log, 1)]
        mine = [one for one in numbered if one.webhook_id == webhook_id]
        return [one for one in mine[::-1] if before is None or one.id < before][:limit]

    async def mark_read(self, _workspace: str, key_id: str, ids: Sequence[str]) -> int:
        self._ask()
        new = {(key_id, id_) for id_ in ids} - self.read
        self.read |= new
        return len(new)

    async def marked_read(self, _workspace: str, key_id: str, ids: Sequence[str]) -> frozenset[str]:
        self._ask()
        return frozenset(id_ for id_ in ids if (key_id, id_) in self.read)

    async def prune(self, now: datetime, used: Collection[tuple[UUID, str]]) -> None:
        """Nothing grows old here."""

    def _ask(self) -> None:
        if self.away:
            raise ConnectionError("Postgres is away")


class SimulatedTimer:
    """When nothing has happened for a few milliseconds, the next moment that is waited for has come."""

    def __init__(self) -> None:
        self.time = START
        self.until = START + timedelta(days=400)  # it goes no further than that by itself
        self._waiting: dict[object, datetime] = {}

    def now(self) -> datetime:
        return self.time

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        me = object()
        if until is not None:
            self._waiting[me] = until
        try:
            while not event.is_set() and (until is None or self.time < until):
                try:
                    async with asyncio.timeout(0.005):
                        await event.wait()
                except TimeoutError:
                    if until is not None and until == min(self._waiting.values()):
                        self.time = max(self.time, min(until, self.until))
        finally:
            self._waiting.pop(me, None)


async def _for_ever() -> None:
    await asyncio.Event().wait()


@dataclass
class Receivers:
    """What was posted, and what each address answers: a status, an answer, or whatever a function says."""

    timer: SimulatedTimer
    posted: list[tuple[str, dict[str, str], bytes, datetime]] = field(default_factory=list)
    answers: dict[str, Callable[[bytes], "Answer | int"]] = field(default_factory=dict)
    slow: dict[str, asyncio.Event] = field(default_factory=dict)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.posted.append((url, dict(headers), body, self.timer.now()))
        if url in self.slow:
            await self.slow[url].wait()
        await asyncio.sleep(0)
        answer = self.answers[url](body) if url in self.answers else 200
        return answer if isinstance(answer, Answer) else Answer(0.01, status=answer)

    def ids(self, url: str = URL) -> list[str]:
        return [headers["webhook-id"] for at, headers, _, _ in self.posted if at == url]

    def times(self, url: str = URL) -> list[float]:
        """Seconds since the start."""
        return [(when - START).total_seconds() for at, *_, when in self.posted if at == url]


@dataclass
class Bus:
    sent: list[Envelope[Command]] = field(default_factory=list)

    async def send(self, *_: object, **__: object) -> None:
        raise AssertionError("nobody waits for an outcome here")

    async def post(self, envelope: Envelope[Command]) -> None:
        self.sent.append(envelope)


@dataclass
class Put:
    """The stream of dead letters."""

    letters: list[tuple[str, Headers]] = field(default_factory=list)

    async def __call__(self, subject: str, body: bytes, headers: Headers) -> None:
        assert body
        self.letters.append((subject, headers))


class World:
    """Everything around a dispatch; it is killed and begun again at will."""

    def __init__(self) -> None:
        self.log, self.store, self.timer = MemoryLog(), MemoryStore(), SimulatedTimer()
        self.receivers = Receivers(self.timer)
        self.bus, self.put = Bus(), Put()
        self.means = Means(
            workspace="default",
            log=self.log,
            store=self.store,
            sender=self.receivers,
            letters=DeadLetters(self.put),
            timer=self.timer,
            random=lambda: 0.0,
            api_url="https://finetrail.example.org",
            bus=self.bus,  # type: ignore[arg-type]  # nothing is sent with a wait
        )
        self._running: asyncio.Task[None] | None = None

    def add(
        self,
        webhook_id: UUID = WEBHOOK,
        url: str = URL,
        event_types: tuple[str, ...] | None = ("job.*",),
    ) -> int:
        """A webhook as the gateway adds it: secrets first, then the log."""
        self.store.secrets[webhook_id, URL_ID] = url
        self.store.secrets[webhook_id, KEY_ID] = SECRET
        added = WebhookAdded(
            webhook_id=webhook_id,
            url=url,
            url_id=URL_ID,
            event_types=event_types,
            description="",
            key_id=KEY_ID,
        )
        return self.log.append("webhook", webhook_id, added)

    def start(self) -> None:
        self._running = asyncio.create_task(Dispatch(self.means).run())

    async def kill(self) -> None:
        """As if the process had been killed: what was not written down is forgotten."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.002)

    def waiting(self, status: str = "open") -> list[int]:
        return sorted(key[1] for key, row in self.store.rows.items() if row.status == status)
