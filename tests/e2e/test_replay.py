"""The log is the truth: tables come back from it, and what was decided once is not decided again."""

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from unittest import mock
from uuid import UUID, uuid4

import asyncpg
import pytest

from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import connect
from domain.access.access import access_id
from domain.access.commands import IssueKey, RevokeKey
from domain.messages import Command, Envelope, Outcome, StreamId
from domain.models.commands import ActivateModel
from domain.subjects import Aggregate
from domain.wire import Headers, encode_command
from finetrail.settings import Settings
from finetrail.stack.state import resolve_settings
from tests.e2e.harness import Stack, running_stack, wait_for

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory, few_rows: bytes) -> Iterator[Stack]:
    """A stack that has trained two versions of one model."""
    folder = tmp_path_factory.mktemp("replay") / "data"
    # Lines that are archived are an event, which must not come while rows and events are compared.
    with running_stack(folder, FINETRAIL_LOGS__ARCHIVE_SECONDS="3600") as running:
        dataset_id = running.upload(few_rows)["id"]
        for seed in (1, 2):
            body = {
                "model": "replayed",
                "dataset_id": dataset_id,
                "seed": seed,
                "hyperparameters": {"epochs": 1},
            }
            running.evaluation_until_done(running.post("/jobs", body)["id"])
        yield running


def settings_of(stack: Stack) -> Settings:
    with mock.patch.dict(os.environ, stack.environment):
        return resolve_settings(Settings())


async def all_rows(dsn: str) -> dict[str, list[str]]:
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'finetrail'"
        )
        rows = {}
        for (table,) in tables:
            if table.startswith("projection_"):
                continue
            found = await connection.fetch(f'SELECT t::text FROM finetrail."{table}" t')  # noqa: S608
            rows[table] = sorted(row[0] for row in found)
        return rows
    finally:
        await connection.close()


async def drop_everything(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("DROP SCHEMA finetrail CASCADE")
    finally:
        await connection.close()


def test_dropping_every_table_and_replaying_gives_the_same_rows(lived_in: Stack) -> None:
    dsn = settings_of(lived_in).postgres_dsn
    before = asyncio.run(all_rows(dsn))

    asyncio.run(drop_everything(dsn))
    lived_in.stop()
    lived_in.start()

    dsn = settings_of(lived_in).postgres_dsn
    wait_for("the replay", lambda: asyncio.run(all_rows(dsn)) == before or None, within_s=60)
    assert sum(len(rows) for rows in before.values()) > 50
    assert before["job"]
    assert before["job_step"]


def test_a_command_that_comes_again_a_day_later_changes_nothing(lived_in: Stack) -> None:
    model = lived_in.get("/models/replayed")
    versions = {v["number"]: v["id"] for v in lived_in.get("/models/replayed/versions")["items"]}
    first = activation(model["id"], versions[1])
    second = activation(model["id"], versions[2])
    issue = key_issue()
    assert [send(lived_in, c).status for c in (first, second, issue)] == ["recorded"] * 3
    revoke = RevokeKey(key_id=issue.command.key_id)  # type: ignore[attr-defined]
    last = send(lived_in, envelope("access", access_id("default"), revoke)).sequence
    lived_in.stop()
    lived_in.start()

    def events() -> int:
        """How many the log holds, once the timeline has reached what was sent before the stop."""
        known = lived_in.events()
        return len(known) if known[-1]["sequence"] >= last else 0

    before = wait_for("the timeline", events)

    again = [send(lived_in, c, deduplicated=False) for c in (first, second, issue)]

    assert [outcome.status for outcome in again] == ["recorded"] * 3
    assert len(lived_in.events()) == before
    assert lived_in.get("/models/replayed")["active"]["number"] == 2
    assert issue.command.key_id not in str(lived_in.get("/keys")["items"])  # type: ignore[attr-defined]


def activation(model_id: str, version_id: str) -> Envelope[Command]:
    command = ActivateModel(model_id=UUID(model_id), version_id=UUID(version_id))
    return envelope("model", UUID(model_id), command)


def key_issue() -> Envelope[Command]:
    command = IssueKey(key_id=uuid4().hex[:8], name="again", role="viewer", secret_hmac="0" * 64)
    return envelope("access", access_id("default"), command)


def envelope(aggregate: Aggregate, id_: UUID, command: Command) -> Envelope[Command]:
    return Envelope(
        id=uuid4(),
        stream=StreamId("default", aggregate, id_),
        source="operator",
        actor="operator",
        correlation_id=uuid4(),
        causation_id=None,
        sent_at=datetime(2026, 1, 1, tzinfo=UTC),
        command=command,
    )


def send(stack: Stack, wanted: Envelope[Command], *, deduplicated: bool = True) -> Outcome:
    """Send a command; without its message id the server's window cannot catch it, as after a day."""

    def without_message_id(envelope: Envelope[Command]) -> tuple[Headers, bytes]:
        headers, body = encode_command(envelope)
        return {name: value for name, value in headers.items() if name != "Nats-Msg-Id"}, body

    async def sending() -> Outcome:
        login = settings_of(stack).nats_login("gateway")
        connection = await connect(
            login.url,
            user=login.user,
            password=login.password,
            name="tests",
            inbox_prefix=login.inbox_prefix,
        )
        try:
            return await NatsCommandBus(connection).send(wanted)
        finally:
            await connection.close()

    encode = encode_command if deduplicated else without_message_id
    with mock.patch("adapters.nats_command_bus.encode_command", encode):
        return asyncio.run(sending())
