"""The one place where a delivered message ends: acknowledged, tried again later, or put aside."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from nats.errors import Error as NatsError

from domain.catalog import UnknownType
from domain.errors import (
    BusUnavailable,
    CommandTimeout,
    Rejected,
    StoreUnavailable,
    VersionConflict,
)
from domain.messages import Command, Envelope, Event, Outcome, Recorded
from domain.wire import decode_envelope, decode_recorded
from handlers.dead_letters import DeadLetters
from handlers.metrics import DEAD_LETTERS

MAX_DELIVERIES: Final = 5  # of a message whose handling raises what nobody expected
BACK_OFF_S: Final = (0.1, 0.5, 2.0, 10.0, 30.0)  # by delivery; a server restarts within seconds
KEEP_ALIVE_S: Final = 7.5  # a quarter of the consumers' ack_wait
INBOX: Final = "_INBOX"  # a reply goes to an inbox or nowhere: never into a stream
NOT_NOW: Final = (
    VersionConflict,
    StoreUnavailable,
    BusUnavailable,
    CommandTimeout,
    NatsError,
    OSError,  # blobs
)

_log = logging.getLogger(__name__)

Decide = Callable[[Envelope[Command]], Awaitable[Outcome]]
React = Callable[[Recorded[Event]], Awaitable[None]]
Reply = Callable[[str, bytes], Awaitable[None]]


class Sequences(Protocol):
    @property
    def stream(self) -> int: ...


class Metadata(Protocol):
    @property
    def num_delivered(self) -> int: ...
    @property
    def sequence(self) -> Sequences: ...


class Delivery(Protocol):
    """A JetStream message, as far as it is settled here."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str] | None: ...
    @property
    def metadata(self) -> Metadata: ...
    async def ack(self) -> None: ...
    async def ack_sync(self) -> object: ...
    async def nak(self, delay: float | None = None) -> None: ...
    async def term(self) -> None: ...
    async def in_progress(self) -> None: ...


async def settle_command(
    msg: Delivery, decide: Decide, reply: Reply, dead_letters: DeadLetters
) -> None:
    """Decide a command and answer it, whatever happens."""
    async with _settled(msg, "commands", dead_letters) as fate:
        envelope = decode_envelope(msg.subject, msg.headers or {}, msg.data)
        fate.readable = True
        try:
            outcome = await decide(envelope)
        except Rejected as refusal:
            outcome = Outcome(
                status="rejected", sequence=0, code=refusal.code, message=str(refusal)
            )
            _log.info(
                "%s from %s is refused: %s (%s)",
                type(envelope.command).__name__,
                envelope.source,
                refusal,
                refusal.code,
            )
        if outcome.status == "recorded":
            await msg.ack()  # should it get lost: the log knows the outcome
        else:
            # What left no event must be gone before its sender hears of it: decided again,
            # later, it might be accepted.
            await msg.ack_sync()
        fate.answer(outcome)
    reply_to = (msg.headers or {}).get("reply_to", "")
    if fate.outcome is not None and reply_to.startswith(INBOX):
        with contextlib.suppress(NatsError):  # the sender asks again
            await reply(reply_to, fate.outcome.model_dump_json().encode())


async def settle_event(msg: Delivery, react: React, dead_letters: DeadLetters) -> None:
    """React to an event, again and again until it was done once."""
    async with _settled(msg, "reactions", dead_letters) as fate:
        sequence = msg.metadata.sequence.stream
        recorded = decode_recorded(msg.subject, sequence, msg.headers or {}, msg.data)
        fate.readable = True
        await react(recorded)
        await msg.ack()


@dataclass(slots=True)
class _Fate:
    """What became of a delivery."""

    readable: bool = False
    outcome: Outcome | None = None  # to be told, once the message is gone

    def answer(self, outcome: Outcome) -> None:
        self.outcome = outcome


@contextlib.asynccontextmanager
async def _settled(msg: Delivery, kind: str, dead_letters: DeadLetters) -> AsyncIterator[_Fate]:
    fate = _Fate()
    keeper = asyncio.create_task(_keep_alive(msg))
    try:
        yield fate
    except NOT_NOW as problem:
        await _later(msg, problem)
    except Exception as problem:  # noqa: BLE001 - the top of every command's and reaction's path
        # Bytes that cannot be read will not become readable, but for an event of a newer build,
        # which another process may know.
        hopeless = not fate.readable and not isinstance(problem, UnknownType)
        if hopeless or msg.metadata.num_delivered >= MAX_DELIVERIES:
            await _put_aside(msg, kind, dead_letters, fate, problem)
        else:
            _log.exception("%s could not be handled and is tried again", msg.subject)
            await _later(msg, problem)
    finally:
        keeper.cancel()


async def _later(msg: Delivery, problem: Exception) -> None:
    delivered = msg.metadata.num_delivered
    delay = BACK_OFF_S[min(delivered, len(BACK_OFF_S)) - 1]
    _log.warning(
        "%s is tried again in %g s after delivery %d: %s: %s",
        msg.subject,
        delay,
        delivered,
        type(problem).__name__,
        problem,
    )
    with contextlib.suppress(NatsError):  # then it comes back after the consumer's ack_wait
        await msg.nak(delay=delay)


async def _put_aside(
    msg: Delivery, kind: str, dead_letters: DeadLetters, fate: _Fate, problem: Exception
) -> None:
    reason = f"{type(problem).__name__}: {problem}"
    _log.error("%s is put aside: %s", msg.subject, reason, exc_info=problem)
    try:
        await dead_letters.put(
            kind,
            msg.subject,
            msg.headers or {},
            msg.data,
            key=str(msg.metadata.sequence.stream),
            reason=reason,
        )
        await msg.term()
        DEAD_LETTERS.labels(kind).inc()
    except (NatsError, StoreUnavailable) as error:
        await _later(msg, error)
    else:
        fate.answer(Outcome(status="failed", sequence=0, code="failed", message=reason))


async def _keep_alive(msg: Delivery) -> None:
    """Reading a large dataset takes longer than the consumer waits."""
    while True:
        await asyncio.sleep(KEEP_ALIVE_S)
        with contextlib.suppress(NatsError):
            await msg.in_progress()
