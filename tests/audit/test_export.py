"""Evidence bundles of a real archive, and the verifier that lies in them."""

import hashlib
import json
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.local_blobs import blob_path
from domain.audit import START, event_hash
from finetrail.audit import offline
from finetrail.audit.bundle import ArchivedEvent, BundleWriter
from finetrail.audit.export import Wanted, export
from finetrail.audit.key_file import open_key
from finetrail.audit.status import status, summary
from finetrail.settings import AuditSettings, BlobSettings, Settings
from finetrail.stack.errors import StackError
from tests.audit.bundles import FIRST, NOW, head_of, key_of
from tests.projections import histories as h
from tests.projections.archiving import history
from tests.projections.support import execute

pytestmark = pytest.mark.infra


async def test_all_of_the_log_is_exported_and_holds(archived: Settings, tmp_path: Path) -> None:
    done = await export(archived, Wanted(), tmp_path / "evidence.zip")

    assert done.report.holds, done.report.findings
    assert (done.report.first, done.report.last, done.report.proven) == (1, 107, 107)
    with zipfile.ZipFile(done.path) as bundle:
        lines = [json.loads(line) for line in bundle.read("events.jsonl").splitlines()]
        told = bundle.read("README.txt").decode()
    assert [line["data"] for line in lines] == [m.data.decode() for m in history()]
    assert "events     1 to 107" in told
    assert "JobSucceeded" in told
    assert "key:3f9a2c1b" in told


@pytest.mark.parametrize(
    ("first", "last", "held"),
    [
        (1, 10, (1, 30)),
        (40, 50, (31, 60)),
        (31, 60, (31, 60)),
        (
            datetime(2026, 11, 20, 9, 1, 1, tzinfo=UTC),  # of the 61st event
            datetime(2026, 11, 20, 9, 1, 10, tzinfo=UTC),
            (61, 90),
        ),
    ],
)
async def test_a_part_goes_from_head_to_head(
    archived: Settings, tmp_path: Path, first: int, last: int, held: tuple[int, int]
) -> None:
    done = await export(archived, Wanted(first, last), tmp_path / "evidence.zip")

    assert done.report.holds, done.report.findings
    begins, ends = held
    assert (done.report.first, done.report.last) == (begins, ends)
    assert done.report.unsigned == 0
    # Heads may be closer together than these tests make events; never further apart.
    assert done.report.proven == ends


async def test_a_part_without_events_is_refused_and_leaves_no_file(
    archived: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "evidence.zip"
    with pytest.raises(StackError, match="no events"):
        await export(archived, Wanted(first=5000), path)
    with pytest.raises(StackError, match="no events since"):
        await export(archived, Wanted(first=datetime(2027, 1, 1, tzinfo=UTC)), path)

    assert list(tmp_path.iterdir()) == []


async def test_what_is_there_is_not_written_over(archived: Settings, tmp_path: Path) -> None:
    path = tmp_path / "evidence.zip"
    path.write_text("mine")

    with pytest.raises(FileExistsError):
        await export(archived, Wanted(), path)

    assert path.read_text() == "mine"


async def test_the_verifier_in_a_bundle_runs_by_itself(archived: Settings, tmp_path: Path) -> None:
    done = await export(archived, Wanted(40, 50), tmp_path / "evidence.zip")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(done.path) as bundle:
        bundle.extractall(folder)
    key = open_key(archived).public_key()
    assert key is not None

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        # -S: no packages at all, so the signatures are checked by its own arithmetic.
        command = [sys.executable, "-S", "-I", "verify.py", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    good = run("--key", key.public_key)
    zipped = run(str(done.path), "--json")
    events = (folder / "events.jsonl").read_bytes()
    (folder / "events.jsonl").write_bytes(events.replace(b"default", b"other", 1))
    bad, none = run(), run(str(tmp_path / "nothing"))

    assert (good.returncode, good.stderr) == (0, "")
    assert "proven: everything up to event 60" in good.stdout
    assert json.loads(zipped.stdout)["holds"]
    assert bad.returncode == 1
    assert "DOES NOT HOLD: event 31" in bad.stdout
    assert none.returncode == 2


async def test_data_can_be_withheld_and_the_chain_still_holds(
    archived: Settings, tmp_path: Path
) -> None:
    done = await export(archived, Wanted(data=False), tmp_path / "evidence.zip")

    assert done.report.holds
    assert done.report.withheld == 107
    with zipfile.ZipFile(done.path) as bundle:
        assert b'"data":null' in bundle.read("events.jsonl")
        assert b"base_model" not in bundle.read("events.jsonl")


async def test_blobs_are_listed_and_one_that_is_damaged_is_named(
    archived: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "blobs"
    settings = archived.model_copy(update={"blobs": BlobSettings(folder=folder)})
    named = h.blob("tickets").sha256
    path = blob_path(folder, named)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 100)

    done = await export(settings, Wanted(blobs=True), tmp_path / "evidence.zip")

    assert (done.blobs, done.blobs_missing > 5) == (1, True)
    with zipfile.ZipFile(done.path) as bundle:
        listed = [json.loads(line) for line in bundle.read("blobs.jsonl").splitlines()]
    assert named in {line["sha256"] for line in listed}
    assert {finding.way for finding in done.report.findings} == {"blob"}
    assert "does not hold what its name says" in done.report.findings[0].detail


def test_an_enclosed_blob_that_is_as_the_event_says_holds(tmp_path: Path) -> None:
    content = b"the rows"
    sha256 = hashlib.sha256(content).hexdigest()
    data = json.dumps({"blob": {"sha256": sha256, "size": 8, "crc32": 0}}).encode()
    digest = event_hash(START, 1, b"events.w.dataset.1", [], hashlib.sha256(data).digest())
    event = ArchivedEvent(1, "events.w.dataset.1", b"", data, digest)
    head = head_of(FIRST, digest.hex(), 1, digest.hex())
    path = tmp_path / "evidence.zip"
    with zipfile.ZipFile(path, "w") as archive, closing(BundleWriter(archive)) as writer:
        with writer.events() as lines:
            lines.write([event])
        with writer.blob(sha256) as file:
            file.write(content)
        writer.finish([head], [key_of(FIRST, FIRST)], NOW)

    report = offline.verify(path)

    assert report.holds, report.findings
    assert report.blobs == 1


def test_its_own_arithmetic_agrees_with_the_library() -> None:
    from nacl.signing import SigningKey

    for seed in range(10):
        key = SigningKey(bytes([seed]) * 32)
        public, message = bytes(key.verify_key), f"message {seed}".encode()
        signature = key.sign(message).signature
        assert offline.ed25519_verifies(public, message, signature)
        assert not offline.ed25519_verifies(public, message + b".", signature)
        for spot in (0, 31, 32, 63):
            flipped = bytearray(signature)
            flipped[spot] ^= 1
            assert not offline.ed25519_verifies(public, message, bytes(flipped))
            assert not offline.verifies(public, message, bytes(flipped))


async def test_the_status_tells_what_was_signed_and_the_doctor_when_it_was_not(
    archived: Settings,
) -> None:
    found = await status(archived)
    assert found.head is not None
    assert (found.archived, found.head.sequence, found.unsigned) == (107, 107, 0)
    assert {kept.sequence for kept in found.kept} == {107}
    assert "signed up to event 107" in await summary(archived)

    dsn = archived.postgres_dsn
    await execute(dsn, "CREATE TABLE archive.saved AS SELECT * FROM archive.head")
    await execute(dsn, "DELETE FROM archive.head WHERE sequence > 60")
    hasty = archived.model_copy(update={"audit": AuditSettings(sign_seconds=0.001)})
    with pytest.raises(StackError, match="47 events have waited"):
        await summary(hasty)
    await execute(dsn, "INSERT INTO archive.head SELECT * FROM archive.saved WHERE sequence > 60")
    await execute(dsn, "DROP TABLE archive.saved")


async def test_an_archive_that_stands_still_behind_the_log_is_named(
    archived: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetrail.audit.status.LOOK_AGAIN_S", 0.01)

    assert "ahead" not in await summary(archived, 107)
    with pytest.raises(StackError, match="at event 107 and does not move, 3 events behind"):
        await summary(archived, 110)
