"""What became different between two points, on a real Postgres, beside what folding the log says."""

import random
from collections.abc import AsyncIterator

import pytest

from domain.messages import Event, Recorded
from projections.changes import KINDS, Changed, Place
from projections.past import folded
from projections.projection import registry
from projections.queries import Queries, open_queries
from projections.view import Key
from tests.projections import histories as h
from tests.projections.support import ListSource, project
from tests.projections.test_past import SEED, history

pytestmark = pytest.mark.infra
W = h.WORKSPACE
ALL = range(len(KINDS))


@pytest.fixture
async def queries(dsn: str) -> AsyncIterator[Queries]:
    async with open_queries(dsn) as opened:
        yield opened


def expected(events: list[Recorded[Event]], since: int, until: int) -> list[Changed]:
    """By folding everything, one event after another."""
    found: list[Changed] = []
    for number, kind in enumerate(KINDS):
        before = folded(kind.view, events[:since])
        now = folded(kind.view, events[:until])
        rows, first = dict(before), dict[Key, int]()
        for event in events[since:until]:
            key = kind.view.key(event)
            if (
                key is not None
                and kind.view.wants
                and type(event.event).__name__ in kind.view.wants
            ):
                row = kind.view.project(rows.get(key), event)
                if row is not None and row != rows.get(key):
                    first.setdefault(key, event.sequence)
                    rows[key] = row
        ordered = sorted(first.items(), key=lambda one: one[1])
        found += [Changed(number, at, before.get(key), now[key]) for key, at in ordered]
    return found


async def test_it_is_what_folding_the_log_at_both_points_says(dsn: str, queries: Queries) -> None:
    chance = random.Random(SEED)
    log = history(chance)
    await project(registry, ListSource(log), dsn)
    events = [message.recorded for message in log]

    pairs = [(0, len(log)), (5, 5)]
    for _ in range(30):
        since, until = sorted(chance.sample(range(len(log) + 1), 2))
        pairs.append((since, until))
    for since, until in pairs:
        changes = queries.changes(W, since, until)
        assert await changes.page(ALL, None, 500) == expected(events, since, until)
        assert await queries.changes("other", since, until).page(ALL, None, 500) == []


async def test_pages_are_the_parts_of_the_whole(dsn: str, queries: Queries) -> None:
    log = history(random.Random(SEED))
    await project(registry, ListSource(log), dsn)
    changes = queries.changes(W, 10, len(log) - 3)
    whole = await changes.page(ALL, None, 500)

    found: list[Changed] = []
    while len(found) < len(whole):
        start = Place(found[-1].kind, found[-1].first) if found else None
        page = await changes.page(ALL, start, 3)
        assert 0 < len(page) <= 3
        found += page

    assert found == whole
    assert len(whole) > 15
    assert await changes.page([1], None, 500) == [one for one in whole if one.kind == 1]
