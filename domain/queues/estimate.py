"""When what waits may start: guessed from what runs, how long such works take, and the order in force."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from uuid import UUID

from domain.queues.ranking import fits
from domain.queues.state import Queue, Work
from domain.queues.waiting import Wait

Seconds = Callable[[Work], float | None]


@dataclass(frozen=True, slots=True)
class Estimate:
    seconds: float | None  # from now
    reason: str | None = None  # why nothing is known


def estimate(
    queue: Queue, waits: Sequence[Wait], left: Mapping[UUID, float | None], lasts: Seconds
) -> dict[UUID, Estimate]:
    """Put everything that waits onto the slots in order; what comes later is not known of.

    Args:
        left: of what is assigned, how many seconds it still takes; None where nobody knows.
        lasts: how long a work takes, as far as that can be told beforehand.
    """
    slots = _slots(queue, left)
    ends = _ends(queue, left)
    found: dict[UUID, Estimate] = {}
    for wait in waits:
        work = wait.work
        able = [
            (slots[agent.agent_id][0], agent.agent_id)
            for agent in queue.ledger.agents.values()
            if slots.get(agent.agent_id) and fits(work, agent)
        ]
        if not able:
            found[work.work_id] = Estimate(None, "no connected agent can run it")
            continue
        free_at, agent_id = min(able)
        start = max(free_at, _allowed_at(queue, work.user, ends))
        if start == inf:
            why = "nothing is known of how long what goes before it takes"
            found[work.work_id] = Estimate(None, why)
        else:
            found[work.work_id] = Estimate(start)
        took = lasts(work)
        end = inf if took is None else start + took
        heappop(slots[agent_id])
        heappush(slots[agent_id], end)
        heappush(ends.setdefault(work.user, []), end)
    return found


def _slots(queue: Queue, left: Mapping[UUID, float | None]) -> dict[str, list[float]]:
    """For each agent that is there, when its slots come free."""
    slots = {
        agent.agent_id: [0.0] * agent.slots
        for agent in queue.ledger.agents.values()
        if agent.away is None
    }
    for held in queue.assigned.values():
        its = slots.get(held.agent_id)
        if its and 0.0 in its:
            its[its.index(0.0)] = _known(left.get(held.work_id))
    for its in slots.values():
        heapify(its)
    return slots


def _ends(queue: Queue, left: Mapping[UUID, float | None]) -> dict[str, list[float]]:
    """For each user, when what they run ends."""
    ends: dict[str, list[float]] = {}
    for held in queue.assigned.values():
        heappush(ends.setdefault(held.work.user, []), _known(left.get(held.work_id)))
    return ends


def _allowed_at(queue: Queue, user: str, ends: dict[str, list[float]]) -> float:
    """When the user has less than may run at once."""
    limit = queue.ledger.policy.of(user).running
    running = ends.get(user, [])
    if limit is None or len(running) < limit:
        return 0.0
    if limit == 0:
        return inf
    return sorted(running)[len(running) - limit]


def _known(seconds: float | None) -> float:
    return inf if seconds is None else max(seconds, 1e-9)  # not 0: that would be a free slot
