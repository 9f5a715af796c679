"""A log that was copied to another server with something changed is found out, and the event named."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from adapters.audit_files import read_heads
from adapters.nats_event_source import LogMessage
from adapters.s3_heads import HeadBucket
from domain.audit import Head, key_id
from finetrail.audit.key_file import open_key
from finetrail.audit.verify import Verified, open_source, verify_log, verify_source
from finetrail.settings import (
    AuditSettings,
    BlobSettings,
    PostgresSettings,
    S3Settings,
    Settings,
)
from tests.audit.copies import copied
from tests.infra import NatsServer, nats_server
from tests.projections.archiving import block, history
from tests.projections.support import execute
from tests.seaweed import SeaweedServer, seaweed_server

pytestmark = pytest.mark.infra
Change = Callable[[list[LogMessage]], list[LogMessage]]
HERE = 40  # where something is done, of 107 events


@pytest.fixture(scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path_factory.mktemp("copy"), streams=False) as running:
        yield running


async def verified(settings: Settings, *trusted: str) -> Verified:
    return await verify_log(settings, trusted, lambda _events, _of: None)


async def test_the_log_as_it_is_holds_up_to_its_last_event(archived: Settings) -> None:
    found = await verified(archived)

    assert found.holds, found.findings
    assert found.compared
    assert (found.events, found.proven, found.unsigned) == (107, 107, 0)
    assert found.heads >= 2


async def test_a_true_copy_holds(archived: Settings, server: NatsServer) -> None:
    async with copied(server, archived, history()) as settings:
        found = await verified(settings)

    assert found.holds, found.findings
    assert found.proven == 107


def changed_data(log: list[LogMessage]) -> list[LogMessage]:
    event = log[HERE - 1]
    log[HERE - 1] = replace(event, data=event.data.replace(b"{", b'{"note":"forged",', 1))
    return log


def changed_actor(log: list[LogMessage]) -> list[LogMessage]:
    event = log[HERE - 1]
    log[HERE - 1] = replace(event, block=block({**event.headers, "ce-actor": "key:somebody"}))
    return log


def added_header(log: list[LogMessage]) -> list[LogMessage]:
    event = log[HERE - 1]
    log[HERE - 1] = replace(event, block=block({**event.headers, "approved-by": "nobody"}))
    return log


def changed_subject(log: list[LogMessage]) -> list[LogMessage]:
    event = log[HERE - 1]
    log[HERE - 1] = replace(event, subject=event.subject[:-1] + "z")
    return log


def left_out(log: list[LogMessage]) -> list[LogMessage]:
    return log[: HERE - 1] + log[HERE:]


def put_in(log: list[LogMessage]) -> list[LogMessage]:
    event = log[HERE - 1]
    forged = replace(event, block=block({**event.headers, "ce-id": "forged"}))
    return [*log[: HERE - 1], forged, *log[HERE - 1 :]]


def swapped(log: list[LogMessage]) -> list[LogMessage]:
    log[HERE - 1], log[HERE] = log[HERE], log[HERE - 1]
    return log


def another(log: list[LogMessage]) -> list[LogMessage]:
    forged = {**log[HERE - 1].headers, "ce-id": "forged"}
    log[HERE - 1] = replace(log[HERE - 1], block=block(forged), data=b"{}")
    return log


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (changed_data, "changed"),
        (changed_actor, "header changed"),
        (added_header, "header changed"),
        (changed_subject, "subject changed"),
        (left_out, "missing"),
        (put_in, "inserted"),
        (swapped, "reordered"),
        (another, "changed"),
    ],
)
async def test_a_copy_that_somebody_has_changed_is_found_out(
    archived: Settings, server: NatsServer, change: Change, way: str
) -> None:
    log = change(history())
    log = [
        replace(m, block=block({k: v for k, v in m.headers.items() if k != "Nats-Msg-Id"}))
        for m in log
    ]
    async with copied(server, archived, log) as settings:
        found = await verified(settings)

    assert [(each.sequence, each.way, each.side) for each in found.findings] == [(HERE, way, "log")]
    assert 0 < found.proven < HERE


async def test_a_deleted_event_is_missed(archived: Settings, server: NatsServer) -> None:
    async with copied(server, archived, history(), gone=[HERE]) as settings:
        found = await verified(settings)

    assert [(each.sequence, each.way) for each in found.findings] == [(HERE, "missing")]


@pytest.mark.parametrize("gone", [range(100, 108), range(1, 108)], ids=["the end", "everything"])
async def test_deleted_ends_are_missed(archived: Settings, server: NatsServer, gone: range) -> None:
    async with copied(server, archived, history(), gone=gone) as settings:
        found = await verified(settings)

    assert [(each.sequence, each.way) for each in found.findings] == [(gone[0], "missing")]


@pytest.mark.parametrize("change", [changed_data, left_out])
async def test_heads_alone_tell_between_which_two_something_was_changed(
    archived: Settings, server: NatsServer, change: Change
) -> None:
    alone = archived.model_copy(update={"postgres": PostgresSettings()})
    async with copied(server, alone, change(history())) as settings:
        found = await verified(settings)

    finding = found.findings[0]
    assert not found.compared
    assert finding.sequence == found.proven + 1 <= HERE
    assert "signed" in finding.detail


async def test_heads_that_were_published_count_when_all_else_is_lost(
    archived: Settings, server: NatsServer, tmp_path: Path
) -> None:
    assert archived.audit.publish_folder is not None
    lost = archived.model_copy(update={"postgres": PostgresSettings(), "data_dir": tmp_path})
    (published,) = archived.audit.publish_folder.glob("*-heads.jsonl")
    assert read_heads(published)
    async with copied(server, lost, changed_data(history())) as settings:
        found = await verified(settings)

    assert [each.way for each in found.findings] == ["changed"]


async def test_of_a_restored_log_more_may_have_been_signed(
    archived: Settings, server: NatsServer
) -> None:
    lost = archived.model_copy(update={"postgres": PostgresSettings()})
    async with copied(server, lost, history()[:80]) as settings, open_source(settings) as source:
        found = await verify_source(source, settings, (), lambda _events, _of: None, restored=True)

    assert found.holds, found.findings
    assert 0 < found.proven <= 80
    assert found.later > 0


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


def publishing_to(seaweed: SeaweedServer, bucket: str, settings: Settings) -> Settings:
    access = seaweed.access(bucket)
    server = S3Settings(
        endpoint=access.endpoint,
        bucket="blobs",
        access_key=access.access_key,
        secret_key=SecretStr(access.secret_key),
        secure=False,
    )
    audit = AuditSettings(publish_bucket=bucket)
    return settings.model_copy(update={"blobs": BlobSettings(s3=server), "audit": audit})


async def put(seaweed: SeaweedServer, bucket: str, settings: Settings, heads: list[Head]) -> None:
    place = HeadBucket(seaweed.access(bucket), timedelta(days=1))
    try:
        await place.put(heads, open_key(settings).public_keys())
    finally:
        place.close()


async def test_heads_in_a_bucket_are_compared(archived: Settings, seaweed: SeaweedServer) -> None:
    heads = list(open_key(archived).heads())
    settings = publishing_to(seaweed, "same", archived)
    await put(seaweed, "same", archived, heads)

    found = await verified(settings)

    assert found.holds, found.findings
    assert found.published == [f"{len(heads)} heads in bucket same at {seaweed.endpoint}"]


async def test_a_head_in_a_bucket_that_differs_is_named(
    archived: Settings, seaweed: SeaweedServer
) -> None:
    heads = list(open_key(archived).heads())
    at, log = heads[0].sequence, heads[0].log
    settings = publishing_to(seaweed, "differs", archived)
    true = open_key(archived).sign(log, at, "ab" * 32)
    await put(seaweed, "differs", archived, [true, *heads[1:]])

    (finding,) = (await verified(settings)).findings

    assert (finding.sequence, finding.way) == (at, "head")
    assert "has another one" in finding.detail
    assert "bucket differs" in finding.detail


async def test_a_head_in_a_bucket_that_the_log_lacks_is_named(
    archived: Settings, seaweed: SeaweedServer
) -> None:
    heads = list(open_key(archived).heads())
    settings = publishing_to(seaweed, "more", archived)
    later = open_key(archived).sign(heads[0].log, 120, "ab" * 32)
    between = open_key(archived).sign(heads[0].log, HERE, "cd" * 32)

    await put(seaweed, "more", archived, [later])
    (missing,) = (await verified(settings)).findings
    await put(seaweed, "more", archived, [between])
    (changed,) = (await verified(settings)).findings

    assert (missing.sequence, missing.way) == (108, "missing")
    assert "120 was signed (bucket more" in missing.detail
    assert changed.way == "changed"
    assert f"up to event {HERE} is not as it was signed" in changed.detail
    assert "bucket more" in changed.detail


async def test_a_bucket_that_does_not_answer_is_said_not_to_be_compared(
    archived: Settings, seaweed: SeaweedServer
) -> None:
    found = await verified(publishing_to(seaweed, "never-made", archived))

    assert found.holds, found.findings
    (line,) = found.published
    assert line.startswith("not with bucket never-made")
    assert "no bucket never-made" in line


async def test_an_archive_that_somebody_has_changed_is_found_out_too(archived: Settings) -> None:
    dsn = archived.postgres_dsn
    there = "FROM archive.event WHERE sequence = 41"
    where = "WHERE sequence = 41"
    for change, way in (
        ("UPDATE archive.event SET data = data || '\\x20'", "changed"),
        ("UPDATE archive.event SET subject = subject || 'x'", "subject changed"),
        ("UPDATE archive.event SET hash = sha256(hash)", "changed"),
        ("DELETE FROM archive.event", "missing"),
    ):
        await execute(dsn, f"CREATE TABLE archive.saved AS SELECT * {there}")
        await execute(dsn, f"{change} {where}")
        found = await verified(archived)
        await execute(dsn, f"DELETE {there}")
        await execute(dsn, "INSERT INTO archive.event SELECT * FROM archive.saved")
        await execute(dsn, "DROP TABLE archive.saved")

        facts = [(each.sequence, each.way, each.side) for each in found.findings]
        assert facts == [(41, way, "archive")], change


async def test_a_head_that_was_changed_is_named(archived: Settings, tmp_path: Path) -> None:
    moved = archived.model_copy(
        update={"data_dir": tmp_path, "audit": AuditSettings(publish_folder=tmp_path)}
    )
    (tmp_path / "audit").mkdir()
    for name in ("keys.jsonl", "heads.jsonl"):
        text = (archived.folder / "audit" / name).read_text()
        forged = text.replace("2026-", "2025-", 1) if name == "heads.jsonl" else text
        (tmp_path / "audit" / name).write_text(forged)

    found = await verified(moved)

    assert [each.way for each in found.findings] == ["head"]
    assert "signature" in found.findings[0].detail


async def test_a_key_of_somebody_else_proves_nothing(archived: Settings) -> None:
    mine = open_key(archived).public_key()
    assert mine is not None

    assert (await verified(archived, mine.public_key)).proven == 107
    assert (await verified(archived, mine.key)).proven == 107
    other = await verified(archived, key_id(b"x" * 32))
    assert (other.holds, other.proven) == (False, 0)
