"""The embedded PostgreSQL: its cluster folder, its command, and an account that it accepts.

PostgreSQL refuses to run as root. A stack that root starts runs it as the account `postgres`, or
`nobody`. Only the cluster folder inside the data directory is given to that account. It need not
be able to walk there: the folder is opened by us and passed on, and PostgreSQL reaches it as
`/proc/self/fd/<n>`, so a data directory below a folder of mode 0700 works and nothing is kept
elsewhere.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finetrail.stack.errors import StackError
from finetrail.stack.postgres_programs import MAJOR, OWN_SERVER, Account
from finetrail.stack.state import DATABASE

ACCOUNTS = ("postgres", "nobody")


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
