"""The archive: every event once, chained and signed, through restarts, lost databases and other logs."""

from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from adapters.audit_files import read_heads
from domain.audit import START, chained_headers, event_hash
from finetrail.audit.key_file import FOLDER, KEY_FILE, KeyFile, is_private, is_signed
from projections.archive import Pace
from tests.projections.archiving import (
    archive,
    archiver,
    forget_archive,
    history,
    running,
    signed,
)
from tests.projections.support import eventually, execute

pytestmark = pytest.mark.infra


@pytest.fixture
async def database(dsn: str) -> str:
    await forget_archive(dsn)
    return dsn


async def rows(dsn: str) -> list[tuple[int, bytes]]:
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch("SELECT sequence, hash FROM archive.event ORDER BY sequence")
        return [(row["sequence"], row["hash"]) for row in found]
    finally:
        await connection.close()


async def test_every_event_is_chained_once_and_the_end_is_signed(
    database: str, tmp_path: Path
) -> None:
    log = history()

    await archive(archiver(database, log, tmp_path), len(log))

    found = await rows(database)
    assert [sequence for sequence, _ in found] == [message.sequence for message in log]
    assert await signed(database) == [len(log)]
    (head,) = read_heads(tmp_path / FOLDER / "heads.jsonl")
    assert (head.sequence, head.hash) == (len(log), found[-1][1].hex())
    assert head.log == found[0][1].hex()
    keys = {key.key: key for key in KeyFile(tmp_path / KEY_FILE, tmp_path / FOLDER).public_keys()}
    assert is_signed(head, keys)
    assert not is_signed(replace(head, sequence=1), keys)
    assert is_private(tmp_path / KEY_FILE)


async def test_it_goes_on_where_it_was_stopped(database: str, tmp_path: Path) -> None:
    log = history()
    whole = tmp_path / "whole"
    await archive(archiver(database, log, whole), len(log))
    expected = await rows(database)
    await forget_archive(database)

    for end in (10, 33, len(log)):
        await archive(archiver(database, log[:end], tmp_path / "parts"), end)

    assert await rows(database) == expected
    assert await signed(database) == [10, 33, len(log)]


async def test_a_head_is_signed_after_so_many_events(database: str, tmp_path: Path) -> None:
    log = history()
    pace = Pace(seconds=3600, events=20)

    await archive(archiver(database, log, tmp_path, pace, size=10), len(log))

    assert (await signed(database))[:3] == [20, 40, 60]


async def test_a_head_is_signed_after_so_long(database: str, tmp_path: Path) -> None:
    log = history()
    runner = archiver(database, log, tmp_path, Pace(seconds=0.2, events=1_000_000), size=1000)

    async with running(runner):

        async def is_signed_now() -> bool:
            return runner.state.sequence > 0 and await signed(database) == [len(log)]

        await eventually(is_signed_now)


async def test_an_archive_that_was_lost_is_made_again_and_proven_by_the_heads_in_the_folder(
    database: str, tmp_path: Path
) -> None:
    log = history()
    pace = Pace(seconds=3600, events=20)
    await archive(archiver(database, log, tmp_path, pace, size=10), len(log))
    before, heads = await rows(database), await signed(database)
    await forget_archive(database)

    await archive(archiver(database, log, tmp_path, pace, size=10), len(log))

    assert await rows(database) == before
    assert await signed(database) == heads
    assert len(read_heads(tmp_path / FOLDER / "heads.jsonl")) == len(heads)


async def test_files_that_were_lost_are_filled_again(database: str, tmp_path: Path) -> None:
    log = history()
    pace = Pace(seconds=3600, events=20)
    await archive(archiver(database, log, tmp_path, pace, size=10), len(log))
    kept = read_heads(tmp_path / FOLDER / "heads.jsonl")
    key = KeyFile(tmp_path / KEY_FILE, tmp_path / FOLDER).public_key()
    for name in ("heads.jsonl", "keys.jsonl"):
        (tmp_path / FOLDER / name).unlink()

    async with running(archiver(database, log, tmp_path, pace)):

        async def all_are_back() -> bool:
            return read_heads(tmp_path / FOLDER / "heads.jsonl") == kept

        await eventually(all_are_back)

    assert KeyFile(tmp_path / KEY_FILE, tmp_path / FOLDER).public_key() == key


async def test_a_log_that_was_changed_while_the_archive_was_lost_stops_it(
    database: str, tmp_path: Path
) -> None:
    log = history()
    await archive(archiver(database, log, tmp_path), len(log))
    await forget_archive(database)
    log[30] = replace(log[30], data=log[30].data.replace(b"{", b"{ ", 1))

    runner = await archive(archiver(database, log, tmp_path), len(log))

    assert runner.state.status == "stopped"
    assert f"up to event {len(log)} is not what was signed" in (runner.state.error or "")
    assert await signed(database) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [("shorter", "the log ends with event 40"), ("other", "is no longer in the log as it was")],
)
async def test_a_log_that_does_not_go_on_from_the_archive_stops_it(
    database: str, tmp_path: Path, change: str, says: str
) -> None:
    log = history()
    await archive(archiver(database, log[:50], tmp_path), 50)
    if change == "shorter":
        log = log[:40]
    else:
        log[49] = replace(log[49], data=b"{}")

    runner = await archive(archiver(database, log, tmp_path), 1_000_000)

    assert runner.state.status == "stopped"
    assert says in (runner.state.error or "")
    connection = await asyncpg.connect(database)
    assert says in await connection.fetchval("SELECT error FROM archive.checkpoint")
    await connection.close()


async def test_two_at_a_time_write_everything_once(database: str, tmp_path: Path) -> None:
    log = history()
    first, second = (archiver(database, log, tmp_path, size=1) for _ in range(2))
    connection = await asyncpg.connect(database)

    async with running(first), running(second):
        for _ in range(5):  # the lock is a courtesy; exactly once must hold without it
            at = max(first.state.sequence, second.state.sequence)

            async def further(at: int = at) -> bool:
                return max(first.state.sequence, second.state.sequence) > at

            await eventually(further)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks "
                "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )

        async def one_sees_the_end() -> bool:
            return max(first.state.sequence, second.state.sequence) == len(log)

        await eventually(one_sees_the_end)
    await connection.close()

    assert [sequence for sequence, _ in await rows(database)] == [m.sequence for m in log]


async def test_without_its_key_nothing_is_signed_and_it_says_so(
    database: str, tmp_path: Path
) -> None:
    log = history()
    await archive(archiver(database, log[:20], tmp_path), 20)
    (tmp_path / KEY_FILE).unlink()

    runner = archiver(database, log, tmp_path, Pace(seconds=0.05, events=1))
    async with running(runner):

        async def says_so() -> bool:
            return runner.state.sequence == len(log) and runner.state.error is not None

        await eventually(says_so)

    assert "audit.key is not there" in (runner.state.error or "")
    assert runner.state.status == "running"
    assert await signed(database) == [20]


@pytest.mark.parametrize(
    ("made", "says"), [(False, "put the key there that has"), (True, "holds another key")]
)
async def test_a_key_that_nobody_has_vouched_for_does_not_sign(
    database: str, tmp_path: Path, made: bool, says: str
) -> None:
    log = history()
    await archive(archiver(database, log[:20], tmp_path / "one"), 20)
    if made:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / KEY_FILE).write_text("11" * 32)

    runner = archiver(database, log, tmp_path / "other", Pace(seconds=0.05, events=1))
    async with running(runner):

        async def says_so() -> bool:
            return runner.state.sequence == len(log) and runner.state.error is not None

        await eventually(says_so)

    assert says in (runner.state.error or "")
    assert await signed(database) == [20]


async def test_a_new_key_signs_on_when_the_former_one_has_vouched_for_it(
    database: str, tmp_path: Path
) -> None:
    log = history()
    await archive(archiver(database, log[:20], tmp_path), 20)
    key = KeyFile(tmp_path / KEY_FILE, tmp_path / FOLDER)

    new = key.rotate()
    await archive(archiver(database, log, tmp_path), len(log))

    former, latter = read_heads(tmp_path / FOLDER / "heads.jsonl")
    assert (latter.key, new.by) == (new.key, former.key)
    assert is_signed(latter, {new.key: new})
    assert [known.key for known in key.public_keys()] == [former.key, new.key]


async def test_a_database_that_restarts_is_waited_for(database: str, tmp_path: Path) -> None:
    log = history()
    runner = archiver(database, log, tmp_path, size=1)
    async with running(runner):

        async def some() -> bool:
            return runner.state.sequence > 5

        await eventually(some)
        await execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'finetrail projections'",
        )

        async def all_() -> bool:
            return runner.state.sequence == len(log)

        await eventually(all_)

    assert [sequence for sequence, _ in await rows(database)] == [m.sequence for m in log]


def test_what_the_server_adds_is_no_part_of_the_chain() -> None:
    message = history()[0]
    other = message.block.replace(b"ce-id", b"Nats-Expected-Stream: EVENTS\r\nce-id", 1)

    assert chained_headers(message.block) == chained_headers(other)
    assert all(not name.startswith(b"Nats-") for name, _ in chained_headers(message.block))


def test_no_two_events_have_the_same_bytes_under_the_hash() -> None:
    one = event_hash(START, 1, b"ab", [(b"c", b"d")], bytes(32))
    others = [
        event_hash(START, 1, b"a", [(b"bc", b"d")], bytes(32)),
        event_hash(START, 1, b"ab", [(b"", b"cd")], bytes(32)),
        event_hash(START, 1, b"ab", [(b"c", b""), (b"", b"d")], bytes(32)),
        event_hash(START, 2, b"ab", [(b"c", b"d")], bytes(32)),
        event_hash(bytes(31) + b"1", 1, b"ab", [(b"c", b"d")], bytes(32)),
    ]

    assert one not in others
    assert len(set(others)) == len(others)
