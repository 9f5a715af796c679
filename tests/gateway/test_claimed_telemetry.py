"""What agents say about attempts is read only where the log says that the attempt is theirs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from nats.aio.client import Client

from adapters.claimed_telemetry import ClaimedFeed, ClaimedSource
from adapters.nats_connection import connect
from domain.jobs.events import JobClaimed
from domain.subjects import event_subject, telemetry_subject
from tests.infra import nats_server

pytestmark = [pytest.mark.infra, pytest.mark.timeout(60)]
W = "default"
MINE, OTHER = str(uuid4()), str(uuid4())


@pytest_asyncio.fixture
async def nc(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    async with nats_server(tmp_path_factory.mktemp("nats")) as server:
        client = await connect(
            server.url, user=None, password=None, name="test", inbox_prefix="_INBOX_test"
        )
        yield client
        await client.close()


async def claim(nc: Client, job: UUID, attempt: int, agent: str) -> None:
    event = JobClaimed(job_id=job, attempt=attempt, agent_id=agent, boot_id="boot")
    await nc.jetstream().publish(
        event_subject(W, "job", job),
        event.model_dump_json().encode(),
        headers={"ce-type": "JobClaimed", "ce-schemaversion": "1"},
    )


async def say(nc: Client, job: UUID, attempt: int, agent: str | None, kind: str = "log") -> int:
    subject = telemetry_subject(W, "log", job, attempt).replace(".log.", f".{kind}.")
    spoken = f"{subject}.{agent}" if agent else subject
    return (await nc.jetstream().publish(spoken, b"{}")).seq


async def test_lines_of_an_agent_that_did_not_claim_the_attempt_are_on_no_page(nc: Client) -> None:
    job, feed = uuid4(), ClaimedFeed(nc)
    await claim(nc, job, 1, MINE)
    early = await say(nc, job, 2, OTHER)  # nobody has claimed that one yet
    forged = [await say(nc, job, 1, OTHER) for _ in range(5)]
    true = [await say(nc, job, 1, MINE), await say(nc, job, 0, None)]
    topic = f"telemetry.{W}.log.{job}.>"

    first, _ = await feed.page("TELEMETRY", topic, 0, 2)
    whole, more = await feed.page("TELEMETRY", topic, 0, 100)
    await claim(nc, job, 2, OTHER)
    later, _ = await feed.page("TELEMETRY", topic, 0, 100)

    assert first[0].sequence == true[0]  # whole pages of forged lines are passed over
    assert ([message.sequence for message in whole], more) == (true, False)
    assert [message.sequence for message in later] == [early, *true]
    assert not set(forged) & {message.sequence for message in later}


async def test_forged_lines_reach_nobody_live_and_leave_no_gap(nc: Client) -> None:
    job, feed = uuid4(), ClaimedFeed(nc)
    await claim(nc, job, 1, MINE)

    async with feed.live("TELEMETRY") as messages:
        sent = [await say(nc, job, 1, OTHER), await say(nc, job, 1, MINE)]
        heard = [await asyncio.wait_for(anext(messages), 5) for _ in sent]

    assert [message.sequence for message in heard] == sent
    assert str(job) not in heard[0].subject
    assert heard[1].subject == f"telemetry.{W}.log.{job}.1.{MINE}"


async def test_forged_metrics_are_not_projected(nc: Client) -> None:
    job = uuid4()
    await claim(nc, job, 1, MINE)
    await say(nc, job, 1, OTHER, kind="metrics")
    true = await say(nc, job, 1, MINE, kind="metrics")

    source = ClaimedSource(nc, "TELEMETRY", "telemetry.*.metrics.>")
    async with aclosing(source.follow(0)) as batches:
        batch = await asyncio.wait_for(anext(batches), 5)

    assert [message.sequence for message in batch] == [true]
