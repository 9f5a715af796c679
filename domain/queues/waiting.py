"""Why each work waits, told from the same state and by the same comparisons as decisions are made."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from domain.queues.ranking import (
    Fleet,
    Standing,
    choose,
    fits,
    gigabytes,
    misfits,
    order,
    standing_of,
)
from domain.queues.state import Agent, Queue, Work

Blocked = Literal[
    "no_agent", "no_agent_of_pool", "no_agent_fits", "quota", "behind", "agents_busy", "next"
]
NAMED = 3  # agents in one sentence


@dataclass(frozen=True, slots=True)
class Wait:
    work: Work
    position: int  # from 1: see `domain.queues.ranking.order`
    code: Blocked
    reason: str
    ahead: int = 0  # works before it that an agent fits which fits it too, and no quota holds back


def explain(queue: Queue) -> list[Wait]:
    """One for each waiting work, in the order in which they would be started."""
    fleet, before, choice = Fleet(queue.ledger), _Before(), choose(queue)
    standing, free = standing_of(queue), frozenset(queue.free())
    found: list[Wait] = []
    for position, work in enumerate(order(queue, fleet), 1):
        agents = fleet.fitting(work)
        # While an agent that fits has a free slot, only what could take that slot is in the way.
        rivals = before.rivals(agents & free or agents)
        if choice is not None and choice.work.work_id == work.work_id:
            found.append(Wait(work, position, "next", f"it is given to {choice.agent.name} now"))
        else:
            found.append(_wait(work, position, agents, rivals, standing, queue))
        if agents and not standing.at_limit(work.user):
            before.add(agents, work, overdue=standing.overdue(work))
    return found


class _Before:
    """The works that were passed in order, by the agents that fit them."""

    def __init__(self) -> None:
        self._counts: dict[frozenset[str], Counter[tuple[int, bool]]] = defaultdict(Counter)

    def add(self, agents: frozenset[str], work: Work, *, overdue: bool) -> None:
        self._counts[agents][work.priority, overdue] += 1

    def rivals(self, agents: frozenset[str]) -> Counter[tuple[int, bool]]:
        """How many there are by priority, and whether they have waited too long."""
        found: Counter[tuple[int, bool]] = Counter()
        for theirs, counts in self._counts.items():
            if not theirs.isdisjoint(agents):
                found.update(counts)
        return found


def _wait(
    work: Work,
    position: int,
    agents: frozenset[str],
    rivals: Counter[tuple[int, bool]],
    standing: Standing,
    queue: Queue,
) -> Wait:
    ahead = rivals.total()
    if not agents:
        code, reason = _nobody(work, queue)
        return Wait(work, position, code, reason)
    if standing.at_limit(work.user):
        limit = queue.ledger.policy.of(work.user).running
        running = f"{standing.running(work.user)} of {limit} running"
        return Wait(
            work, position, "quota", f"quota of {work.user or 'its user'}: {running}", ahead
        )
    if ahead:
        return Wait(work, position, "behind", _behind(work, rivals), ahead)
    if not agents & queue.free().keys():
        return Wait(work, position, "agents_busy", _busy(agents, queue))
    return Wait(work, position, "next", "it is given to an agent within a moment")


def _nobody(work: Work, queue: Queue) -> tuple[Blocked, str]:
    known = queue.ledger.agents.values()
    there = [agent for agent in known if agent.away is None]
    away = [agent for agent in known if agent.away is not None and fits(work, agent)]
    code: Blocked = "no_agent_fits"
    said = f"no connected agent can run it; {_what_would(work)} would"
    if not there:
        code, said = "no_agent", "no agent is connected"
    elif work.pool is not None and all(agent.pool != work.pool for agent in there):
        pools = ", ".join(sorted({agent.pool for agent in there}))
        code = "no_agent_of_pool"
        said = f"no agent of the pool {work.pool} is connected; there are agents of {pools}"
    else:
        lacks = (f"{agent.name}: {' and '.join(misfits(work, agent))}" for agent in there)
        said = f"{said} ({_listed(lacks, len(there), '; ')})"
    if away:
        names = (f"{agent.name} ({agent.away})" for agent in away)
        said = f"{said}; it could run on {_listed(names, len(away))}, which gets no work now"
    return code, said


def _what_would(work: Work) -> str:
    wanted = [f"an agent that can do {work.method}"]
    if work.pool is not None:
        wanted.append(f"of the pool {work.pool}")
    if work.accelerator is not None:
        wanted.append(f"with the accelerator {work.accelerator}")
    if work.memory_bytes is not None:
        wanted.append(f"with {gigabytes(work.memory_bytes)} or more")
    return ", ".join(wanted)


def _behind(work: Work, rivals: Counter[tuple[int, bool]]) -> str:
    """How many go first, and for what reason."""
    late = sum(count for (_, overdue), count in rivals.items() if overdue)
    higher = sum(
        count
        for (priority, overdue), count in rivals.items()
        if priority > work.priority and not overdue
    )
    rest = rivals.total() - late - higher
    parts = (
        (higher, "of higher priority"),
        (late, "that have waited for too long"),
        (rest, "of users who have less, or that came first"),
    )
    return f"behind {', '.join(f'{count} {why}' for count, why in parts if count)}"


def _busy(agents: frozenset[str], queue: Queue) -> str:
    doing: dict[str, list[str]] = defaultdict(list)
    for held in sorted(queue.assigned.values(), key=lambda one: one.work.place):
        what = "job" if held.kind == "train" else "evaluation"
        doing[held.agent_id].append(f"{what} {held.work_id}")
    them = [queue.ledger.agents[agent_id] for agent_id in sorted(agents)]
    names = (f"{agent.name} with {_held(doing[agent.agent_id], agent)}" for agent in them)
    one = (
        "the only agent that can run it is"
        if len(them) == 1
        else f"all {len(them)} agents that can run it are"
    )
    return f"{one} busy: {_listed(names, len(them))}"


def _held(works: list[str], agent: Agent) -> str:
    if not works:
        return f"{agent.slots} slots"
    return _listed(works, len(works))


def _listed(names: Iterable[str], count: int, between: str = ", ") -> str:
    few = [name for _, name in zip(range(NAMED), names, strict=False)]
    more = [f"{count - NAMED} more"] if count > NAMED else []
    return between.join([*few, *more])


def wait_of(waits: Iterable[Wait], work_id: UUID) -> Wait | None:
    return next((one for one in waits if one.work.work_id == work_id), None)
