"""A stack with something in it, backed up while it serves."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from uuid_utils.compat import uuid7

from adapters.nats_command_bus import NatsCommandBus
from adapters.nats_connection import close, connect
from domain.links.commands import IssueLink
from domain.messages import Command, Envelope, Outcome, StreamId
from domain.subjects import OPERATOR_SOURCE
from finetrail.backup import Made, Wanted, create
from finetrail.owner import issue_key
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import CORE, EmbeddedStack

PASSPHRASE = "correct horse battery"
ROWS = b"text,label\n" + b"".join(b"row %d,%s\n" % (n, b"ab"[n % 2 : n % 2 + 1]) for n in range(40))
LINE = "a line from before"
TABLES = """
    CREATE SCHEMA ours;
    CREATE TABLE ours.parent (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL DEFAULT 'it''s',
        twice text GENERATED ALWAYS AS (name || name) STORED, UNIQUE (name)
    );
    CREATE TABLE ours.child (
        number serial PRIMARY KEY, parent bigint REFERENCES ours.parent (id),
        bytes bytea, said jsonb, at timestamptz, many bigint[], CHECK (number > 0)
    );
    CREATE INDEX child_by_time ON ours.child (at DESC) WHERE parent IS NOT NULL;
    INSERT INTO ours.parent (name) VALUES ('first'), (E'tab\\tand\\nline');
    INSERT INTO ours.child (parent, bytes, said, at, many)
        VALUES (2, '\\x00ff', '{"a": [1, null]}', '2026-03-03 14:00+00', '{1,NULL,3}');
"""


@dataclass(frozen=True)
class Before:
    """A stack as it was, and its backup."""

    settings: Settings
    made: Made
    key: str
    dataset: str
    job_log: dict[str, Any]
    envelope: Envelope[Command]
    outcome: Outcome
    parents: list[tuple[Any, ...]]


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", gateway=GatewaySettings(port=0))


async def send(settings: Settings, envelope: Envelope[Command]) -> Outcome:
    login = settings.nats_login("gateway")
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name="test",
        inbox_prefix=login.inbox_prefix,
    )
    try:
        return await NatsCommandBus(nc).send(envelope)
    finally:
        await close(nc)


def api(settings: Settings, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"{settings.gateway_url}/api/v1",
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
        timeout=20,
    )


@pytest.fixture(scope="session")
async def before(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Before]:
    folder = tmp_path_factory.mktemp("before")
    async with EmbeddedStack(settings_in(folder), roles=(CORE,)) as stack:
        settings = stack.settings
        key = await issue_key(settings, name="kept", role="admin")
        link = IssueLink(
            link_id=uuid7(),
            resource="dataset",
            resource_id=uuid7(),
            expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        )
        envelope: Envelope[Command] = Envelope(
            id=uuid7(),
            stream=StreamId(settings.workspace, "link", link.link_id),
            source=OPERATOR_SOURCE,
            actor="operator:test",
            correlation_id=uuid7(),
            causation_id=None,
            sent_at=datetime.now(UTC),
            command=link,
        )
        outcome = await send(settings, envelope)
        async with api(settings, key) as client:
            uploaded = await client.post(
                "/datasets?name=rows",
                content=ROWS,
                headers={"content-type": "text/csv"},
            )
            assert uploaded.is_success, uploaded.text
            dataset = uploaded.json()["id"]
            job = await client.post("/jobs", json={"dataset_id": dataset, "model": "kept"})
            assert job.is_success, job.text
            said = await client.post(
                f"/jobs/{job.json()['id']}/logs", json={"lines": [{"message": LINE}]}
            )
            assert said.is_success, said.text
        connection = await asyncpg.connect(settings.postgres_dsn)
        try:
            await connection.execute(TABLES)
            parents = [tuple(row) for row in await connection.fetch("SELECT * FROM ours.parent")]
        finally:
            await connection.close()
        wanted = Wanted(passphrase=PASSPHRASE)
        made = await create(settings, folder / "backup", wanted, lambda _line: None)
        log = {"job": job.json()["id"], "sequence": said.json()["sequence"]}
        yield Before(settings, made, key, dataset, log, envelope, outcome, parents)
