"""A backup that was made while the stack served brings all of it back, sequences and all."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from finetrail import backup_log
from finetrail.backup import Wanted, create
from finetrail.backup_database import connected
from finetrail.backup_files import BackupReader
from finetrail.backup_restore import Restored, restore
from finetrail.bootstrap import admin_connection
from finetrail.doctor import diagnose
from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from finetrail.stack.supervisor import CORE, EmbeddedStack
from tests.backup.conftest import LINE, PASSPHRASE, Before, api, send, settings_in
from tests.projections.support import execute

pytestmark = pytest.mark.infra


@dataclass(frozen=True)
class After:
    settings: Settings
    restored: Restored
    given: Settings
    said: list[str]


@pytest.fixture(scope="module")
async def after(before: Before, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[After]:
    given = settings_in(tmp_path_factory.mktemp("after"))
    backup = BackupReader(before.made.path)
    said: list[str] = []
    restored = await restore(given, backup, said.append, passphrase=PASSPHRASE)
    async with EmbeddedStack(given, roles=(CORE,)) as stack:
        yield After(stack.settings, restored, given, said)


async def test_the_log_is_complete_and_its_keys_work(before: Before, after: After) -> None:
    assert after.restored.same_keys
    assert after.restored.log_sequence >= before.made.manifest.log_sequence
    async with api(after.settings, before.key) as client:
        async with asyncio.timeout(20):
            while (found := await client.get(f"/datasets/{before.dataset}")).status_code == 404:
                await asyncio.sleep(0.1)
        rows = await client.get(f"/datasets/{before.dataset}/rows?limit=1")
    assert found.is_success, found.text
    assert found.json()["id"] == before.dataset
    assert rows.is_success, rows.text  # read from the blob


async def test_log_lines_keep_their_sequences(before: Before, after: After) -> None:
    async with api(after.settings, before.key) as client:
        page = await client.get(f"/jobs/{before.job_log['job']}/logs")
    (line,) = [item for item in page.json()["items"] if item["message"] == LINE]
    assert line["sequence"] == before.job_log["sequence"]


async def test_events_keep_their_sequences(before: Before, after: After) -> None:
    async with api(before.settings, before.key) as client:
        then = (await client.get("/events?limit=100")).json()["items"]
    async with api(after.settings, before.key) as client:
        now = (await client.get("/events?limit=100")).json()["items"]
    last = before.made.manifest.log_sequence
    wanted = {each["sequence"]: each["id"] for each in then if each["sequence"] <= last}
    assert {each["sequence"]: each["id"] for each in now if each["sequence"] <= last} == wanted


async def test_a_command_sent_again_under_its_old_id_changes_nothing(
    before: Before, after: After
) -> None:
    """The server has forgotten every message id: only the log knows that it was decided."""
    async with admin_connection(after.settings) as nc:
        commands = await backup_log.stream_info(nc, "COMMANDS")
        events = await _last_link(nc, before)
    outcome = await send(after.settings, before.envelope)

    assert outcome == before.outcome
    async with admin_connection(after.settings) as nc:
        taken = await backup_log.stream_info(nc, "COMMANDS")
        assert await _last_link(nc, before) == events
    assert commands is not None
    assert taken is not None
    assert taken["state"]["last_seq"] > commands["state"]["last_seq"], "it was taken as a new one"


async def test_the_log_is_compared_with_what_was_archived_of_it(after: After) -> None:
    (line,) = [line for line in after.said if line.startswith("audit")]

    assert "as it was archived up to event" in line


async def test_a_log_that_is_not_as_it_was_archived_is_no_success(
    before: Before, tmp_path: Path
) -> None:
    dsn = before.settings.postgres_dsn
    await _archived(dsn, 2)
    await execute(dsn, "UPDATE archive.event SET data = data || '\\x20' WHERE sequence = 2")
    try:
        made = await create(before.settings, tmp_path / "backup", Wanted(), lambda _line: None)
    finally:
        whole = "substring(data for length(data) - 1)"
        await execute(dsn, f"UPDATE archive.event SET data = {whole} WHERE sequence = 2")  # noqa: S608

    with pytest.raises(StackError, match="event 2, changed") as raised:
        await restore(
            settings_in(tmp_path), BackupReader(made.path), lambda _line: None, new_keys=True
        )

    assert "earlier backup" in raised.value.hint


async def test_tables_come_back_with_keys_and_counters(before: Before, after: After) -> None:
    connection = await asyncpg.connect(after.settings.postgres_dsn)
    try:
        rows = [tuple(row) for row in await connection.fetch("SELECT * FROM ours.parent")]
        assert rows == before.parents
        child = await connection.fetchrow("SELECT * FROM ours.child")
        assert child is not None
        assert (child["bytes"], child["many"], child["parent"]) == (b"\x00\xff", [1, None, 3], 2)
        assert (
            await connection.fetchval("INSERT INTO ours.child DEFAULT VALUES RETURNING number") == 2
        )
        added = await connection.fetchrow("INSERT INTO ours.parent DEFAULT VALUES RETURNING *")
        assert added is not None
        assert (added["id"], added["name"], added["twice"]) == (3, "it's", "it'sit's")
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute("INSERT INTO ours.child (parent) VALUES (99)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO ours.parent (name) VALUES ('first')")
        indexes = await connection.fetch("SELECT indexname FROM pg_indexes WHERE schemaname='ours'")
        assert "child_by_time" in {row["indexname"] for row in indexes}
    finally:
        await connection.close()


async def test_the_doctor_finds_nothing_wrong(after: After) -> None:
    checks = await diagnose(after.given, blobs=True)

    wrong = [(each.name, each.detail) for each in checks if not each.ok]
    assert wrong == []


async def test_reactions_go_on_where_the_backup_says(before: Before, after: After) -> None:
    async with admin_connection(after.settings) as nc, asyncio.timeout(20):
        last = (await backup_log.ask(nc, "STREAM.INFO.EVENTS", {}))["state"]["last_seq"]
        while await backup_log.acknowledged(nc, "EVENTS", "reactions") < last:
            await asyncio.sleep(0.05)
            last = (await backup_log.ask(nc, "STREAM.INFO.EVENTS", {}))["state"]["last_seq"]
    assert before.made.manifest.reactions_after <= last


async def test_a_stack_that_runs_is_not_overwritten(before: Before, after: After) -> None:
    with pytest.raises(StackError, match=r"There is a stack in .* already"):
        await restore(after.given, BackupReader(before.made.path), lambda _line: None)


async def test_servers_of_ones_own_must_be_empty_too(before: Before, after: After) -> None:
    own = after.settings.model_copy(update={"data_dir": before.made.path.parent / "own"})
    nats = own.nats
    with pytest.raises(StackError, match=r"is not empty"):
        await restore(
            own.model_copy(update={"nats": nats}),
            BackupReader(before.made.path),
            lambda _line: None,
            new_keys=True,
        )


async def _archived(dsn: str, sequence: int) -> None:
    """Wait until this event is in the archive."""
    async with connected(dsn) as connection, asyncio.timeout(20):
        while not await connection.fetchval(
            "SELECT count(*) FROM archive.event WHERE sequence = $1", sequence
        ):
            await asyncio.sleep(0.05)


async def _last_link(nc: Any, before: Before) -> Any:
    subject = before.envelope.stream.subject
    found = await backup_log.ask(nc, "STREAM.MSG.GET.EVENTS", {"last_by_subj": subject})
    return found["message"]["seq"]


async def test_a_backup_without_the_keys_of_people_is_restored_and_what_they_seal_is_not_read(
    before: Before, tmp_path: Path
) -> None:
    copy = tmp_path / "backup"
    shutil.copytree(before.made.path, copy)
    kept_apart = BackupReader(copy).person_keys
    assert kept_apart is not None
    (copy / kept_apart).unlink()
    given, said = settings_in(tmp_path / "after"), list[str]()

    await restore(given, BackupReader(copy), said.append, passphrase=PASSPHRASE)

    assert any(kept_apart in line for line in said)
    async with EmbeddedStack(given) as stack:
        connection = await asyncpg.connect(stack.settings.postgres_dsn)
        try:
            assert await connection.fetchval("SELECT count(*) FROM state.person_key") == 0
        finally:
            await connection.close()


async def test_no_other_file_may_be_missing(before: Before, tmp_path: Path) -> None:
    copy = tmp_path / "backup"
    shutil.copytree(before.made.path, copy)
    (copy / "log" / "EVENTS.snapshot").unlink()

    with pytest.raises(StackError, match=r"EVENTS\.snapshot \(missing\)"):
        await restore(settings_in(tmp_path / "after"), BackupReader(copy), lambda _line: None)
