"""The projection that other systems subscribe to: the log again, with the event's type in the subject.

It keeps no position of its own: the feed's last message says how far it has come, and every write
expects to stand right behind it. A crash at any moment leaves no gap, and nothing is written twice,
however long afterwards it goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Literal

from domain.errors import StoreUnavailable, VersionConflict
from domain.feed import FeedTail, fed_event
from projections.ports import EventSource, FeedLog, Message
from projections.run import FIRST_RETRY_S, LONGEST_RETRY_S, REPLACED_S, ProjectionState

Status = Literal["waiting", "running", "stopped"]

_log = logging.getLogger(__name__)


class AnotherLog(Exception):
    """The feed tells of events that the log does not hold."""


class Feeder:
    """Keeps the feed up to date."""

    def __init__(self, source: EventSource, log: FeedLog) -> None:
        self.state = ProjectionState("feed")
        self._source = source
        self._feed = log
        self._delay = FIRST_RETRY_S

    async def run(self) -> None:
        """Feed for ever, through absences of the log and beside other writers of the feed."""
        while True:
            try:
                await self._session()
            except VersionConflict as conflict:
                _log.info("the feed goes on from where it ends now: %s", conflict)
            except AnotherLog as error:
                self._went("stopped", error)
                self._delay = REPLACED_S
            except StoreUnavailable as error:
                self._went("waiting", error)
            await asyncio.sleep(self._delay)
            self._delay = min(2 * self._delay, LONGEST_RETRY_S)

    async def stop(self, error: Exception) -> None:
        self._went("stopped", error)

    async def _session(self) -> None:
        tail = await self._feed.tail()
        log_ends = await self._source.last()
        if tail.position > log_ends:
            raise _another_log(f"it ends with event {tail.position}, the log with {log_ends}")
        self.state.sequence = tail.position
        checked = not tail.event_id
        last = tail.last
        # The event that was fed last comes again, to see that it is the same.
        after = tail.position if checked else tail.position - 1
        async with contextlib.aclosing(self._source.follow(after)) as batches:
            async for batch in batches:
                new = batch
                if batch and not checked:
                    _check(tail, batch[0])
                    checked, new = True, batch[1:]
                self._went("running")
                if new:
                    last = await self._take(new, last)
                elif not batch and (await self._feed.tail()).last != last:
                    raise VersionConflict("somebody else has written it, or made it anew")

    async def _take(self, batch: Sequence[Message], last: int) -> int:
        events = [
            fed_event(message.subject, message.sequence, message.headers, message.data)
            for message in batch
        ]
        last = await self._feed.store(events, last)
        self.state.sequence, self.state.behind = batch[-1].sequence, batch[-1].pending
        self._delay = FIRST_RETRY_S
        return last

    def _went(self, status: Status, error: Exception | None = None) -> None:
        """Note the state, and say in the log what is new."""
        reason = f"{type(error).__name__}: {error}" if error else None
        if (self.state.status, self.state.error) == (status, reason):
            return
        self.state.status, self.state.error = status, reason
        _log.log(
            {"stopped": logging.CRITICAL, "waiting": logging.WARNING}.get(status, logging.INFO),
            "the feed is %s behind sequence %d%s",
            status,
            self.state.sequence,
            f": {reason}" if reason else "",
        )


def _check(tail: FeedTail, message: Message) -> None:
    found = fed_event(message.subject, message.sequence, message.headers, message.data)
    if (message.sequence, found.headers["Nats-Msg-Id"]) != (tail.position, tail.event_id):
        raise _another_log(
            f"event {tail.position} is {tail.event_id} in the feed and not in the log"
        )


def _another_log(reason: str) -> AnotherLog:
    return AnotherLog(
        f"the feed was made from another log, or from a newer copy of it: {reason}. "
        "`finetrail feed rebuild` makes it anew from this one"
    )
