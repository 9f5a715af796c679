"""Reads streams for whoever follows them: pages by batch direct get, and the live copy."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from domain.errors import StoreUnavailable
from domain.subjects import telemetry_subject
from domain.telemetry import LogEmitted

Log = Literal["EVENTS", "TELEMETRY", "DEAD"]

TIMEOUT_S: Final = 5.0
PAGE_BYTES: Final = 4 * 1024 * 1024  # of one page; bounds what a reader holds
LIVE_SUBJECTS: Final[dict[Log, str]] = {
    "EVENTS": "live.events.>",
    "TELEMETRY": "live.telemetry.>",
}


@dataclass(frozen=True, slots=True)
class FeedMessage:
    """A message as it stands in the stream."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class FeedState:
    first: int
    last: int


class NatsFeed:
    """One inbox takes all pages; no consumer is made, so nothing is left behind on the server."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._js = nc.jetstream()
        self._inbox = nc.new_inbox()
        self._pages: dict[str, _Page] = {}
        self._asked = 0
        self._listening: asyncio.Task[None] | None = None

    async def page(
        self, log: Log, subject: str, after: int, limit: int
    ) -> tuple[Sequence[FeedMessage], bool]:
        """Messages on ``subject`` (wildcards are allowed) behind ``after``, and whether there are more.

        Raises:
            StoreUnavailable: No complete answer in time.
        """
        body = {
            "batch": limit,
            "next_by_subj": subject,
            "seq": after + 1,
            "max_bytes": PAGE_BYTES,
        }
        await self._listen()
        self._asked += 1
        token = str(self._asked)
        page = self._pages[token] = _Page()
        try:
            await self._nc.publish(
                f"$JS.API.DIRECT.GET.{log}",
                json.dumps(body).encode(),
                reply=f"{self._inbox}.{token}",
            )
            async with asyncio.timeout(TIMEOUT_S):
                pending = await page.done
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"no page of {log}: {error!r}") from error
        finally:
            del self._pages[token]
        return page.messages, pending > 0

    async def last(self, log: Log, subject: str) -> FeedMessage | None:
        """The newest message on one exact subject.

        Raises:
            StoreUnavailable: No answer in time.
        """
        reply = await self._ask(f"$JS.API.DIRECT.GET.{log}.{subject}", b"")
        if (reply.headers or {}).get("Status"):
            return None
        return _stored(reply)

    async def state(self, log: Log) -> FeedState:
        """First and last sequence of the stream.

        Raises:
            StoreUnavailable: No answer in time.
        """
        reply = await self._ask(f"$JS.API.STREAM.INFO.{log}", b"{}")
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise StoreUnavailable(f"{log}: {answer['error'].get('description')}")
        return FeedState(answer["state"]["first_seq"], answer["state"]["last_seq"])

    @asynccontextmanager
    async def live(self, log: Log) -> AsyncIterator[AsyncIterator[FeedMessage]]:
        """The live copy of the whole stream, at most once; it goes on after a reconnect.

        Raises:
            StoreUnavailable: The connection is closed.
        """
        try:
            subscription = await self._nc.subscribe(
                LIVE_SUBJECTS[log], pending_msgs_limit=-1, pending_bytes_limit=-1
            )
            await self._nc.flush()
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"no live copy of {log}: {error}") from error
        try:
            yield _as_stored(subscription.messages)
        finally:
            with contextlib.suppress(
                NatsError, OSError
            ):  # a connection that is gone has forgotten it
                await subscription.unsubscribe()

    async def emit(
        self, workspace: str, job_id: UUID, lines: LogEmitted, *, message_id: UUID
    ) -> int:
        """Put lines that no attempt wrote into a job's log, once an id; gives their sequence.

        Raises:
            StoreUnavailable: The stream did not take them in time.
        """
        headers = {
            "ce-specversion": "1.0",
            "ce-id": str(message_id),
            "ce-source": f"/finetrail/{workspace}/gateway",
            "ce-type": LogEmitted.type,
            "ce-time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "ce-subject": f"job/{job_id}",
            "content-type": "application/json",
            "Nats-Msg-Id": str(message_id),
        }
        subject = telemetry_subject(workspace, "log", job_id, 0)
        try:
            ack = await self._js.publish(
                subject, lines.model_dump_json().encode(), timeout=TIMEOUT_S, headers=headers
            )
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"TELEMETRY did not take the lines: {error}") from error
        return ack.seq

    async def _ask(self, subject: str, body: bytes) -> Msg:
        try:
            return await self._nc.request(subject, body, timeout=TIMEOUT_S)
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"no answer to {subject}: {error}") from error

    async def _listen(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._subscribe())
        try:
            await asyncio.shield(self._listening)
        except (NatsError, OSError) as error:
            self._listening = None
            raise StoreUnavailable(f"no inbox: {error}") from error

    async def _subscribe(self) -> None:
        await self._nc.subscribe(
            f"{self._inbox}.*", cb=self._on_page, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def _on_page(self, msg: Msg) -> None:
        page = self._pages.get(msg.subject.rpartition(".")[2])
        if page is not None:
            page.take(msg)


class _Page:
    """Gathers the answers to one request; the one with a status ends it."""

    def __init__(self) -> None:
        self.messages: list[FeedMessage] = []
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take(self, msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status")
        if status is None:
            self.messages.append(_stored(msg))
        elif self.done.done():
            return
        elif status == "204":
            self.done.set_result(int(headers.get("Nats-Num-Pending", "0")))
        elif status == "404":  # nothing there
            self.done.set_result(0)
        else:
            text = headers.get("Description", "")
            self.done.set_exception(StoreUnavailable(f"direct get answers {status} {text}"))


async def _as_stored(messages: AsyncIterator[Msg]) -> AsyncIterator[FeedMessage]:
    async for msg in messages:
        yield _stored(msg)


def _stored(msg: Msg) -> FeedMessage:
    headers = msg.headers or {}
    return FeedMessage(
        sequence=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        headers=headers,
        data=msg.data,
    )
