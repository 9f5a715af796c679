"""A job's whole way through real handlers and a real server, with an agent that follows a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from adapters.local_blobs import LocalBlobs
from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import close
from domain.blobs import BlobRef
from domain.datasets.commands import RegisterDataset
from domain.jobs.commands import CancelJob, SubmitJob
from domain.messages import Command, Envelope, Event, Outcome, Recorded
from domain.models.commands import ActivateModel
from domain.subjects import Aggregate, command_subject, derived_id
from domain.wire import decode_recorded, encode_command
from domain.work import StopWork, TrainAssignment
from finetrail.bootstrap import bootstrap_streams
from finetrail.handlers import run_handlers
from finetrail.settings import NatsSettings, NatsUser, Settings
from tests import samples
from tests.handlers.scripted import ScriptedAgent, envelope
from tests.infra import NO_POSTGRES, NatsServer, nats_server

pytestmark = pytest.mark.infra

DEADLINE_S = 40.0
ROWS = "text,label\n" + "".join(f"please do {n},{'ab'[n % 2]}\n" for n in range(40))
AGENTS = (str(samples.AGENT), str(samples.OTHER_AGENT))


@dataclass
class World:
    server: NatsServer
    nc: Client  # may look at everything
    gateway: Client
    blobs: LocalBlobs
    sent: list[Envelope[Command]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bus = NatsCommandBus(self.gateway)

    async def say(self, command: Command, aggregate: Aggregate, id_: UUID) -> Outcome:
        asked = envelope(command, aggregate, id_)
        self.sent.append(asked)
        return await self.bus.send(asked)

    async def events(self) -> list[Recorded[Event]]:
        info = await self.nc.jetstream().stream_info("EVENTS")
        found = []
        for sequence in range(1, info.state.last_seq + 1):
            msg = await self.nc.jetstream().get_msg("EVENTS", sequence, direct=True)
            assert msg.subject is not None
            found.append(decode_recorded(msg.subject, sequence, msg.headers or {}, msg.data or b""))
        return found

    async def types(self) -> list[str]:
        return [type(recorded.event).__name__ for recorded in await self.events()]

    async def until(self, name: str, count: int = 1) -> list[str]:
        async def there() -> bool:
            return (await self.types()).count(name) >= count

        await eventually(there, f"{count} {name}")
        return await self.types()

    async def quiet(self) -> int:
        """Wait until nothing is under way; give the sequence of the last event."""

        async def empty() -> bool:
            js = self.nc.jetstream()
            commands = await js.stream_info("COMMANDS")
            reactions = await js.consumer_info("EVENTS", "reactions")
            return (
                commands.state.messages == 0
                and reactions.num_pending == 0
                and reactions.num_ack_pending == 0
            )

        await eventually(empty, "nothing under way")
        return (await self.nc.jetstream().stream_info("EVENTS")).state.last_seq

    async def blob(self, content: bytes) -> BlobRef:
        async with self.blobs.writer() as writer:
            await writer.write(content)
            ref: BlobRef = await writer.commit()
        return ref

    async def dataset(self, content: str = ROWS, dataset_id: UUID | None = None) -> UUID:
        dataset_id = dataset_id or uuid7()
        registered = RegisterDataset(
            dataset_id=dataset_id,
            name="rows.csv",
            blob=await self.blob(content.encode()),
            format="csv",
            delimiter=",",
            text_column="text",
            label_column="label",
            rows=40,
            labels={"a": 20, "b": 20},
        )
        await self.say(registered, "dataset", dataset_id)
        return dataset_id

    async def submit(self, dataset_id: UUID, name: str = "support") -> UUID:
        job_id: UUID = uuid7()
        command = SubmitJob(job_id=job_id, model_name=name, dataset_id=dataset_id)
        outcome = await self.say(command, "job", job_id)
        assert outcome.status == "recorded", outcome
        return job_id

    async def valid_dataset(self) -> UUID:
        before = (await self.types()).count("DatasetValidated")
        dataset_id = await self.dataset()
        await self.until("DatasetValidated", before + 1)
        return dataset_id


async def eventually(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S} s: {what}") from None


@asynccontextmanager
async def connected(server: NatsServer, settings: Settings) -> AsyncIterator[World]:
    nc, gateway = await server.connect("admin"), await server.connect("gateway")
    try:
        yield World(server, nc, gateway, LocalBlobs(settings.blobs_folder))
    finally:
        await close(gateway)
        await close(nc)


@asynccontextmanager
async def handling(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    handlers = asyncio.create_task(run_handlers(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(handlers, 20)


def of(server: NatsServer, folder: Path) -> Settings:
    """What handlers are told, and nothing that the machine's own environment says."""
    handlers = NatsUser(user="handlers", password=SecretStr("handlers"))
    nats = NatsSettings(url=server.url, handlers=handlers)
    return Settings(data_dir=folder, nats=nats, postgres=NO_POSTGRES)


@asynccontextmanager
async def agent_at(world: World, agent: UUID = samples.AGENT) -> AsyncIterator[ScriptedAgent]:
    nc = await world.server.connect(str(agent))
    try:
        async with ScriptedAgent(nc, agent) as scripted:
            yield scripted
    finally:
        await close(nc)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with nats_server(tmp_path, agents=AGENTS, secured=True) as server:
        settings = of(server, tmp_path)
        async with handling(settings), connected(server, settings) as world:
            yield world


async def test_a_submitted_job_becomes_an_evaluated_version_in_service(world: World) -> None:
    async with agent_at(world) as agent:
        agent.files = (await world.blob(b"config"), await world.blob(b"weights"))
        job_id = await world.submit(await world.valid_dataset())
        types = await world.until("EvaluationCompleted")

        version_id = derived_id("default", "version", str(job_id))
        model_id = derived_id("default", "model", "support")
        activate = ActivateModel(model_id=model_id, version_id=version_id)
        activated = await world.say(activate, "model", model_id)

    assert activated.status == "recorded"
    expected = [
        "JobSubmitted",
        "JobClaimed",
        "JobStarted",
        "CheckpointSaved",
        "EpochCompleted",
        "JobSucceeded",
        "VersionNumbered",
        "VersionRegistered",
        "ModelReady",
        "EvaluationRequested",
        "EvaluationStarted",
        "EvaluationCompleted",
    ]
    assert [name for name in types if name in expected] == expected
    assert types.count("WorkAssigned") == 2
    await world.quiet()
    assert (await world.types()).count("WorkWithdrawn") == 2
    correlations = {
        recorded.correlation_id
        for recorded in await world.events()
        if type(recorded.event).__name__ in expected[:1] + expected[6:10]
    }
    assert len(correlations) == 1


async def test_commands_and_events_that_come_again_long_after_change_nothing(world: World) -> None:
    async with agent_at(world) as agent:
        agent.files = (await world.blob(b"config"),)
        job_id = await world.submit(await world.valid_dataset())
        await world.until("EvaluationCompleted")
        version_id = derived_id("default", "version", str(job_id))
        model_id = derived_id("default", "model", "support")
        activate = ActivateModel(model_id=model_id, version_id=version_id)
        await world.say(activate, "model", model_id)
        sent = world.sent + agent.sent
    last = await world.quiet()
    await _forget_duplicates(world.nc)

    outcomes = []
    for asked in sent:
        _, body = encode_command(asked)
        outcomes.append(await _send_without_message_id(world, asked, body))
    await _replay_all_events(world.nc)

    assert {outcome.status for outcome in outcomes} == {"recorded"}
    assert await world.quiet() == last
    assert (await world.nc.jetstream().stream_info("DEAD")).state.messages == 0


async def test_a_job_goes_on_at_another_agent_when_the_first_falls_silent(world: World) -> None:
    blob = await world.blob(b"weights")
    gone = asyncio.Event()

    async def vanish(_: TrainAssignment) -> None:
        gone.set()
        await asyncio.Event().wait()

    async with agent_at(world) as first:
        first.on_train = vanish
        await world.submit(await world.valid_dataset())
        await asyncio.wait_for(gone.wait(), DEADLINE_S)
    async with agent_at(world, samples.OTHER_AGENT) as second:
        second.files = (blob,)
        types = await world.until("EvaluationCompleted")

    assert types.count("JobInterrupted") == 1
    (work,) = (taken for taken in second.taken if isinstance(taken, TrainAssignment))
    assert work.attempt == 2
    assert work.resume_from == samples.checkpoint(20, 1)
    assert work.threads == samples.ENVIRONMENT.threads


async def test_a_running_job_is_stopped_and_ends_as_cancelled(world: World) -> None:
    started = asyncio.Event()

    async def wait_for_stop(_: TrainAssignment) -> None:
        started.set()

    async with agent_at(world) as agent:
        agent.on_train = wait_for_stop
        job_id = await world.submit(await world.valid_dataset())
        await asyncio.wait_for(started.wait(), DEADLINE_S)
        await world.say(CancelJob(job_id=job_id), "job", job_id)
        types = await world.until("WorkWithdrawn")

    assert types.count("JobCancelled") == 1
    assert isinstance(agent.taken[-1], StopWork)


async def test_a_dataset_whose_bytes_differ_from_its_registration_is_rejected(world: World) -> None:
    await world.dataset("text,label\nonly,one\nand,two\n")

    assert "DatasetValidated" not in await world.until("DatasetRejected")


async def test_what_cannot_be_read_is_put_aside_and_answered(world: World) -> None:
    job_id = uuid7()
    asked = envelope(CancelJob(job_id=job_id), "job", job_id)

    outcome = await _send_without_message_id(world, asked, b'{"job_id": 7}')

    assert outcome.status == "failed"
    msg = await world.nc.jetstream().get_last_msg("DEAD", "dead.commands.job.*")
    assert msg.headers is not None
    assert msg.headers["dead-subject"] == f"commands.gateway.default.job.{job_id}"
    assert "job_id" in msg.headers["dead-reason"]
    assert msg.data == b'{"job_id": 7}'
    assert await world.quiet() == 0


async def test_handlers_go_on_after_the_server_was_killed(world: World) -> None:
    dataset_id = await world.valid_dataset()
    await world.server.kill()
    await world.server.start()

    await world.submit(dataset_id)

    assert (await world.until("WorkQueued")).count("JobSubmitted") == 1


async def test_handlers_wait_for_a_server_and_streams_that_come_later(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, AGENTS, secured=True)
    settings = of(server, tmp_path)
    try:
        async with handling(settings):
            await server.start()
            async with connected(server, settings) as world:
                await bootstrap_streams(world.nc, AGENTS)
                await world.dataset()
                assert "DatasetRegistered" in await world.until("DatasetValidated")
    finally:
        await server.kill()


async def _send_without_message_id(world: World, asked: Envelope[Command], body: bytes) -> Outcome:
    headers, _ = encode_command(asked)
    del headers["Nats-Msg-Id"]
    inbox = world.gateway.new_inbox()
    answers = await world.gateway.subscribe(inbox, max_msgs=1)
    headers["reply_to"] = inbox
    stream = asked.stream
    subject = command_subject(asked.source, stream.workspace, stream.aggregate, stream.id)
    await world.nc.jetstream().publish(subject, body, headers=headers)
    return Outcome.model_validate_json((await answers.next_msg(DEADLINE_S)).data)


async def _forget_duplicates(nc: Client) -> None:
    """Let the window of remembered message ids pass, as a day does."""
    for name in ("COMMANDS", "WORK", "EVENTS"):
        answer = await nc.request(f"$JS.API.STREAM.INFO.{name}", b"{}")
        config = json.loads(answer.data)["config"]
        config["duplicate_window"] = 100_000_000
        await nc.request(f"$JS.API.STREAM.UPDATE.{name}", json.dumps(config).encode())
    await asyncio.sleep(0.3)  # the window itself is a time


async def _replay_all_events(nc: Client) -> None:
    await nc.jetstream().delete_consumer("EVENTS", "reactions")
    with pytest.raises(NotFoundError):
        await nc.jetstream().consumer_info("EVENTS", "reactions")
    await bootstrap_streams(nc, AGENTS)
