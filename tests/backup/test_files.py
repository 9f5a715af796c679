"""A backup says of itself what is wrong with it, before anything is touched."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from finetrail.backup import Wanted, create
from finetrail.backup_files import CHECKSUM, MANIFEST, BackupDamaged, BackupReader, Manifest
from finetrail.backup_restore import restore
from finetrail.backup_secrets import WrongPassphrase, lock, passphrase_from, unlock
from finetrail.stack.errors import StackError
from tests.backup.conftest import PASSPHRASE, Before, settings_in

pytestmark = pytest.mark.infra


def silent(_line: str) -> None:
    """Nobody listens."""


@pytest.fixture
def copy(before: Before, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    shutil.copytree(before.made.path, target)
    return target


async def test_a_backup_that_is_whole_verifies(before: Before) -> None:
    await BackupReader(before.made.path).check(silent)


async def test_every_altered_file_is_named(before: Before, copy: Path) -> None:
    for file in before.made.manifest.files:
        path = copy / file.path
        whole = path.read_bytes()
        if not whole:
            continue
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BackupDamaged, match="altered") as raised:
            await BackupReader(copy).check(silent)
        assert file.path in raised.value.message
        path.write_bytes(whole)


async def test_a_missing_or_shortened_file_is_named(before: Before, copy: Path) -> None:
    first, second = [file.path for file in before.made.manifest.files if file.size > 1][:2]
    (copy / first).unlink()
    (copy / second).write_bytes((copy / second).read_bytes()[:-1])

    with pytest.raises(BackupDamaged) as raised:
        await BackupReader(copy).check(silent)

    assert f"{first} (missing)" in raised.value.message
    assert f"{second} (" in raised.value.message


def test_a_manifest_that_was_altered_is_found(copy: Path) -> None:
    path = copy / MANIFEST
    path.write_text(path.read_text().replace('"workspace": "default"', '"workspace": "other"'))

    with pytest.raises(BackupDamaged, match="manifest"):
        BackupReader(copy)


def test_a_folder_or_file_that_is_no_backup_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no backup"):
        BackupReader(tmp_path)
    text = tmp_path / "text.tar"
    text.write_text("not a tar")
    with pytest.raises(BackupDamaged, match="no backup"):
        BackupReader(text)


async def test_a_tar_file_holds_the_same_and_notices_that_it_was_cut(
    before: Before, tmp_path: Path
) -> None:
    target = tmp_path / "backup.tar"
    made = await create(before.settings, target, Wanted(), silent)
    with BackupReader(target) as reader:
        await reader.check(silent)
    blobs = {file.path for file in before.made.manifest.files if file.path.startswith("blobs/")}
    assert blobs <= {file.path for file in made.manifest.files}
    assert made.manifest.secrets == "left out"

    whole = target.read_bytes()
    target.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StackError):
        BackupReader(target)


async def test_linked_blobs_are_the_same_files(before: Before, tmp_path: Path) -> None:
    made = await create(before.settings, tmp_path / "linked", Wanted(link_blobs=True), silent)

    blobs = [file for file in made.manifest.files if file.path.startswith("blobs/")]
    assert blobs
    assert all((made.path / file.path).stat().st_nlink > 1 for file in blobs)
    await BackupReader(made.path).check(silent)


async def test_blobs_that_are_only_named_must_be_there_at_a_restore(
    before: Before, tmp_path: Path
) -> None:
    made = await create(before.settings, tmp_path / "named", Wanted(copy_blobs=False), silent)
    assert made.manifest.named_blobs
    assert not [file for file in made.manifest.files if file.path.startswith("blobs/")]

    with pytest.raises(StackError, match="the backup only names it"):
        await restore(settings_in(tmp_path), BackupReader(made.path), silent, new_keys=True)


async def test_nothing_is_left_where_something_is_already(before: Before, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()

    with pytest.raises(StackError, match="there already"):
        await create(before.settings, target, Wanted(), silent)
    assert list(tmp_path.iterdir()) == [target]


async def test_a_newer_builds_backup_is_refused(copy: Path, tmp_path: Path) -> None:
    _rewrite(copy, format=99)
    with pytest.raises(StackError, match="has format 99"):
        BackupReader(copy)

    _rewrite(copy, format=1, events=["RocketLaunched 1"])
    with pytest.raises(StackError, match="RocketLaunched"):
        await restore(settings_in(tmp_path), BackupReader(copy), silent, new_keys=True)
    assert not (tmp_path / "data").exists()


async def test_a_damaged_backup_is_refused_before_anything_is_made(
    copy: Path, tmp_path: Path
) -> None:
    (copy / "log" / "EVENTS.snapshot").write_bytes(b"")

    with pytest.raises(BackupDamaged, match=r"log/EVENTS\.snapshot"):
        await restore(settings_in(tmp_path), BackupReader(copy), silent, passphrase=PASSPHRASE)
    assert not (tmp_path / "data").exists()


async def test_a_wrong_passphrase_changes_nothing(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongPassphrase):
        await restore(settings_in(tmp_path), BackupReader(copy), silent, passphrase="another one!")
    assert not (tmp_path / "data").exists()


async def test_without_the_secrets_the_loss_of_the_keys_must_be_wanted(
    copy: Path, tmp_path: Path
) -> None:
    with pytest.raises(StackError, match="API keys of the backup would not work"):
        await restore(settings_in(tmp_path), BackupReader(copy), silent)
    assert not (tmp_path / "data").exists()


def test_locked_secrets_tell_nothing(before: Before) -> None:
    with BackupReader(before.made.path).open("secrets.locked.json") as file:
        locked = file.read()
    pepper = before.settings.api_key_pepper
    assert pepper not in locked
    assert pepper.decode() in unlock(locked, PASSPHRASE)["secrets.json"].decode()
    everything = b"".join(
        path.read_bytes() for path in before.made.path.rglob("*") if path.is_file()
    )
    assert pepper not in everything
    assert before.key.encode() not in everything


def test_a_passphrase_is_the_first_line_and_not_a_short_one(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("short\n")
    with pytest.raises(StackError, match="12 or more"):
        passphrase_from(file)
    file.write_text(f"{PASSPHRASE}\nnot this")
    assert passphrase_from(file) == PASSPHRASE
    assert unlock(lock({"a": b"1"}, PASSPHRASE), PASSPHRASE) == {"a": b"1"}


def _rewrite(copy: Path, *, format: int, events: list[str] | None = None) -> None:  # noqa: A002
    said = json.loads((copy / MANIFEST).read_text())
    said["format"] = format
    said["written"]["events"] += events or []
    text = json.dumps(said)
    Manifest.model_validate_json(text)
    (copy / MANIFEST).write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (copy / CHECKSUM).write_text(f"{digest}  {MANIFEST}\n")
