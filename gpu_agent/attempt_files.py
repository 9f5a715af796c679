"""The bytes around an attempt: blobs onto this disk before it, files back into the store after it."""

import asyncio
import shutil
from pathlib import Path, PurePosixPath
from typing import Final

from domain.blobs import FileEntry
from domain.work import EvaluateAssignment, TrainAssignment
from gpu_agent.ports import Blobs
from gpu_agent.protocol import ChildFiles

ADAPTER_FOLDER: Final = "lora_adapters"  # as people see it in a model's files


async def fetch_inputs(
    blobs: Blobs, assignment: TrainAssignment | EvaluateAssignment, folder: Path
) -> ChildFiles:
    """Put every blob that the assignment names below ``folder``.

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
    return ChildFiles(train=train, test=test, adapter=adapter, checkpoint=checkpoint)


async def fetch_adapter(blobs: Blobs, files: tuple[FileEntry, ...], folder: Path) -> Path:
    """Put a LoRA adapter's files side by side into ``folder``; those that are there stay."""
    await _fetch_files(blobs, files, folder)
    return folder


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
    if path.parts[:1] == (ADAPTER_FOLDER,):
        path = PurePosixPath(*path.parts[1:])
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"{name!r} is not a path below a folder")
    return folder / path


def _size_of(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
