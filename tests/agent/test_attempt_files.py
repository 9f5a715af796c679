"""Base models on their way into the store and out of it."""

import asyncio
from pathlib import Path

import pytest

from adapters.local_blobs import LocalBlobs
from domain.base_models import BaseModelRecord
from gpu_agent.attempt_files import fetch_base_model, upload_base_model

CONTENT = {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
async def record(blobs: LocalBlobs, tmp_path: Path) -> BaseModelRecord:
    folder = tmp_path / "made"
    folder.mkdir()
    sha256 = {}
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
        sha256[name] = (await blobs.put_file(folder / name)).sha256
    (folder / "lock").touch()
    return await upload_base_model(blobs, BaseModelRecord(id="a", sha256=sha256), folder)


def read(folder: Path | None) -> dict[str, bytes]:
    assert folder is not None
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "work" / "base_models"


async def test_a_record_names_the_blobs_of_its_own_files_alone(record: BaseModelRecord) -> None:
    assert [entry.path for entry in record.files] == [
        "base_model/config.json",
        "base_model/model.safetensors",
    ]


async def test_files_that_are_no_longer_those_of_the_record_are_not_stored_for_it(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_bytes(b"other")
    record = BaseModelRecord(id="a", sha256={"config.json": "0" * 64})

    with pytest.raises(OSError, match="changed"):
        await upload_base_model(blobs, record, tmp_path)


async def test_what_was_fetched_once_is_used_again(
    blobs: LocalBlobs, record: BaseModelRecord, tmp_path: Path
) -> None:
    first = await fetch_base_model(blobs, record, work_dir(tmp_path))
    for entry in record.files:
        next((tmp_path / "blobs").rglob(entry.blob.sha256)).unlink()

    again = await fetch_base_model(blobs, record, work_dir(tmp_path))

    assert again == first
    assert read(again) == CONTENT


async def test_a_damaged_copy_is_fetched_anew(
    blobs: LocalBlobs, record: BaseModelRecord, tmp_path: Path
) -> None:
    first = await fetch_base_model(blobs, record, work_dir(tmp_path))
    assert first is not None
    (first / "model.safetensors").write_bytes(b"WEIGHTS")

    assert read(await fetch_base_model(blobs, record, work_dir(tmp_path))) == CONTENT


async def test_fetching_twice_at_once_gives_one_folder_and_leaves_nothing_else(
    blobs: LocalBlobs, record: BaseModelRecord, tmp_path: Path
) -> None:
    folder = work_dir(tmp_path)

    found = await asyncio.gather(*(fetch_base_model(blobs, record, folder) for _ in range(3)))

    assert {read(each)["config.json"] for each in found} == {b"{}"}
    assert list(folder.parent.iterdir()) == [folder]
    assert list(folder.iterdir()) == [found[0]]


async def test_a_base_model_of_which_nothing_is_stored_is_found_by_its_name(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    record = BaseModelRecord(id="org/name", revision="0" * 40, sha256={"config.json": "0" * 64})

    assert await fetch_base_model(blobs, record, work_dir(tmp_path)) is None


async def test_no_path_leads_out_of_the_folder(
    blobs: LocalBlobs, record: BaseModelRecord, tmp_path: Path
) -> None:
    out = record.files[0].model_copy(update={"path": "base_model/../../config.json"})

    with pytest.raises(ValueError, match="not a path below"):
        await fetch_base_model(
            blobs, record.model_copy(update={"files": (out,)}), work_dir(tmp_path)
        )
    assert list(tmp_path.rglob("work/*")) == []
