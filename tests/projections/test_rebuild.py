"""Tables are filled anew beside those that are read, and nobody who reads notices."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from typing_extensions import override

from projections import rebuild as rebuilding
from projections.ports import Message
from projections.projection import Projection, registry, step_metrics
from projections.rebuild import Rebuilder
from projections.run import Runner
from projections.schema import fingerprint
from tests.projections import histories as h
from tests.projections.support import (
    ListSource,
    all_rows,
    eventually,
    execute,
    make_tables,
    project,
    running,
)

pytestmark = pytest.mark.infra


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "LOOK_S", 0.02)
    monkeypatch.setattr(rebuilding, "RETRY_S", 0.02)


@pytest.fixture
def log() -> list[h.Stored]:
    return h.Log().add(*h.everything()).messages


@asynccontextmanager
async def rebuilder(
    projection: Projection[Any], source: ListSource, dsn: str
) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(Rebuilder(projection, source, dsn).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def fetch(dsn: str, query: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


async def ask(dsn: str, views: Sequence[str], projection: str = "registry") -> None:
    await fetch(
        dsn,
        "INSERT INTO finetrail.projection_rebuild (projection, views, reason, status) "
        "VALUES ($1, $2, 'asked', 'asked')",
        projection,
        list(views),
    )


async def last_rebuild(dsn: str) -> asyncpg.Record:
    found = "SELECT * FROM finetrail.projection_rebuild ORDER BY id DESC LIMIT 1"
    return (await fetch(dsn, found))[0]


async def ended(dsn: str) -> bool:
    return (await last_rebuild(dsn))["status"] in {"switched", "failed"}


async def schemas(dsn: str) -> set[str]:
    found = await fetch(dsn, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^finetrail_'")
    return {row[0] for row in found}


async def schema_of(dsn: str, view: str) -> str:
    found = "SELECT schema FROM finetrail.projection_view WHERE name = $1"
    return str((await fetch(dsn, found, view))[0][0])


def everything(projection: Projection[Any]) -> list[str]:
    return [view.name for view in projection.views]


async def test_a_rebuild_gives_the_same_rows_in_another_schema_and_drops_the_old_one(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    before, place = await all_rows(dsn), await schema_of(dsn, "job")
    await ask(dsn, everything(registry))

    async with (
        running(Runner(registry, ListSource(log), dsn)),
        rebuilder(registry, ListSource(log, sizes=(7,)), dsn),
    ):
        await eventually(lambda: ended(dsn))
        await eventually(lambda: only(dsn, {f"{place}_2"}))

    done = await last_rebuild(dsn)
    assert (done["status"], done["error"], done["found"]) == ("switched", None, "{}")
    assert done["switch_ms"] > 0
    assert await all_rows(dsn) == before
    assert await schema_of(dsn, "job") == f"{place}_2"
    assert await without_vacuum(dsn) == []


async def without_vacuum(dsn: str) -> list[str]:
    """Tables that the server leaves alone, as it does while they are filled."""
    options = "SELECT relname FROM pg_class WHERE 'autovacuum_enabled=off' = ANY (reloptions)"
    return [row[0] for row in await fetch(dsn, options)]


async def only(dsn: str, wanted: set[str]) -> bool:
    return await schemas(dsn) == wanted


async def test_one_view_is_rebuilt_and_what_was_wrong_in_it_is_told(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    before, place = await all_rows(dsn), await schema_of(dsn, "job")
    await execute(dsn, f"UPDATE {place}.job SET model = 'forged' WHERE sequence > 0")  # noqa: S608
    await execute(dsn, f"DELETE FROM {place}.model")  # noqa: S608
    await ask(dsn, ["job"])

    async with (
        running(Runner(registry, ListSource(log), dsn)),
        rebuilder(registry, ListSource(log), dsn),
    ):
        await eventually(lambda: ended(dsn))
        await eventually(lambda: gone(dsn, place, "job"))

    found = json.loads((await last_rebuild(dsn))["found"])
    assert found.keys() == {"job"}
    assert found["job"]["rows"] == len(before["job"])
    assert found["job"]["key"]["id"] in str(before["job"])
    after = await all_rows(dsn)
    assert after["job"] == before["job"]
    assert after["model"] == [], "only what was asked for is made anew"
    assert await schema_of(dsn, "model") == place


async def gone(dsn: str, schema: str, table: str) -> bool:
    (found,) = await fetch(dsn, "SELECT to_regclass($1)", f"{schema}.{table}")
    return found[0] is None


async def test_who_reads_all_the_while_never_sees_less_than_before(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    source = ListSource(log)
    runner = Runner(registry, source, dsn)
    seen: list[int] = []

    async def read() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            while True:
                count = "SELECT (SELECT count(*) FROM finetrail.timeline), max(sequence) FROM finetrail.job"
                timeline, job = await connection.fetchrow(count)  # type: ignore[misc]
                seen.append(timeline)
                assert job == jobs_end, "a row was missing or older"
        finally:
            await connection.close()

    ((jobs_end,),) = await fetch(dsn, "SELECT max(sequence) FROM finetrail.job")
    reading = asyncio.create_task(read())
    async with running(runner), rebuilder(registry, source, dsn):
        for _ in range(5):
            await ask(dsn, everything(registry))
            await eventually(lambda: ended(dsn))
            assert (await last_rebuild(dsn))["status"] == "switched"
    assert not reading.done(), reading
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    assert len(seen) > 10
    assert set(seen) == {len(log)}


async def test_events_that_come_during_a_rebuild_are_in_both(dsn: str, log: list[h.Stored]) -> None:
    await project(registry, ListSource(log), dsn)
    whole = await all_rows(dsn)
    await execute(dsn, "DROP SCHEMA finetrail CASCADE")
    live, shadow = Growing(log, 100), Growing(log, 100)
    await make_tables(dsn, registry)
    runner = Runner(registry, live, dsn)
    async with running(runner):
        await eventually(lambda: reached(runner, 100))
        await ask(dsn, everything(registry))
        async with rebuilder(registry, shadow, dsn):
            while not await ended(dsn):
                live.grow(3)
                shadow.grow(3)
                await asyncio.sleep(0.01)
            live.grow(len(log))
            await eventually(lambda: reached(runner, len(log)))

    assert (await last_rebuild(dsn))["status"] == "switched"
    assert await all_rows(dsn) == whole


class Growing(ListSource):
    """A log of which more is there each time that it grows."""

    def __init__(self, messages: Sequence[h.Stored], size: int) -> None:
        super().__init__(messages[:size])
        self._all = messages

    def grow(self, number: int) -> None:
        self.messages = list(self._all[: len(self.messages) + number])

    @override
    async def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]:
        while True:
            left = [message for message in self.messages if message.sequence > after]
            if not left:
                await asyncio.sleep(0.005)
            yield left[:7]
            after = left[:7][-1].sequence if left else after


async def reached(runner: Runner[Any], sequence: int) -> bool:
    return runner.state.sequence >= sequence


async def test_a_rebuild_that_is_killed_in_the_middle_goes_on_and_leaves_nothing_behind(
    dsn: str, log: list[h.Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)
    monkeypatch.setattr(rebuilding, "FOLD", 10)
    await ask(dsn, everything(registry))
    async with running(Runner(registry, ListSource(log), dsn)):
        for _ in range(3):
            held = Held(log, sizes=(10,))
            async with rebuilder(registry, held, dsn):
                await asyncio.wait_for(held.given.wait(), 10)
        assert not await ended(dsn)
        assert 0 < (await last_rebuild(dsn))["sequence"] < len(log)
        async with rebuilder(registry, ListSource(log), dsn):
            await eventually(lambda: ended(dsn))
            place = await schema_of(dsn, "job")
            await eventually(lambda: only(dsn, {place}))

    assert (await last_rebuild(dsn))["found"] == "{}"
    assert await all_rows(dsn) == before


class Held(ListSource):
    """Gives a few batches, and then nothing more."""

    def __init__(self, messages: Sequence[h.Stored], sizes: Sequence[int]) -> None:
        super().__init__([replace(message, pending=1000) for message in messages], sizes)
        self.given = asyncio.Event()

    @override
    async def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]:
        number = 0
        async for batch in super().follow(after):
            yield batch
            number += 1
            if number == 3:
                self.given.set()
                await asyncio.Event().wait()


async def test_what_a_dead_process_left_is_dropped(dsn: str, log: list[h.Stored]) -> None:
    await project(registry, ListSource(log), dsn)
    await execute(dsn, "CREATE SCHEMA finetrail_0badcafe")
    await execute(dsn, "CREATE TABLE finetrail_0badcafe.job (id int)")
    kept = await schema_of(dsn, "job")

    async with rebuilder(registry, ListSource(log), dsn):
        await eventually(lambda: only(dsn, {kept}))


async def test_two_instances_rebuild_once(dsn: str, log: list[h.Stored]) -> None:
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)
    await ask(dsn, everything(registry))
    first, second = Runner(registry, ListSource(log), dsn), Runner(registry, ListSource(log), dsn)

    async with (
        running(first),
        running(second),
        rebuilder(registry, ListSource(log), dsn),
        rebuilder(registry, ListSource(log), dsn),
    ):
        await eventually(lambda: ended(dsn))

    assert len(await fetch(dsn, "SELECT id FROM finetrail.projection_rebuild")) == 1
    assert await all_rows(dsn) == before


async def test_a_stand_by_takes_over_from_an_instance_that_dies_in_the_middle(
    dsn: str, log: list[h.Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)
    monkeypatch.setattr(rebuilding, "FOLD", 10)
    await ask(dsn, everything(registry))
    held = Held(log, sizes=(10,))
    runners = Runner(registry, ListSource(log), dsn), Runner(registry, ListSource(log), dsn)

    async with (
        running(runners[0]) as working,
        running(runners[1]),
        rebuilder(registry, held, dsn) as first,
    ):
        await asyncio.wait_for(held.given.wait(), 10)
        async with rebuilder(registry, ListSource(log), dsn):
            working.cancel()
            first.cancel()
            await eventually(lambda: ended(dsn))

    assert (await last_rebuild(dsn))["status"] == "switched"
    assert await all_rows(dsn) == before


async def test_another_build_fills_its_tables_while_the_old_rows_are_read(
    dsn: str, log: list[h.Stored]
) -> None:
    newer = replace(registry, revision=registry.revision + 1)
    await project(registry, ListSource(log[:-1]), dsn)
    before = await all_rows(dsn)
    await make_tables(dsn, newer)
    assert await all_rows(dsn) == before, "as they are"

    runner = Runner(newer, ListSource(log), dsn)
    async with running(runner):
        await eventually(lambda: reached(runner, len(log)))
        assert await schema_of(dsn, "job") == f"finetrail_{fingerprint(registry)[:8]}"
        followed = await all_rows(dsn)
        assert len(followed["timeline"]) == len(log), "and followed, for they have the same columns"
        async with rebuilder(newer, ListSource(log), dsn):
            await eventually(lambda: ended(dsn))
            await eventually(lambda: only(dsn, {f"finetrail_{fingerprint(newer)[:8]}"}))

            async def goes_on() -> bool:
                return runner.state.status == "running"

            await eventually(goes_on)

    assert await all_rows(dsn) == followed
    older = Runner(registry, ListSource(log), dsn)

    async def kept_out() -> bool:
        return older.state.status == "replaced"

    async with running(older):
        await eventually(kept_out)


async def test_tables_of_other_columns_are_read_as_they_are_until_the_switch(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)
    place = await schema_of(dsn, "job")
    await execute(dsn, f"ALTER TABLE {place}.job ADD COLUMN of_another_build text")
    await execute(dsn, "UPDATE finetrail.projection_checkpoint SET fingerprint = repeat('0', 64)")
    await make_tables(dsn, registry)
    runner = Runner(registry, ListSource(log), dsn)

    async def waits() -> bool:
        return runner.state.status == "waiting" and "other columns" in str(runner.state.error)

    async with running(runner):
        await eventually(waits)
        assert (await all_rows(dsn))["job"] == before["job"]
        async with rebuilder(registry, ListSource(log), dsn):
            await eventually(lambda: ended(dsn))

    assert await all_rows(dsn) == before


async def test_tables_from_before_there_were_schemas_are_moved_and_keep_their_rows(
    dsn: str, log: list[h.Stored]
) -> None:
    for projection in (registry, step_metrics):
        await project(projection, ListSource([]), dsn)
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)
    place, metrics = await schema_of(dsn, "job"), await schema_of(dsn, "job_step")
    for view in (*registry.views, *step_metrics.views):
        for table in view.tables:
            await execute(dsn, f"DROP VIEW finetrail.{table.name}")
            schema = metrics if view in step_metrics.views else place
            await execute(dsn, f"ALTER TABLE {schema}.{table.name} SET SCHEMA finetrail")
    await execute(dsn, f"DROP SCHEMA {place}; DROP SCHEMA {metrics}")
    await execute(dsn, "DROP TABLE finetrail.projection_view, finetrail.projection_rebuild")
    await execute(dsn, "ALTER TABLE finetrail.projection_checkpoint DROP COLUMN generation")

    await make_tables(dsn, registry)
    await make_tables(dsn, step_metrics)

    assert await all_rows(dsn) == before
    assert await schemas(dsn) == {place, metrics}
    runner = Runner(registry, ListSource(log), dsn)
    async with running(runner):
        await eventually(lambda: reached(runner, len(log)))


async def test_a_view_that_is_parked_is_rebuilt_when_what_parked_it_can_be_read(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)
    await execute(dsn, "DROP SCHEMA finetrail CASCADE")
    place = next(n for n, m in enumerate(log) if m.headers["ce-type"] == "EpochCompleted")
    broken = [*log[:place], replace(log[place], data=b"{}"), *log[place + 1 :]]
    await project(registry, ListSource(broken), dsn)
    await ask(dsn, ["job", "job_epoch"])

    async with rebuilder(registry, ListSource(broken), dsn):
        await eventually(lambda: ended(dsn))
    still = await last_rebuild(dsn)
    assert still["status"] == "failed"
    assert f"job_epoch at sequence {place + 1}" in still["error"]

    await ask(dsn, ["job", "job_epoch"])
    async with rebuilder(registry, ListSource(log), dsn):
        await eventually(lambda: ended(dsn))

    assert (await last_rebuild(dsn))["status"] == "switched"
    after = await all_rows(dsn)
    assert {name: after[name] for name in before if name != "timeline"} == {
        name: before[name] for name in before if name != "timeline"
    }
    parked = "SELECT name FROM finetrail.projection_view WHERE parked_at IS NOT NULL"
    assert await fetch(dsn, parked) == []


async def test_of_all_views_a_parked_one_stays_and_the_others_are_replaced(
    dsn: str, log: list[h.Stored]
) -> None:
    place = next(n for n, m in enumerate(log) if m.headers["ce-type"] == "EpochCompleted")
    broken = [*log[:place], replace(log[place], data=b"{}"), *log[place + 1 :]]
    await project(registry, ListSource(broken), dsn)
    before, schema = await all_rows(dsn), await schema_of(dsn, "job")
    parked = "SELECT name, parked_at FROM finetrail.projection_view WHERE parked_at IS NOT NULL"
    standing = sorted(map(tuple, await fetch(dsn, parked)))
    assert ("job_epoch", place + 1) in standing
    await execute(dsn, f"DELETE FROM {schema}.model")  # noqa: S608
    await ask(dsn, everything(registry))

    runner = Runner(registry, ListSource(broken), dsn)
    async with running(runner), rebuilder(registry, ListSource(broken), dsn):
        await eventually(lambda: ended(dsn))
        await eventually(lambda: only(dsn, {schema, f"{schema}_2"}))

    done = await last_rebuild(dsn)
    assert (done["status"], done["error"]) == ("switched", None)
    assert sorted(json.loads(done["parked"])) == [name for name, _ in standing]
    assert json.loads(done["found"]).keys() == {"model"}
    assert sorted(map(tuple, await fetch(dsn, parked))) == standing
    assert await all_rows(dsn) == before
    assert await schema_of(dsn, "model") == f"{schema}_2"
    assert {await schema_of(dsn, name) for name, _ in standing} == {schema}


async def test_steps_that_the_stream_has_forgotten_outlive_a_rebuild(dsn: str) -> None:
    steps = [h.reported(n, "j", 1, [h.step(n)]) for n in range(1, 11)]
    await project(step_metrics, ListSource(steps), dsn)
    before = await all_rows(dsn)
    await ask(dsn, everything(step_metrics), "metrics")

    async with rebuilder(step_metrics, ListSource(steps[6:]), dsn):
        await eventually(lambda: ended(dsn))

    assert (await last_rebuild(dsn))["found"] == "{}"
    assert await all_rows(dsn) == before


@pytest.mark.parametrize(("other_columns", "kept"), [(False, 10), (True, 4)])
async def test_steps_that_the_stream_has_forgotten_outlive_an_upgrade_of_the_same_columns(
    dsn: str, *, other_columns: bool, kept: int
) -> None:
    steps = [h.reported(n, "j", 1, [h.step(n)]) for n in range(1, 11)]
    newer = replace(step_metrics, revision=step_metrics.revision + 1)
    await project(step_metrics, ListSource(steps), dsn)
    if other_columns:
        place = await schema_of(dsn, "job_step")
        await execute(dsn, f"ALTER TABLE {place}.job_step ALTER COLUMN loss DROP NOT NULL")
    await make_tables(dsn, newer)

    async with rebuilder(newer, ListSource(steps[6:]), dsn):
        await eventually(lambda: ended(dsn))

    assert len((await all_rows(dsn))["job_step"]) == kept


async def test_a_view_that_this_build_does_not_have_is_refused(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    await ask(dsn, ["no_such_view"])

    async with rebuilder(registry, ListSource(log), dsn):
        await eventually(lambda: ended(dsn))

    done = await last_rebuild(dsn)
    assert (done["status"], done["error"]) == ("failed", "this build has no view no_such_view")
