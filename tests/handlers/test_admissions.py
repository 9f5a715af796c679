"""A quota of waiting jobs counts those that are still on their way into the queue."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from domain.errors import Rejected
from domain.jobs.commands import SubmitJob
from domain.messages import Outcome
from domain.placement import Needs
from domain.queues.events import PolicySet
from domain.queues.policy import QueuePolicy
from domain.queues.queue import decider, queue_id
from domain.queues.state import Queue
from handlers.follow_ups import fold, queue_stream
from tests.domain import test_dataset as dataset
from tests.handlers.inside import Inside, envelope
from tests.samples import DATASET, WORKSPACE

QUEUE = queue_id(WORKSPACE)


@pytest.fixture
async def inside() -> Inside:
    made = Inside()
    await made.happened("dataset", DATASET, dataset.registered, dataset.validated)
    policy = QueuePolicy.model_validate({"users": {"key:ann": {"queued": 2}}})
    await made.happened("queue", QUEUE, PolicySet(number=1, policy=policy))
    made.blobs.contents[dataset.registered.blob.sha256] = b""
    await made.react()
    return made


async def submit(inside: Inside, number: int, actor: str = "key:ann") -> str:
    job_id = UUID(int=number)
    command = SubmitJob(job_id=job_id, model_name="m", dataset_id=DATASET)
    asked = replace(envelope(command, "job", job_id, command_id=1000 + number), actor=actor)
    try:
        outcome: Outcome = await inside.desk.decide(asked)
    except Rejected as refused:
        return refused.code
    return outcome.status


async def test_what_was_submitted_counts_before_it_is_in_the_queue(inside: Inside) -> None:
    found = [await submit(inside, number) for number in (1, 2, 3)]

    assert found == ["recorded", "recorded", "queue_quota_reached"]


async def test_of_many_at_once_as_many_are_taken_as_may_wait(inside: Inside) -> None:
    found = await asyncio.gather(*(submit(inside, number) for number in range(1, 9)))

    assert found.count("recorded") == 2
    assert found.count("queue_quota_reached") == 6


async def test_nothing_is_counted_twice_once_it_is_in_the_queue(inside: Inside) -> None:
    assert await submit(inside, 1) == "recorded"
    await inside.react()

    assert [await submit(inside, number) for number in (2, 3)] == [
        "recorded",
        "queue_quota_reached",
    ]


async def test_asking_again_for_a_job_that_was_taken_is_no_new_one(inside: Inside) -> None:
    assert [await submit(inside, number) for number in (1, 1, 2)] == ["recorded"] * 3


async def test_the_quota_of_one_is_not_anothers(inside: Inside) -> None:
    for number in (1, 2):
        await submit(inside, number)

    assert await submit(inside, 3, actor="key:bob") == "recorded"


async def test_a_submission_is_its_actors_whatever_it_says(inside: Inside) -> None:
    job_id = UUID(int=7)
    command = SubmitJob(
        job_id=job_id,
        model_name="m",
        dataset_id=DATASET,
        submitted_by="key:bob",
        priority=70,
        pool="lab",
        needs=Needs(memory_bytes=5),
    )
    await inside.desk.decide(replace(envelope(command, "job", job_id), actor="key:ann"))
    await inside.react()

    history = await inside.store.read(queue_stream(WORKSPACE))
    queue: Queue = fold(history, decider)
    (work,) = queue.waiting.values()
    assert (work.user, work.priority, work.pool, work.memory_bytes) == ("key:ann", 70, "lab", 5)
