"""Writes the feed: each event once, in the log's order, behind the one that was last."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from domain.errors import StoreUnavailable, VersionConflict
from domain.feed import SEQUENCE_HEADER, STREAM, FedEvent, FeedTail
from domain.wire import Headers

# A batch costs the server about ten milliseconds however long it is, one event alone about half of one.
ALONE: Final = 16
BATCH: Final = 500  # the server takes 1,000; throughput has stopped growing here
TIMEOUT_S: Final = 5.0

NOT_FOUND: Final = 404
WRONG_SEQUENCE: Final = 10071
APPEND_IN_FLIGHT: Final = 10164
DUPLICATE_IN_BATCH: Final = 10201


class JetStreamFeedLog:
    """Every message expects the sequence before it, so that no two writers mix and no retry doubles."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc

    async def tail(self) -> FeedTail:
        """Where the feed ends, told by its newest event.

        Raises:
            StoreUnavailable: No answer, or the stream is not there yet.
        """
        info = await self._ask(f"$JS.API.STREAM.INFO.{STREAM}", {})
        _raise_for(info)
        last: int = info["state"]["last_seq"]
        for sequence in range(last, max(info["state"]["first_seq"], 1) - 1, -1):
            headers = await self._headers(sequence)
            # What is not ours was put there by somebody else, and stands for no event.
            if headers.get(SEQUENCE_HEADER, "").isdecimal():
                return FeedTail(last, int(headers[SEQUENCE_HEADER]), headers.get("Nats-Msg-Id", ""))
        # All has expired. One message was written for each event, so their numbers are the same.
        return FeedTail(last, last)

    async def store(self, events: Sequence[FedEvent], last: int) -> int:
        """Write events behind ``last``; give the sequence of the last one.

        Raises:
            VersionConflict: The feed does not end there: somebody else writes it, or an earlier
                try was stored after all. The tail tells where to go on.
            StoreUnavailable: No answer; some of them may be stored all the same.
        """
        for first in range(0, len(events), BATCH):
            some = events[first : first + BATCH]
            store = self._store_each if len(some) <= ALONE else self._store_batch
            last = await store(some, last)
        return last

    async def _store_each(self, events: Sequence[FedEvent], last: int) -> int:
        for event in events:
            last = await self._store_one(event, last)
        return last

    async def _store_one(self, event: FedEvent, last: int) -> int:
        answer = await self._request(event, {"Nats-Expected-Last-Sequence": str(last)})
        _raise_for(answer)
        # A server of several replicas looks for the id first: what it knows is there already.
        return max(last, int(answer["seq"]))

    async def _store_batch(self, events: Sequence[FedEvent], last: int) -> int:
        """All of them or none."""
        batch = self._nc.new_inbox().rpartition(".")[2]
        *before, final = [
            (event, {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)})
            for number, event in enumerate(events, 1)
        ]
        before[0][1]["Nats-Expected-Last-Sequence"] = str(last)
        final[1]["Nats-Batch-Commit"] = "1"
        try:
            for event, headers in before:
                await self._nc.publish(event.subject, event.data, headers=_headers(event, headers))
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"{STREAM} cannot be reached: {error!r}") from error
        answer = await self._request(*final)
        if answer.get("error", {}).get("err_code") == DUPLICATE_IN_BATCH:
            return await self._store_each(events, last)
        _raise_for(answer)
        return int(answer["seq"])

    async def _request(self, event: FedEvent, headers: Headers) -> dict[str, Any]:
        try:
            reply = await self._nc.request(
                event.subject, event.data, timeout=TIMEOUT_S, headers=_headers(event, headers)
            )
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"{STREAM} does not acknowledge: {error!r}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def _headers(self, sequence: int) -> Headers:
        """Those of a message; none where there is no such message any more."""
        answer = await self._ask(f"$JS.API.STREAM.MSG.GET.{STREAM}", {"seq": sequence})
        if answer.get("error", {}).get("code") == NOT_FOUND:
            return {}
        _raise_for(answer)
        lines = base64.b64decode(answer["message"].get("hdrs", "")).decode().split("\r\n")
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    async def _ask(self, subject: str, body: dict[str, object]) -> dict[str, Any]:
        try:
            reply = await self._nc.request(subject, json.dumps(body).encode(), timeout=TIMEOUT_S)
        except (NatsError, OSError) as error:
            raise StoreUnavailable(f"{STREAM} does not answer: {error!r}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        return answer


def _headers(event: FedEvent, more: Headers) -> Headers:
    # The expected stream stays with the message, so that no server takes it into another one.
    return {**event.headers, **more, "Nats-Expected-Stream": STREAM}


def _raise_for(answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if error is None:
        return
    if error.get("err_code") in {WRONG_SEQUENCE, APPEND_IN_FLIGHT}:
        raise VersionConflict(f"{STREAM}: {error.get('description')}")
    raise StoreUnavailable(f"{STREAM}: {error.get('description')} ({error.get('err_code')})")
