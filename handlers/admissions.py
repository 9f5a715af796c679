"""How many trainings of a user wait: those in the queue, and those that are on their way into it."""

from dataclasses import replace
from uuid import UUID

from domain.jobs.commands import QueueFacts, SubmitJob
from domain.messages import Command, Envelope, event_id, follow_up_id
from domain.queues.queue import decider
from domain.queues.state import Queue
from handlers.follow_ups import ENQUEUE, queue_stream
from handlers.histories import Folded, Histories


class Admissions:
    """Counts for a quota; of one process.

    A job is in the queue some milliseconds after it was submitted. Until then it is remembered here.
    """

    def __init__(self, histories: Histories) -> None:
        self._histories = histories
        self._on_their_way: dict[UUID, tuple[str, str]] = {}  # command to enqueue: workspace, user

    async def told(self, envelope: Envelope[Command], command: SubmitJob) -> Envelope[Command]:
        """The submission with what its decision has to know of the queue."""
        workspace, user = envelope.stream.workspace, envelope.actor
        folded: Folded[Queue] = await self._histories.load(queue_stream(workspace), decider)
        self._forget(workspace, folded)
        queue = folded.state
        waiting = sum(work.user == user and work.kind == "train" for work in queue.waiting.values())
        coming = sum(one == (workspace, user) for one in self._on_their_way.values())
        limit = queue.ledger.policy.of(user).queued
        facts = QueueFacts(waiting=waiting + coming, limit=limit)
        return replace(envelope, command=command.model_copy(update={"queue": facts}))

    def admitted(self, envelope: Envelope[Command]) -> None:
        enqueued_by = follow_up_id(event_id(envelope.id, 0), ENQUEUE)
        self._on_their_way[enqueued_by] = envelope.stream.workspace, envelope.actor

    def _forget(self, workspace: str, folded: Folded[Queue]) -> None:
        for id_, (its, _) in list(self._on_their_way.items()):
            if its == workspace and folded.outcome_of(id_):
                del self._on_their_way[id_]
