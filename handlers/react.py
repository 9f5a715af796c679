"""Carries out what follows from each event: commands to the bus, messages to agents."""

from collections.abc import Callable
from typing import Final, assert_never

from domain.agents.events import AgentRevoked
from domain.jobs.events import JobCancelled, JobFailed, JobInterrupted, JobSucceeded
from domain.messages import Envelope, Event, Recorded
from domain.queues.events import PolicySet, WorkQueued, WorkReprioritised, WorkWithdrawn
from domain.subjects import work_subject
from handlers.follow_ups import FollowUp, Hand, World
from handlers.in_turn import InTurn
from handlers.ports import CommandBus, Publish
from handlers.reactions import follow_ups
from handlers.retries import Retries

ENDING: Final = (JobSucceeded, JobFailed, JobCancelled)
# A slot or some work has come free, or is about to.
WAKING: Final = (
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
    PolicySet,
    JobInterrupted,
    AgentRevoked,
)


class Reactor:
    """Events of one stream wait for each other, so that what follows keeps their order."""

    def __init__(
        self,
        world: World,
        bus: CommandBus,
        publish: Publish,
        retries: Retries,
        wake: Callable[[], None],
        job_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._bus = bus
        self._publish = publish
        self._retries = retries
        self._wake = wake
        self._job_ended = job_ended
        self._turn = InTurn()

    async def react(self, recorded: Recorded[Event]) -> None:
        async with self._turn(recorded.stream):
            for follow_up in await follow_ups(recorded, self._world):
                await self._carry_out(follow_up)
            await self._retries.carry_out(recorded)
        if isinstance(recorded.event, WAKING):
            self._wake()
        if isinstance(recorded.event, ENDING):
            self._job_ended()

    async def _carry_out(self, follow_up: FollowUp) -> None:
        match follow_up:
            case Envelope():
                await self._bus.post(follow_up)
            case Hand():
                headers = {"Nats-Msg-Id": str(follow_up.id), "content-type": "application/json"}
                body = follow_up.message.model_dump_json().encode()
                await self._publish(work_subject(follow_up.agent_id), body, headers)
            case _:
                assert_never(follow_up)
