"""The bytes around an attempt: blobs onto this disk before it, files back into the store after it."""

import asyncio
import errno
import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Final
from uuid import uuid4

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.work import EvaluateAssignment, TrainAssignment
from gpu_agent.ports import Blobs
from gpu_agent.protocol import ChildFiles

ADAPTER_FOLDER: Final = "lora_adapters"  # as people see it in a model's files
TABLE_MODEL_FOLDER: Final = "model"  # likewise, of a model of a table, which is no adapter
BASE_MODEL_FOLDER: Final = "base_model"  # likewise
# Below the work folder, and outliving what works there: base models that were made or fetched here.
BASE_MODELS_FOLDER: Final = "base_models"
HASH_BLOCK: Final = 1 << 20  # bytes

_placing: Final = Lock()  # a training and the serving child may want the same base model at once


async def fetch_inputs(
    blobs: Blobs,
    assignment: TrainAssignment | EvaluateAssignment,
    folder: Path,
    base_models: Path,
) -> ChildFiles:
    """Put every blob that the assignment names below ``folder``, a base model below ``base_models``.

    Raises:
        OSError: A blob is missing or damaged, or the disk is full.
        ValueError: A path leads out of the folder.
    """
    spec = assignment.spec
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    train = folder / f"train.{spec.train.format}"
    await blobs.fetch(spec.train.blob, train)
    test = None
    if spec.test is not None:
        test = folder / f"test.{spec.test.format}"
        await blobs.fetch(spec.test.blob, test)
    adapter = checkpoint = None
    if isinstance(assignment, EvaluateAssignment):
        adapter = await fetch_adapter(blobs, assignment.adapter, folder / "adapter")
    elif assignment.resume_from is not None:
        checkpoint = folder / "checkpoint"
        await _fetch_files(blobs, assignment.resume_from.files, checkpoint)
    base_model = None
    if assignment.base_model is not None:
        base_model = await fetch_base_model(blobs, assignment.base_model, base_models)
    return ChildFiles(
        train=train, test=test, adapter=adapter, checkpoint=checkpoint, base_model=base_model
    )


async def fetch_adapter(blobs: Blobs, files: tuple[FileEntry, ...], folder: Path) -> Path:
    """Put a LoRA adapter's files side by side into ``folder``; those that are there stay."""
    await _fetch_files(blobs, files, folder)
    return folder


async def fetch_base_model(blobs: Blobs, record: BaseModelRecord, folder: Path) -> Path | None:
    """Put the stored files of a base model into a folder below ``folder``, once for each content.

    None where nothing is stored of it: then it is found by its name.

    Raises:
        OSError: A blob is missing or damaged, or the disk is full.
        ValueError: A path leads out of the folder.
    """
    if not record.files:
        return None
    place = folder / _digest_of(record.files)
    if await asyncio.to_thread(_holds, place, record.files):
        return place
    aside = folder.parent / str(uuid4())  # an agent clears folders of such names when it starts
    try:
        await asyncio.to_thread(aside.mkdir, parents=True)
        await _fetch_files(blobs, record.files, aside)
        await asyncio.to_thread(_put_in_place, aside, place, record.files)
    finally:
        await remove_folder(aside)
    return place


async def upload_base_model(blobs: Blobs, record: BaseModelRecord, folder: Path) -> BaseModelRecord:
    """Store the files that the record names, and give the record with them.

    Raises:
        OSError: The store is away or full, or the files are no longer those of the record.
    """
    names = sorted(record.sha256)
    files = tuple(
        [
            FileEntry(
                path=f"{BASE_MODEL_FOLDER}/{name}", blob=await blobs.put_file(_below(folder, name))
            )
            for name in names
        ]
    )
    for name, entry in zip(names, files, strict=True):
        if entry.blob.sha256 != record.sha256[name]:
            raise OSError(errno.EIO, "the base model was changed after it was loaded", name)
    return record.model_copy(update={"files": files})


async def upload_folder(blobs: Blobs, folder: Path, prefix: str = "") -> tuple[FileEntry, ...]:
    """Store every file below ``folder``, in the order of their names."""
    paths = await asyncio.to_thread(_files_below, folder)
    return tuple(
        [
            FileEntry(
                path=(PurePosixPath(prefix) / path.relative_to(folder).as_posix()).as_posix(),
                blob=await blobs.put_file(path),
            )
            for path in paths
        ]
    )


async def remove_folder(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _fetch_files(blobs: Blobs, files: tuple[FileEntry, ...], folder: Path) -> None:
    for entry in files:
        path = _below(folder, entry.path)
        if await asyncio.to_thread(_size_of, path) == entry.blob.size:
            continue  # fetched before: a file appears whole or not at all
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        await blobs.fetch(entry.blob, path)


def without_paths(error: OSError | ValueError) -> str:
    """Say what was wrong without telling where this machine keeps its files."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    named = f": {PurePosixPath(str(error.filename)).name}" if error.filename else ""
    return f"{error.strerror}{named}"


def _below(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.parts[:1] in {(ADAPTER_FOLDER,), (TABLE_MODEL_FOLDER,), (BASE_MODEL_FOLDER,)}:
        path = PurePosixPath(*path.parts[1:])
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"{name!r} is not a path below a folder")
    return folder / path


def _size_of(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _digest_of(files: Iterable[FileEntry]) -> str:
    listed = "".join(sorted(f"{entry.blob.sha256}  {entry.path}\n" for entry in files))
    return hashlib.sha256(listed.encode()).hexdigest()


def _holds(folder: Path, files: Iterable[FileEntry]) -> bool:
    """By content, because the folder outlives power cuts; what is kept so is small or rarely loaded."""
    try:
        return all(_sha256(_below(folder, entry.path)) == entry.blob.sha256 for entry in files)
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _put_in_place(fetched: Path, place: Path, files: Iterable[FileEntry]) -> None:
    with _placing:
        if _holds(place, files):
            return  # it was fetched twice at once, and this one came second
        shutil.rmtree(place, ignore_errors=True)  # damaged
        place.parent.mkdir(parents=True, exist_ok=True)
        fetched.rename(place)
