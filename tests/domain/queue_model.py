"""The queue once more, as simply as it can be said: slow, unshared with the rules, and their judge.

It knows lists and loops only. Works and agents are dictionaries, and every question is answered by
looking at all of them.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from domain.queues.events import (
    PolicySet,
    QueueEvent,
    SlotsOffered,
    SlotsWithdrawn,
    WorkAssigned,
    WorkQueued,
    WorkReprioritised,
    WorkWithdrawn,
)
from domain.queues.policy import QueuePolicy, UserPolicy


class Model:
    """Hears events; says who is next, who may run, and why the others wait."""

    def __init__(self, events: Iterable[QueueEvent] = ()) -> None:
        self.policy = QueuePolicy()
        self.works: list[dict[str, Any]] = []  # live ones, as they came
        self.agents: dict[str, dict[str, Any]] = {}
        self.started: dict[str, int] = {}  # of late, in thousandths
        self.starts = 0
        self.until_halved = self.policy.memory
        for event in events:
            self.hear(event)

    def hear(self, event: QueueEvent) -> None:
        match event:
            case WorkQueued():
                self._queued(event)
            case WorkAssigned():
                work = self.find(event.work_id)
                assert work is not None
                work |= {"agent": event.agent_id}
                self.count_start(work["user"])
            case WorkReprioritised():
                if work := self.find(event.work_id):
                    work["priority"] = event.priority
            case WorkWithdrawn():
                self.works = [one for one in self.works if one["id"] != event.work_id]
            case SlotsOffered():
                self.agents[event.agent_id] = event.model_dump() | {"there": True}
            case SlotsWithdrawn():
                if event.agent_id in self.agents:
                    self.agents[event.agent_id]["there"] = False
            case PolicySet():
                done = self.policy.memory - self.until_halved
                self.policy = event.policy
                self.until_halved = self.policy.memory - done

    def _queued(self, event: WorkQueued) -> None:
        known = self.find(event.work_id)
        if known is not None:
            known["agent"] = None
            return
        self.works.append(
            {
                "id": event.work_id,
                "agent": None,
                "seen": self.starts,  # starts before it came
                **event.model_dump(include={"user", "priority", "kind", "method", "pool", "needs"}),
            }
        )

    def count_start(self, user: str) -> None:
        self.starts += 1
        self.started[user] = self.started.get(user, 0) + 1000
        self.until_halved -= 1
        if self.until_halved <= 0:
            self.until_halved = self.policy.memory
            self.started = {name: count // 2 for name, count in self.started.items()}

    def find(self, work_id: UUID) -> dict[str, Any] | None:
        return next((one for one in self.works if one["id"] == work_id), None)

    @property
    def waiting(self) -> list[dict[str, Any]]:
        return [one for one in self.works if one["agent"] is None]

    def running(self, user: str) -> int:
        return sum(one["agent"] is not None and one["user"] == user for one in self.works)

    def rules(self, user: str) -> UserPolicy:
        return self.policy.users.get(user, self.policy.everyone)

    def at_limit(self, user: str) -> bool:
        limit = self.rules(user).running
        return limit is not None and self.running(user) >= limit

    def free(self, agent: dict[str, Any]) -> int:
        held = sum(one["agent"] == agent["agent_id"] for one in self.works)
        return int(agent["slots"] - held) if agent["there"] else 0

    def fits(self, work: dict[str, Any], agent: dict[str, Any]) -> bool:
        wanted, accelerator = work["needs"], agent["accelerator"]
        kind = wanted["accelerator"]
        right_kind = {
            None: True,
            "cpu": accelerator == "cpu",
            "gpu": accelerator != "cpu",
        }.get(kind, str(kind).lower() in accelerator.lower())
        return (
            work["method"] in agent["methods"]
            and work["pool"] in {None, agent["pool"]}
            and right_kind
            and (wanted["memory_bytes"] or 0) <= agent["memory_bytes"]
        )

    def fitting(self, work: dict[str, Any]) -> list[dict[str, Any]]:
        there = [agent for agent in self.agents.values() if agent["there"]]
        return [agent for agent in there if self.fits(work, agent)]

    def late(self, work: dict[str, Any]) -> bool:
        return bool(self.starts - work["seen"] >= self.policy.patience)

    def first(
        self, works: list[dict[str, Any]], extra: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Of these, whose turn it is; `extra` are works thought of as running."""
        late = [one for one in works if self.late(one)]
        if late:
            return min(late, key=self.works.index)
        top = max(one["priority"] for one in works)
        works = [one for one in works if one["priority"] == top]
        if self.policy.evaluations_first:
            works = [one for one in works if one["kind"] == "evaluate"] or works

        def share(work: dict[str, Any]) -> int:
            user = work["user"]
            held = self.running(user) + (extra or {}).get(user, 0)
            return (1000 * held + self.started.get(user, 0)) // self.rules(user).weight

        least = min(share(one) for one in works)
        return min((one for one in works if share(one) == least), key=self.works.index)

    def next(self) -> UUID | None:
        """What has to be started now."""
        can = [
            one
            for one in self.waiting
            if not self.at_limit(one["user"])
            and any(self.free(agent) > 0 for agent in self.fitting(one))
        ]
        return self.first(can)["id"] if can else None

    def order(self) -> list[UUID]:
        """What waits as it would be started: what can be, then what a quota holds back, then the rest."""
        fit = [one for one in self.waiting if self.fitting(one)]
        groups = (
            [one for one in fit if not self.at_limit(one["user"])],
            [one for one in fit if self.at_limit(one["user"])],
            [one for one in self.waiting if not self.fitting(one)],
        )
        before = dict(self.started), self.starts, self.until_halved
        extra, found = dict[str, int](), list[UUID]()
        for group in groups:
            left = group
            while left:
                work = self.first(left, extra)
                left = [one for one in left if one is not work]
                extra[work["user"]] = extra.get(work["user"], 0) + 1
                self.count_start(work["user"])
                found.append(work["id"])
        self.started, self.starts, self.until_halved = before
        return found

    def why(self) -> dict[UUID, tuple[int, str, int]]:
        """For each that waits: position, what blocks it, and how many that go before stand in its way."""
        order, chosen = self.order(), self.next()
        found: dict[UUID, tuple[int, str, int]] = {}
        for position, id_ in enumerate(order, 1):
            work = self.find(id_)
            assert work is not None
            its = self.fitting(work)
            wanted = [agent for agent in its if self.free(agent) > 0] or its
            before = [self.find(one) for one in order[: position - 1]]
            ahead = sum(
                any(self.fits(other, agent) for agent in wanted)
                and not self.at_limit(other["user"])
                for other in before
                if other is not None
            )
            code = self._code(work, its, ahead)
            found[id_] = (position, "next", 0) if id_ == chosen else (position, code, ahead)
        return found

    def _code(self, work: dict[str, Any], its: list[dict[str, Any]], ahead: int) -> str:
        there = [agent for agent in self.agents.values() if agent["there"]]
        if not there:
            return "no_agent"
        if work["pool"] is not None and work["pool"] not in {agent["pool"] for agent in there}:
            return "no_agent_of_pool"
        if not its:
            return "no_agent_fits"
        if self.at_limit(work["user"]):
            return "quota"
        if ahead:
            return "behind"
        return "next" if any(self.free(agent) > 0 for agent in its) else "agents_busy"
