"""What agents say and ask of a gateway: that they are there, and tickets for blobs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from domain.blob_tickets import TicketAnswer, TicketQuestion
from domain.work import Presence

AT_ONCE: Final = 64  # questions; what comes beyond waits, and its asker asks again

_log = logging.getLogger(__name__)


class NatsFleet:
    """Listens for as long as the connection lives. The subject, which is pinned, says who speaks."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._answering: set[asyncio.Task[None]] = set()

    async def hear_presences(self, hear: Callable[[str, Presence], None]) -> None:
        async def on_presence(msg: Msg) -> None:
            try:
                presence = Presence.model_validate_json(msg.data)
            except ValidationError:
                return  # the handlers say so
            if msg.subject == f"presence.{presence.agent_id}":
                hear(presence.agent_id, presence)

        await self._nc.subscribe("presence.*", cb=on_presence)

    async def answer_tickets(
        self, workspace: str, answer: Callable[[str, TicketQuestion], Awaitable[TicketAnswer]]
    ) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def reply(msg: Msg) -> None:
            async with room:
                try:
                    question = TicketQuestion.model_validate_json(msg.data)
                    said = await answer(msg.subject.rpartition(".")[2], question)
                except ValidationError as error:
                    said = TicketAnswer(refused=f"the question cannot be read: {error}"[:1000])
                with suppress(NatsError, OSError):  # it asks again
                    await self._nc.publish(msg.reply, said.model_dump_json().encode())

        async def on_question(msg: Msg) -> None:
            if msg.reply:
                task = asyncio.create_task(reply(msg))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

        await self._nc.subscribe(f"tickets.{workspace}.*", queue="gateway", cb=on_question)
