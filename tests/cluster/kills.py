"""Commands through a cluster whose leader is killed again and again: none is lost, none is doubled.

`python -m tests.cluster.kills` sends 10,000 commands while the leader of EVENTS dies ten times, then
wipes one node after the other. It says how long a client had to wait each time.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from nats.aio.client import Client

from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_feed import NatsFeed
from domain.errors import BusUnavailable, CommandTimeout
from domain.links.commands import IssueLink
from domain.messages import Command, Envelope, StreamId
from finetrail.handlers import run_handlers
from tests.cluster.nodes import Cluster, cluster

SENDERS = 32
PATIENCE_S = 5.0  # of one try; then the same command is sent again under its id
WITHIN_S = 1200.0
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Outcome:
    """What became of the commands."""

    commands: int
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    events: int = 0
    kills: int = 0
    rejoined: int = 0
    seconds: float = 0
    outages_s: list[float] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled) and self.acknowledged == self.commands


class Load:
    """Sends every command until it has an outcome, and notes when each came."""

    def __init__(self, found: Cluster, count: int) -> None:
        self._cluster = found
        self._left = iter(range(count))
        self.done: dict[UUID, int] = {}
        self.times: list[float] = []

    async def run(self, nc: Client) -> None:
        bus = NatsCommandBus(nc)
        async with asyncio.TaskGroup() as senders:
            for _ in range(SENDERS):
                senders.create_task(self._send(bus))

    async def _send(self, bus: NatsCommandBus) -> None:
        for _ in self._left:
            link = IssueLink(
                link_id=uuid4(), resource="dataset", resource_id=uuid4(), expires_at=UNTIL
            )
            envelope = _envelope(link)
            while True:
                try:
                    outcome = await bus.send(envelope, timeout_s=PATIENCE_S)
                except (BusUnavailable, CommandTimeout):
                    continue
                assert outcome.status == "recorded", outcome
                break
            self.done[link.link_id] = outcome.sequence
            self.times.append(time.monotonic())

    async def reached(self, count: int) -> None:
        while len(self.done) < count:
            await asyncio.sleep(0.02)

    def outage(self, since: float) -> float:
        """The longest time without any outcome from then on."""
        times = [since, *(at for at in self.times if at >= since)]
        return max((b - a for a, b in pairwise(times)), default=0.0)


@asynccontextmanager
async def serving(found: Cluster) -> AsyncIterator[None]:
    stop = asyncio.Event()
    handlers = asyncio.create_task(run_handlers(found.settings, stop))
    try:
        yield
    finally:
        stop.set()
        await handlers


async def measure(folder: Path, *, commands: int, kills: int, wipe: bool) -> Outcome:
    """Run it in a cluster of its own below ``folder``."""
    began = time.monotonic()
    outcome = Outcome(commands)
    async with cluster(folder) as found, asyncio.timeout(WITHIN_S):
        nc, watch = await found.connect("gateway"), await found.connect("admin")
        try:
            async with serving(found):
                load = Load(found, commands)
                sending = asyncio.create_task(load.run(nc))
                await _kill_leaders(found, watch, load, outcome, kills)
                await sending
            await found.whole(watch)
            await _compare(watch, load, outcome)
            for node in found.nodes if wipe else ():
                await node.wipe()
                await node.start()
                await found.whole(watch)
                await _compare(watch, load, outcome)
                outcome.rejoined += 1
                print(f"{node.name} was wiped and has everything again", flush=True)
        finally:
            await nc.close()
            await watch.close()
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


async def _kill_leaders(
    found: Cluster, watch: Client, load: Load, outcome: Outcome, kills: int
) -> None:
    step = outcome.commands // (kills + 1)
    for number in range(1, kills + 1):
        await load.reached(number * step)
        await found.whole(watch)  # else a second death would be more than the cluster promises
        leader = await found.leader(watch)
        since, before = time.monotonic(), len(load.done)
        await leader.kill()
        outcome.kills += 1
        await load.reached(min(before + step // 4, outcome.commands))
        outcome.outages_s.append(round(load.outage(since), 2))
        print(f"kill {number}: {leader.name}, no outcome for {outcome.outages_s[-1]} s", flush=True)
        await leader.start()


async def _compare(nc: Client, load: Load, outcome: Outcome) -> None:
    feed, after, more = NatsFeed(nc), 0, True
    found: Counter[UUID] = Counter()
    sequences: dict[UUID, int] = {}
    while more:
        page, more = await feed.page("EVENTS", "events.*.link.*", after, 500)
        for message in page:
            after = message.sequence
            id_ = UUID(json.loads(message.data)["link_id"])
            found[id_] += 1
            sequences[id_] = message.sequence
    outcome.acknowledged = len(load.done)
    outcome.events = found.total()
    outcome.doubled = max(outcome.doubled, sum(count > 1 for count in found.values()))
    lost = [id_ for id_, at in load.done.items() if sequences.get(id_) != at]
    outcome.lost = max(outcome.lost, len(lost))


def _envelope(link: IssueLink) -> Envelope[Command]:
    id_ = uuid4()
    return Envelope(
        id=id_,
        stream=StreamId("default", "link", link.link_id),
        source="gateway",
        actor="test",
        correlation_id=id_,
        causation_id=None,
        sent_at=datetime.now(UTC),
        command=link,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--no-wipe", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)  # every command that waits is worth a line otherwise
    with tempfile.TemporaryDirectory(prefix="finetrail-cluster-") as folder:
        outcome = asyncio.run(
            measure(
                Path(folder), commands=chosen.commands, kills=chosen.kills, wipe=not chosen.no_wipe
            )
        )
    facts: dict[str, Any] = {**asdict(outcome), "good": outcome.good}
    print(json.dumps(facts) if chosen.json else "\n".join(f"{k}: {v}" for k, v in facts.items()))
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
