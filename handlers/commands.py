"""From the COMMANDS stream to the deciders: one durable pull consumer an aggregate."""

from typing import Any, Final

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub

from domain.access.access import decider as access
from domain.agents.agent import decider as agents
from domain.datasets.dataset import decider as datasets
from domain.dead_letters.dead_letter import decider as dead_letters
from domain.evaluations.evaluation import decider as evaluations
from domain.job_logs.job_log import decider as job_logs
from domain.jobs.commands import SubmitJob
from domain.jobs.job import decider as jobs
from domain.links.link import decider as links
from domain.messages import Command, Decider, Envelope, Outcome
from domain.model_versions.model_version import decider as model_versions
from domain.models.model import decider as models
from domain.people.person import decider as people
from domain.queues.queue import decider as queues
from domain.subjects import AGGREGATES, Aggregate
from domain.webhooks.webhook import decider as webhooks
from handlers.admissions import Admissions
from handlers.consume import Subscriber
from handlers.execute import execute
from handlers.follow_ups import queue_stream
from handlers.histories import Histories
from handlers.in_turn import InTurn
from handlers.ports import Clock

DECIDERS: Final[dict[Aggregate, Decider[Any, Any, Any]]] = {
    "dataset": datasets,
    "job": jobs,
    "model": models,
    "model_version": model_versions,
    "evaluation": evaluations,
    "access": access,
    "agent": agents,
    "queue": queues,
    "dead_letter": dead_letters,
    "link": links,
    "webhook": webhooks,
    "job_log": job_logs,
    "person": people,
}


class CommandDesk:
    """Decides commands; those to the same aggregate wait for each other rather than conflict."""

    def __init__(self, histories: Histories, clock: Clock) -> None:
        self._histories = histories
        self._clock = clock
        self._turn = InTurn()
        self._admissions = Admissions(histories)

    async def decide(self, envelope: Envelope[Command]) -> Outcome:
        async with self._turn(envelope.stream):
            if isinstance(envelope.command, SubmitJob):
                return await self._submit(envelope, envelope.command)
            return await self._execute(envelope)

    async def _submit(self, envelope: Envelope[Command], command: SubmitJob) -> Outcome:
        """Submissions wait for each other, so that no two take the last place of a quota."""
        async with self._turn(queue_stream(envelope.stream.workspace)):
            told = await self._admissions.told(envelope, command)
            outcome = await self._execute(told)
            if outcome.status == "recorded":
                self._admissions.admitted(envelope)
            return outcome

    async def _execute(self, envelope: Envelope[Command]) -> Outcome:
        decider = DECIDERS[envelope.stream.aggregate]
        return await execute(envelope, decider, self._histories, self._clock)


def command_subscribers(broker: NatsBroker, inbox_prefix: bytes) -> list[Subscriber]:
    """One for each aggregate, bound to the consumer that the bootstrap made."""
    return [
        durable_pull(broker, "COMMANDS", f"{name}-commands", f"commands.*.*.{name}.*", inbox_prefix)
        for name in AGGREGATES
    ]


def durable_pull(
    broker: NatsBroker, stream: str, durable: str, subject: str, inbox_prefix: bytes
) -> Subscriber:
    subscriber: Subscriber = broker.subscriber(
        subject,
        # The bootstrap owns streams; declaring one here would reset its settings.
        stream=JStream(stream, declare=False),
        durable=durable,
        pull_sub=PullSub(),
        ack_policy=AckPolicy.MANUAL,  # the default terminates a message on any exception
        no_reply=True,
        inbox_prefix=inbox_prefix + b".",
    )
    return subscriber
