"""The sender's side of commands: into the COMMANDS stream, and the outcome back on an inbox."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import PubAck
from pydantic import ValidationError

from domain.errors import BusUnavailable, CommandTimeout
from domain.messages import Command, Envelope, Outcome
from domain.subjects import command_subject
from domain.wire import Headers, encode_command

REPLY_TO: Final = "reply_to"  # header with the inbox that waits for the outcome
PUBLISH_TRY_S: Final = 2.0  # a healthy server acknowledges in milliseconds
RETRY_PAUSE_S: Final = 0.1

_log = logging.getLogger(__name__)


class NatsCommandBus:
    """Sends commands as JetStream messages; one subscription receives the outcomes of them all."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._js = nc.jetstream()
        self._inbox = nc.new_inbox()
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._asked = 0
        self._listening: asyncio.Task[None] | None = None

    async def send(self, envelope: Envelope[Command], *, timeout_s: float = 10.0) -> Outcome:
        """Send and wait for the outcome; asking again with the same envelope repeats nothing.

        Raises:
            CommandTimeout: No outcome in time. The command is in the stream and will be decided.
            BusUnavailable: The stream did not take it; it may not be there at all.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        await self._listen(envelope.id)
        with self._outcome() as (reply_to, outcome):
            headers, body = encode_command(envelope)
            headers[REPLY_TO] = reply_to
            ack = await self._publish(envelope, headers, body, deadline)
            if ack.duplicate and not outcome.done():
                # An earlier call put it there, so its outcome went to that call's inbox or got
                # lost: put it there once more, the log itself knows what was decided before.
                headers["Nats-Msg-Id"] = reply_to
                await self._publish(envelope, headers, body, deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    return await outcome
            except TimeoutError:
                raise CommandTimeout(envelope.id, timeout_s) from None

    async def post(self, envelope: Envelope[Command], *, timeout_s: float = 10.0) -> None:
        """Send and wait only until the stream has taken it.

        Raises:
            BusUnavailable: The stream did not take it in time.
        """
        headers, body = encode_command(envelope)
        deadline = asyncio.get_running_loop().time() + timeout_s
        await self._publish(envelope, headers, body, deadline)

    @contextlib.contextmanager
    def _outcome(self) -> Iterator[tuple[str, asyncio.Future[Outcome]]]:
        self._asked += 1
        token = str(self._asked)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        try:
            yield f"{self._inbox}.{token}", future
        finally:
            del self._waiting[token]

    async def _listen(self, command_id: UUID) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._subscribe())
        try:
            await asyncio.shield(self._listening)
        except NatsError as problem:
            self._listening = None
            raise BusUnavailable(command_id, str(problem)) from problem

    async def _subscribe(self) -> None:
        await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_outcome)

    async def _on_outcome(self, msg: Msg) -> None:
        future = self._waiting.get(msg.subject.rpartition(".")[2])
        if future is None or future.done():
            return  # the sender has given up, or a redelivered command was answered twice
        try:
            future.set_result(Outcome.model_validate_json(msg.data))
        except ValidationError:
            _log.exception("an outcome cannot be read: %r", msg.data[:500])

    async def _publish(
        self, envelope: Envelope[Command], headers: Headers, body: bytes, deadline: float
    ) -> PubAck:
        """Publish until it is acknowledged; the message id makes repeats collide."""
        stream = envelope.stream
        subject = command_subject(envelope.source, stream.workspace, stream.aggregate, stream.id)
        loop = asyncio.get_running_loop()
        repeated = False
        while True:
            remaining = deadline - loop.time()
            try:
                ack = await self._js.publish(
                    subject, body, timeout=max(0.01, min(PUBLISH_TRY_S, remaining)), headers=headers
                )
            except (NatsError, TimeoutError) as problem:
                if loop.time() + RETRY_PAUSE_S >= deadline or self._nc.is_closed:
                    raise BusUnavailable(envelope.id, str(problem)) from problem
                _log.debug("command %s is published again: %s", envelope.id, problem)
            else:
                if repeated:
                    ack.duplicate = False  # it collided with this call's own first try
                return ack
            repeated = True
            await asyncio.sleep(RETRY_PAUSE_S)
