"""Compares the past with what was seen of it: every event's views recorded, then asked about at random points.

    python -m tests.projections.points [POINTS [LIVES]]

The long form of `test_past`, on servers of its own; about a minute for 1,000 points.
"""

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from projections.projection import registry, step_metrics
from projections.queries import open_queries
from projections.run import Runner
from tests.projections import histories as h
from tests.projections.support import make_tables, running
from tests.projections.test_past import SEED, Fed, Shown, interleaved, shown

NAMES = ("life 0", "life 1", "life 2")
ENDS = ("succeeded", "failed", "cancelled", "succeeded", "running")


def log(lives: int, chance: random.Random) -> list[h.Stored]:
    """Jobs of two models beside one another, again and again, and all that goes on around them."""
    life = [
        h.whole_life(
            f"life {n}",
            model=("intents", "other")[n % 2],
            number=n // 2 + 1,
            attempts=n % 3 + 1,
            end=ENDS[n % len(ENDS)],
            evaluation=("completed", "failed", "cancelled")[n % 3],
        )
        for n in range(lives)
    ]
    around = [
        iter([h.dataset_registered(f"d {n}"), h.dataset_validated(f"d {n}")]) for n in range(lives)
    ]
    once = [iter(h.whole_life_of_a_webhook()), iter([h.invited(), h.joined(), h.enrolled()])]
    keys = [iter([h.key_issued(f"key{n:05d}")]) for n in range(lives)]
    events = interleaved([*life, *around, *once, *keys], chance)
    return h.Log().add(*h.models_created_once(list(events))).messages


async def compare(points: int, lives: int) -> int:
    """How many of the points were not as they had been shown."""
    chance = random.Random(SEED)
    messages, began = log(lives, chance), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        given = Settings(data_dir=Path(folder) / "data", gateway=GatewaySettings(port=0))
        async with (
            EmbeddedStack(given) as stack,
            open_queries(stack.settings.postgres_dsn) as queries,
        ):
            for projection in (registry, step_metrics):
                await make_tables(stack.settings.postgres_dsn, projection)
            source = Fed()
            then: list[Shown] = [await shown(queries, NAMES)]
            async with running(Runner(registry, source, stack.settings.postgres_dsn)):
                for message in messages:
                    source.tell(message)
                    if not await queries.wait_for(message.sequence, 30):
                        raise SystemExit(f"event {message.sequence} was not projected in time")
                    then.append(await shown(queries, NAMES))
            chosen = [chance.randrange(len(then)) for _ in range(points)]
            wrong = [at for at in chosen if await shown(queries.at(at), NAMES) != then[at]]
    took = time.monotonic() - began
    print(
        f"{len(messages)} events, {points} points, {len(wrong)} differ {wrong[:10]}, {took:.0f} s"
    )
    return len(wrong)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    sys.exit(bool(asyncio.run(compare(*(numbers + [1000, 40][len(numbers) :])))))
