"""Adapters that many ask for at once: there while they are used, and only so many afterwards."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from domain.inference import ServedModel
from gpu_agent.served_files import KEPT_ADAPTERS, ServedFiles

BLOB = BlobRef(sha256="0" * 64, size=1, crc32=0)
FILES = (FileEntry(path="lora_adapters/weights", blob=BLOB),)


class SlowBlobs:
    """Every fetch lets others go on first; ``wait`` may hold it up for longer."""

    def __init__(self, wait: Callable[[BlobRef], Awaitable[object]] | None = None) -> None:
        self._wait = wait

    async def fetch(self, ref: BlobRef, path: Path) -> None:
        await asyncio.sleep(0)
        if self._wait:
            await self._wait(ref)
        path.write_bytes(b"x")

    async def put_file(self, path: Path) -> BlobRef:
        raise NotImplementedError


def kept(folder: Path) -> int:
    return len(list(folder.iterdir()))


async def test_all_may_leave_at_once(tmp_path: Path) -> None:
    files = ServedFiles(SlowBlobs(), tmp_path / "serving", tmp_path / "bases")
    inside: list[Path] = []
    leave = asyncio.Event()

    async def use(number: int) -> None:
        async with files.adapter(UUID(int=number), FILES) as folder:
            inside.append(folder)
            if len(inside) == 2 * KEPT_ADAPTERS:
                leave.set()
            await leave.wait()

    await asyncio.gather(*(use(number) for number in range(2 * KEPT_ADAPTERS)))

    assert kept(tmp_path / "serving") == KEPT_ADAPTERS


@pytest.mark.timeout(30)
async def test_files_stay_for_as_long_as_anybody_uses_them(tmp_path: Path) -> None:
    files = ServedFiles(SlowBlobs(), tmp_path / "serving", tmp_path / "bases")
    missing: list[Path] = []

    async def use_some(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(20):
            version = UUID(int=choose.randrange(2 * KEPT_ADAPTERS))
            async with files.adapter(version, FILES) as folder:
                for _ in range(choose.randrange(5)):
                    await asyncio.sleep(0)
                if not (folder / "weights").exists():
                    missing.append(folder)

    await asyncio.gather(*(use_some(seed) for seed in range(40)))

    assert missing == []
    assert kept(tmp_path / "serving") <= KEPT_ADAPTERS + 1


async def test_base_model_that_is_here_is_had_while_another_is_fetched(tmp_path: Path) -> None:
    fetching, never = asyncio.Event(), asyncio.Event()

    async def hold_up(ref: BlobRef) -> None:
        if ref.size > 1:
            fetching.set()
            await never.wait()

    files = ServedFiles(SlowBlobs(hold_up), tmp_path / "serving", tmp_path / "bases")
    async with files.of(base_model("small", BLOB)):
        pass

    async def use_large() -> None:
        async with files.of(base_model("large", BLOB.model_copy(update={"size": 2}))):
            pass

    large = asyncio.create_task(use_large())
    await fetching.wait()
    async with asyncio.timeout(5), files.of(base_model("small", BLOB)) as folders:
        large.cancel()

    assert folders.base is not None


def base_model(name: str, blob: BlobRef) -> ServedModel:
    record = BaseModelRecord(
        id=name,
        sha256={"weights": blob.sha256},
        files=(FileEntry(path="base_model/weights", blob=blob),),
    )
    return ServedModel(method="sft", version_id=None, base_model=name, base=record, max_length=8)
