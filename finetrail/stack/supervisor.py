"""`finetrail up`: starts the servers and our processes, keeps them alive, ends them in order."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from adapters.nats_connection import end
from finetrail import bootstrap
from finetrail.settings import Settings, as_environment
from finetrail.stack import (
    data_format,
    fleet,
    machine,
    nats_config,
    nats_server,
    orphans,
    postgres,
    postgres_login,
    postgres_programs,
)
from finetrail.stack.errors import StackError
from finetrail.stack.processes import ProcessSpec, Report, SupervisedProcess
from finetrail.stack.state import (
    Endpoints,
    Secrets,
    StackPaths,
    fill_in,
    load_endpoints,
    load_secrets,
    reachable,
    write_private,
)

SERVER_READY_S = 120.0  # PostgreSQL may have to recover from a crash first
CORE_READY_S = 120.0  # the projections catch up with the log before the gateway says ready
SERVER_STOP_S = 15.0

OnSettings = Callable[[Settings], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Role:
    """One of our own processes; ``serves_http`` when it is ready only once the gateway says so."""

    name: str
    command: tuple[str, ...]
    serves_http: bool = False
    stop_s: float = 20.0


CORE = Role("core", (sys.executable, "-m", "finetrail", "core"), serves_http=True)
AGENT = Role("agent", (sys.executable, "-m", "finetrail", "agent"))


def silent(_line: str) -> None:
    """Report nothing."""


class EmbeddedStack:
    """The servers that the settings leave to us, and the given roles, from `start` to `stop`.

    Roles start in the order given and end in the reverse order, before the servers.
    ``prepare_tables`` runs with resolved settings after Postgres is up and before any role.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        roles: Sequence[Role] = (),
        prepare_tables: OnSettings | None = None,
        report: Report = silent,
        sync_interval: str = nats_config.AT_ONCE,
    ) -> None:
        self._given = settings
        self._sync_interval = sync_interval  # of NATS; whoever fills it at once syncs at the end
        self._roles = roles
        self._prepare_tables = prepare_tables
        self._report = report
        self._resolved: Settings | None = None
        self._running: list[SupervisedProcess] = []
        self._cleanup = AsyncExitStack()
        self.paths = StackPaths(settings.folder)

    @property
    def settings(self) -> Settings:
        """Settings with the addresses and credentials of this running stack."""
        if self._resolved is None:
            raise StackError("The stack has not been started.")
        return self._resolved

    @property
    def pids(self) -> dict[str, int]:
        """Pid by name (`nats`, `postgres` and the roles' names) of what runs now."""
        return {
            process.spec.name: process.pid for process in self._running if process.pid is not None
        }

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            StackError: It cannot be started; whatever was started has ended again.
        """
        async with AsyncExitStack() as cleanup:
            try:
                await self._start(cleanup)
            except OSError as error:
                raise machine.explained(error, self.paths.root) from error
            self._cleanup = cleanup.pop_all()

    async def stop(self) -> None:
        """End roles, Postgres and NATS in this order, and whatever they have left behind."""
        await self._cleanup.aclose()

    async def _start(self, cleanup: AsyncExitStack) -> None:
        paths = self.paths
        machine.check_system()
        data_format.check_directory(paths)
        for folder in (paths.root, paths.run, paths.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        machine.check_free_space(paths.root)
        cleanup.enter_context(orphans.locked(paths))
        data_format.record_directory(paths)

        known = load_secrets(paths)
        marker = f"{known.stack_id}:{paths.root}"
        family = orphans.StackProcesses(marker, paths.postgres.resolve())
        await orphans.end_leftovers(family, orphans.recorded(paths), self._report)
        cleanup.push_async_callback(self._sweep, family)

        endpoints = self._choose_ports()
        settings = self._resolved = fill_in(self._given, known, endpoints)
        bare = {"PATH": os.defpath, orphans.MARKER: marker}
        if endpoints.nats_port:
            await self._start_nats(cleanup, known, bare, endpoints.nats_port)
        if endpoints.postgres_port:
            await self._start_postgres(cleanup, known, bare, endpoints.postgres_port)
        await bootstrap.bootstrap(settings)
        self._keep_fleet(cleanup, known, endpoints.nats_port)
        if self._prepare_tables:
            await self._prepare_tables(settings)
        for role in self._roles:
            await self._start_role(cleanup, role, marker)

    def _choose_ports(self) -> Endpoints:
        """Choose the ports and write them down; after a crash the former ones, if they are free."""
        given, former = self._given, load_endpoints(self.paths)
        gateway_port = given.gateway.port or _port_again(former.gateway_port if former else None)
        if any(role.serves_http for role in self._roles):
            _check_gateway_port(given.gateway.host, gateway_port)
        endpoints = Endpoints(
            nats_port=None if given.nats.url else self._nats_port(former),
            postgres_port=(
                None
                if given.postgres.dsn
                else _port_again(former.postgres_port if former else None)
            ),
            gateway_port=gateway_port,
        )
        write_private(self.paths.endpoints, endpoints.model_dump_json())
        return endpoints

    def _nats_port(self, former: Endpoints | None) -> int:
        given = self._given.nats
        if not given.port:
            return _port_again(former.nats_port if former else None)
        if not machine.is_free(given.listen, given.port):
            raise StackError(
                f"The port {given.port} on {given.listen} for NATS is taken by another process.",
                "End that process, or choose another FINETRAIL_NATS__PORT.",
            )
        return given.port

    async def _start_nats(
        self, cleanup: AsyncExitStack, known: Secrets, bare: Mapping[str, str], port: int
    ) -> None:
        program = nats_server.find_server()
        listen = self.settings.nats.listen
        nats_config.take_over_store(self.paths.nats)
        nats_config.write_config(
            self.paths,
            known,
            self.settings.agent_id,
            listen,
            port,
            sync_interval=self._sync_interval,
        )
        spec = ProcessSpec(
            name="nats",
            command=(str(program), "-c", str(self.paths.nats_config)),
            environment=bare,
            log=self.paths.logs / "nats.log",
            folder=Path("/"),
            stop_s=SERVER_STOP_S,
        )
        host = reachable(listen)
        await self._run(cleanup, spec, lambda: nats_server.answers(host, port), SERVER_READY_S)

    def _keep_fleet(self, cleanup: AsyncExitStack, known: Secrets, nats_port: int | None) -> None:
        """Let agents on other machines in as they join, for as long as the stack runs."""
        settings, paths = self.settings, self.paths

        async def admit(joined: Mapping[str, str]) -> None:
            if nats_port is None or joined == nats_config.read_joined(paths):
                return  # a server of the user's own has users of the user's own
            nats_config.write_joined(paths, joined)
            listen = settings.nats.listen
            nats_config.write_config(
                paths,
                known,
                settings.agent_id,
                listen,
                nats_port,
                sync_interval=self._sync_interval,
            )
            for process in self._running:
                if process.spec.name == "nats":
                    process.reload()

        keeping = asyncio.create_task(fleet.keep(settings, admit), name="fleet")
        cleanup.push_async_callback(end, keeping)

    async def _start_postgres(
        self, cleanup: AsyncExitStack, known: Secrets, bare: Mapping[str, str], port: int
    ) -> None:
        server = await asyncio.to_thread(_prepared_postgres, self.paths, known, bare)
        place, inherited = cleanup.enter_context(server.opened())
        dsn = self.settings.postgres_dsn
        spec = ProcessSpec(
            name="postgres",
            command=server.command(place, port),
            environment=bare,
            log=self.paths.logs / "postgres.log",
            folder=Path("/"),
            stop_signal=signal.SIGINT,  # its fast shutdown; SIGTERM waits for the clients to go
            stop_s=SERVER_STOP_S,
            account=server.account,
            inherited=inherited,
        )
        await self._run(cleanup, spec, lambda: postgres_login.answers(dsn), SERVER_READY_S)

    async def _start_role(self, cleanup: AsyncExitStack, role: Role, marker: str) -> None:
        spec = ProcessSpec(
            name=role.name,
            command=role.command,
            environment={
                **os.environ,
                **as_environment(self._given),
                "FINETRAIL_DATA_DIR": str(self.paths.root),
                "PYTHONUNBUFFERED": "1",
                orphans.MARKER: marker,
            },
            log=self.paths.logs / f"{role.name}.log",
            folder=Path.cwd(),
            stop_s=role.stop_s,
        )
        url = f"{self.settings.gateway_url}/health/ready"
        if not role.serves_http:
            await self._run(cleanup, spec, _at_once, CORE_READY_S)
            return
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            await self._run(cleanup, spec, lambda: _is_ready(client, url), CORE_READY_S)

    async def _run(
        self,
        cleanup: AsyncExitStack,
        spec: ProcessSpec,
        ready: Callable[[], Awaitable[bool]],
        within_s: float,
    ) -> None:
        process = SupervisedProcess(spec, self._report, self._write_pids)
        self._running.append(process)
        cleanup.push_async_callback(process.stop)
        await process.start(ready, within_s)

    def _write_pids(self) -> None:
        try:
            orphans.record(self.paths, self.pids)
        except OSError as error:
            self._report(f"{self.paths.processes} cannot be written: {error}")

    async def _sweep(self, family: orphans.StackProcesses) -> None:
        """End what our children have left, so that nothing of this stack runs any more."""
        await orphans.end_leftovers(family, {}, self._report)
        self.paths.processes.unlink(missing_ok=True)
        self.paths.endpoints.unlink(missing_ok=True)
        self._running.clear()


def run_stack(
    settings: Settings,
    *,
    report: Report = print,
    prepare_tables: OnSettings | None = None,
    on_first_start: OnSettings | None = None,
    roles: Sequence[Role] = (CORE, AGENT),
) -> int:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; the result is the exit status.

    ``on_first_start`` runs once per data directory, after everything is ready. It runs again only
    when it did not come to its end the first time.

    Raises:
        StackError: It cannot be started; nothing is left running.
    """
    stack = EmbeddedStack(settings, roles=roles, prepare_tables=prepare_tables, report=report)
    return asyncio.run(_run_until_asked_to_stop(stack, report, on_first_start))


async def _run_until_asked_to_stop(
    stack: EmbeddedStack, report: Report, on_first_start: OnSettings | None
) -> int:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(wanted, asked.set)
    starting = asyncio.create_task(_start(stack, report, on_first_start))
    stopping = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            await stopping
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        report("stopping")
    finally:
        stopping.cancel()
        await stack.stop()
    report("stopped; nothing is left running")
    return 0


async def _start(stack: EmbeddedStack, report: Report, on_first_start: OnSettings | None) -> None:
    await stack.start()
    settings, marker = stack.settings, stack.paths.first_start_done
    report(f"gateway   {settings.gateway_url}")
    report(f"data      {stack.paths.root}")
    report(f"logs      {stack.paths.logs}")
    report(f"nats      {settings.nats.url}")
    report(f"postgres  {httpx.URL(settings.postgres_dsn).copy_with(password=None)}")
    if on_first_start and not marker.exists():
        await on_first_start(settings)
        marker.touch()


def _check_gateway_port(host: str, port: int) -> None:
    if not machine.is_free(host, port):
        raise StackError(
            f"The gateway's port {port} on {host} is taken by another process.",
            "End that process, or choose another FINETRAIL_GATEWAY__PORT.",
        )


def _prepared_postgres(
    paths: StackPaths, known: Secrets, environment: Mapping[str, str]
) -> postgres.Postgres:
    account = postgres.choose_account(paths.postgres)
    install = postgres_programs.reachable_install(postgres_programs.find_install(), account)
    server = postgres.Postgres(install, paths.postgres, account)
    postgres.create_cluster(server, known.postgres, environment)
    postgres.remove_stale_lock(paths.postgres)
    return server


def _port_again(former: int | None) -> int:
    return former if former and machine.is_free("127.0.0.1", former) else machine.free_port()


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.TransportError:
        return False


async def _at_once() -> bool:
    return True
