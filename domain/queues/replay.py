"""The queue's events played again: whether they give the same decisions, and what another policy would do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from uuid import UUID

from domain.queues.commands import Assign
from domain.queues.events import (
    PolicySet,
    QueueEvent,
    WorkAssigned,
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
)
from domain.queues.policy import QueuePolicy
from domain.queues.queue import decider
from domain.queues.state import Queue


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the queue with where and when it stands in the log."""

    sequence: int
    at: datetime
    event: QueueEvent


@dataclass(frozen=True, slots=True)
class Difference:
    """A decision that is not what its rules and inputs say."""

    sequence: int
    recorded: WorkAssigned
    decided: WorkAssigned | None


@dataclass(frozen=True, slots=True)
class Checked:
    decisions: int
    older: int  # made before decisions recorded their inputs; they cannot be compared
    differences: Sequence[Difference]


@dataclass(slots=True)
class Story:
    """What became of one work, and what would have."""

    queued: WorkQueued
    queued_at: datetime
    started_at: datetime | None = None
    on_agents: timedelta = timedelta()  # all its attempts together
    ended: bool = False
    would_start_at: datetime | None = None

    @property
    def waited_s(self) -> float | None:
        return _seconds(self.queued_at, self.started_at)

    @property
    def would_wait_s(self) -> float | None:
        return _seconds(self.queued_at, self.would_start_at)


def check(log: Iterable[Happened]) -> Checked:
    """Take every decision again, from the events before it."""
    state, decisions, older = decider.initial, 0, 0
    differences: list[Difference] = []
    for one in log:
        if isinstance(one.event, WorkAssigned):
            decisions += 1
            if one.event.inputs is None:
                older += 1
            elif (decided := _decided(state)) != one.event:
                differences.append(Difference(one.sequence, one.event, decided))
        state = decider.evolve(state, one.event)
    return Checked(decisions, older, differences)


def replay(log: Sequence[Happened], policy: QueuePolicy) -> list[Story]:
    """What another policy would have started when, in the order of arrival.

    Works arrive, agents come and go, and priorities change when they did; each work takes as long as
    all its attempts together took. What had not ended by the end of the log never ends.
    """
    stories = _stories(log)
    return _Play(stories, policy).through(log)


def _stories(log: Iterable[Happened]) -> dict[UUID, Story]:
    stories: dict[UUID, Story] = {}
    since: dict[UUID, datetime] = {}
    for one in log:
        match one.event:
            case WorkQueued() as event:
                story = stories.setdefault(event.work_id, Story(event, one.at))
                _leave(story, since.pop(event.work_id, None), one.at)
            case WorkAssigned() as event if event.work_id in stories:
                story = stories[event.work_id]
                story.started_at = story.started_at or one.at
                since[event.work_id] = one.at
            case WorkWithdrawn() as event if event.work_id in stories:
                story = stories[event.work_id]
                _leave(story, since.pop(event.work_id, None), one.at)
                story.ended = True
            case _:
                pass
    return stories


def _leave(story: Story, since: datetime | None, at: datetime) -> None:
    if since is not None:
        story.on_agents += max(at - since, timedelta())


@dataclass(slots=True)
class _Play:
    """The queue as it would have been."""

    stories: dict[UUID, Story]
    policy: QueuePolicy
    state: Queue = decider.initial
    ends: list[tuple[datetime, int, UUID]] = field(default_factory=list)
    begun: int = 0

    def through(self, log: Sequence[Happened]) -> list[Story]:
        self._apply(PolicySet(number=0, policy=self.policy))
        for one in log:
            self._until(one.at)
            if self._concerns(one.event):
                self._apply(one.event)
                self._fill(one.at)
        self._until(None)
        return list(self.stories.values())

    def _until(self, at: datetime | None) -> None:
        while self.ends and (at is None or self.ends[0][0] <= at):
            then, _, work_id = heappop(self.ends)
            self._apply(WorkWithdrawn(work_id=work_id, reason="it has ended"))
            self._fill(then)

    def _concerns(self, event: QueueEvent) -> bool:
        """Whether it would have happened under any policy."""
        match event:
            case WorkAssigned() | PolicySet():
                return False
            case WorkQueued():
                return event == self.stories[event.work_id].queued
            case WorkReprioritised():
                return event.work_id in self.stories
            case WorkWithdrawn():
                story = self.stories.get(event.work_id)
                return story is not None and story.started_at is None
            case _:
                return True

    def _apply(self, event: QueueEvent) -> None:
        if isinstance(event, WorkQueued):  # what it ages from is counted in this play
            event = event.model_copy(update={"starts": self.state.ledger.starts})
        self.state = decider.evolve(self.state, event)

    def _fill(self, at: datetime) -> None:
        while event := _decided(self.state):
            story = self.stories[event.work_id]
            story.would_start_at = at
            self._apply(event)
            if story.ended and story.started_at is not None:
                self.begun += 1
                heappush(self.ends, (at + story.on_agents, self.begun, event.work_id))


def _decided(state: Queue) -> WorkAssigned | None:
    for event in decider.decide(Assign(), state):
        if isinstance(event, WorkAssigned):
            return event
    return None


def _seconds(since: datetime, until: datetime | None) -> float | None:
    return None if until is None else max((until - since).total_seconds(), 0.0)
