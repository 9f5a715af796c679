"""A receiver of webhooks that is down now and then, on a thread of its own; and whether it was told everything."""

import asyncio
import json
import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from typing_extensions import override

from domain.webhooks.messages import message_id, type_name, wants
from tests.delivery.real import Posted, Receiver, receiving

UP_S: Final = (6.0, 20.0)
DOWN_S: Final = (1.0, 4.0)
FAILURES: Final = (None, "500 Internal Server Error", "503 Service Unavailable")


@dataclass(frozen=True, slots=True)
class Told:
    """One delivery that was taken."""

    id: str
    sequence: int
    subject: str


@dataclass
class Taken(list[Posted]):
    """Takes note of deliveries instead of keeping them."""

    told: list[Told] = field(default_factory=list)

    @override
    def append(self, posted: Posted) -> None:
        data = json.loads(posted.body)["data"]
        self.told.append(Told(posted.headers["webhook-id"], data["sequence"], data["aggregate_id"]))


@dataclass(frozen=True, slots=True)
class Hook:
    id: UUID
    event_types: tuple[str, ...] | None
    added: int  # sequence


class Hooks:
    """The receiver of every webhook of a run."""

    def __init__(self, seed: int) -> None:
        self.taken = Taken()
        self._receiver = Receiver(self._answer, taken=self.taken)
        self._chance = random.Random(f"receiver {seed}")
        self._always_up = False
        self._failure: str | None = None
        self._until = 0.0
        self._is_down = True
        self.refused = 0
        self._listening = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> str:
        """The address to be told at."""
        self._thread.start()
        assert self._listening.wait(10)
        return self._receiver.url

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(10)

    def stay_up(self) -> None:
        self._always_up = True

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        async with receiving(self._receiver):
            self._listening.set()
            await asyncio.to_thread(self._stopped.wait)

    def _answer(self) -> str | None:
        now = time.monotonic()
        if now > self._until:
            self._is_down = not self._is_down
            self._until = now + self._chance.uniform(*(DOWN_S if self._is_down else UP_S))
            self._failure = self._chance.choice(FAILURES)
        if self._always_up or not self._is_down:
            return "200 OK"
        self.refused += 1
        return self._failure


def missed(hook: Hook, events: list[Any], told: list[Told]) -> list[str]:
    """Events that it was not told of, and things of which a later one came before an earlier one."""
    first: dict[str, int] = {}
    for number, one in enumerate(told):
        first.setdefault(one.id, number)
    wanted = [
        event
        for event in events
        if event["sequence"] > hook.added
        and wants(hook.event_types, type_name(event["aggregate"], event["type"]))
    ]
    ids = {event["sequence"]: message_id(hook.id, UUID(event["id"])) for event in wanted}
    wrong = [
        f"{event['type']} at {event['sequence']} was not delivered"
        for event in wanted
        if ids[event["sequence"]] not in first
    ]
    lanes: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for event in wanted:
        if ids[event["sequence"]] in first:
            thing = (event["aggregate"], event["aggregate_id"])
            lanes[thing].append(first[ids[event["sequence"]]])
    wrong += [
        f"what happened to {' '.join(thing)} was not delivered in order"
        for thing, order in lanes.items()
        if order != sorted(order)
    ]
    return wrong
