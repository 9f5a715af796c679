"""What was: as-of answers beside what the views showed at each event, on a real Postgres."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from domain.access.events import KeyRevoked
from domain.messages import Event
from projections import jobs, tables
from projections.model_filter import ModelFilter
from projections.past import FIXED, PastQueries
from projections.projection import registry, step_metrics
from projections.queries import Queries, open_queries
from projections.run import Runner
from projections.timeline import BLOCK
from projections.view import events_of
from tests.projections import histories as h
from tests.projections.support import (
    ListSource,
    drop_everything,
    make_tables,
    project,
    running,
)

pytestmark = pytest.mark.infra
W = h.WORKSPACE
SEED = 20_261_121
ALL = 500
Shown = dict[str, object]


@pytest.fixture
async def queries(dsn: str) -> AsyncIterator[Queries]:
    async with open_queries(dsn) as opened:
        yield opened


class Fed:
    """A source that delivers a message when it is told to."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[h.Stored] = asyncio.Queue()

    def tell(self, message: h.Stored) -> None:
        self._told.put_nowait(message)

    async def last(self) -> int:
        return 0

    async def follow(self, _after: int) -> AsyncGenerator[Sequence[h.Stored], None]:
        while True:
            yield [await self._told.get()]


def interleaved(lives: Sequence[Iterator[Event]], chance: random.Random) -> Iterator[Event]:
    """The events of several lives that go on at the same time."""
    left = list(lives)
    while left:
        life = chance.choice(left)
        event = next(life, None)
        if event is None:
            left.remove(life)
        else:
            yield event


def history(chance: random.Random) -> list[h.Stored]:
    lives = [
        h.whole_life("one", attempts=2),
        h.whole_life("two", number=2, evaluation="failed"),
        h.whole_life("three", end="failed"),
        h.whole_life("four", end="cancelled"),
        h.whole_life("five", model="other", evaluation="cancelled"),
        h.whole_life("six", model="third", end="running"),
        iter([h.dataset_registered("tickets"), h.dataset_validated("tickets")]),
        iter([h.chat_registered("chat"), h.chat_validated("chat")]),
        iter(h.whole_life_of_a_webhook()),
        iter([h.person_added("ana"), h.person_forgotten("ana")]),
        iter([h.invited(), h.joined(), h.enrolled()]),
        iter([h.key_issued(), h.key_issued("aaaaaaaa"), KeyRevoked(key_id="aaaaaaaa")]),
    ]
    events = h.models_created_once(list(interleaved(lives, chance)))
    return h.Log().add(*events).messages


async def shown(queries: Queries | PastQueries, names: Sequence[str]) -> Shown:
    """Everything that can be asked about a point, in full."""
    found: Shown = {
        "datasets": await queries.datasets(W, limit=ALL),
        "models": await queries.models(W, limit=ALL),
        "ready": await queries.models(W, ModelFilter(status="ready"), limit=ALL),
        "active": await queries.models(W, ModelFilter(status="active"), limit=ALL),
        "second": await queries.models(W, limit=1, offset=1),
        "evaluations": await queries.evaluations(W, limit=ALL),
        "agents": await queries.agents(W),
        "keys": await queries.keys(W),
        "people": await queries.people(W, limit=ALL),
        "person": await queries.person(W, h.id_of("person", "ana")),
        "webhook": await queries.webhook(W, h.id_of("webhook", "chat")),
        "by name": await queries.model(W, "intents"),
    }
    for name in ("intents", "other"):
        model = h.id_of("model", name)
        found[f"versions of {name}"] = await queries.versions(W, model, limit=ALL)
        found[f"first of {name}"] = await queries.version(W, model, 1)
    for job in names:
        id_ = h.id_of("job", job)
        found[f"job {job}"] = await queries.job(W, id_)
        found[f"epochs of {job}"] = await queries.job_epochs(W, id_)
    return found


async def test_any_point_shows_what_the_views_showed_then(dsn: str, queries: Queries) -> None:
    chance = random.Random(SEED)
    log = history(chance)
    names = ("one", "two", "five", "six")
    await make_tables(dsn, registry)
    await make_tables(dsn, step_metrics)
    source, then = Fed(), [await shown(queries, names)]
    async with running(Runner(registry, source, dsn)):
        for message in log:
            source.tell(message)
            assert await queries.wait_for(message.sequence, 10)
            then.append(await shown(queries, names))

    points = chance.sample(range(len(log) + 1), 40)
    written_singly = {point: await shown(queries.at(point), names) for point in points}
    await drop_everything(dsn)
    await project(registry, ListSource(log, sizes=(50, 3, 100)), dsn)
    written_in_batches = {point: await shown(queries.at(point), names) for point in points}

    for point in points:
        assert written_singly[point] == then[point], point
        assert written_in_batches[point] == then[point], point
    assert all(then[-1].values()), "every question has an answer in the end"


async def test_a_moment_means_the_last_event_recorded_until_then(
    dsn: str, queries: Queries
) -> None:
    log = h.Log().add(*h.everything()).messages
    late = [message for message in log if message.sequence % 7 == 3]
    for message in late:  # another handler's clock is a minute behind
        at = h.START + timedelta(seconds=message.sequence - 60)
        message.headers["ce-time"] = at.isoformat()
    await project(registry, ListSource(log), dsn)
    times = [message.recorded.recorded_at for message in log]

    for moment in (*times, h.START - timedelta(days=1), h.START + timedelta(days=1)):
        for shift in (-1, 0, 1):
            asked = moment + timedelta(microseconds=shift)
            until = [m.sequence for m, at in zip(log, times, strict=True) if at <= asked]
            assert await queries.last_until(W, asked) == max(until, default=0)
    assert await queries.last_until("other", times[-1]) == 0


async def test_a_moment_is_found_in_any_block(dsn: str, queries: Queries) -> None:
    events = [event for n in range(3 * BLOCK // 2) for event in (h.dataset_registered(f"d {n}"),)]
    log = h.Log().add(*events).messages
    await project(registry, ListSource(log), dsn)

    for sequence in (1, BLOCK - 1, BLOCK, BLOCK + 1, len(log)):
        assert await queries.last_until(W, log[sequence - 1].recorded.recorded_at) == sequence


async def test_what_is_chosen_by_never_changes_while_a_row_lives(dsn: str) -> None:
    await project(registry, ListSource(history(random.Random(SEED))), dsn)
    differing = "SELECT count(*) FROM (SELECT {key} FROM {table} GROUP BY {key} HAVING {more}) AS k"

    for view in registry.views:
        if view.history is not None:
            table, columns = view.history, {column.name for column in view.table.columns}
            key = ", ".join(column.name for column in view.table.primary_key)
            more = " OR ".join(f"count(DISTINCT {name}) > 1" for name in sorted(FIXED & columns))
            asked = differing.format(key=key, table=table.fullname, more=more)
            assert await fetched(dsn, asked) == 0, view.name
            assert await fetched(dsn, f"SELECT count(*) FROM {table.fullname}") > 0, view.name  # noqa: S608


def test_every_event_that_touches_a_job_is_read_for_its_past() -> None:
    (index,) = [one for one in tables.timeline.indexes if one.name == "timeline_for_jobs"]
    named = str(index.dialect_options["postgresql"]["where"]).split("'")[1::2]

    assert frozenset(named) == jobs.OTHERS
    assert events_of("job") | jobs.OTHERS == jobs.WANTED
    assert events_of("job") >= set(jobs.EPOCHS.wants or ())


async def fetched(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
