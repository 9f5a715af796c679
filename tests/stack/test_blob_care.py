"""Blobs against the log: damage is found and named, and only what nobody refers to is collected."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from typer.testing import CliRunner

from adapters.blob_files import StoredBlob
from adapters.local_blobs import LocalBlobs, blob_path
from domain.blobs import BlobRef
from finetrail.blob_care import collect, copy_folder
from finetrail.blob_checks import check_all
from finetrail.blob_references import LogIncomplete, blobs_in
from finetrail.cli import app
from finetrail.doctor import diagnose
from finetrail.settings import BlobSettings, NatsSettings, S3Settings, Settings
from tests.infra import free_port, nats_server

GOLDEN = Path(__file__).parents[1] / "domain" / "golden"
DAY = timedelta(hours=24)


@dataclass
class Installation:
    """A log and a folder of blobs that belong together."""

    settings: Settings
    nc: Client
    blobs: LocalBlobs

    async def blob(self, content: bytes, *, days_old: int = 2) -> BlobRef:
        async with self.blobs.writer() as writer:
            await writer.write(content)
            ref = await writer.commit()
        then = time.time() - days_old * DAY.total_seconds()
        os.utime(self.path(ref), (then, then))
        return ref

    def path(self, ref: BlobRef) -> Path:
        return blob_path(self.settings.blobs_folder, ref.sha256)

    async def record(self, type_: str, body: dict[str, Any], subject: str = "") -> int:
        ack = await self.nc.jetstream().publish(
            subject or f"events.default.dataset.{type_}",
            json.dumps(body).encode(),
            headers={"ce-type": type_},
        )
        return ack.seq

    async def stored(self) -> set[str]:
        return {blob.sha256 async for blob in self.blobs.stored()}

    async def cli(self, *arguments: str) -> tuple[int, Any]:
        environment = {
            "FINETRAIL_DATA_DIR": str(self.settings.data_dir),
            "FINETRAIL_NATS__URL": self.settings.nats.url,
        }
        done = await asyncio.to_thread(
            CliRunner().invoke, app, [*arguments, "--json"], env=environment
        )
        return done.exit_code, json.loads(done.stdout)


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with nats_server(tmp_path / "nats") as server:
        settings = Settings(data_dir=tmp_path / "data", nats=NatsSettings(url=server.url))
        nc = await server.connect("admin")
        yield Installation(settings, nc, LocalBlobs(settings.blobs_folder))
        await nc.close()


@pytest.mark.infra
async def test_the_doctor_names_each_damaged_blob_and_who_refers_to_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.doctor.TORCH_PROGRAM", "print('not asked here')")
    whole, gone, cut, altered = [
        await installation.blob(content) for content in (b"whole", b"gone", b"cut", b"altered")
    ]
    await installation.record("DatasetRegistered", {"blob": whole.model_dump()})
    healthy = await check_all(installation.settings)
    files = [{"path": "a.json", "blob": gone.model_dump()}, {"path": "b", "blob": cut.model_dump()}]
    await installation.record("JobSucceeded", {"adapter": files})
    await installation.record("Unheard", {"any": {"thing": [altered.model_dump()]}})
    await installation.record("VersionRegistered", {"files": files[:1]})

    installation.path(gone).unlink()
    installation.path(cut).write_bytes(b"c")
    installation.path(altered).write_bytes(b"ALTERED")
    total, *found = [asdict(check) for check in await check_all(installation.settings)]

    assert [(check.ok, check.detail) for check in healthy] == [
        (True, "1 that events refer to (5 B), all as the log says")
    ]
    assert (total["ok"], total["detail"]) == (
        False,
        "3 damaged of 4 that events refer to (19 B)",
    )
    assert {each["sha256"]: each["damage"] for each in found} == {
        gone.sha256: "missing",
        cut.sha256: "size differs",
        altered.sha256: "altered",
    }
    by_hash = {each["sha256"]: each for each in found}
    assert [
        (event["sequence"], event["event"], event["purpose"])
        for event in by_hash[gone.sha256]["events"]
    ] == [(2, "JobSucceeded", "adapter: a.json"), (4, "VersionRegistered", "files: a.json")]
    assert "1 bytes instead of 3" in by_hash[cut.sha256]["detail"]
    assert by_hash[altered.sha256]["events"][0]["purpose"] == "any.thing"
    code, said = await installation.cli("doctor", "--blobs")
    assert code == 1
    assert {each["sha256"] for each in said if each.get("damage")} == set(by_hash)


@pytest.mark.infra
async def test_only_old_blobs_that_nothing_mentions_are_collected(
    installation: Installation,
) -> None:
    recorded = await installation.blob(b"recorded")
    newer = await installation.blob(b"of a newer build")
    waiting = await installation.blob(b"of a command that nobody has decided")
    dead = await installation.blob(b"of a dead letter")
    given = await installation.blob(b"of work that is under way")
    young = await installation.blob(b"young", days_old=0)
    old = await installation.blob(b"old and forgotten")
    await installation.record("DatasetRegistered", {"blob": recorded.model_dump()})
    await installation.record("FromTheFuture", {"digests": [f"sha256:{newer.sha256}"]})
    for subject, ref in (
        ("commands.gateway.default.dataset.one", waiting),
        ("dead.commands.dataset", dead),
        ("work.agent", given),
    ):
        await installation.record("Any", {"blob": ref.model_dump()}, subject)
    everything = await installation.stored()

    listed = await installation.cli("blobs", "collect")
    after_listing = await installation.stored()
    deleted = await installation.cli("blobs", "collect", "--delete", "--older-than", "1d")

    assert [blob["sha256"] for blob in listed[1]["blobs"]] == [old.sha256]
    assert (listed[0], listed[1]["bytes"], listed[1]["deleted"]) == (0, old.size, False)
    assert after_listing == everything
    assert (deleted[0], deleted[1]["count"], deleted[1]["deleted"]) == (0, 1, True)
    assert everything - await installation.stored() == {old.sha256}
    assert young.sha256 in everything


@pytest.mark.infra
async def test_a_blob_that_is_stored_again_after_it_was_listed_is_kept(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await installation.record("Any", {})
    again = await installation.blob(b"uploaded again in the meantime")
    old = await installation.blob(b"old and forgotten")
    listed = [blob async for blob in installation.blobs.stored()]

    async def of_a_moment_ago(_self: LocalBlobs) -> AsyncIterator[StoredBlob]:
        for blob in listed:
            yield blob

    monkeypatch.setattr(LocalBlobs, "stored", of_a_moment_ago)
    await installation.blob(b"uploaded again in the meantime", days_old=0)
    done = await collect(installation.settings, now=datetime.now(UTC), older_than=DAY, delete=True)

    assert [blob.sha256 for blob in done.blobs] == [old.sha256]
    assert await installation.blobs.size(again.sha256) == again.size


async def test_a_folder_is_copied_into_the_store_of_the_settings(tmp_path: Path) -> None:
    old, settings = LocalBlobs(tmp_path / "old"), Settings(data_dir=tmp_path / "data")
    refs = []
    for content in (b"one", b"two", b"three"):
        async with old.writer() as writer:
            await writer.write(content)
            refs.append(await writer.commit())
    blob_path(tmp_path / "old", refs[2].sha256).write_bytes(b"THREE")

    first = await copy_folder(settings, tmp_path / "old")
    again = await copy_folder(settings, tmp_path / "old")

    new = LocalBlobs(settings.blobs_folder)
    assert [await new.size(ref.sha256) for ref in refs] == [3, 3, None]
    assert (first.blobs, first.size, first.damaged) == (2, 6, [refs[2].sha256])
    assert (again.blobs, again.there, again.damaged) == (0, 2, [refs[2].sha256])
    with pytest.raises(NotADirectoryError, match="holds no blobs"):
        await copy_folder(settings, tmp_path / "data")


@pytest.mark.infra
async def test_nothing_is_collected_by_a_log_that_is_empty_or_has_a_gap(
    installation: Installation,
) -> None:
    ref = await installation.blob(b"of another installation")

    with pytest.raises(LogIncomplete, match="no events yet"):
        await collect(installation.settings, now=datetime.now(UTC), older_than=DAY, delete=True)
    await installation.record("Any", {})
    await installation.record("Any", {})
    await installation.nc.request("$JS.API.STREAM.DELETE.EVENTS")
    code, said = await installation.cli("blobs", "collect", "--delete")

    assert (code, said["error"]["message"]) == (1, "EVENTS cannot be read: stream not found.")
    assert await installation.stored() == {ref.sha256}


async def test_what_was_just_stored_is_never_deleted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="younger than 2 hours"):
        await collect(
            Settings(data_dir=tmp_path),
            now=datetime.now(UTC),
            older_than=timedelta(hours=1),
            delete=True,
        )


async def test_without_a_log_there_is_no_telling(tmp_path: Path) -> None:
    nowhere = NatsSettings(url=f"nats://127.0.0.1:{free_port()}")

    (check,) = await check_all(Settings(data_dir=tmp_path, nats=nowhere))

    assert not check.ok
    assert "No connection to NATS" in check.detail


async def test_the_doctor_says_that_the_s3_server_is_away_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = S3Settings.model_validate(
        {
            "endpoint": f"127.0.0.1:{free_port()}",
            "bucket": "blobs",
            "access_key": "a",
            "secret_key": "s",
            "secure": False,
        }
    )
    monkeypatch.setattr("finetrail.doctor.TORCH_PROGRAM", "print('not asked here')")

    checks = await diagnose(Settings(data_dir=tmp_path / "data", blobs=BlobSettings(s3=s3)))

    (found,) = [check for check in checks if check.name == "blobs bucket"]
    assert (found.ok, "cannot be reached" in found.detail) == (False, True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("event", "purposes"),
    [
        ("DatasetRegistered", ["blob"]),
        ("JobSubmitted", ["spec.train.blob"]),
        ("CheckpointSaved", ["checkpoint.files: state.json"]),
        ("EvaluationCompleted", ["outputs"]),
        ("JobCancelled", []),
    ],
)
def test_an_event_says_which_blobs_it_refers_to_and_what_for(
    event: str, purposes: list[str]
) -> None:
    data = (GOLDEN / f"{event}.v1.json").read_bytes()

    assert [purpose for _, purpose in blobs_in(data)] == purposes


def test_what_only_looks_like_a_reference_is_none() -> None:
    assert list(blobs_in(b'{"sha256": "of something", "size": 3}')) == []
    assert list(blobs_in(b"no json")) == []
