"""Tells all webhooks: follows what becomes of them in the log, and keeps a courier for each one."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from domain.catalog import UnknownType
from domain.dead_letters.events import DeadLetterDiscarded, DeadLetterRetried
from domain.errors import BusUnavailable, StoreUnavailable
from domain.messages import Event, Recorded
from domain.webhooks.deliveries import Cursor
from domain.webhooks.events import WebhookEnabled, WebhookReplayed
from domain.webhooks.webhook import Absent, Present, Removed, Webhook, decider
from domain.wire import decode_recorded
from handlers.courier import Courier, Means
from handlers.ports import Message

PAGE: Final = 500
LOOK_S: Final = 15.0  # looks at the log itself now and then, whatever the live copy says
PRUNE_S: Final = 3600.0
GRACE_S: Final = 1.0  # for what is under way; what is cut off is sent again
STANDBY_S: Final = 1.0  # how soon a second process takes over
RETRY_S: Final = (0.5, 1.0, 2.0, 5.0)
BUG_S: Final = 30.0  # a bug that comes again every time is said often enough
AWAY: Final = (ConnectionError, StoreUnavailable, BusUnavailable)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """A webhook, and what has happened to it since it was last acted upon."""

    state: Webhook = field(default_factory=Absent)
    added: int = 0  # sequence
    last: int = 0
    events: list[Recorded[Event]] = field(default_factory=list)
    courier: Courier | None = None
    running: asyncio.Task[None] | None = None


class Dispatch:
    """One of these delivers; a second one waits until the first is gone."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._webhooks: dict[UUID, _Known] = {}
        self._reached = 0  # of the webhooks' events
        self._end = 0  # of the log
        self._wake = asyncio.Event()
        self._letters = f"dead letters {means.workspace}"  # name of a position

    async def run(self) -> None:
        """Deliver for ever, through absences of the log and the database."""
        failures = 0
        while True:
            try:
                async with self._means.store.owned(self._means.workspace) as watching:
                    if watching is not None:
                        _log.info("webhooks are delivered to by this process")
                        failures = 0
                        await self._session(watching)
            except AWAY as error:
                _log.warning("webhooks wait: %s", error)
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            await asyncio.sleep(STANDBY_S)

    async def _session(self, watching: "asyncio.Task[None]") -> None:
        """Until the lock, the log or the database is lost."""
        self._webhooks, self._reached = {}, 0
        listening = asyncio.create_task(self._listen())
        working = asyncio.create_task(self._work())
        pruning = asyncio.create_task(self._prune())
        tasks = {watching, listening, working, pruning}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            couriers = [known.running for known in self._webhooks.values() if known.running]
            for task in (listening, working, pruning, *couriers):
                task.cancel()
            await asyncio.gather(listening, working, pruning, *couriers, return_exceptions=True)

    async def _listen(self) -> None:
        """Hear at once that the log has grown."""
        async with self._means.log.live("EVENTS") as messages:
            async for message in messages:
                _, workspace, aggregate, _ = message.subject.split(".")
                if workspace != self._means.workspace:
                    continue
                self._end = max(self._end, message.sequence)
                if aggregate in {"webhook", "dead_letter"}:
                    self._wake.set()
                self._tell()

    def _tell(self) -> None:
        for known in self._webhooks.values():
            if known.courier is not None:
                known.courier.moved(self._end)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            self._end = max(self._end, (await self._means.log.state("EVENTS")).last)
            await self._follow_webhooks()
            await self._follow_letters()
            self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def _follow_webhooks(self) -> None:
        changed: dict[UUID, _Known] = {}
        async for recorded in self._events("webhook", self._reached):
            self._reached = recorded.sequence
            known = self._webhooks.setdefault(recorded.stream.id, _Known())
            event: Any = recorded.event
            known.state = decider.evolve(known.state, event)
            known.added = known.added or recorded.sequence
            known.last = recorded.sequence
            known.events.append(recorded)
            changed[recorded.stream.id] = known
        for webhook_id, known in changed.items():
            await self._apply(webhook_id, known)

    async def _apply(self, webhook_id: UUID, known: _Known) -> None:
        """End its courier and begin with another one, as it is now."""
        if known.courier is not None and known.running is not None:
            known.courier.stop()
            await asyncio.wait({known.running}, timeout=GRACE_S)
            known.running.cancel()
            await asyncio.gather(known.running, return_exceptions=True)
            known.courier = known.running = None
        events, known.events = known.events, []
        match known.state:
            case Present() as webhook:
                cursor = await self._act(webhook_id, known, events)
                if webhook.enabled:
                    known.courier = Courier(webhook, self._means)
                    known.running = asyncio.create_task(self._keep(webhook_id, known, cursor))
            case Removed():
                await self._means.store.forget(webhook_id)
            case Absent():
                pass

    async def _act(self, webhook_id: UUID, known: _Known, events: list[Recorded[Event]]) -> Cursor:
        """Do what its events ask for, those that were not done before; give where it stands."""
        store = self._means.store
        cursor = await store.cursor(webhook_id) or Cursor(known.added, known.added)
        sequence, again = cursor.sequence, False
        if sequence > self._end:
            _log.warning(
                "webhook %s stood at %d, behind the end of the log, %d: it is another log or an "
                "older copy; what comes from now on is delivered",
                webhook_id,
                sequence,
                self._end,
            )
            sequence = self._end
        for recorded in events:
            if recorded.sequence <= cursor.handled:
                continue
            if isinstance(recorded.event, WebhookReplayed):
                sequence, again = min(recorded.event.after, recorded.sequence), True
            if isinstance(recorded.event, WebhookEnabled):
                await store.hasten(webhook_id, self._means.timer.now())
        placed = Cursor(sequence, known.last)
        await store.place(webhook_id, placed, again=again)
        return placed

    async def _keep(self, webhook_id: UUID, known: _Known, cursor: Cursor) -> None:
        """Have its courier work until it is told to stop, whatever happens to it."""
        failures = 0
        while known.courier is not None:
            try:
                known.courier.moved(self._end)
                return await known.courier.run(cursor)
            except AWAY as error:
                _log.warning("webhook %s waits: %s", webhook_id, error)
                pause = RETRY_S[min(failures, len(RETRY_S) - 1)]
            except Exception as error:  # noqa: BLE001 - a bug with one webhook must not stop the others
                _log.critical("webhook %s: its courier died of a bug", webhook_id, exc_info=error)
                pause = BUG_S
            failures += 1
            await asyncio.sleep(pause)
            cursor = await self._where(webhook_id, cursor)
            if isinstance(known.state, Present):
                known.courier = Courier(known.state, self._means)
        return None

    async def _where(self, webhook_id: UUID, cursor: Cursor) -> Cursor:
        while True:
            try:
                return await self._means.store.cursor(webhook_id) or cursor
            except ConnectionError:
                await asyncio.sleep(RETRY_S[-1])

    async def _follow_letters(self) -> None:
        """Begin dead deliveries again that somebody wants to be retried."""
        store = self._means.store
        reached = before = await store.position(self._letters)
        async for recorded in self._events("dead_letter", min(before, self._end)):
            reached = recorded.sequence
            match recorded.event:
                case DeadLetterRetried(letter=letter) if letter.kind == "webhooks":
                    now = self._means.timer.now()
                    delivery = await store.reopen(letter.message_id, letter.sequence, now)
                    known = delivery and self._webhooks.get(delivery.webhook_id)
                    if delivery and known and known.courier:
                        known.courier.add(delivery)
                case DeadLetterDiscarded(letter=letter) if letter.kind == "webhooks":
                    await store.give_up(letter.message_id)
                case _:
                    pass
        if reached != before:
            await store.move(self._letters, reached)

    async def _events(self, aggregate: str, after: int) -> AsyncIterator[Recorded[Event]]:
        """Those of one kind of aggregate behind a sequence; a newer writer's are passed over."""
        subject, more = f"events.{self._means.workspace}.{aggregate}.*", True
        while more:
            page, more = await self._means.log.page("EVENTS", subject, after, PAGE)
            for message in page:
                after = message.sequence
                recorded = _read(message)
                if recorded is not None:
                    yield recorded
            more = more and bool(page)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_S)
            used = [
                (webhook_id, id_)
                for webhook_id, known in self._webhooks.items()
                if isinstance(known.state, Present)
                for id_ in (known.state.url_id, *known.state.keys_at(self._means.timer.now()))
            ]
            await self._means.store.prune(self._means.timer.now(), used)


def _read(message: Message) -> Recorded[Event] | None:
    try:
        return decode_recorded(message.subject, message.sequence, message.headers, message.data)
    except UnknownType as error:
        _log.warning("event %d is passed over: %s", message.sequence, error)
        return None
