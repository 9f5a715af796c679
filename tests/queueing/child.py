"""A child that trains nothing for as long as the name of the model says: `lasts-7` for 0.7 s."""

import time
from collections.abc import Iterator
from threading import Event

from domain.work import Fact, Stopped, TrainAssignment
from gpu_agent.pipes import Orders
from gpu_agent.protocol import ChildInput
from tests.agent import stand_in

STEP_S = 0.05


def behave(order: ChildInput, orders: Orders) -> Iterator[Fact]:
    if not isinstance(order.assignment, TrainAssignment):
        yield stand_in.evaluated(order)
        return
    yield stand_in.started(order)
    tenths = int(order.assignment.spec.model_name.split("-")[1])
    ends, number = time.monotonic() + tenths / 10, 0
    while time.monotonic() < ends and not orders.stop:
        number += 1
        yield stand_in.step(number)
        Event().wait(STEP_S)
    yield Stopped(step=number) if orders.stop else stand_in.finished(order)


if __name__ == "__main__":
    stand_in.behave = behave
    stand_in.main()
