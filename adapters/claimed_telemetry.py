"""Telemetry as it may be believed: said by the agent that claimed the attempt, and by no other.

An agent's permission pins the last token of the subject that it says something on, but not the job.
Who claimed which attempt stands in the log, and is asked of it once for each attempt.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from nats.aio.client import Client
from typing_extensions import override

from adapters.nats_event_source import LogMessage, NatsEventSource
from adapters.nats_feed import FeedMessage, Log, NatsFeed
from domain.catalog import decode_event
from domain.evaluations.events import EvaluationStarted
from domain.jobs.events import JobClaimed
from domain.subjects import Aggregate, event_subject

REMEMBERED: Final = 4096  # pieces of work; what is forgotten is asked again
PAGE: Final = 1000
PINNED: Final = 6  # tokens of a subject that ends in who said it
FORGED: Final = "forged"  # a topic that nobody reads

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Work:
    claims: dict[int, str] = field(default_factory=dict)  # agent by attempt
    reached: int = 0


class Claims:
    """Which agent claimed which attempt. A claim is never taken back, so it is remembered."""

    def __init__(self, log: NatsFeed) -> None:
        self._feed = log
        self._known: OrderedDict[tuple[str, str], _Work] = OrderedDict()

    async def hold(self, subject: str) -> bool:
        """Whether who speaks on this telemetry subject may speak of that attempt.

        Raises:
            StoreUnavailable: The log cannot be asked now.
        """
        tokens = subject.split(".")
        if len(tokens) != PINNED:
            return True  # agents can publish no shorter one; it is the gateway's, or from before
        _, workspace, _, work_id, attempt, agent_id = tokens
        if not attempt.isdecimal():
            return False
        work = self._known.setdefault((workspace, work_id), _Work())
        self._known.move_to_end((workspace, work_id))
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        if int(attempt) not in work.claims:
            await self._read(workspace, work_id, work)
        return work.claims.get(int(attempt)) == agent_id

    async def _read(self, workspace: str, work_id: str, work: _Work) -> None:
        try:
            id_ = UUID(work_id)
        except ValueError:
            return
        kinds: tuple[Aggregate, ...] = ("job", "evaluation")
        for kind in kinds:
            subject, more = event_subject(workspace, kind, id_), True
            while more:
                messages, more = await self._raw(subject, work.reached)
                for message in messages:
                    work.reached = message.sequence
                    _take(message, work.claims)
            if work.reached:
                return  # an id is that of a job or of an evaluation

    async def _raw(self, subject: str, after: int) -> tuple[Sequence[FeedMessage], bool]:
        return await self._feed.page("EVENTS", subject, after, PAGE)


class ClaimedFeed(NatsFeed):
    """Reads streams, and of telemetry only what may be believed."""

    def __init__(self, nc: Client) -> None:
        super().__init__(nc)
        self._claims = Claims(self)

    @override
    async def page(
        self, log: Log, subject: str, after: int, limit: int
    ) -> tuple[Sequence[FeedMessage], bool]:
        messages, more = await super().page(log, subject, after, limit)
        if log != "TELEMETRY":
            return messages, more
        believed = [m for m in messages if await _believed(self._claims, m.subject)]
        while messages and more and not believed:  # a page without a message would end nowhere
            messages, more = await super().page(log, subject, messages[-1].sequence, limit)
            believed = [m for m in messages if await _believed(self._claims, m.subject)]
        return believed, more

    @override
    @asynccontextmanager
    async def live(self, log: Log) -> AsyncIterator[AsyncIterator[FeedMessage]]:
        async with super().live(log) as messages:
            yield self._believable(messages) if log == "TELEMETRY" else messages

    async def _believable(self, messages: AsyncIterator[FeedMessage]) -> AsyncIterator[FeedMessage]:
        """Sequences stay without a gap, which would mean that something was missed."""
        async for message in messages:
            if await _believed(self._claims, message.subject):
                yield message
            else:
                yield replace(message, subject=FORGED)


class ClaimedSource(NatsEventSource):
    """Follows telemetry, and gives what may be believed of it."""

    def __init__(self, nc: Client, stream: str, subject: str) -> None:
        super().__init__(nc, stream, subject)
        self._claims = Claims(NatsFeed(nc))

    @override
    async def follow(self, after: int) -> AsyncGenerator[Sequence[LogMessage], None]:
        async with aclosing(super().follow(after)) as batches:
            async for batch in batches:
                believed = [m for m in batch if await _believed(self._claims, m.subject)]
                if believed or not batch:
                    yield believed


async def _believed(claims: Claims, subject: str) -> bool:
    if await claims.hold(subject):
        return True
    _log.warning("%s is passed over: the agent did not claim that attempt", subject)
    return False


def _take(message: FeedMessage, claims: dict[int, str]) -> None:
    if message.headers.get("ce-type") not in {JobClaimed.__name__, EvaluationStarted.__name__}:
        return
    version = int(message.headers.get("ce-schemaversion", "1"))
    event = decode_event(message.headers["ce-type"], version, message.data)
    if isinstance(event, JobClaimed | EvaluationStarted):
        claims[event.attempt] = event.agent_id
