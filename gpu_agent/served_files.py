"""The files of models that are asked of: fetched once, kept while they are used, and some while after."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from domain.base_models import BaseModelRecord
from domain.blobs import FileEntry
from domain.inference import ServedModel
from gpu_agent.attempt_files import fetch_adapter, fetch_base_model, remove_folder
from gpu_agent.ports import Blobs
from gpu_agent.protocol import ServedFolders

KEPT_ADAPTERS: Final = 32  # folders of a few megabytes


@dataclass(slots=True)
class _Kept:
    folder: Path
    users: int = 0
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)


class ServedFiles:
    """Every failure to fetch is an `OSError`, or a `ValueError` for a path that leads elsewhere."""

    def __init__(self, blobs: Blobs, folder: Path, base_models: Path) -> None:
        """Adapters go below ``folder``, by version, stored base models below ``base_models``."""
        self._blobs = blobs
        self._folder = folder
        self._base_models = base_models
        self._adapters: dict[UUID, _Kept] = {}  # the last used one last
        self._bases: dict[str, Path | None] = {}
        self._fetching_base = asyncio.Lock()
        self._letting_go = asyncio.Lock()

    @asynccontextmanager
    async def of(self, served: ServedModel) -> AsyncIterator[ServedFolders]:
        base = await self._base(served.base)
        if served.version_id is None:
            yield ServedFolders(base=base)
            return
        async with self.adapter(served.version_id, served.adapter) as folder:
            yield ServedFolders(adapter=folder, base=base)

    @asynccontextmanager
    async def adapter(self, version_id: UUID, files: tuple[FileEntry, ...]) -> AsyncIterator[Path]:
        kept = self._adapters.pop(version_id, None) or _Kept(self._folder / str(version_id))
        self._adapters[version_id] = kept
        kept.users += 1
        try:
            async with kept.fetching:
                await fetch_adapter(self._blobs, files, kept.folder)
            yield kept.folder
        finally:
            kept.users -= 1
            await self._let_go()

    async def _base(self, record: BaseModelRecord | None) -> Path | None:
        if record is None or not record.files:
            return None
        key = record.model_dump_json()
        if key in self._bases:  # whoever has it does not wait for another that is being fetched
            return self._bases[key]
        async with self._fetching_base:  # every byte of it is hashed, once
            if key not in self._bases:
                self._bases[key] = await fetch_base_model(self._blobs, record, self._base_models)
            return self._bases[key]

    async def _let_go(self) -> None:
        async with self._letting_go:  # many may leave at once
            for version_id, kept in list(self._adapters.items()):
                if len(self._adapters) <= KEPT_ADAPTERS:
                    return
                if kept.users:
                    continue
                async with kept.fetching:  # whoever wants it meanwhile fetches it anew
                    await remove_folder(kept.folder)
                if not kept.users:
                    del self._adapters[version_id]
