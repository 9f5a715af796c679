"""Whose turn it is: the one place where works are compared, for decisions and for explanations alike.

What has waited for too long goes first, the oldest of it before the rest. Then the higher priority;
among equals evaluations before trainings, if the policy says so; then the user who has the least,
running and lately started together, by weight; then whoever came first.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from domain.queues.state import START, Agent, Ledger, Line, Queue, Work

Key = tuple[int, ...]
Wanted = tuple[str, str | None, str | None, int | None]  # what decides whether an agent fits


class Standing:
    """How things stand at one moment, or at a later one that is thought through."""

    def __init__(self, ledger: Ledger, running: Mapping[str, int]) -> None:
        self._ledger = ledger
        self._running = running
        self._shares: dict[str, int] = {}

    def share(self, user: str) -> int:
        """What a user has, in thousandths of a start, divided by the user's weight."""
        share = self._shares.get(user)
        if share is None:
            held = START * self.running(user) + self._ledger.recently(user)
            share = self._shares[user] = held // self._ledger.policy.of(user).weight
        return share

    def running(self, user: str) -> int:
        return self._running.get(user, 0)

    def at_limit(self, user: str) -> bool:
        """Whether the user has all that may run at once."""
        limit = self._ledger.policy.of(user).running
        return limit is not None and self.running(user) >= limit

    def overdue(self, work: Work) -> bool:
        return self._ledger.starts - work.starts >= self._ledger.policy.patience

    def key(self, work: Work) -> Key:
        """The smaller goes first."""
        if self.overdue(work):
            return 0, work.place
        kind = int(work.kind == "train" and self._ledger.policy.evaluations_first)
        return 1, -work.priority, kind, self.share(work.user), work.place

    def started(self, user: str) -> "Standing":
        running = {**self._running, user: self.running(user) + 1}
        return Standing(self._ledger.started(user), running)


@dataclass(frozen=True, slots=True)
class Choice:
    work: Work
    agent: Agent
    standing: Standing
    agents: int  # that could have taken it
    free_slots: int
    held_back: int
    unfit: int


def standing_of(queue: Queue) -> Standing:
    return Standing(queue.ledger, queue.running())


def fits(work: Work, agent: Agent) -> bool:
    """Whether the agent could run it, were it idle."""
    return not misfits(work, agent)


def misfits(work: Work, agent: Agent) -> list[str]:
    """What keeps an agent from running a work, in words."""
    found = []
    if work.method not in agent.methods:
        found.append(f"it cannot do {work.method}")
    if work.pool is not None and work.pool != agent.pool:
        found.append(f"it is in the pool {agent.pool}")
    if work.accelerator is not None and not _is(agent.accelerator, work.accelerator):
        found.append(f"its accelerator is {agent.accelerator}")
    if work.memory_bytes is not None and work.memory_bytes > agent.memory_bytes:
        found.append(f"it has {gigabytes(agent.memory_bytes)}")
    return found


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def choose(queue: Queue) -> Choice | None:
    """The work whose turn it is, and the agent for it; None while no agent can take any."""
    free = queue.free()
    if not free:
        return None
    there = [queue.ledger.agents[agent_id] for agent_id in free]
    standing = standing_of(queue)
    held_back = unfit = 0
    for head, count in sorted(heads(queue.waiting.values()), key=lambda one: standing.key(one[0])):
        if standing.at_limit(head.user):
            held_back += count
            continue
        able = [agent for agent in there if fits(head, agent)]
        if not able:
            unfit += count
            continue
        best = min(able, key=lambda agent: _suits(agent, head, free[agent.agent_id]))
        slots = free[best.agent_id]
        return Choice(head, best, standing, len(able), slots, held_back, unfit)
    return None


def heads(works: Iterable[Work]) -> Iterable[tuple[Work, int]]:
    """The first work of each line, and how long the line is."""
    first: dict[Line, Work] = {}
    length: Counter[Line] = Counter()
    for work in works:
        line = work.line
        length[line] += 1
        known = first.get(line)
        if known is None or work.place < known.place:
            first[line] = work
    return [(work, length[line]) for line, work in first.items()]


class Fleet:
    """The agents that are there, and which of them fit a work."""

    def __init__(self, ledger: Ledger) -> None:
        self.there = [agent for agent in ledger.agents.values() if agent.away is None]
        self._fitting: dict[Wanted, frozenset[str]] = {}

    def fitting(self, work: Work) -> frozenset[str]:
        wanted = work.method, work.pool, work.accelerator, work.memory_bytes
        if wanted not in self._fitting:
            able = frozenset(agent.agent_id for agent in self.there if fits(work, agent))
            self._fitting[wanted] = able
        return self._fitting[wanted]


def order(queue: Queue, fleet: Fleet) -> list[Work]:
    """All that waits, in the order in which it would be started if nothing ended and nothing came.

    First what could be started if slots came free, then what its user's quota holds back, then what no
    agent that is there fits.
    """
    standing = standing_of(queue)
    groups: tuple[list[Work], list[Work], list[Work]] = ([], [], [])
    for work in queue.waiting.values():
        rank = 2 if not fleet.fitting(work) else int(standing.at_limit(work.user))
        groups[rank].append(work)
    found: list[Work] = []
    for group in groups:
        for work, after in _in_turn(group, standing):
            standing = after
            found.append(work)
    return found


def _in_turn(works: list[Work], standing: Standing) -> Iterator[tuple[Work, Standing]]:
    """One after the other by the smallest key, each with how things stand once it is started."""
    by_place = sorted(works, key=lambda work: work.place)
    bands: dict[tuple[int, bool], dict[str, list[Work]]] = {}
    for work in reversed(by_place):  # so that the first of a line is popped from its end
        band = bands.setdefault((-work.priority, work.kind == "train"), {})
        band.setdefault(work.user, []).append(work)
    taken: set[UUID] = set()
    for old in by_place:
        while old.work_id not in taken:
            work = old if standing.overdue(old) else _next(bands, taken, standing)
            taken.add(work.work_id)
            standing = standing.started(work.user)
            yield work, standing


def _next(
    bands: dict[tuple[int, bool], dict[str, list[Work]]], taken: set[UUID], standing: Standing
) -> Work:
    """The smallest key among the first of each user, at the highest priority that anything has."""
    highest = min(bands)[0]
    candidates: list[Work] = []
    for band in sorted(band for band in bands if band[0] == highest):
        for user in list(bands[band]):
            line = bands[band][user]
            while line and line[-1].work_id in taken:
                line.pop()
            if line:
                candidates.append(line[-1])
            else:
                del bands[band][user]
        if not bands[band]:
            del bands[band]
    return min(candidates, key=standing.key) if candidates else _next(bands, taken, standing)


def _suits(agent: Agent, work: Work, free: int) -> tuple[int, int, str]:
    """The smallest that is large enough, where that was asked for; then the one with most room."""
    size = agent.memory_bytes if work.memory_bytes is not None else 0
    return size, -free, agent.agent_id


def _is(accelerator: str, wanted: str) -> bool:
    if wanted in {"cpu", "gpu"}:
        return (accelerator == "cpu") == (wanted == "cpu")
    return wanted.casefold() in accelerator.casefold()
