"""Delivery with real servers: NATS, Postgres and receivers, also after the process was killed."""

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import pytest
import standardwebhooks.webhooks as reference
from nats.aio.client import Client
from typing_extensions import override

from adapters.jetstream_publisher import JetStreamPublisher
from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_feed import NatsFeed
from adapters.postgres_webhook_store import PostgresWebhookStore, StoreMoved
from adapters.webhook_sender import WebhookSender
from domain.jobs.events import JobCancelled
from domain.webhooks.deliveries import Cursor, Delivery
from domain.webhooks.events import WebhookAdded
from domain.webhooks.messages import secret_text
from finetrail import bootstrap
from finetrail.settings import GatewaySettings, Settings, WebhookSettings, as_environment
from finetrail.stack.supervisor import EmbeddedStack
from handlers.courier import Means
from handlers.dead_letters import DeadLetters
from handlers.dispatch import Dispatch
from tests.delivery.memory import KEY_ID, URL_ID, SimulatedTimer
from tests.delivery.real import Receiver, append, receiving, until, working

pytestmark = [pytest.mark.infra, pytest.mark.slow]

EVENTS = int(os.environ.get("FINETRAIL_TEST_WEBHOOK_EVENTS", "1000"))
JOBS = 50
HOUR = timedelta(hours=1)
SECRET = secret_text(b"s" * 32)


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedStack]:
    folder: Path = tmp_path_factory.mktemp("delivery")
    settings = Settings(
        data_dir=folder / "data",
        gateway=GatewaySettings(port=0),
        webhooks=WebhookSettings(allow_private=True),
    )
    async with EmbeddedStack(settings) as running:
        await bootstrap.bootstrap(running.settings)
        yield running


@dataclass
class Connected:
    nc: Client
    store: PostgresWebhookStore

    async def add(self, url: str) -> UUID:
        """A webhook as the gateway adds it."""
        webhook_id = uuid4()
        await self.store.keep_secret(webhook_id, URL_ID, url)
        await self.store.keep_secret(webhook_id, KEY_ID, SECRET)
        added = WebhookAdded(
            webhook_id=webhook_id,
            url=url,
            url_id=URL_ID,
            event_types=("job.*",),
            description="",
            key_id=KEY_ID,
        )
        await append(self.nc, [("webhook", webhook_id, added)], webhook_id)
        return webhook_id

    async def happen(self, number: int) -> tuple[list[UUID], list[UUID]]:
        """So many events of jobs; give the jobs and the events."""
        jobs = [uuid4() for _ in range(JOBS)]
        events = [JobCancelled(job_id=jobs[n % JOBS], attempt=1) for n in range(number)]
        ids = await append(self.nc, [("job", event.job_id, event) for event in events], uuid4())
        return jobs, ids


@pytest.fixture
async def connected(stack: EmbeddedStack) -> AsyncIterator[Connected]:
    store = PostgresWebhookStore(stack.settings.postgres_dsn)
    async with bootstrap.admin_connection(stack.settings) as nc:
        yield Connected(nc, store)
    await store.close()


def dispatch(connected: Connected, sender: WebhookSender, timer: SimulatedTimer) -> Dispatch:
    nc = connected.nc
    means = Means(
        workspace="default",
        log=NatsFeed(nc),
        store=connected.store,
        sender=sender,
        letters=DeadLetters(JetStreamPublisher(nc)),
        timer=timer,
        random=lambda: 0.0,
        api_url="http://127.0.0.1:8420",
        bus=NatsCommandBus(nc),
    )
    return Dispatch(means)


class ReceiversClock(datetime):
    """What the reference library takes for the present, which may be hours away."""

    present = datetime.now(UTC)

    @override
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(cls.present.timestamp(), tz)


def verified(receiver: Receiver, ids: list[UUID], patch: pytest.MonkeyPatch) -> None:
    """Each event once by its id, in order within each job, and signed."""
    webhook = reference.Webhook(SECRET)
    patch.setattr(reference, "datetime", ReceiversClock)
    told: dict[str, tuple[str, int, str]] = {}
    for posted in receiver.taken:
        ReceiversClock.present = posted.at
        body = webhook.verify(posted.body, posted.headers)
        data = body["data"]
        facts = (data["id"], data["sequence"], data["aggregate_id"])
        assert told.setdefault(posted.headers["webhook-id"], facts) == facts
    assert sorted(event for event, _, _ in told.values()) == sorted(map(str, ids))
    by_job: defaultdict[str, list[int]] = defaultdict(list)
    for _, sequence, job in told.values():
        by_job[job].append(sequence)
    assert all(its == sorted(its) for its in by_job.values())


async def test_a_receiver_that_was_down_for_an_hour_ends_with_everything_in_order(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = SimulatedTimer()
    begin = timer.time = datetime.now(UTC)
    timer.until = begin + timedelta(days=1)

    receiver = Receiver(lambda: None if timer.now() - begin < HOUR else "200 OK", timer.now)
    sender = WebhookSender(allow_private=True)
    async with receiving(receiver):
        await connected.add(receiver.url)
        _, ids = await connected.happen(EVENTS)
        async with working(asyncio.create_task(dispatch(connected, sender, timer).run())):
            await until(lambda: len(receiver.taken) >= EVENTS, within_s=250)
    await sender.close()

    assert timer.now() - begin >= HOUR
    assert receiver.turned_away >= JOBS
    assert min(posted.at for posted in receiver.taken) >= begin + HOUR
    verified(receiver, ids, monkeypatch)


async def test_a_delivery_process_that_is_killed_again_and_again_loses_nothing(
    connected: Connected, stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver()
    async with receiving(receiver):
        webhook_id = await connected.add(receiver.url)
        _, ids = await connected.happen(600)
        kills = 0
        for wanted in (1, 150, 300, 450):
            process = await started(stack)
            await until(lambda at=wanted: len(receiver.taken) >= at)  # type: ignore[misc]
            process.kill()
            kills += 1
            await process.wait()
        process = await started(stack)
        await until(lambda: len({p.headers["webhook-id"] for p in receiver.taken}) == len(ids))
        async with asyncio.timeout(60):  # what a dead process had not noted is sent again
            while (await connected.store.waiting()).get(webhook_id):
                await asyncio.sleep(0.05)
        process.terminate()
        assert await process.wait() == 0

    verified(receiver, ids, monkeypatch)
    assert kills == 4


async def started(stack: EmbeddedStack) -> asyncio.subprocess.Process:
    environment = {**os.environ, **as_environment(stack.settings)}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "finetrail",
        "delivery",
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def test_a_delivery_says_what_the_receiver_answered(connected: Connected) -> None:
    timer = SimulatedTimer()
    timer.time = datetime.now(UTC)
    timer.until = timer.time
    receiver = Receiver(lambda: "503 Service Unavailable")
    sender = WebhookSender(allow_private=True)
    async with receiving(receiver):
        webhook_id = await connected.add(receiver.url)
        await connected.happen(1)
        async with working(asyncio.create_task(dispatch(connected, sender, timer).run())):
            async with asyncio.timeout(20):
                while not (found := await connected.store.attempts(webhook_id)):
                    await asyncio.sleep(0.02)
    await sender.close()

    assert (found[0].answer.status, found[0].outcome, found[0].attempt) == (503, "failed", 1)
    assert found[0].answer.text == "ok"
    assert await connected.store.attempts(webhook_id, before=found[0].id) == []
    assert found[0].type == "job.cancelled"


async def test_what_is_kept_beside_the_log_survives_and_is_forgotten(connected: Connected) -> None:
    store, id_, now = connected.store, uuid4(), datetime.now(UTC)
    assert await store.keep_secret(id_, KEY_ID, "first") == "first"
    assert await store.keep_secret(id_, KEY_ID, "second") == "first"
    await store.place(id_, Cursor(5, 5))
    row = Delivery(id_, 6, f"msg_{id_.hex}", "job.failed", "events.default.job.x", now)
    await store.take(id_, 5, 8, [row])
    with pytest.raises(StoreMoved):
        await store.take(id_, 5, 9, [])
    assert await store.deliveries(id_) == [row]
    assert (await store.cursors())[id_] == Cursor(8, 5)

    await store.record(id_, [], [replace(row, status="dead")], [])
    assert await store.deliveries(id_) == []
    reopened = await store.reopen(row.message_id, 7, now)
    assert reopened == replace(row, retry_of=7)
    assert await store.reopen(row.message_id, 7, now) is None
    await store.place(id_, Cursor(5, 9), again=True)
    assert await store.deliveries(id_) == []

    assert await store.mark_read("default", "k", ["1", "dead-2", "1"]) == 2
    assert await store.mark_read("default", "k", ["1"]) == 0
    assert await store.marked_read("default", "k", ["1", "3"]) == {"1"}
    assert await store.marked_read("default", "other", ["1"]) == frozenset()

    await store.prune(now + timedelta(days=2), [(id_, KEY_ID)])
    assert await store.secret(id_, KEY_ID) == "first"
    await store.prune(now + timedelta(days=2), [(uuid4(), KEY_ID)])
    assert await store.secret(id_, KEY_ID) == "first"  # another workspace's
    await store.prune(now + timedelta(days=2), [(id_, "key_of_another_secret")])
    assert await store.secret(id_, KEY_ID) is None
    await store.forget(id_)
    assert await store.cursor(id_) is None


async def test_one_process_delivers_and_another_waits(connected: Connected) -> None:
    async with connected.store.owned("a") as first, connected.store.owned("a") as second:
        assert first is not None
        assert second is None
    async with connected.store.owned("a") as third, connected.store.owned("b") as other:
        assert third is not None
        assert other is not None
