"""Which blobs an agent on another machine may read and bring: those of the work that it holds, and of what is served."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from litestar import Controller, Request, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from domain.base_models import BaseModelRecord
from domain.blob_tickets import TicketAnswer, TicketQuestion
from domain.blobs import BlobRef
from domain.errors import StoreUnavailable
from domain.evaluations import evaluation as evaluations
from domain.jobs import job as jobs
from domain.jobs.spec import JobSpec
from domain.messages import Decider, StreamId
from domain.subjects import Aggregate
from domain.wire import decode_recorded
from gateway.ports import Blobs, Feed
from gateway.problems import Problem
from gateway.tickets import Ticket, Tickets
from projections.queries import Queries
from projections.registry import ReadModelUnavailable

TICKET_S: Final = 15 * 60  # whoever needs longer asks for another
MAX_BYTES: Final = 64 * 1024**3  # of one file; the largest shards of weights have a tenth of it
CATCH_UP_S: Final = 5.0  # the read model follows the log within milliseconds
PAGE: Final = 1000

Work = jobs.Job | evaluations.Evaluation


class AgentBlobs:
    """Answers agents of one workspace."""

    def __init__(
        self, queries: Queries, feed: Feed, blobs: Blobs, tickets: Tickets, workspace: str
    ) -> None:
        self._queries = queries
        self._feed = feed
        self._blobs = blobs
        self._tickets = tickets
        self._workspace = workspace

    async def answer(self, agent_id: str, question: TicketQuestion) -> TicketAnswer:
        """A ticket, or why there is none."""
        try:
            refused = await self._refusal(agent_id, question)
            if refused:  # the read model may not know yet what was assigned a moment ago
                reached = (await self._feed.state("EVENTS")).last
                caught_up = await self._queries.wait_for(reached, CATCH_UP_S)
                refused = await self._refusal(agent_id, question)
                if refused:  # for good only by one that knows everything: its job would fail
                    return TicketAnswer(refused=refused, unavailable=not caught_up)
            if question.verb == "PUT" and await self._there(agent_id, question.blob):
                return TicketAnswer(there=True)
        except (ReadModelUnavailable, StoreUnavailable, OSError) as error:
            return TicketAnswer(unavailable=True, refused=str(error)[:1000])
        ticket = Ticket(
            question.verb,
            question.blob.sha256,
            int(time.time()) + TICKET_S,
            size=question.blob.size if question.verb == "PUT" else None,
            holder=f"agent:{agent_id}",
        )
        return TicketAnswer(path=f"/api/v1/blobs/{self._tickets.issue(ticket)}")

    async def _refusal(self, agent_id: str, question: TicketQuestion) -> str:
        blob = question.blob
        if await self._is_revoked(agent_id):
            return "the agent is revoked"
        works = [work async for work in self._works(agent_id)]
        if question.verb == "PUT":
            if blob.size > MAX_BYTES:
                return f"a file may have at most {MAX_BYTES:,} bytes"
            return "" if any(_claimed(work, agent_id) for work in works) else "no attempt is held"
        if any(blob.sha256 in set(_inputs(work)) for work in works):
            return ""
        if await self._queries.is_served(self._workspace, blob.sha256):
            return ""
        return "the blob belongs to no work that is held, and to no version that is ready"

    async def _is_revoked(self, agent_id: str) -> bool:
        """Asked, for a server of the user's own may still let it in."""
        agents = await self._queries.agents(self._workspace)
        return any(str(row.id) == agent_id and row.status == "revoked" for row in agents)

    async def _there(self, agent_id: str, blob: BlobRef) -> bool:
        """Only of what the agent may read is it told that the store has it."""
        known = not await self._refusal(agent_id, TicketQuestion(verb="GET", blob=blob))
        return known and await self._blobs.size(blob.sha256) == blob.size

    async def _works(self, agent_id: str) -> AsyncIterator[Work]:
        for row in (await self._queries.queue(self._workspace)).items:
            if row.status == "assigned" and row.agent_id == agent_id:
                decider: Decider[Any, Any, Any] = jobs.decider
                kind: Aggregate = "job"
                if row.kind == "evaluate":
                    decider, kind = evaluations.decider, "evaluation"
                work = await self._folded(StreamId(self._workspace, kind, row.work_id), decider)
                if _theirs(work, agent_id, row.attempt):
                    yield work

    async def _folded(self, stream: StreamId, decider: Decider[Any, Any, Any]) -> Work:
        state, reached, more = decider.initial, 0, True
        while more:
            messages, more = await self._feed.page("EVENTS", stream.subject, reached, PAGE)
            for message in messages:
                reached = message.sequence
                recorded = decode_recorded(
                    message.subject, message.sequence, message.headers, message.data
                )
                state = decider.evolve(state, recorded.event)
        work: Work = state
        return work


@dataclass(frozen=True, slots=True)
class Uploads:
    """What a ticket for bringing a blob leads to."""

    tickets: Tickets
    blobs: Blobs


class AgentBlobsController(Controller):
    tags = ("agents",)

    @put(
        "/blobs/{ticket:str}",
        status_code=204,
        opt={"any_body": True},
        request_max_body_size=None,  # the ticket says how many bytes
    )
    async def bring(
        self,
        request: Request[None, Any, Any],
        ticket: FromPath[str],
        uploads: NamedDependency[Uploads],
    ) -> None:
        """Bring the bytes that a ticket is for: of that size and hash, or nothing is kept."""
        leave = uploads.tickets.read(ticket, int(time.time()))
        if leave.verb != "PUT" or leave.size is None:
            raise Problem("ticket_invalid", "This ticket is for getting bytes, not for bringing.")
        taken = 0
        async with uploads.blobs.writer() as writer:
            async for chunk in request.stream():
                taken += len(chunk)
                if taken > leave.size:
                    break
                await writer.write(chunk)
            if taken != leave.size:
                raise Problem("blob_differs", f"The ticket is for {leave.size:,} bytes.")
            if writer.ref.sha256 != leave.sha256:
                raise Problem("blob_differs", "The bytes do not have the hash of the ticket.")
            await writer.commit()


def _theirs(work: Work, agent_id: str, attempt: int) -> bool:
    match work:
        case jobs.Waiting() | evaluations.Waiting():
            return work.attempt == attempt
        case jobs.Running() | evaluations.Running():
            return work.attempt == attempt and work.agent_id == agent_id
        case _:
            return False


def _claimed(work: Work, agent_id: str) -> bool:
    return isinstance(work, jobs.Running | evaluations.Running) and work.agent_id == agent_id


def _inputs(work: Work) -> Iterator[str]:
    """Hashes of everything that the attempt works on."""
    match work:
        case jobs.Waiting(progress=progress) | jobs.Running(progress=progress):
            yield from _of_spec(progress.spec, progress.base_model)
            if progress.checkpoint is not None:
                yield from (file.blob.sha256 for file in progress.checkpoint.files)
        case evaluations.Waiting(requested=asked) | evaluations.Running(requested=asked):
            yield from _of_spec(asked.spec, asked.base_model)
            yield from (file.blob.sha256 for file in asked.adapter)
        case _:
            return


def _of_spec(spec: JobSpec, base_model: BaseModelRecord | None) -> Iterator[str]:
    yield spec.train.blob.sha256
    if spec.test is not None:
        yield spec.test.blob.sha256
    if base_model is not None:
        yield from (file.blob.sha256 for file in base_model.files)
