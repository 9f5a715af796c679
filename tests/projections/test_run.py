"""The runner on a real Postgres: exactly once, whatever is delivered, cut off or refused."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typing_extensions import override

from domain.messages import Event
from finetrail import projections as process
from finetrail.stack.supervisor import EmbeddedStack
from projections import writing
from projections.ports import Message
from projections.projection import registry, step_metrics
from projections.run import Runner
from projections.schema import rewind
from projections.upsert import COPIED
from projections.view import View
from tests.projections import histories as h
from tests.projections.support import (
    ListSource,
    all_rows,
    drop_everything,
    eventually,
    execute,
    make_tables,
    project,
    running,
)

pytestmark = pytest.mark.infra


@pytest.fixture
def log() -> list[h.Stored]:
    return h.Log().add(*h.everything()).messages


async def checkpoint(dsn: str, name: str = "registry") -> tuple[int, str | None]:
    connection = await asyncpg.connect(dsn)
    try:
        find = "SELECT sequence, error FROM finetrail.projection_checkpoint WHERE name = $1"
        found = await connection.fetchrow(find, name)
    finally:
        await connection.close()
    assert found is not None
    return found["sequence"], found["error"]


async def test_dropping_every_table_and_replaying_gives_the_same_rows(
    dsn: str, log: list[h.Stored]
) -> None:
    metrics = [h.reported(n, "one", 1, [h.step(2 * n - 1), h.step(2 * n)]) for n in range(1, 11)]
    await project(registry, ListSource(log, sizes=(7,)), dsn)
    await project(step_metrics, ListSource(metrics), dsn)
    before = await all_rows(dsn)

    await drop_everything(dsn)
    await project(registry, ListSource(log), dsn)
    await project(step_metrics, ListSource(metrics), dsn)

    assert await all_rows(dsn) == before
    assert len(before["timeline"]) == len(log)
    assert len(before["job_step"]) == 20
    assert all(before.values()), "every table has rows"


async def test_what_is_delivered_again_changes_nothing(dsn: str, log: list[h.Stored]) -> None:
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)

    twice = [message for message in log for _ in range(2)]
    await drop_everything(dsn)
    await project(registry, ListSource([*twice[:50], *twice], sizes=(3,)), dsn)

    assert await all_rows(dsn) == before


async def test_a_running_projection_goes_on_when_somebody_drops_its_tables(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    before = await all_rows(dsn)
    source = ListSource(log[:50])
    runner = Runner(registry, source, dsn)
    await drop_everything(dsn)
    await make_tables(dsn, registry)
    async with running(runner):
        await eventually(lambda: reached(runner, 50))
        await drop_everything(dsn)
        await cut_connections(dsn)
        source.messages = log
        await eventually(lambda: reached(runner, len(log)))

    assert await all_rows(dsn) == before


async def reached(runner: Runner[Any], sequence: int) -> bool:
    return runner.state.sequence >= sequence


async def cut_connections(dsn: str) -> None:
    await execute(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'finetrail projections'",
    )


async def test_rows_that_are_there_already_are_left_as_they_are(
    dsn: str, log: list[h.Stored]
) -> None:
    long = (log * (COPIED // len(log) + 1))[: 2 * COPIED]
    many = [replace(message, sequence=place) for place, message in enumerate(long, start=1)]
    await project(registry, ListSource(many), dsn)
    before = await all_rows(dsn)

    await execute(dsn, "UPDATE finetrail.projection_checkpoint SET sequence = 0")
    runner = await project(registry, ListSource(many), dsn)

    assert runner.state.error is None
    assert (await all_rows(dsn))["timeline"] == before["timeline"]


async def test_two_runners_that_are_killed_again_and_again_double_nothing(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    expected = await all_rows(dsn)
    await drop_everything(dsn)
    await make_tables(dsn, registry)
    # Numbering twice would count twice: the model's row is no mere last-write-wins.
    tasks: list[asyncio.Task[None]] = []
    done = 0
    rounds = 0
    while done < len(log):
        rounds += 1
        assert rounds < 200, "the runners do not get anywhere"
        tasks = [
            asyncio.create_task(Runner(registry, Slow(log, sizes=(4,)), dsn).run())
            for _ in range(2)
        ]
        stop_at = min(done + 9, len(log))

        async def got_there(wanted: int = stop_at) -> bool:
            return (await checkpoint(dsn))[0] >= wanted

        await eventually(got_there)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        done = (await checkpoint(dsn))[0]

    assert rounds > 1, "nobody was killed in the middle"
    assert await all_rows(dsn) == expected


class Slow(ListSource):
    """Lets others run between batches, so that a kill lands in the middle."""

    @override
    async def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]:
        async for batch in super().follow(after):
            yield batch
            await asyncio.sleep(0.02)


async def test_a_runner_that_lost_the_checkpoint_writes_nothing(
    dsn: str, log: list[h.Stored]
) -> None:
    source = Gated(log, sizes=(10,))
    runner = Runner(registry, source, dsn)
    await make_tables(dsn, registry)
    async with running(runner):
        await eventually(lambda: reached(runner, 10))
        await execute(
            dsn, "UPDATE finetrail.projection_checkpoint SET sequence = 20 WHERE name = 'registry'"
        )
        source.gate.set()
        await eventually(lambda: reached(runner, len(log)))

    timeline = (await all_rows(dsn))["timeline"]
    assert len(timeline) == len(log) - 10, "it went on from the checkpoint that it found"


class Gated(ListSource):
    """Gives one batch, and the others once the gate is open."""

    def __init__(self, messages: Sequence[h.Stored], sizes: Sequence[int]) -> None:
        super().__init__(messages, sizes)
        self.gate = asyncio.Event()

    @override
    async def follow(self, after: int) -> AsyncGenerator[Sequence[Message], None]:
        async for batch in super().follow(after):
            yield batch
            await self.gate.wait()


async def test_a_server_that_is_killed_in_mid_statement_is_only_away(
    dsn: str, log: list[h.Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_tables(dsn, registry)
    fold = writing.fold
    failures = [asyncpg.InternalClientError("cannot switch to state 15")]

    async def failing_once(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await fold(*arguments)

    monkeypatch.setattr(writing, "fold", failing_once)
    runner = Runner(registry, ListSource(log), dsn)
    async with running(runner):
        await eventually(lambda: reached(runner, len(log)))

    assert failures == []
    assert await checkpoint(dsn) == (len(log), None)


async def test_a_bug_is_told_and_the_projection_is_tried_again(
    dsn: str, log: list[h.Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_tables(dsn, registry)
    monkeypatch.setattr(process, "BUG_S", 0.05)
    runner = Runner(registry, ListSource(log), dsn)
    projecting = runner.run
    bugs = [KeyError("a bug")]

    async def failing_once() -> None:
        if bugs:
            raise bugs.pop()
        await projecting()

    monkeypatch.setattr(runner, "run", failing_once)
    task = asyncio.create_task(process._run(runner))
    await eventually(lambda: reached(runner, len(log)))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert await checkpoint(dsn) == (len(log), None)


async def test_a_second_runner_stands_by_and_takes_over(dsn: str, log: list[h.Stored]) -> None:
    await make_tables(dsn, registry)
    first, second = (Runner(registry, ListSource(log[:n]), dsn) for n in (50, len(log)))

    async def second_waits() -> bool:
        return second.state.status == "standby"

    async with running(first) as working:
        await eventually(lambda: reached(first, 50))
        async with running(second):
            await eventually(second_waits)
            working.cancel()
            await eventually(lambda: reached(second, len(log)))


async def test_an_event_of_a_newer_build_is_passed_over(dsn: str, log: list[h.Stored]) -> None:
    newer = replace(log[4], headers=log[4].headers | {"ce-type": "SomethingNewer"})
    runner = await project(registry, ListSource([*log[:4], newer, *log[5:]]), dsn)

    assert runner.state.sequence == len(log)
    assert len((await all_rows(dsn))["timeline"]) == len(log) - 1


async def parked(dsn: str) -> dict[str, int]:
    connection = await asyncpg.connect(dsn)
    try:
        find = "SELECT name, parked_at FROM finetrail.projection_view WHERE parked_at IS NOT NULL"
        return {name: at for name, at in await connection.fetch(find)}  # noqa: C416 - records
    finally:
        await connection.close()


async def test_a_broken_payload_parks_the_views_that_want_it_and_the_others_go_on(
    dsn: str, log: list[h.Stored], caplog: pytest.LogCaptureFixture
) -> None:
    await project(registry, ListSource(log), dsn)
    whole = await all_rows(dsn)
    await drop_everything(dsn)
    place = next(n for n, m in enumerate(log) if m.headers["ce-type"] == "EpochCompleted")
    broken = replace(log[place], data=b'{"type": "EpochCompleted"}')
    source = ListSource([*log[:place], broken, *log[place + 1 :]], sizes=(7,))
    runner = await project(registry, source, dsn)
    found = await all_rows(dsn)

    assert (runner.state.status, runner.state.sequence) == ("running", len(log))
    wanting = {"job", "job_epoch"}
    assert await parked(dsn) == dict.fromkeys(wanting, place + 1)
    told = [r.message for r in caplog.records if r.levelname == "CRITICAL"]
    assert len(told) == len(wanting)
    assert f"parked before sequence {place + 1}" in told[0]
    others = whole.keys() - wanting - {"job_history", "timeline"}
    assert {name: found[name] for name in others} == {name: whole[name] for name in others}
    assert len(found["timeline"]) == len(whole["timeline"]), "it shows what was written"
    assert found["job"] != whole["job"]

    again = await project(registry, source, dsn)
    assert await all_rows(dsn) == found, "and a restart changes nothing"
    assert again.state.status == "running"


async def test_a_payload_that_is_no_json_parks_the_timeline_too(
    dsn: str, log: list[h.Stored]
) -> None:
    place = next(n for n, m in enumerate(log) if m.headers["ce-type"] == "EpochCompleted")
    broken = replace(log[place], data=b'{"type": "EpochC')
    await project(registry, ListSource([*log[:place], broken, *log[place + 1 :]]), dsn)

    assert await parked(dsn) == dict.fromkeys(("job", "job_epoch", "timeline"), place + 1)
    assert len((await all_rows(dsn))["timeline"]) == place
    assert await checkpoint(dsn) == (len(log), None)


async def test_a_row_that_cannot_be_written_parks_its_view_alone(
    dsn: str, log: list[h.Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = writing.fold
    place = next(n for n, m in enumerate(log) if m.headers["ce-type"] == "ModelReady")

    async def refused(connection: Any, view: View[Any, Any], store: Any, its: Any) -> None:
        if view.name == "model_version" and any(one.sequence == place + 1 for one in its):
            raise asyncpg.NumericValueOutOfRangeError("too large")
        await fold(connection, view, store, its)

    monkeypatch.setattr(writing, "fold", refused)
    await project(registry, ListSource(log), dsn)

    assert await parked(dsn) == {"model_version": place + 1}
    assert len((await all_rows(dsn))["timeline"]) == len(log)
    assert await checkpoint(dsn) == (len(log), None)


async def test_telemetry_that_cannot_be_read_is_passed_over(dsn: str) -> None:
    good = [h.reported(n, "j", 1, [h.step(n)]) for n in (1, 2, 3)]
    nonsense = replace(good[1], data=json.dumps({"steps": [{"step": 2, "loss": None}]}).encode())
    runner = await project(step_metrics, ListSource([good[0], nonsense, good[2]]), dsn)

    assert runner.state.status == "running"
    assert len((await all_rows(dsn))["job_step"]) == 2


async def test_texts_that_postgres_cannot_hold_stop_nothing(dsn: str) -> None:
    name = 'a\x00b \\u0000 "'
    registered = h.dataset_registered("a").model_copy(update={"name": name, "labels": {name: 1}})
    await project(registry, ListSource(h.Log().add(registered).messages), dsn)

    connection = await asyncpg.connect(dsn)
    stored = await connection.fetchrow("SELECT name, labels::text FROM finetrail.dataset")
    await connection.close()
    assert stored is not None
    assert stored["name"] == 'a\ufffdb \\u0000 "'
    assert json.loads(stored["labels"]) == {'a\ufffdb \\u0000 "': 1}


async def test_a_log_that_ends_before_the_checkpoint_is_another_log(
    dsn: str, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    await project(registry, ListSource(log[:30]), dsn, until=30)

    assert len((await all_rows(dsn))["timeline"]) == 30


async def test_telemetry_that_was_lost_takes_no_stored_step_with_it(dsn: str) -> None:
    steps = [h.reported(n, "j", 1, [h.step(n)]) for n in range(1, 6)]
    await project(step_metrics, ListSource(steps), dsn)
    await project(step_metrics, ListSource([h.reported(1, "k", 1, [h.step(1)])]), dsn, until=1)

    assert len((await all_rows(dsn))["job_step"]) == 6


async def test_a_start_with_the_same_tables_keeps_the_rows(dsn: str, log: list[h.Stored]) -> None:
    await project(registry, ListSource(log), dsn)
    await make_tables(dsn, registry)

    assert await checkpoint(dsn) == (len(log), None)


async def test_a_restart_of_postgres_in_the_middle_loses_and_doubles_nothing(
    dsn: str, stack: EmbeddedStack, log: list[h.Stored]
) -> None:
    await project(registry, ListSource(log), dsn)
    expected = await all_rows(dsn)
    await drop_everything(dsn)
    await make_tables(dsn, registry)
    source = Gated(log, sizes=(10,))
    runner = Runner(registry, source, dsn)

    async def postgres_answers() -> bool:
        try:
            await execute(dsn, "SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    async with running(runner):
        await eventually(lambda: reached(runner, 10))
        os.kill(stack.pids["postgres"], signal.SIGKILL)
        source.gate.set()
        await eventually(lambda: reached(runner, len(log)))
        await eventually(postgres_answers)

    assert await all_rows(dsn) == expected


async def start_over(dsn: str) -> None:
    await make_tables(dsn, registry)
    connection = await asyncpg.connect(dsn)
    try:
        await rewind(connection, registry)
    finally:
        await connection.close()


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Several jobs of two models, their events interleaved as they may come."""
    stories = [
        list(
            h.whole_life(
                f"job {number}",
                model=draw(st.sampled_from(["intents", "other"])),
                number=number,
                attempts=draw(st.integers(1, 3)),
                end=draw(st.sampled_from(["succeeded", "failed", "cancelled", "running"])),
                evaluation=draw(st.sampled_from(["completed", "failed", "cancelled"])),
            )
        )
        for number in range(1, draw(st.integers(1, 4)) + 1)
    ]
    merged: list[Event] = []
    while stories:
        story = draw(st.sampled_from(stories))
        merged.append(story.pop(0))
        stories = [rest for rest in stories if rest]
    return h.models_created_once(merged)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=histories(), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5))
async def test_rows_do_not_depend_on_how_the_log_falls_into_batches(
    dsn: str, events: list[Event], sizes: list[int]
) -> None:
    messages = h.Log().add(*events).messages
    await start_over(dsn)
    await project(registry, ListSource(messages), dsn)
    at_once = await all_rows(dsn)

    await start_over(dsn)
    await project(registry, ListSource(messages, sizes=sizes), dsn)

    assert await all_rows(dsn) == at_once
