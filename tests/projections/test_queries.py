"""Questions to the read model, on a real Postgres."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from domain.messages import Event
from finetrail.stack.supervisor import EmbeddedStack
from projections.model_filter import ModelFilter
from projections.projection import registry, step_metrics
from projections.queries import Queries, open_queries
from projections.registry import ReadModelUnavailable
from projections.run import Runner
from tests.infra import free_port
from tests.projections import histories as h
from tests.projections.support import (
    ListSource,
    drop_everything,
    eventually,
    execute,
    make_tables,
    project,
    running,
)

pytestmark = pytest.mark.infra
W = h.WORKSPACE
NOBODY = UUID(int=0)


@pytest.fixture
async def queries(dsn: str) -> AsyncIterator[Queries]:
    async with open_queries(dsn) as opened:
        yield opened


async def given(dsn: str, *events: Event) -> list[h.Stored]:
    messages = h.Log().add(*events).messages
    await project(registry, ListSource(messages), dsn)
    await make_tables(dsn, step_metrics)
    return messages


async def test_one_thing_is_found_by_its_id_in_its_workspace_only(
    dsn: str, queries: Queries
) -> None:
    await given(dsn, *h.everything())
    job, evaluation = h.id_of("job", "one"), h.id_of("evaluation", "one", "first")
    dataset, model = h.id_of("dataset", "tickets"), h.id_of("model", "intents")

    found = {
        w: [
            await queries.dataset(w, dataset),
            await queries.job(w, job),
            await queries.model(w, model),
            await queries.model(w, "intents"),
            await queries.version(w, model, 1),
            await queries.evaluation(w, evaluation),
            await queries.evaluation_examples(w, evaluation),
            *(await queries.datasets(w), await queries.jobs(w), await queries.models(w)),
            *(await queries.versions(w, model), await queries.evaluations(w)),
            *(await queries.events(w), await queries.agents(w), await queries.keys(w)),
            *((await queries.queue(w)).items, await queries.job_epochs(w, job)),
        ]
        for w in (W, "other")
    }

    assert all(found[W])
    assert not any(found["other"])
    assert await queries.job(W, NOBODY) is None
    assert await queries.model(W, "nothing") is None
    assert await queries.version(W, model, 99) is None


async def test_models_are_chosen_by_what_they_are(dsn: str, queries: Queries) -> None:
    await given(dsn, *h.everything())
    every = await queries.models(W)
    active = {model.name for model in every if model.active_version_id}
    first, last = (pick(model.created_at for model in every) for pick in (min, max))

    async def names(**chosen: Any) -> list[str]:
        return [model.name for model in await queries.models(W, ModelFilter(**chosen))]

    assert set(await names(status="active")) == active != set()
    assert await names(status="error") == ["intents"]
    assert await names(status="uploading") == []
    assert await names(base_model=every[0].base_model, created_from=first) == [
        m.name for m in every
    ]
    assert await names(base_model="none") == []
    assert len(await names(created_from=first, created_before=last)) == len(every) - 1
    assert await queries.models(W, limit=1, offset=1) == every[1:2] != []


async def test_a_dataset_of_conversations_is_found_with_the_one_it_shows(
    dsn: str, queries: Queries
) -> None:
    await given(dsn, h.chat_registered("chats"), h.chat_validated("chats"))

    found = await queries.dataset(W, h.id_of("dataset", "chats"))

    assert found is not None
    assert (found.kind, found.messages, found.supervised_messages) == ("chat", 80, 40)
    assert found.example == [
        {"text": "user: why?", "supervised": False},
        {"text": "so", "supervised": True},
    ]


async def test_pages_are_newest_first_without_gap_or_repeat(dsn: str, queries: Queries) -> None:
    await given(dsn, *(h.submitted(f"job {n}") for n in range(5)))

    first = await queries.jobs(W, limit=2)
    second = await queries.jobs(W, limit=2, before=first[-1].row.created_sequence)
    third = await queries.jobs(W, limit=2, before=second[-1].row.created_sequence)

    pages = [[job.row.created_sequence for job in page] for page in (first, second, third)]
    assert pages == [[5, 4], [3, 2], [1]]


async def test_jobs_are_filtered_by_status_and_model(dsn: str, queries: Queries) -> None:
    await given(dsn, h.submitted("a"), h.submitted("b", "other"), h.claimed("b"), h.submitted("c"))

    waiting = await queries.jobs(W, status="queued")
    others = await queries.jobs(W, model="other")
    both = await queries.jobs(W, status="queued", model="other")

    assert [job.row.id for job in waiting] == [h.id_of("job", "c"), h.id_of("job", "a")]
    assert [job.row.id for job in others] == [h.id_of("job", "b")]
    assert both == []


async def test_a_job_carries_what_telemetry_last_said(dsn: str, queries: Queries) -> None:
    await given(dsn, h.submitted("j"), h.claimed("j"), h.started("j"))
    reports = [h.reported(n, "j", 1, [h.step(n)]) for n in (1, 2, 3)]
    await project(step_metrics, ListSource(reports), dsn)

    job = await queries.job(W, h.id_of("job", "j"))
    (listed,) = await queries.jobs(W)

    assert job is not None
    assert (job.progress.step, job.progress.steps, job.progress.percent) == (3, 20, 15.0)
    assert job.loss == pytest.approx(1 / 3)
    assert listed == job


@pytest.mark.parametrize(
    ("steps", "points"), [(0, 5), (1, 5), (4, 5), (5, 5), (6, 5), (100, 7), (100, 2), (3, 1)]
)
async def test_steps_are_thinned_to_the_points_asked_for(
    dsn: str, queries: Queries, steps: int, points: int
) -> None:
    await make_tables(dsn, step_metrics)
    reports = [h.reported(1, "j", 1, [h.step(n) for n in range(1, steps + 1)])]
    await project(step_metrics, ListSource(reports), dsn)

    found = [row.step for row in await queries.job_steps(W, h.id_of("job", "j"), points=points)]

    allowed = max(points, 2)
    assert len(found) == min(steps, allowed)
    assert found == sorted(found)
    if steps:
        assert (found[0], found[-1]) == (1, steps)
    if steps > allowed > 2:
        gaps = [after - before for before, after in itertools.pairwise(found[1:])]
        assert max(gaps) - min(gaps) <= 1, "the parts are equal"


async def test_a_version_shows_its_completed_evaluation_before_a_later_failed_one(
    dsn: str, queries: Queries
) -> None:
    again = [h.evaluation_requested("j", "again"), h.evaluation_failed("j", "again")]
    await given(dsn, *h.whole_life("j"), *again, h.version_registered("k", 2))
    model = h.id_of("model", "intents")

    newest, oldest = await queries.versions(W, model)

    assert (newest.row.number, newest.evaluation) == (2, None)
    assert oldest.evaluation is not None
    assert (oldest.row.number, oldest.evaluation.id) == (1, h.id_of("evaluation", "j", "first"))


async def test_evaluations_are_filtered_by_model_and_version_number(
    dsn: str, queries: Queries
) -> None:
    await given(dsn, *h.everything())

    ofmodel = await queries.evaluations(W, model="intents")
    of_second = await queries.evaluations(W, model="intents", version=2)

    assert {evaluation.version_number for evaluation in ofmodel} == {1, 2}
    assert [evaluation.row.status for evaluation in of_second] == ["failed"]


async def test_examples_are_there_once_the_evaluation_is_completed(
    dsn: str, queries: Queries
) -> None:
    await given(dsn, *h.whole_life("j"), h.evaluation_requested("j", "again"))

    first = await queries.evaluation_examples(W, h.id_of("evaluation", "j", "first"))
    again = await queries.evaluation_examples(W, h.id_of("evaluation", "j", "again"))

    assert first is not None
    assert [example["text"] for example in first] == ["yes?"] * 3
    assert again is None


async def test_the_timeline_is_read_forward_from_a_sequence_or_from_its_end(
    dsn: str, queries: Queries
) -> None:
    messages = await given(dsn, *h.everything())

    forward = await queries.events(W, after=10, limit=3)
    last = await queries.events(W, limit=3)

    assert [row.sequence for row in forward] == [11, 12, 13]
    assert [row.sequence for row in last] == [message.sequence for message in messages[-3:]]


async def test_the_timeline_is_filtered(dsn: str, queries: Queries) -> None:
    await given(dsn, *h.everything())
    job = h.id_of("job", "one")

    of_job = await queries.events(W, aggregate="job", aggregate_id=job)
    of_type = await queries.events(W, type="JobSubmitted", limit=2)
    of_nobody = await queries.events(W, actor="key:unknown")

    assert {row.aggregate_id for row in of_job} == {job}
    assert [row.type for row in of_job][:2] == ["JobSubmitted", "JobClaimed"]
    assert [row.type for row in of_type] == ["JobSubmitted"] * 2
    assert of_nobody == []


async def test_the_queue_shows_what_is_live_in_order_of_arrival(dsn: str, queries: Queries) -> None:
    a, b, c, d = (h.id_of("job", name) for name in "abcd")
    await given(
        dsn,
        *(h.queued(a), h.queued(b), h.queued(c), h.queued(d)),
        *(h.assigned(a), h.withdrawn(b)),
    )

    queue = await queries.queue(W)

    assert [(row.work_id, row.status) for row in queue.items] == [
        (a, "assigned"),
        (c, "waiting"),
        (d, "waiting"),
    ]
    assert queue.sequence == 6
    assert queue.queue().ledger.starts == 1


async def test_how_long_works_took_is_told_by_method(dsn: str, queries: Queries) -> None:
    await given(dsn, *h.whole_life("one"), *h.whole_life("two", number=2))

    durations = await queries.durations(W)

    assert durations.train.keys() == durations.evaluate.keys() == {"sequence_classification"}
    assert all(seconds > 0 for seconds in durations.train.values())


async def test_waiting_for_a_sequence_returns_when_its_row_is_there(
    dsn: str, queries: Queries
) -> None:
    messages = h.Log().add(h.dataset_registered("a"), h.dataset_validated("a")).messages
    source = ListSource(messages[:1])
    await make_tables(dsn, registry)
    waiting = asyncio.create_task(queries.wait_for(2, 20))
    async with running(Runner(registry, source, dsn)):

        async def first_is_there() -> bool:
            return await queries.position() == 1

        await eventually(first_is_there)
        assert not waiting.done()
        source.messages = messages
        await cut(dsn)  # the fake source looks at its messages anew when it is followed anew
        assert await waiting
        row = await queries.dataset(W, h.id_of("dataset", "a"))

    assert row is not None
    assert row.status == "valid"


async def cut(dsn: str) -> None:
    await execute(
        dsn,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'finetrail projections'",
    )


async def test_waiting_for_what_does_not_come_ends_in_time(dsn: str, queries: Queries) -> None:
    await given(dsn, h.dataset_registered("a"))

    assert await queries.wait_for(1, 5)
    assert not await queries.wait_for(2, 0.05)


async def test_a_parked_view_is_visible_to_whoever_asks(dsn: str, queries: Queries) -> None:
    (message,) = h.Log().add(h.dataset_registered("a")).messages
    await make_tables(dsn, step_metrics)
    await project(registry, ListSource([replace(message, data=b"{}")]), dsn)

    standing = {standing.name: standing for standing in await queries.projections()}

    assert await queries.parked() == {"dataset": 1}
    assert (standing["registry"].sequence, standing["registry"].error) == (1, None)
    assert standing["metrics"].error is None


async def test_without_tables_the_read_model_is_unavailable(dsn: str, queries: Queries) -> None:
    await drop_everything(dsn)

    with pytest.raises(ReadModelUnavailable):
        await queries.jobs(W)
    assert not await queries.wait_for(1, 0.05)


async def test_without_postgres_the_read_model_is_unavailable() -> None:
    async with open_queries(f"postgresql://finetrail:x@127.0.0.1:{free_port()}/none") as queries:
        with pytest.raises(ReadModelUnavailable):
            await queries.jobs(W)
        assert not await queries.wait_for(1, 0.05)


async def test_queries_survive_a_restart_of_postgres(
    dsn: str, queries: Queries, stack: EmbeddedStack
) -> None:
    await given(dsn, h.dataset_registered("a"))
    assert len(await queries.datasets(W)) == 1
    os.kill(stack.pids["postgres"], signal.SIGKILL)

    async def answers() -> bool:
        try:
            return len(await queries.datasets(W)) == 1
        except ReadModelUnavailable:
            return False

    await eventually(answers)
    messages = h.Log().add(h.dataset_registered("a"), h.dataset_validated("a")).messages
    waiting = asyncio.create_task(queries.wait_for(2, 20))
    await project(registry, ListSource(messages), dsn)
    assert await waiting
