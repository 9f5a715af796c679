"""What this process counts, for Prometheus: a registry for each role that it runs, in one text."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Info,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.registry import Collector
from typing_extensions import override

_log = logging.getLogger(__name__)


class _Roles(Collector):
    """Whatever the roles of this process count."""

    def __init__(self) -> None:
        self.registries: list[CollectorRegistry] = []

    @override
    def collect(self) -> Iterable[Metric]:
        for registry in self.registries:
            yield from registry.collect()


disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, and nobody asks when it began
_roles: Final = _Roles()
_process: Final = CollectorRegistry()
_process.register(_roles)
ProcessCollector(registry=_process)
GCCollector(registry=_process)
_BUILD: Final = Info("finetrail_build", "What runs here.", registry=_process)
_BUILD.info({"version": version("finetrail")})
_TASKS: Final = Gauge(
    "finetrail_tasks", "Tasks of the event loop that have not ended.", registry=_process
)


def add(registry: CollectorRegistry) -> None:
    """Show a role's figures among this process's."""
    if registry not in _roles.registries:
        _roles.registries.append(registry)


def page() -> bytes:
    """All of them, in Prometheus' text format."""
    return generate_latest(_process)


@asynccontextmanager
async def served(host: str, port: int | None) -> AsyncIterator[None]:
    """Serve the page for the length of the block, from a thread of its own; without a port, not."""
    loop = asyncio.get_running_loop()
    _TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, host, _process)
    except OSError as error:  # figures that cannot be looked at must not stop the work
        _log.error("no metrics at %s:%d: %s", host, port, error)
        yield
        return
    _log.info("metrics at http://%s:%d/metrics", host, port)
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
