"""The process as a whole, as the role `projections` on a stack's own servers."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from adapters.nats_connection import connect
from finetrail.projections import create_tables, run_projections
from finetrail.rebuilding import NoSuchView, rebuild
from finetrail.settings import Settings, as_environment
from finetrail.stack.supervisor import EmbeddedStack
from projections.queries import open_queries
from tests.projections import histories as h
from tests.projections.support import all_rows, eventually, execute
from tests.projections.test_rebuild import fetch, schemas

pytestmark = pytest.mark.infra


@asynccontextmanager
async def process(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_projections(settings, stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await task


@pytest.fixture
async def admin(stack: EmbeddedStack) -> AsyncIterator[Client]:
    login = stack.settings.nats_login("admin")
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="test",
        inbox_prefix=login.inbox_prefix,
    )
    yield nc
    await nc.close()


async def append(nc: Client, messages: list[h.Stored]) -> int:
    """Put these into their stream; gives the last one's sequence there."""
    js = nc.jetstream()
    sequence = 0
    async with asyncio.timeout(30):
        for message in messages:
            ack = None
            while ack is None:
                with contextlib.suppress(NatsError):  # it restarts; the id keeps a retry single
                    ack = await js.publish(
                        message.subject, message.data, headers=message.headers, timeout=1
                    )
            sequence = ack.seq
    return sequence


async def everything_shown(stack: EmbeddedStack, admin: Client) -> int:
    """Append a log, and see to it that it is in the rows, with the telemetry of other tests."""
    last = await append(admin, h.Log().add(*h.everything()).messages)
    telemetry = (await admin.jetstream().stream_info("TELEMETRY")).state.last_seq
    async with open_queries(stack.settings.postgres_dsn) as queries:
        assert await queries.wait_for(last, 20)
        assert await queries.wait_for(telemetry, 20, name="metrics")
    return last


async def test_events_become_rows_through_restarts_of_both_servers(
    stack: EmbeddedStack, dsn: str, admin: Client
) -> None:
    messages = h.Log().add(*h.everything()).messages
    steps = [h.reported(n, "one", 1, [h.step(n)]) for n in range(1, 11)]
    async with process(stack.settings), open_queries(dsn) as queries:
        seen = await append(admin, messages[:40])
        assert await queries.wait_for(seen, 20)

        os.kill(stack.pids["nats"], signal.SIGKILL)
        os.kill(stack.pids["postgres"], signal.SIGKILL)
        seen = await append(admin, messages[40:])
        reported = await append(admin, steps)

        assert await queries.wait_for(seen, 30)
        assert await queries.wait_for(reported, 30, name="metrics")
        job = await queries.job(h.WORKSPACE, h.id_of("job", "one"))
        events = await queries.events(h.WORKSPACE, limit=1000)

    assert job is not None
    assert job.row.status == "succeeded"
    assert [row.type for row in events] == [type(m.recorded.event).__name__ for m in messages]


async def test_a_second_start_goes_on_where_the_first_stopped(
    stack: EmbeddedStack, dsn: str
) -> None:
    async with process(stack.settings), open_queries(dsn) as queries:
        async with asyncio.timeout(20):
            while not (before := await position_or_none(dsn)):
                await asyncio.sleep(0.02)
        assert await queries.wait_for(before, 20)
    rows = await all_rows(dsn)

    await create_tables(dsn)
    assert await position_or_none(dsn) == before
    async with process(stack.settings), open_queries(dsn) as queries:
        assert await queries.wait_for(before, 20)

    assert await all_rows(dsn) == rows


async def test_whoever_owns_the_stack_has_views_filled_anew_while_it_runs(
    stack: EmbeddedStack, dsn: str, admin: Client
) -> None:
    last = await append(admin, h.Log().add(*h.everything()).messages)
    async with process(stack.settings), open_queries(dsn) as queries:
        assert await queries.wait_for(last, 20)
        one = [states async for states in rebuild(stack.settings, "timeline")][-1]
        all_ = [states async for states in rebuild(stack.settings, None)][-1]
        before = await all_rows(dsn)

        (done,) = one
        assert (done.views, done.status, done.differences) == (["timeline"], "switched", {})
        assert done.sequence == done.goal == last
        assert [done.status for done in all_] == ["switched", "switched"]
        assert len(before["timeline"]) == len(await queries.events(h.WORKSPACE, limit=10_000))

        with pytest.raises(NoSuchView, match="perhaps one of timeline"):
            await anext(rebuild(stack.settings, "timelines"))


async def test_a_rebuild_whose_process_is_killed_leaves_what_is_read_and_the_next_cleans_up(
    stack: EmbeddedStack, dsn: str, admin: Client
) -> None:
    async with process(stack.settings):
        await everything_shown(stack, admin)
    before, places = await all_rows(dsn), await schemas(dsn)

    async with killed(stack.settings, dsn):
        await fetch(
            dsn,
            "INSERT INTO finetrail.projection_rebuild (projection, views, reason, status) "
            "SELECT 'registry', array_agg(name), 'asked', 'asked' FROM finetrail.projection_view "
            "WHERE projection = 'registry'",
        )

    (half,) = await schemas(dsn) - places
    ((filled,),) = await fetch(dsn, f"SELECT count(*) FROM {half}.timeline")  # noqa: S608
    assert 0 < filled < len(before["timeline"])
    assert await all_rows(dsn) == before
    async with process(stack.settings):
        (done,) = [states async for states in rebuild(stack.settings, "timeline")][-1]
        assert (done.status, done.differences) == ("switched", {})

        async def clean() -> bool:
            read = await fetch(dsn, "SELECT DISTINCT schema FROM finetrail.projection_view")
            return await schemas(dsn) == {row[0] for row in read}

        await eventually(clean)
    under_way = "SELECT id FROM finetrail.projection_rebuild WHERE status <> 'switched'"
    assert await fetch(dsn, under_way) == []
    assert await all_rows(dsn) == before


@asynccontextmanager
async def killed(settings: Settings, dsn: str) -> AsyncIterator[None]:
    """A process of its own that is killed once its rebuild has filled a part of the tables."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.projections.stalling",
        env={**os.environ, **as_environment(settings)},
    )
    try:
        yield

        async def half() -> bool:
            assert child.returncode is None
            found = await fetch(dsn, "SELECT sequence FROM finetrail.projection_rebuild")
            return any(row[0] > 0 for row in found)

        await eventually(half)
    finally:
        child.kill()
        await child.wait()


async def test_tables_that_are_dropped_under_a_running_process_come_back(
    stack: EmbeddedStack, dsn: str, admin: Client
) -> None:
    async with process(stack.settings):
        await everything_shown(stack, admin)
        before = await all_rows(dsn)

        await execute(dsn, "DROP SCHEMA finetrail CASCADE")

        async def back() -> bool:
            return await all_rows(dsn) == before

        await eventually(back)


async def position_or_none(dsn: str) -> int | None:
    connection = await asyncpg.connect(dsn)
    try:
        find = "SELECT sequence FROM finetrail.projection_checkpoint WHERE name = 'registry'"
        found: int | None = await connection.fetchval(find)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    finally:
        await connection.close()
    return found


async def test_it_stops_at_once_while_no_server_is_there() -> None:
    settings = Settings.model_validate(
        {
            "nats": {"url": "nats://127.0.0.1:1"},
            "postgres": {"dsn": "postgresql://finetrail:x@127.0.0.1:1/finetrail"},
        }
    )
    stop = asyncio.Event()
    task = asyncio.create_task(run_projections(settings, stop))
    await asyncio.sleep(0)

    stop.set()

    async with asyncio.timeout(5):
        await task


async def test_both_projections_are_listed_from_the_first_start_on(dsn: str) -> None:
    await create_tables(dsn)
    async with open_queries(dsn) as queries:
        standing = await queries.projections()

    assert [(one.name, one.sequence, one.error) for one in standing] == [
        ("metrics", 0, None),
        ("registry", 0, None),
    ]
