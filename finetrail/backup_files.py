"""A backup's files: what its manifest says of them, and how they lie in a folder or in one tar file."""

import asyncio
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from finetrail.stack.data_format import Written
from finetrail.stack.errors import StackError

FORMAT: Final = 1  # of the backup itself; raise it when an older build must not restore one
MANIFEST: Final = "manifest.json"
CHECKSUM: Final = "manifest.json.sha256"  # of the manifest, which names all others
READ: Final = 1024 * 1024  # bytes at a time
NAMED: Final = 5  # damaged files that are named before the rest is counted


class BackupDamaged(StackError):
    """It does not hold what its manifest says."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackupFile(_Part):
    path: str
    size: int
    sha256: str


class StreamPart(_Part):
    """One stream of the log as the server wrote it: messages and durable consumers."""

    name: str
    file: str
    config: dict[str, Any]
    state: dict[str, Any]
    last_sequence: int  # when the snapshot began; it may hold a few more


class TablePart(_Part):
    """One table: how it is made, and the file with its rows."""

    schema_name: str
    name: str
    make: tuple[str, ...]
    then: tuple[str, ...]  # once the rows are there: keys, indexes, counters
    columns: tuple[str, ...]
    file: str
    rows: int


class PepperCheck(_Part):
    """Tells whether a pepper is the one that the hashes of the keys depend on, not what it is."""

    salt: str
    scrypt: str


class NamedBlob(_Part):
    sha256: str
    size: int


class Manifest(_Part):
    """What a backup is. A newer build may add fields only together with another ``format``."""

    format: int
    written: Written  # by which build, and which events may stand in the log
    created_at: datetime
    workspace: str
    log_sequence: int  # of the last event when the log's snapshot began
    reactions_after: int  # up to here every reaction's command was put; later ones are done again
    dead_letters: int  # the last sequence that events may speak of
    streams: tuple[StreamPart, ...]
    tables: tuple[TablePart, ...]
    blobs: Literal["copied", "named"]
    blob_store: str
    named_blobs: tuple[NamedBlob, ...]
    missing_blobs: tuple[str, ...]  # events name them and the store did not hold them
    secrets: Literal["encrypted", "left out"]
    pepper: PepperCheck
    files: tuple[BackupFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


MISSING: Final = "missing"
PERSON_KEYS: Final = ("state", "person_key")  # schema and table


class BackupWriter(Protocol):
    """Takes one file after the other; nothing is a backup before `finish`."""

    async def add(self, path: str, chunks: AsyncIterator[bytes]) -> BackupFile: ...
    async def link(self, path: str, source: Path, sha256: str) -> BackupFile | None:
        """Share a file that holds this; None where it does not, or cannot be shared."""
        ...

    async def finish(self, manifest: Manifest) -> None: ...


class FolderWriter:
    """Files below a folder, which is made under another name and renamed at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.aside = folder.with_name(f".{folder.name}.part")

    async def add(self, path: str, chunks: AsyncIterator[bytes]) -> BackupFile:
        target = self._place(path)
        digest, size = hashlib.sha256(), 0
        try:
            with _created(target) as file:
                async for chunk in chunks:
                    size += len(chunk)
                    await asyncio.to_thread(_write, file, digest, chunk)
                await asyncio.to_thread(_sync, file)
        except OSError:  # a blob that is damaged tells only at its end
            target.unlink(missing_ok=True)
            raise
        return BackupFile(path=path, size=size, sha256=digest.hexdigest())

    async def link(self, path: str, source: Path, sha256: str) -> BackupFile | None:
        target = self._place(path)
        try:
            target.hardlink_to(source)
        except OSError:  # another file system, or one without links
            return None
        size, found = await asyncio.to_thread(_measured, target)
        if found != sha256:
            target.unlink()
            return None
        return BackupFile(path=path, size=size, sha256=sha256)

    async def finish(self, manifest: Manifest) -> None:
        for name, data in _signed(manifest):
            await self.add(name, _once(data))
        self.aside.rename(self._folder)
        _sync_folder(self._folder.parent)

    def _place(self, path: str) -> Path:
        target = self.aside / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return target


class TarWriter:
    """One tar file, not compressed: what is worth it has been compressed already."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.aside = path.with_name(f".{path.name}.part")
        self._tar = tarfile.open(_private(self.aside), "w")  # noqa: SIM115 - closed by finish

    async def add(self, path: str, chunks: AsyncIterator[bytes]) -> BackupFile:
        digest, size = hashlib.sha256(), 0
        # A tar says how long a file is before it gives it, so each one is written aside first.
        with tempfile.TemporaryFile(dir=self._path.parent) as spool:
            async for chunk in chunks:
                size += len(chunk)
                await asyncio.to_thread(_write, spool, digest, chunk)
            spool.seek(0)
            member = tarfile.TarInfo(path)
            member.size, member.mode = size, 0o600
            await asyncio.to_thread(self._tar.addfile, member, spool)
        return BackupFile(path=path, size=size, sha256=digest.hexdigest())

    async def link(self, path: str, source: Path, sha256: str) -> BackupFile | None:  # noqa: ARG002
        return None

    async def finish(self, manifest: Manifest) -> None:
        for name, data in _signed(manifest):
            await self.add(name, _once(data))
        self._tar.close()
        descriptor = os.open(self.aside, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.aside.rename(self._path)
        _sync_folder(self._path.parent)


class BackupReader:
    """A backup that is there, opened for reading.

    Raises:
        BackupDamaged: It has no manifest, or the manifest is not as it was written.
        StackError: There is no such backup, or it is a newer build's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar: tarfile.TarFile | None = None
        with ExitStack() as cleanup:
            if not path.is_dir():
                self._tar = cleanup.enter_context(_opened_tar(path))
            self.manifest = self._read_manifest()
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    @property
    def person_keys(self) -> str | None:
        """The file that may be taken out of a backup, to be kept for a shorter time than the rest."""
        tables = self.manifest.tables
        files = [one.file for one in tables if (one.schema_name, one.name) == PERSON_KEYS]
        return files[0] if files else None

    def holds(self, path: str) -> bool:
        try:
            with self.open(path):
                return True
        except BackupDamaged:
            return False

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """One file.

        Raises:
            BackupDamaged: It is missing.
        """
        if self._tar is None:
            try:
                file: BinaryIO = (self.path / path).open("rb")
            except FileNotFoundError as error:
                raise BackupDamaged(f"The backup lacks {path}.", RESTORE_ANOTHER) from error
        else:
            try:
                found = self._tar.extractfile(path)
            except KeyError:
                found = None
            if found is None:
                raise BackupDamaged(f"The backup lacks {path}.", RESTORE_ANOTHER)
            file = found  # type: ignore[assignment]
        with file:
            yield file

    async def read(self, path: str, piece: int = READ) -> AsyncIterator[bytes]:
        """One file in pieces."""
        with self.open(path) as file:
            while chunk := await asyncio.to_thread(file.read, piece):
                yield chunk

    async def check(self, report: "Report") -> None:
        """Read every file and compare it with the manifest.

        Raises:
            BackupDamaged: Some are missing or altered; they are named.
        """
        damaged = []
        for number, file in enumerate(self.manifest.files, 1):
            problem = await asyncio.to_thread(self._problem, file)
            if problem == MISSING and file.path == self.person_keys:
                report(f"without   {file.path}: what is sealed of people cannot be read")
            elif problem:
                damaged.append(f"{file.path} ({problem})")
            if not number % 1000:
                report(f"{number} of {len(self.manifest.files)} files")
        if damaged:
            more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
            raise BackupDamaged(
                f"The backup {self.path} is damaged: {', '.join(damaged[:NAMED])}{more}.",
                RESTORE_ANOTHER,
            )

    def _problem(self, file: BackupFile) -> str | None:
        digest, size = hashlib.sha256(), 0
        try:
            with self.open(file.path) as stored:
                while chunk := stored.read(READ):
                    size += len(chunk)
                    digest.update(chunk)
        except BackupDamaged:
            return MISSING
        except (OSError, tarfile.TarError) as error:
            return str(error)
        if size != file.size:
            return f"{size:,} bytes instead of {file.size:,}"
        return None if digest.hexdigest() == file.sha256 else "altered"

    def _read_manifest(self) -> Manifest:
        try:
            with self.open(MANIFEST) as file:
                text = file.read()
            with self.open(CHECKSUM) as file:
                expected = file.read().decode(errors="replace").split()[:1]
        except (BackupDamaged, tarfile.TarError) as error:
            raise BackupDamaged(
                f"{self.path} is no backup, or is cut off: it has no {MANIFEST} with {CHECKSUM}."
            ) from error
        if [hashlib.sha256(text).hexdigest()] != expected:
            raise BackupDamaged(f"The backup {self.path} is damaged: {MANIFEST} (altered).")
        _refuse_newer(text, self.path)
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            raise BackupDamaged(f"{MANIFEST} of {self.path} cannot be read: {error}.") from error


RESTORE_ANOTHER: Final = "Take another copy of it, or another backup; nothing was changed."


class Report(Protocol):
    def __call__(self, line: str, /) -> None: ...


class _Format(BaseModel):
    """What every build can read of a manifest."""

    model_config = ConfigDict(extra="ignore")

    format: int
    written: Written


def _refuse_newer(text: bytes, path: Path) -> None:
    try:
        said = _Format.model_validate_json(text)
    except ValidationError as error:
        raise BackupDamaged(f"{MANIFEST} of {path} cannot be read: {error}.") from error
    if said.format > FORMAT:
        raise StackError(
            f"The backup {path} has format {said.format}, and this build knows {FORMAT} at most: "
            f"finetrail {said.written.version} has made it. Nothing was changed.",
            f"Install finetrail {said.written.version} or newer.",
        )


@contextmanager
def _opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as file:
        try:
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - it is, once it was read
            tar.getmembers()  # reads it to its end: one that was cut off is found here
        except tarfile.TarError as error:
            raise BackupDamaged(f"{path} is no backup, or is cut off: {error}.") from error
        with tar:
            yield tar


@contextmanager
def writing(target: Path) -> Iterator[BackupWriter]:
    """A folder, or a tar file where the name ends in ``.tar``; nothing is left of a failure.

    Raises:
        StackError: Something is there already, or there is no folder to make it in.
    """
    if target.exists():
        raise StackError(f"{target} is there already.", "Name a file or folder that is not there.")
    if not target.parent.is_dir():
        raise StackError(f"There is no folder {target.parent}.", "Make it first.")
    writer: FolderWriter | TarWriter = (
        TarWriter(target) if target.suffix == ".tar" else FolderWriter(target)
    )
    try:
        yield writer
    finally:
        with suppress(FileNotFoundError):  # renamed: it is a backup
            if writer.aside.is_dir():
                shutil.rmtree(writer.aside)
            else:
                writer.aside.unlink()


def blob_file(sha256: str) -> str:
    return str(PurePosixPath("blobs", "sha256", sha256[:2], sha256[2:4], sha256))


def _signed(manifest: Manifest) -> list[tuple[str, bytes]]:
    text = manifest.model_dump_json(indent=1).encode()
    checksum = f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n"
    return [(MANIFEST, text), (CHECKSUM, checksum.encode())]


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield file


def _private(path: Path) -> Path:
    path.unlink(missing_ok=True)  # of a backup that was killed
    path.touch(mode=0o600)
    return path


def _write(file: BinaryIO | io.BufferedRandom, digest: "hashlib._Hash", chunk: bytes) -> None:
    file.write(chunk)
    digest.update(chunk)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _measured(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(READ):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.hexdigest()
