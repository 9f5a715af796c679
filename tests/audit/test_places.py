"""Where heads are kept beside the database: files that are appended to, and a bucket that is locked."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from adapters.audit_files import AuditFolder, append, last_head, read_heads, read_keys
from adapters.s3_heads import HeadBucket
from domain.audit import Head
from tests.audit.bundles import FIRST, SECOND, archived, head_of, heads_of, key_of
from tests.seaweed import ADMIN, SeaweedServer, seaweed_server

KEYS = [key_of(FIRST, FIRST), key_of(SECOND, FIRST)]


def heads() -> list[Head]:
    return heads_of(archived(), every=20, rotated_at=60)


async def test_heads_are_appended_once_however_often_they_come(tmp_path: Path) -> None:
    place = AuditFolder(tmp_path / "audit", own=True)

    await place.put(heads()[:3], KEYS[:1])
    await place.put(heads()[:3], KEYS)
    await place.put(heads(), KEYS)

    assert read_heads(tmp_path / "audit" / "heads.jsonl") == heads()
    assert read_keys(tmp_path / "audit" / "keys.jsonl") == KEYS


async def test_a_line_that_a_crash_has_torn_does_not_spoil_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = AuditFolder(tmp_path, own=True)
    file = tmp_path / "heads.jsonl"
    await place.put(heads()[:3], KEYS)
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])

    assert last_head(file) == heads()[1]
    await place.put(heads()[1:], KEYS)

    assert read_heads(file) == heads()
    assert "line 3, is passed over" in caplog.text


async def test_several_installations_may_publish_to_one_folder(tmp_path: Path) -> None:
    place = AuditFolder(tmp_path, own=False)
    other = [head_of(FIRST, "ab" * 32, 5, "cd" * 32)]

    await place.put(heads(), KEYS)
    await place.put(other, KEYS)

    assert len(list(tmp_path.glob("*-heads.jsonl"))) == 2
    assert read_heads(tmp_path / f"{'ab' * 8}-heads.jsonl") == other


async def test_a_mount_that_is_away_is_not_made_here(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await AuditFolder(tmp_path / "mount", own=False).put(heads(), KEYS)

    assert not (tmp_path / "mount").exists()


def test_there_is_no_last_head_where_there_is_none(tmp_path: Path) -> None:
    assert last_head(tmp_path / "heads.jsonl") is None
    append(tmp_path / "heads.jsonl", [{"no": "head"}])
    assert last_head(tmp_path / "heads.jsonl") is None


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.mark.infra
async def test_a_bucket_is_made_with_a_lock_and_keeps_every_head(seaweed: SeaweedServer) -> None:
    place = HeadBucket(seaweed.access("notary"), timedelta(days=2))
    try:
        await place.put(heads()[:3], KEYS)
        await place.put(heads()[2:], KEYS)
    finally:
        place.close()

    pool = urllib3.PoolManager()
    client = Minio(
        seaweed.endpoint,
        access_key=ADMIN[0],
        secret_key=ADMIN[1],
        secure=False,
        region="us-east-1",
        http_client=pool,
    )
    log = heads()[0].log
    names = [each.object_name for each in client.list_objects("notary", f"{log}/heads/")]
    assert names == [f"{log}/heads/{head.sequence:020}.json" for head in heads()]
    answer = client.get_object("notary", names[0])
    assert json.loads(answer.read()) == heads()[0].record()
    answer.close()
    version = next(iter(client.list_objects("notary", names[0], include_version=True))).version_id
    with pytest.raises(S3Error):
        client.remove_object("notary", names[0], version_id=version)
    pool.clear()


@pytest.mark.infra
async def test_of_a_bucket_only_what_differs_is_read_and_what_was_hidden_too(
    seaweed: SeaweedServer,
) -> None:
    place = HeadBucket(seaweed.access("read"), timedelta(days=2))
    try:
        await place.put(heads(), KEYS)
        log, first = heads()[0].log, heads()[0]
        other = head_of(FIRST, log, first.sequence, "ab" * 32)
        name = f"{log}/heads/{first.sequence:020}.json"
        seaweed.put("read", name, json.dumps(other.record()).encode())
        seaweed.put("read", f"{log}/heads/{99:020}.json", b"torn")
        seaweed.put("read", "notes.txt", b"something else")

        found = await place.find(log, heads()[:-1])
        of_all = await place.find("00" * 32, heads())
    finally:
        place.close()

    assert found.known == len(heads()) - 1
    assert found.heads == [other, heads()[-1]]
    assert sorted(found.keys, key=lambda key: key.key) == sorted(KEYS, key=lambda key: key.key)
    ((sequence, wrong),) = found.unreadable
    assert sequence == 99
    assert f"{log}/heads/{99:020}.json" in wrong
    assert of_all.known == len(heads()), "where a log has nothing there, another may be meant"


@pytest.mark.infra
async def test_a_bucket_without_a_lock_keeps_them_too_and_says_so(
    seaweed: SeaweedServer, caplog: pytest.LogCaptureFixture
) -> None:
    seaweed.put("plain", "something", b"else")
    place = HeadBucket(seaweed.access("plain"), timedelta(days=2))
    try:
        await place.put(heads(), KEYS)
    finally:
        place.close()

    assert "has no object lock" in caplog.text
