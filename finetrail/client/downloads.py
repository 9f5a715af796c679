"""Downloads that go on where they broke off, in this process or in a later one.

What has come lies beside the target under a name that holds its entity tag, so that bytes of
another content are never put behind it. The target appears whole and checked, or not at all.
"""

import fcntl
import hashlib
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from finetrail.client.errors import ApiError, DownloadFailed, FinetrailError
from finetrail.client.files import Report
from finetrail.client.transport import Transport, delays, passing

Check = Callable[[Path, str], None]  # a file, and the tag it came with

_TAG: Final = re.compile(r'"([0-9A-Za-z_-]{1,128})"')  # strong, and fit to be part of a name
_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+)")
_NOT_SATISFIABLE: Final = 416


def download(
    transport: Transport, path: str, to: Path, check: Check, report: Report | None = None
) -> None:
    """Save what a path answers with; a broken line is taken up again for ``patience_s`` each time.

    Raises:
        DownloadFailed: What came is not what was announced; nothing of it is left.
        ServerUnreachable: It stays away. What came is kept, and a later call goes on with it.
    """
    deadline, reached, waits = time.monotonic() + transport.patience_s, 0, delays()
    while True:
        try:
            _attempt(transport, path, to, check, report)
        except FinetrailError as error:
            have = sum(part.stat().st_size for part in _parts(to))
            if have > reached:  # it goes on, so there is patience again
                deadline, reached, waits = time.monotonic() + transport.patience_s, have, delays()
            delay = next(waits)
            if not passing(error) or time.monotonic() + delay > deadline:
                raise
            time.sleep(delay)
        else:
            return


def check_zip(path: Path, _: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise DownloadFailed(f"what came is no ZIP file: {error}") from error
    if damaged:
        raise DownloadFailed(f"{damaged} in the ZIP file is damaged")


def check_hash(path: Path, tag: str) -> None:
    """The tag of a single file is the SHA-256 of its bytes."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != tag:
        raise DownloadFailed(f"what came has the SHA-256 {found}, not {tag}")


def _attempt(
    transport: Transport, path: str, to: Path, check: Check, report: Report | None
) -> None:
    begun = next(iter(_parts(to)), None)
    headers = {"Accept-Encoding": "identity"}
    if begun is not None and begun.stat().st_size:
        headers["Range"] = f"bytes={begun.stat().st_size}-"
        headers["If-Range"] = f'"{_tag_of(begun, to)}"'
    try:
        with transport.stream(path, headers=headers) as response:
            part, tag = _take(response, to, begun, report)
    except ApiError as error:
        if error.status != _NOT_SATISFIABLE or begun is None:
            raise
        # All of it had come, or more than there is: the check says which.
        part, tag = begun, _tag_of(begun, to)
    try:
        check(part, tag)
    except DownloadFailed:
        part.unlink()
        raise
    part.replace(to)
    for other in _parts(to):
        other.unlink(missing_ok=True)


def _take(
    response: httpx.Response, to: Path, begun: Path | None, report: Report | None
) -> tuple[Path, str]:
    """Write the body behind what came before, or as a new part where it is something else."""
    match = _TAG.fullmatch(response.headers.get("etag", ""))
    tag = match[1] if match else ""
    part = to.with_name(f".{to.name}.{tag or os.getpid()}.part")
    if begun is not None and begun != part:
        begun.unlink(missing_ok=True)
    try:
        with _written_alone(part) as file:
            _write(response, file, report)
    except BaseException:
        if not tag:  # nothing says what it is a part of
            part.unlink(missing_ok=True)
        raise
    return part, tag


def _write(response: httpx.Response, file: BinaryIO, report: Report | None) -> None:
    whole = _place(file, response)
    for piece in response.iter_bytes():  # as it comes: what is held back would be lost in a break
        file.write(piece)
        if report:
            report(file.tell(), whole)
    if whole and file.tell() != whole:
        raise DownloadFailed(f"{file.tell()} bytes came of {whole}")
    file.flush()
    os.fsync(file.fileno())


def _place(file: BinaryIO, response: httpx.Response) -> int:
    """Go to where the body belongs, and give how many bytes there are in all; 0 if nobody says."""
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        match = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or int(match[1]) > file.seek(0, os.SEEK_END):
            raise DownloadFailed("the server sent another range than it was asked for")
        file.seek(int(match[1]))
        file.truncate()
        return int(match[2])
    file.truncate(0)
    return int(response.headers.get("content-length", 0))


@contextmanager
def _written_alone(path: Path) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadFailed("another download is writing this file") from None
        yield file


def _parts(to: Path) -> list[Path]:
    """What is there of earlier downloads to this place; usually one or none."""
    names = (each for each in to.parent.iterdir() if each.name.startswith(f".{to.name}."))
    return sorted(each for each in names if _TAG.fullmatch(f'"{_tag_of(each, to)}"'))


def _tag_of(part: Path, to: Path) -> str:
    name = part.name.removeprefix(f".{to.name}.")
    return name.removesuffix(".part") if name.endswith(".part") else ""
