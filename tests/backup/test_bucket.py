"""An installation whose blobs lie in a bucket is backed up, and comes back into another one or the same."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from finetrail.backup import Made, Wanted, create
from finetrail.backup_files import BackupReader
from finetrail.backup_restore import restore
from finetrail.doctor import diagnose
from finetrail.owner import issue_key
from finetrail.settings import BlobSettings, S3Settings, Settings
from finetrail.stack.errors import StackError
from finetrail.stack.supervisor import CORE, EmbeddedStack
from tests.backup.conftest import PASSPHRASE, ROWS, api, settings_in
from tests.seaweed import SeaweedServer, seaweed_server

pytestmark = pytest.mark.infra


@dataclass(frozen=True)
class Before:
    key: str
    dataset: str
    copied: Made
    named: Made


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


def settings_at(seaweed: SeaweedServer, bucket: str, folder: Path) -> Settings:
    access = seaweed.access(bucket)
    server = S3Settings(
        endpoint=access.endpoint,
        bucket=bucket,
        access_key=access.access_key,
        secret_key=SecretStr(access.secret_key),
        secure=False,
    )
    return settings_in(folder).model_copy(update={"blobs": BlobSettings(s3=server)})


@pytest.fixture(scope="module")
async def before(seaweed: SeaweedServer, tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("before")
    async with EmbeddedStack(settings_at(seaweed, "before", folder), roles=(CORE,)) as stack:
        key = await issue_key(stack.settings, name="kept", role="admin")
        async with api(stack.settings, key) as client:
            uploaded = await client.post(
                "/datasets?name=rows", content=ROWS, headers={"content-type": "text/csv"}
            )
            assert uploaded.is_success, uploaded.text
        made = [
            await create(
                stack.settings,
                folder / name,
                Wanted(copy_blobs=name == "copied", passphrase=PASSPHRASE),
                lambda _line: None,
            )
            for name in ("copied", "named")
        ]
    return Before(key, uploaded.json()["id"], *made)


async def restored(settings: Settings, made: Made) -> None:
    backup = BackupReader(made.path)
    await restore(settings, backup, lambda _line: None, passphrase=PASSPHRASE)


async def rows(settings: Settings, before: Before) -> list[object]:
    """The first rows of the dataset, which are read from its blob."""
    async with EmbeddedStack(settings, roles=(CORE,)) as stack:
        async with api(stack.settings, before.key) as client, asyncio.timeout(30):
            path = f"/datasets/{before.dataset}/rows?limit=2"
            while (found := await client.get(path)).status_code == 404:
                await asyncio.sleep(0.1)
        assert found.is_success, found.text
        wrong = [each for each in await diagnose(settings, blobs=True) if not each.ok]
        assert wrong == []
    items: list[object] = found.json()["items"]
    return items


async def test_blobs_are_copied_out_of_one_bucket_and_into_another(
    before: Before, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    manifest = before.copied.manifest
    assert manifest.blob_store == f"bucket before at {seaweed.endpoint}"
    assert [file for file in manifest.files if file.path.startswith("blobs/")]
    assert manifest.missing_blobs == ()
    settings = settings_at(seaweed, "after", tmp_path)

    await restored(settings, before.copied)

    assert len(await rows(settings, before)) == 2


async def test_blobs_that_are_only_named_are_found_in_the_bucket(
    before: Before, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    manifest = before.named.manifest
    assert manifest.named_blobs
    assert not [file for file in manifest.files if file.path.startswith("blobs/")]
    settings = settings_at(seaweed, "before", tmp_path)

    await restored(settings, before.named)

    assert len(await rows(settings, before)) == 2


async def test_a_bucket_that_lacks_them_is_refused(
    before: Before, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    with pytest.raises(StackError, match="not in the store, and the backup only names it") as told:
        await restored(settings_at(seaweed, "empty", tmp_path), before.named)

    assert f"bucket before at {seaweed.endpoint}" in told.value.hint
