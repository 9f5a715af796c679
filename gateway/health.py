"""Is the process alive, and may traffic come: two questions with two answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Final, Literal

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency

from domain.errors import StoreUnavailable
from gateway.keyring import Keyring
from gateway.ports import Feed
from gateway.problems import Problem
from projections.queries import Queries
from projections.registry import ReadModelUnavailable

MAX_LAG: Final = 1000  # events that the read model may be behind; it takes in thousands a second
CHECK_S: Final = 3.0  # a check that takes longer has failed

_log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[str | None]]


class Live(msgspec.Struct):
    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct, omit_defaults=True):
    status: Annotated[Literal["ready"], msgspec.Meta(description="Traffic may come.")]
    parked: Annotated[
        dict[str, int],
        msgspec.Meta(
            description="Views that show what was before the event of this sequence, because they "
            "cannot take it in; left out where there are none."
        ),
    ] = {}


class Readiness:
    """Asks what the gateway depends on; ``drain`` makes it say no for good."""

    def __init__(self, checks: Mapping[str, Check], queries: Queries) -> None:
        self._checks = checks
        self._queries = queries
        self._draining = False

    def drain(self) -> None:
        self._draining = True

    async def wrong(self) -> dict[str, str]:
        """What is wrong, by name; empty when traffic may come."""
        if self._draining:
            return {"gateway": "it is stopping"}
        answers = await asyncio.gather(*(self._ask(check) for check in self._checks.values()))
        return {name: said for name, said in zip(self._checks, answers, strict=True) if said}

    async def parked(self) -> dict[str, int]:
        """Views that stand still while the others go on; none where that cannot be asked."""
        try:
            return await self._queries.parked()
        except ReadModelUnavailable:
            return {}

    async def _ask(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_S):
                return await check()
        except TimeoutError:
            return f"no answer within {CHECK_S:g} s"


def readiness(feed: Feed, queries: Queries, keyring: Keyring) -> Readiness:
    async def log() -> str | None:
        try:
            await feed.state("EVENTS")
        except StoreUnavailable as error:
            return _away("event log", error)
        return None

    there_at_first: int | None = None  # all of this has to be read once, however short the log is
    caught_up = False

    async def read_model() -> str | None:
        nonlocal there_at_first, caught_up
        try:
            last, position = (await feed.state("EVENTS")).last, await queries.position()
        except ReadModelUnavailable as error:
            return _away("read model", error)
        except StoreUnavailable:
            return "how far it is behind cannot be told"
        there_at_first = last if there_at_first is None else there_at_first
        caught_up = caught_up or position >= there_at_first
        behind = last - position
        return None if caught_up and behind <= MAX_LAG else f"it is {behind:,} events behind"

    async def keys() -> str | None:
        return None if keyring.loaded else "not read from the log yet"

    return Readiness({"event log": log, "read model": read_model, "keys": keys}, queries)


def _away(name: str, error: Exception) -> str:
    """The reason stays in our own log: whoever has no key need not know addresses."""
    _log.info("the %s is away: %s", name, error)
    return "it does not answer"


class HealthController(Controller):
    path = "/health"
    tags = ("system",)

    @get("/live")
    async def live(self) -> Live:
        """The process answers. Nothing else is asked."""
        return Live()

    @get("/ready")
    async def ready(self, readiness: NamedDependency[Readiness]) -> Ready:
        """The log, the read model and the keys are there; otherwise 503 with what is missing."""
        if wrong := await readiness.wrong():
            said = "; ".join(f"{name}: {what}" for name, what in wrong.items())
            raise Problem("not_ready", f"Not ready: {said}.", reasons=wrong)
        return Ready("ready", await readiness.parked())
