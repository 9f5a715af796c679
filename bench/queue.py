"""How long the queue takes: to be folded from a long log, to decide, and to say why everything waits.

Times are of the processor, so that a busy machine tells the same.
"""

import argparse
import json
import time
from collections.abc import Iterator
from uuid import UUID

from domain.queues.commands import Assign
from domain.queues.events import QueueEvent, SlotsOffered, WorkAssigned, WorkQueued, WorkWithdrawn
from domain.queues.queue import decider
from domain.queues.state import Queue
from domain.queues.waiting import explain

USERS = 20
AGENTS = 10


def queued(number: int) -> WorkQueued:
    return WorkQueued(
        work_id=UUID(int=number),
        kind="train" if number % 2 else "evaluate",
        method="sft",
        attempt=1,
        user=f"key:{number % USERS}",
        priority=(30, 50, 70)[number % 3],
    )


def offers() -> Iterator[QueueEvent]:
    for number in range(AGENTS):
        yield SlotsOffered(
            agent_id=f"agent-{number}",
            name=f"box-{number}",
            slots=2,
            methods=("sft",),
            accelerator="cpu",
            memory_bytes=8_000_000_000,
        )


def finished(works: int) -> Iterator[QueueEvent]:
    for number in range(works):
        id_ = UUID(int=10**9 + number)
        yield queued(number).model_copy(update={"work_id": id_})
        user = f"key:{number % USERS}"
        yield WorkAssigned(
            work_id=id_, kind="train", attempt=1, agent_id="agent-0", reason="", user=user
        )
        yield WorkWithdrawn(work_id=id_, reason="JobSucceeded")


def folded(events: Iterator[QueueEvent], state: Queue) -> tuple[Queue, float]:
    began = time.process_time()
    for event in events:
        state = decider.evolve(state, event)
    return state, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finished", type=int, default=100_000, help="works that are over")
    parser.add_argument("--waiting", type=int, default=10_000, help="works that wait")
    parser.add_argument("--decisions", type=int, default=20)
    options = parser.parse_args()
    state, offering_s = folded(offers(), decider.initial)
    state, finished_s = folded(finished(options.finished), state)
    arrivals = (queued(number) for number in range(options.waiting))
    state, waiting_s = folded(arrivals, state)
    began = time.process_time()
    for _ in range(options.decisions):
        for event in decider.decide(Assign(), state):
            state = decider.evolve(state, event)
    decided_s = time.process_time() - began
    began = time.process_time()
    waits = explain(state)
    explained_s = time.process_time() - began
    figures = {
        "finished_works": options.finished,
        "fold_finished_s": round(offering_s + finished_s, 2),
        "waiting_works": options.waiting,
        "fold_waiting_s": round(waiting_s, 2),
        "decide_ms": round(1000 * decided_s / options.decisions, 2),
        "explain_all_ms": round(1000 * explained_s, 1),
        "explained": len(waits),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
