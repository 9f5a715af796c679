"""Real servers and a twin in memory are asked the same; after each step both must have come to the same.

    python -m tests.log.machine [EXAMPLES]

Steps are commands, the same commands again (at once, and after the server has forgotten their ids),
two at a time, and deaths of the server, of the handlers and of the projections. Log, folded states
and rows are compared after each. Each example has a workspace of its own, for a log is never emptied.
"""

import asyncio
import copy
import json
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar
from uuid import uuid4

import asyncpg
import psutil
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from nats.aio.client import Client
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from adapters.jetstream_event_store import JetStreamEventStore
from adapters.memory_event_store import MemoryEventStore
from adapters.nats_connection import connect
from adapters.nats_event_source import NatsEventSource
from adapters.nats_feed import NatsFeed
from domain.errors import Rejected, StoreUnavailable
from domain.messages import Command, Envelope, Event, Recorded
from domain.wire import decode_recorded
from finetrail.settings import GatewaySettings, Settings
from finetrail.stack.supervisor import EmbeddedStack
from handlers.commands import DECIDERS
from handlers.execute import execute
from handlers.histories import Histories
from projections import jobs, tables
from projections.past import PastQueries, folded, tables_at
from projections.postgres import AWAY
from projections.projection import registry
from projections.run import Runner
from projections.schema import ensure_tables
from projections.view import Json, View
from tests import samples
from tests.log.asking import LIFE, Asked, Make, Things, asked, asking
from tests.projections.support import eventually

T = TypeVar("T")
Choice = tuple[Make, int, int]
Sent = Envelope[Command]

ANSWER_S: Final = 60.0
WINDOW: Final = timedelta(milliseconds=100)  # the shortest in which the server knows an id again
PAGE: Final = 1000
CHECKPOINT: Final = tables.projection_checkpoint.fullname
VIEWS: Final = {view.table.name: view for view in registry.views}
MOST_DEATHS: Final = 1  # of a server in one example: each takes seconds


@dataclass(frozen=True)
class Answer:
    """What a command led to, without positions: two logs have different ones."""

    status: str
    code: str = ""


@dataclass
class Servers:
    """One NATS and one Postgres with a loop in a thread of its own, for all examples."""

    folder: Path
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __post_init__(self) -> None:
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self._open = AsyncExitStack()
        self.do(self._start())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return done.result(ANSWER_S)

    def close(self) -> None:
        self.do(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def _start(self) -> None:
        given = Settings(data_dir=self.folder / "data", gateway=GatewaySettings(port=0))
        stack = await self._open.enter_async_context(EmbeddedStack(given))
        self.settings = stack.settings
        self.admin = await self.connected("admin")
        self.handlers = await self.connected("handlers")
        self.projections = await self.connected("projections")
        self.feed = NatsFeed(self.projections)
        dsn = self.settings.postgres_dsn.replace("postgresql://", "postgresql+asyncpg://")
        self.engine = create_async_engine(dsn, poolclass=NullPool)  # Postgres dies now and then
        await self._forget_ids_soon()
        connection = await asyncpg.connect(self.settings.postgres_dsn)
        await ensure_tables(connection, registry, replace=True)
        await connection.close()
        self.project()

    async def _stop(self) -> None:
        await self._end_projecting()
        for nc in (self.admin, self.handlers, self.projections):
            await nc.close()
        await self._open.aclose()

    async def connected(self, role: Any) -> Client:
        login = self.settings.nats_login(role)
        return await connect(
            login.url,
            user=login.user,
            password=login.password,
            name=role,
            inbox_prefix=login.inbox_prefix,
        )

    async def _forget_ids_soon(self) -> None:
        raw = json.loads((await self.admin.request("$JS.API.STREAM.INFO.EVENTS", b"")).data)
        raw["config"]["duplicate_window"] = WINDOW // timedelta(microseconds=1) * 1000
        body = json.dumps(raw["config"]).encode()
        answer = json.loads((await self.admin.request("$JS.API.STREAM.UPDATE.EVENTS", body)).data)
        assert "error" not in answer, answer

    def project(self) -> None:
        source = NatsEventSource(self.projections, "EVENTS")
        self.runner = Runner(registry, source, self.settings.postgres_dsn)
        self._projecting = self.loop.create_task(self.runner.run())

    async def _end_projecting(self) -> None:
        self._projecting.cancel()
        await asyncio.gather(self._projecting, return_exceptions=True)

    async def projections_die(self) -> None:
        await self._end_projecting()
        self.project()

    async def caught_up(self) -> None:
        """Wait for what Postgres says: a crash may have taken its last commits, and they come again."""
        last = (await self.feed.state("EVENTS")).last
        find = f"SELECT sequence FROM {CHECKPOINT} WHERE name = $1"  # noqa: S608 - our own name

        async def there() -> bool:
            try:
                connection = await asyncpg.connect(self.settings.postgres_dsn)
                try:
                    sequence: int = await connection.fetchval(find, registry.name)
                finally:
                    await connection.close()
            except AWAY:
                return False
            return sequence >= last

        await eventually(there)

    async def server_dies(self, name: str) -> None:
        before = _child(name)
        before.kill()

        async def another() -> bool:
            return (now := _child(name)) is not None and now.pid != before.pid

        await eventually(another)
        await self._answering()

    async def _answering(self) -> None:
        async def answers() -> bool:
            try:
                await self.feed.state("EVENTS")
            except StoreUnavailable:
                return False
            return True

        await eventually(answers)


def _child(name: str) -> Any:
    """The child that was started first; Postgres has more of that name."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if one.name() == name:
                found.append((one.create_time(), one.pid, one))
    return min(found)[2] if found else None


class Twin:
    """What a log and the handlers on top of it come to in memory."""

    def __init__(self, store: MemoryEventStore | None = None) -> None:
        self.store = store or MemoryEventStore()
        self.histories = Histories(self.store)

    def copied(self) -> "Twin":
        return Twin(copy.deepcopy(self.store))


class LogMachine(RuleBasedStateMachine):
    servers: ClassVar[Servers]

    def __init__(self) -> None:
        super().__init__()
        self.things = Things(f"w{uuid4().hex}")
        self.twin = Twin()
        self.histories = self._new_handlers()
        self.sent: list[Sent] = []
        self.gone_on = 0
        self.deaths = 0

    @rule(choice=asking)
    def somebody_asks(self, choice: Choice) -> None:
        self._ask(self._envelope(asked(self.things, choice)))

    @rule(steps=st.integers(1, len(LIFE)))
    def life_goes_on(self, steps: int) -> None:
        for choice in LIFE[self.gone_on : self.gone_on + steps]:
            self._ask(self._envelope(asked(self.things, choice)))
        self.gone_on += steps

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_command_comes_again(self, data: st.DataObject) -> None:
        self._ask_again(data.draw(st.sampled_from(self.sent)))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_command_comes_again_after_the_window(self, data: st.DataObject) -> None:
        time.sleep(2 * WINDOW.total_seconds())
        self._ask_again(data.draw(st.sampled_from(self.sent)))

    @rule(one=asking, other=asking)
    def two_ask_at_once(self, one: Choice, other: Choice) -> None:
        """Of two processes that do not know of each other: as if one had been first."""
        first, second = (self._envelope(asked(self.things, choice)) for choice in (one, other))
        strangers = self._new_handlers()

        async def both() -> tuple[Answer, Answer]:
            one, other = await asyncio.gather(
                answer(first, self.histories), answer(second, strangers)
            )
            return one, other  # it gives a list

        answers = self.servers.do(both())
        log = self._log()
        for order in ((first, second), (second, first)):
            twin = self.twin.copied()
            told = {one.id: self._told(one, twin) for one in order}
            if (told[first.id], told[second.id]) == answers and self._twins_log(twin) == log:
                self.twin = twin
                break
        else:
            raise AssertionError(f"no order of the two gives {answers}")
        self.sent += [first, second]

    @rule()
    def the_handlers_die(self) -> None:
        self.histories = self._new_handlers()

    @rule()
    def the_projections_die(self) -> None:
        self.servers.do(self.servers.projections_die())

    @precondition(lambda self: self.deaths < MOST_DEATHS)
    @rule(name=st.sampled_from(("nats-server", "postgres")))
    def a_server_dies(self, name: str) -> None:
        self.deaths += 1
        self.servers.do(self.servers.server_dies(name))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def somebody_looks_back(self, data: st.DataObject) -> None:
        log = self.servers.do(self._recorded())
        if log:
            place = data.draw(st.integers(0, len(log) - 1))
            self.servers.do(self._past_agrees(log[: place + 1]))

    @invariant()
    def all_agree(self) -> None:
        log = self.servers.do(self._recorded())
        assert without_positions(log) == self._twins_log(self.twin)
        assert len({recorded.id for recorded in log}) == len(log), "an event stands there twice"
        self.servers.do(self._folds_agree(log))
        self.servers.do(self._rows_agree(log))

    def _ask(self, envelope: Sent) -> Answer:
        told = self.servers.do(answer(envelope, self.histories))
        assert told == self._told(envelope, self.twin), envelope.command
        self.sent.append(envelope)
        return told

    def _ask_again(self, envelope: Sent) -> None:
        before = self._log()
        told = self._ask(envelope)
        if any(recorded.causation_id == envelope.id for recorded in before):
            assert told.status == "recorded", "a command that was done is answered otherwise"
            assert self._log() == before, "a command that was done is done again"

    def _told(self, envelope: Sent, twin: Twin) -> Answer:
        return self.servers.do(answer(envelope, twin.histories))

    def _log(self) -> list[Recorded[Event]]:
        return without_positions(self.servers.do(self._recorded()))

    def _twins_log(self, twin: Twin) -> list[Recorded[Event]]:
        return without_positions(self.servers.do(twin.store.everything()))

    def _new_handlers(self) -> Histories:
        return Histories(JetStreamEventStore(self.servers.handlers))

    def _envelope(self, asked_: Asked) -> Sent:
        command, stream, source = asked_
        id_ = uuid4()
        return Envelope(
            id=id_,
            stream=stream,
            source=source,
            actor=f"test:{source}",
            correlation_id=id_,
            causation_id=None,
            sent_at=samples.later(len(self.sent)),
            command=command,
        )

    async def _recorded(self) -> list[Recorded[Event]]:
        found: list[Recorded[Event]] = []
        more = True
        while more:
            after = found[-1].sequence if found else 0
            subject = f"events.{self.things.workspace}.>"
            page, more = await self.servers.feed.page("EVENTS", subject, after, PAGE)
            found += [decode_recorded(m.subject, m.sequence, m.headers, m.data) for m in page]
        return found

    async def _folds_agree(self, log: Sequence[Recorded[Event]]) -> None:
        anew = self._new_handlers()
        for stream in {recorded.stream for recorded in log}:
            decider = DECIDERS[stream.aggregate]
            folds = [
                (await histories.load(stream, decider)).state
                for histories in (anew, self.histories, self.twin.histories)
            ]
            assert folds[0] == folds[1] == folds[2], stream

    async def _rows_agree(self, log: Sequence[Recorded[Event]]) -> None:
        """Every table has the rows that its pure function makes of the log, and no others."""
        await self.servers.caught_up()
        connection = await asyncpg.connect(self.servers.settings.postgres_dsn)
        try:
            for view in registry.views:
                found = await connection.fetch(
                    f"SELECT * FROM {view.table.fullname} WHERE workspace = $1",  # noqa: S608 - our own name
                    self.things.workspace,
                )
                stored = [as_stored(view, record) for record in found]
                expected = [plain(row) for row in folded(view, log).values()]
                assert in_order(stored) == in_order(expected), view.table.name
        finally:
            await connection.close()

    async def _past_agrees(self, log: Sequence[Recorded[Event]]) -> None:
        """What is told of the past is what the rows were when this was all of the log."""
        await self.servers.caught_up()
        then = tables_at(log[-1].sequence)
        async with self.servers.engine.connect() as connection:
            for table in fields(then):
                shown = getattr(then, table.name)
                found = await connection.execute(
                    select(shown).where(shown.c.workspace == self.things.workspace)
                )
                rows = [dict(row) for row in found.mappings()]
                expected = [plain(row) for row in folded(VIEWS[table.name], log).values()]
                assert in_order(rows) == in_order(expected), table.name
        past = PastQueries(self.servers.engine, log[-1].sequence)
        for (workspace, job_id), row in folded(jobs.VIEW, log).items():
            job = await past.job(workspace, job_id)
            assert job is not None
            assert job.row == row


async def answer(envelope: Sent, histories: Histories) -> Answer:
    try:
        outcome = await execute(
            envelope, DECIDERS[envelope.stream.aggregate], histories, lambda: envelope.sent_at
        )
    except Rejected as refusal:
        return Answer("rejected", refusal.code)
    return Answer(outcome.status)


def without_positions(log: Sequence[Recorded[Event]]) -> list[Recorded[Event]]:
    return [replace(recorded, sequence=0) for recorded in log]


def plain(row: Any) -> dict[str, Any]:
    """A row's columns by name, JSON read."""
    values = {one.name: getattr(row, one.name) for one in fields(row)}
    return {k: json.loads(v) if isinstance(v, Json) else v for k, v in values.items()}


def as_stored(view: View[Any, Any], record: asyncpg.Record) -> dict[str, Any]:
    of_json = {one.name for one in view.table.columns if isinstance(one.type, JSONB)}
    return {
        name: json.loads(value) if name in of_json and value is not None else value
        for name, value in record.items()
    }


def in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=str)


def run(folder: Path, examples: int, steps: int) -> None:
    LogMachine.servers = Servers(folder)
    try:
        run_state_machine_as_test(
            LogMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    finally:
        LogMachine.servers.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="finetrail-log-") as name:
        run(Path(name), int(sys.argv[1]) if len(sys.argv) > 1 else 100, 30)
