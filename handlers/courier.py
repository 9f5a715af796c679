"""Delivers to one webhook: in order within each aggregate, again and again, and on past what cannot be.

The log is the queue. What is behind the cursor and wanted is taken in, a limited number at once, into
a table beside the log; it leaves the table when it was delivered or has become a dead letter. So a
crash at any moment costs no event. What was under way or not yet written down is sent once more,
under the same id.
"""

import asyncio
import heapq
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

from domain.errors import StoreUnavailable
from domain.messages import Command, Envelope, StreamId
from domain.subjects import DELIVERY_SOURCE
from domain.webhooks.commands import DisableWebhook
from domain.webhooks.deliveries import Answer, Attempt, Cursor, Delivery
from domain.webhooks.messages import body_of, message_id, signed_headers, type_name, wants
from domain.webhooks.webhook import Present
from handlers.dead_letters import RETRY_OF, WEBHOOK_ID, DeadLetters
from handlers.metrics import WEBHOOK_ATTEMPTS
from handlers.ports import CommandBus, Message
from handlers.webhook_ports import EventLog, Sender, Timer, WebhookStore
from handlers.webhook_schedule import GONE, Random, next_attempt, put_off

WINDOW: Final = 500  # deliveries that wait at once; the rest waits in the log
PAGE: Final = 250  # events that are read at once
AT_ONCE: Final = 8  # requests to one receiver
SKIPPED: Final = (
    5000  # unwanted events after which the cursor is moved although nothing is taken in
)
AWAY_S: Final = 1.0  # between looks at a log or a database that is away
FAILURE: Final = 300  # characters of a reason that are kept

_log = logging.getLogger(__name__)


class _Hopeless(Exception):
    """Another attempt would end like this one."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all couriers share."""

    workspace: str
    log: EventLog
    store: WebhookStore
    sender: Sender
    letters: DeadLetters
    timer: Timer
    random: Random
    api_url: str  # where a receiver reads what was too long for it
    bus: CommandBus


@dataclass(slots=True)
class _Results:
    """What has come of attempts, and is not written down yet."""

    attempts: list[Attempt] = field(default_factory=list)
    waiting: dict[int, Delivery] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.attempts or self.waiting or self.done)


class Courier:
    """One webhook as it is; for a changed one there is a new courier."""

    def __init__(self, webhook: Present, means: Means) -> None:
        self._webhook = webhook
        self._id = webhook.webhook_id
        self._means = means
        self._subject = f"events.{means.workspace}.>"
        self._cursor = 0  # as it is written down
        self._read = 0  # how far the log was read
        self._end = 0  # how far the log is known to go
        self._looked = 0  # the end at which nothing more was found
        self._open: dict[int, Delivery] = {}
        self._lanes: dict[str, deque[int]] = {}
        self._due: list[tuple[datetime, int]] = []  # heads of lanes
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._busy: set[str] = set()  # lanes
        self._secrets: dict[str, str] = {}
        self._messages: OrderedDict[int, Message] = OrderedDict()
        self._results = _Results()
        self._changed = asyncio.Event()
        self._left_alone_until: datetime | None = None
        self._gone = False
        self._stopping = False

    def moved(self, sequence: int) -> None:
        """The log goes as far as that."""
        self._end = max(self._end, sequence)
        self._looked = 0
        self._changed.set()

    def add(self, delivery: Delivery) -> None:
        """Try once more what was dead."""
        self._wait(delivery)
        self._changed.set()

    def stop(self) -> None:
        """Begin nothing more, and end when what is under way has been written down."""
        self._stopping = True
        self._changed.set()

    async def run(self, cursor: Cursor) -> None:
        """Deliver until told to stop.

        Raises:
            ConnectionError, StoreUnavailable: The database or the log is away; begin again later.
        """
        self._cursor = self._read = cursor.sequence
        for delivery in await self._means.store.deliveries(self._id):
            if delivery.status == "exhausted":
                await self._put_aside(delivery)
            else:
                self._wait(delivery)
        try:
            while not (self._stopping and not self._sending and not self._results):
                self._changed.clear()
                self._begin()
                await self._take_in()
                await self._write_down()
                if not self._results:
                    await self._means.timer.wait(self._changed, self._next_due())
        finally:
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)

    def _wait(self, delivery: Delivery) -> None:
        """Put it into its lane, which keeps the order of the log."""
        if delivery.sequence in self._open:
            return
        self._open[delivery.sequence] = delivery
        lane = self._lanes.setdefault(delivery.lane, deque())
        if not lane or lane[-1] < delivery.sequence:
            lane.append(delivery.sequence)
        else:
            self._lanes[delivery.lane] = lane = deque(sorted((*lane, delivery.sequence)))
        if lane[0] == delivery.sequence:
            self._head(lane)

    def _head(self, lane: deque[int]) -> None:
        head = self._open[lane[0]]
        heapq.heappush(self._due, (head.due_at, head.sequence))

    def _begin(self) -> None:
        """Send what is due, as far as the receiver is to be asked now."""
        now = self._means.timer.now()
        if self._stopping or self._gone or (self._left_alone_until or now) > now:
            return
        while self._due and len(self._sending) < AT_ONCE and self._due[0][0] <= now:
            _, sequence = heapq.heappop(self._due)
            delivery = self._open.get(sequence)
            if delivery is None or self._lanes[delivery.lane][0] != sequence:
                continue  # it is done, or another one has come before it
            if delivery.due_at > now or delivery.lane in self._busy:
                continue  # it stands further behind in the queue, or will be put there
            self._busy.add(delivery.lane)
            self._sending[sequence] = asyncio.create_task(self._send(delivery))

    def _next_due(self) -> datetime | None:
        if not self._due or self._stopping or self._gone or len(self._sending) >= AT_ONCE:
            return None
        return max(self._due[0][0], self._left_alone_until or self._due[0][0])

    async def _send(self, delivery: Delivery) -> None:
        answer: Answer | None = None
        hopeless = False
        try:
            answer = await self._post(delivery)
        except _Hopeless as error:
            answer, hopeless = Answer(0.0, error=str(error)), True
        except (StoreUnavailable, ConnectionError) as error:
            _log.warning("webhook %s waits: %s", self._id, error)
            await asyncio.sleep(AWAY_S)
        finally:
            self._sending.pop(delivery.sequence, None)
            self._busy.discard(delivery.lane)
        if answer is None:
            self._head(self._lanes[delivery.lane])
        else:
            self._judge(delivery, answer, hopeless=hopeless)
        self._begin()
        self._changed.set()

    async def _post(self, delivery: Delivery) -> Answer:
        """Say it to the receiver.

        Raises:
            _Hopeless: There is nothing that could be said.
        """
        means, now = self._means, self._means.timer.now()
        message = await self._message(delivery)
        if message is None:
            raise _Hopeless("the log does not hold this event; it may be an older copy")
        try:
            body = body_of(
                message.subject, message.sequence, message.headers, message.data, means.api_url
            )
        except ValueError as error:
            raise _Hopeless(f"the event cannot be read: {error}") from error
        url = await self._secret(self._webhook.url_id)
        secrets = [await self._secret(key) for key in self._webhook.keys_at(now)]
        known = [secret for secret in secrets if secret is not None]
        if url is None or not known:
            return Answer(0.0, error="its address or its secret is not in this database")
        headers = signed_headers(delivery.message_id, now, body, known)
        return await means.sender.post(url, headers, body)

    async def _secret(self, id_: str) -> str | None:
        if id_ not in self._secrets:
            found = await self._means.store.secret(self._id, id_)
            if found is None:
                return None
            self._secrets[id_] = found
        return self._secrets[id_]

    async def _message(self, delivery: Delivery) -> Message | None:
        known = self._messages.get(delivery.sequence)
        if known is None:
            after = delivery.sequence - 1
            found, _ = await self._means.log.page("EVENTS", delivery.lane, after, 1)
            known = found[0] if found and found[0].sequence == delivery.sequence else None
        if known is None or _message_id(self._id, known) != delivery.message_id:
            return None  # the log is an older copy, in which others have taken its place
        return known

    def _judge(self, delivery: Delivery, answer: Answer, *, hopeless: bool) -> None:
        """What becomes of a delivery after an attempt."""
        now = self._means.timer.now()
        attempts = delivery.attempts + 1
        due = next_attempt(attempts, now, self._means.random)
        until = put_off(answer, now)
        outcome = "delivered" if answer.accepted else "failed"
        if answer.accepted:
            self._leave(delivery)
            self._results.done.append(delivery.sequence)
            self._results.waiting.pop(delivery.sequence, None)
        elif answer.status == GONE:
            self._gone = True
            self._keep(replace(delivery, due_at=now, failure=answer.failure))
        elif due is None or hopeless:
            outcome = "dead"
            self._leave(delivery)
            self._results.waiting[delivery.sequence] = replace(
                delivery,
                attempts=attempts,
                status="exhausted",
                failure=answer.failure[:FAILURE],
            )
        else:
            due = max(due, until or due)
            self._keep(
                replace(delivery, attempts=attempts, due_at=due, failure=answer.failure[:FAILURE])
            )
        if until is not None:
            self._left_alone_until = until
        WEBHOOK_ATTEMPTS.labels(outcome).inc()
        self._results.attempts.append(
            Attempt(
                webhook_id=self._id,
                sequence=delivery.sequence,
                message_id=delivery.message_id,
                type=delivery.type,
                attempt=attempts,
                at=now,
                outcome=outcome,  # type: ignore[arg-type]  # one of three texts
                answer=answer,
            )
        )

    def _keep(self, delivery: Delivery) -> None:
        self._open[delivery.sequence] = delivery
        self._results.waiting[delivery.sequence] = delivery
        self._head(self._lanes[delivery.lane])

    def _leave(self, delivery: Delivery) -> None:
        del self._open[delivery.sequence]
        self._messages.pop(delivery.sequence, None)
        lane = self._lanes[delivery.lane]
        lane.remove(delivery.sequence)
        if lane:
            self._head(lane)
        else:
            del self._lanes[delivery.lane]

    async def _take_in(self) -> None:
        """Read on in the log while there is room for what is found."""
        if self._stopping or self._gone:
            return
        while (self._looked < self._end and self._read < self._end) and len(
            self._open
        ) + PAGE <= WINDOW:
            end = self._end
            page, _ = await self._means.log.page("EVENTS", self._subject, self._read, PAGE)
            if not page:
                # Another workspace's events lie there, or a replica is behind: it is looked again.
                self._looked = end
                return
            await self._take(page)
            self._begin()
            await self._write_down()

    async def _take(self, page: Sequence[Message]) -> None:
        now = self._means.timer.now()
        wanted = [(message, self._name(message)) for message in page]
        taken = [
            Delivery(
                webhook_id=self._id,
                sequence=message.sequence,
                message_id=_message_id(self._id, message),
                type=name,
                lane=message.subject,
                due_at=now,
            )
            for message, name in wanted
            if wants(self._webhook.event_types, name)
        ]
        self._read = page[-1].sequence
        if taken or self._read - self._cursor > SKIPPED:
            await self._means.store.take(self._id, self._cursor, self._read, taken)
            self._cursor = self._read
        by_sequence = {message.sequence: message for message in page}
        for delivery in taken:
            self._messages[delivery.sequence] = by_sequence[delivery.sequence]
            self._wait(delivery)
        while len(self._messages) > WINDOW:
            self._messages.popitem(last=False)

    def _name(self, message: Message) -> str:
        return type_name(message.subject.split(".")[2], message.headers.get("ce-type", ""))

    async def _write_down(self) -> None:
        """What has come of attempts; those that were the last become dead letters."""
        if not self._results:
            return
        results, self._results = self._results, _Results()
        await self._means.store.record(
            self._id, results.attempts, list(results.waiting.values()), results.done
        )
        for delivery in results.waiting.values():
            if delivery.status == "exhausted":
                await self._put_aside(delivery)
        if self._gone:
            await self._means.bus.post(self._disabling())

    def _disabling(self) -> Envelope[Command]:
        id_ = uuid7()
        reason = "the receiver has answered 410: it is gone"
        return Envelope(
            id=id_,
            stream=StreamId(self._means.workspace, "webhook", self._id),
            source=DELIVERY_SOURCE,
            actor=DELIVERY_SOURCE,
            correlation_id=id_,
            causation_id=None,
            sent_at=self._means.timer.now(),
            command=DisableWebhook(webhook_id=self._id, by="gone", reason=reason),
        )

    async def _put_aside(self, delivery: Delivery) -> None:
        message = await self._message(delivery)
        if message is None:
            await self._means.store.record(self._id, [], [], [delivery.sequence])
            return
        headers = {**message.headers, WEBHOOK_ID: delivery.message_id}
        if delivery.retry_of is not None:
            headers[RETRY_OF] = str(delivery.retry_of)
        await self._means.letters.put(
            "webhooks",
            message.subject,
            headers,
            message.data,
            key=delivery.message_id,
            reason=f"webhook {self._id} ({self._webhook.url}): {delivery.failure}",
        )
        await self._means.store.record(self._id, [], [replace(delivery, status="dead")], [])
        _log.warning("webhook %s: %s is a dead letter", self._id, delivery.message_id)


def _message_id(webhook_id: UUID, message: Message) -> str:
    """An event without an id of its own is known by its place."""
    told = message.headers.get("ce-id", "")
    try:
        return message_id(webhook_id, UUID(told))
    except ValueError:
        stream = StreamId.of_subject(message.subject)
        return message_id(webhook_id, UUID(int=stream.id.int ^ message.sequence))
