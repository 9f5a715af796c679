"""The event store on JetStream: one exact subject per aggregate, optimistic concurrency on each append."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from adapters.event_records import Record, encode_records
from adapters.nats_tap import headers_of, tap, untap
from domain.errors import StoreUnavailable, VersionConflict
from domain.messages import Command, Envelope, Event, History, Recorded, StreamId
from domain.wire import Headers, decode_recorded

STREAM: Final = "EVENTS"
STATUS_LINE: Final = b"NATS/1.0 "  # a message of the log has no status behind it
PAGE: Final = 500  # events of one answer: 500 of the largest stay below the client's 64 MiB
READ_TIMEOUT_S: Final = 5.0  # the first read after a crash may find the server checking its files
APPEND_TRY_S: Final = 2.0
APPEND_TRIES: Final = 3  # with one that was lost on the way; then the command itself is tried again
SETTLE_S: Final = 0.005  # until a replica has applied the append that is in flight

CATCH_UP_TRIES: Final = 400  # two seconds
NOT_FOUND: Final = 404

WRONG_SEQUENCE: Final = 10071
APPEND_IN_FLIGHT: Final = 10164  # replicas only: nothing stands in the tail yet
DUPLICATE_IN_BATCH: Final = 10201
CONFLICTS: Final = frozenset({WRONG_SEQUENCE, APPEND_IN_FLIGHT, DUPLICATE_IN_BATCH})


class AppendRefused(Exception):
    """The server will not take such a record; trying again does not help."""


class JetStreamEventStore:
    """Reads by batch direct get, appends by publish with an expected sequence of the subject."""

    def __init__(self, nc: Client, *, replicated: bool = False) -> None:
        self._nc = nc
        self._replicated = replicated  # any replica answers a read, and may be behind the leader

    async def read(
        self, stream: StreamId, after: int = 0, *, limit: int | None = None
    ) -> History[Event]:
        """The stream's events with a sequence above ``after``: all, or the first of them.

        Raises:
            StoreUnavailable: The log did not answer.
            UnknownType, ValueError: It holds what this build cannot read; no rule may be applied.
        """
        events = await self._read(stream.subject, after, limit)
        if limit is not None and len(events) >= limit:
            return History(tuple(events[:limit]))
        if self._replicated:
            newest = await self._newest(stream.subject)
            for _ in range(CATCH_UP_TRIES):
                reached = events[-1].sequence if events else after
                if reached >= newest:
                    break
                await asyncio.sleep(SETTLE_S)
                events += await self._read(stream.subject, reached, None)
            else:
                raise StoreUnavailable(f"the replicas of {STREAM} are behind {newest}")
        return History(tuple(events))

    async def _read(self, subject: str, after: int, limit: int | None) -> list[Recorded[Event]]:
        events: list[Recorded[Event]] = []
        while True:
            page, more = await self._page(subject, after)
            events += (_recorded(headers_of(block), data) for block, data in page)
            if not more or not page or (limit is not None and len(events) >= limit):
                return events
            after = events[-1].sequence

    async def _newest(self, subject: str) -> int:
        """The sequence of a stream's last event as the leader has it."""
        body = json.dumps({"last_by_subj": subject}).encode()
        try:
            reply = await self._nc.request(
                f"$JS.API.STREAM.MSG.GET.{STREAM}", body, timeout=READ_TIMEOUT_S
            )
        except (NatsError, TimeoutError) as error:
            raise StoreUnavailable(f"{STREAM} cannot be read: {error}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" not in answer:
            return int(answer["message"]["seq"])
        if answer["error"]["code"] == NOT_FOUND:
            return 0
        raise StoreUnavailable(f"{STREAM} cannot be read: {answer['error'].get('description')}")

    async def append(
        self,
        stream: StreamId,
        events: Sequence[Event],
        *,
        expected_revision: int,
        cause: Envelope[Command],
        recorded_at: datetime,
    ) -> int:
        """Record all events or none; give the sequence of the last one.

        Raises:
            VersionConflict: Another command's events came first.
            PayloadTooLarge: An event does not fit.
            StoreUnavailable: No answer; the events may be stored all the same, and the next
                append of the same command finds them.
        """
        records = encode_records(events, cause, recorded_at)
        if not records:
            raise ValueError("there is nothing to append")
        for _ in range(APPEND_TRIES):
            answer = await self._publish(stream.subject, records, expected_revision)
            error = answer.get("error")
            if error is None:
                return int(answer["seq"])
            code = error.get("err_code")
            if code not in CONFLICTS:
                raise _refusal(error)
            tail = await self.read(stream, after=expected_revision)
            if done := tail.outcome_of(cause.id):
                return done.sequence  # an earlier try was stored and its acknowledgement lost
            if tail.events or code != APPEND_IN_FLIGHT:
                raise VersionConflict(f"{stream.subject} is past {expected_revision}")
            await asyncio.sleep(SETTLE_S)
        raise VersionConflict(f"{stream.subject} is being appended to")

    async def _publish(
        self, subject: str, records: Sequence[Record], expected: int
    ) -> dict[str, Any]:
        """Publish until there is an answer; event ids make what was stored twice collide."""
        problem: Exception | None = None
        for _ in range(APPEND_TRIES):
            try:
                return await self._publish_once(subject, records, expected)
            except (NatsError, TimeoutError) as error:
                problem = error
        raise StoreUnavailable(f"{STREAM} does not acknowledge: {problem}") from problem

    async def _publish_once(
        self, subject: str, records: Sequence[Record], expected: int
    ) -> dict[str, Any]:
        batch = self._nc.new_inbox().rpartition(".")[2]
        for index, (_, headers, body) in enumerate(records, 1):
            guarded = dict(headers)
            if index == 1:
                guarded["Nats-Expected-Last-Subject-Sequence"] = str(expected)
            if len(records) > 1:
                guarded |= _batch_headers(batch, index, len(records))
            if index < len(records):
                await self._nc.publish(subject, body, headers=guarded)
                continue
            reply = await self._nc.request(subject, body, timeout=APPEND_TRY_S, headers=guarded)
            answer: dict[str, Any] = json.loads(reply.data)
            return answer
        raise ValueError("there is nothing to append")

    async def _page(self, subject: str, after: int) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Headers and bodies of up to PAGE messages, and whether there are more behind them."""
        page: list[tuple[bytes, bytes]] = []
        last: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def told(_subject: bytes, _reply: bytes, block: bytes, data: bytes) -> None:
            if not block.startswith(STATUS_LINE):
                page.append((block, data))
            elif not last.done():
                last.set_result(block)

        inbox = self._nc.new_inbox()
        request = {"batch": PAGE, "next_by_subj": subject, "seq": after + 1}
        try:
            answers = await self._nc.subscribe(
                inbox, cb=_unheard, pending_msgs_limit=-1, pending_bytes_limit=-1
            )
            tap(self._nc, answers, told)
            try:
                await self._nc.publish(
                    f"$JS.API.DIRECT.GET.{STREAM}", json.dumps(request).encode(), reply=inbox
                )
                async with asyncio.timeout(READ_TIMEOUT_S):
                    end = await last
            finally:
                untap(self._nc, answers)
                await answers.unsubscribe()
        except (NatsError, TimeoutError) as error:
            raise StoreUnavailable(f"{STREAM} cannot be read: {error}") from error
        status = end.split(maxsplit=2)[1]
        if status == b"404":  # nothing above that sequence
            return [], False
        if status != b"204":
            raise StoreUnavailable(f"{STREAM} cannot be read: status {status.decode()}")
        return page, headers_of(end).get("Nats-Num-Pending", "0") != "0"


async def _unheard(_: Msg) -> None:
    """The subscription is tapped."""


def _batch_headers(batch: str, index: int, count: int) -> Headers:
    headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(index)}
    return headers | {"Nats-Batch-Commit": "1"} if index == count else headers


def _recorded(headers: Headers, data: bytes) -> Recorded[Event]:
    return decode_recorded(headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers, data)


def _refusal(error: dict[str, Any]) -> Exception:
    text = f"{STREAM} refuses the append: {error.get('description')} ({error.get('err_code')})"
    # 5xx: no leader now, or the stream has reached its size; it may take the same record later.
    return StoreUnavailable(text) if int(error.get("code", 0)) >= 500 else AppendRefused(text)
