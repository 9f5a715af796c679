"""Every stream and every consumer: the one place that creates or changes them.

Everything else binds to what is here (`declare=False`). Run it as often as you like: it changes
only what differs, and refuses to change what would lose messages.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from adapters.nats_connection import close, encryption, reason, servers
from domain.subjects import AGGREGATES, token, work_subject
from finetrail.settings import Settings
from finetrail.stack.data_format import check_stream, stream_metadata
from finetrail.stack.errors import StackError

API_TIMEOUT_S = 10.0  # the first request after a crash may find the server reading its store
CONNECT_TRIES = 1  # besides the first one
RETRY_S = 1
NOT_FOUND = 404
# What the server would let pass, or refuse without naming the field: a change here loses messages
# or means another stream altogether.
FIXED: Final = ("retention", "storage", "persist_mode", "allow_msg_schedules")

DUPLICATES = timedelta(minutes=10)  # a retry after a lost acknowledgement; execute() does the rest
TELEMETRY_AGE = timedelta(days=14)
TELEMETRY_BYTES = 4 * 1024**3
FEED_AGE = timedelta(days=30)
SCHEDULE_AGE = timedelta(days=30)
DEAD_AGE = timedelta(days=90)

ACK_WAIT = timedelta(seconds=30)
# Handlers put a message away themselves after too many failures. A limit of the server's would
# leave it in the work queue, invisible, with nobody told.
MAX_DELIVER = -1
MAX_ACK_PENDING = 64  # a handler that dies gives at most these back after ack_wait


class BootstrapError(StackError):
    """The streams cannot be made what this build needs."""


class JetStreamRefused(Exception):
    """The server's own answer to a request."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


def stream_configs(*, replicas: int = 1, events_max_bytes: int = -1) -> tuple[dict[str, Any], ...]:
    """The streams as the server's API writes them."""
    common = {"storage": "file", "num_replicas": replicas, "max_age": 0}
    by_age = {**common, "retention": "limits", "discard": "old"}
    # Asynchronous persistence exists on a single server only.
    persisted = {"persist_mode": "async"} if replicas == 1 else {}
    return (
        {
            **common,
            "name": "COMMANDS",
            "subjects": ["commands.*.*.*.*"],
            "retention": "workqueue",
            "discard": "old",
            "duplicate_window": _ns(DUPLICATES),
            "allow_direct": True,
        },
        {
            **common,
            "name": "EVENTS",
            "subjects": ["events.*.*.*"],
            "retention": "limits",
            "discard": "new",
            "max_bytes": events_max_bytes,
            "duplicate_window": _ns(DUPLICATES),
            "compression": "s2",
            "allow_direct": True,
            "allow_atomic": True,
            "deny_delete": True,
            "deny_purge": True,
            "republish": {"src": "events.>", "dest": "live.events.>"},
            "metadata": stream_metadata(),
        },
        {
            **common,
            "name": "WORK",
            "subjects": ["work.*"],
            "retention": "workqueue",
            "discard": "old",
            "duplicate_window": _ns(DUPLICATES),
        },
        {
            **by_age,
            **persisted,
            "name": "TELEMETRY",
            # The longer one ends in the agent that speaks, which its permission pins.
            "subjects": ["telemetry.*.*.*.*", "telemetry.*.*.*.*.*"],
            "max_age": _ns(TELEMETRY_AGE),
            "max_bytes": TELEMETRY_BYTES,
            "allow_direct": True,
            "republish": {"src": "telemetry.>", "dest": "live.telemetry.>"},
        },
        {
            **by_age,
            "name": "FEED",
            "subjects": ["feed.*.*.*.*"],
            "max_age": _ns(FEED_AGE),
            "duplicate_window": _ns(DUPLICATES),
            "compression": "s2",
            "allow_direct": True,
            "allow_atomic": True,
        },
        {
            **by_age,
            "name": "SCHEDULE",
            "subjects": ["schedule.>", "due.>"],
            "max_age": _ns(SCHEDULE_AGE),
            "allow_msg_schedules": True,
        },
        {
            **by_age,
            "name": "DEAD",
            "subjects": ["dead.>"],
            "max_age": _ns(DEAD_AGE),
            "allow_direct": True,
        },
        {
            **common,
            "name": "RETRY",
            "subjects": ["retry.*"],
            "retention": "workqueue",
            "discard": "old",
            "duplicate_window": _ns(DUPLICATES),
        },
    )


def consumer_configs(agents: Sequence[str]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Durable consumers with their stream: per aggregate, reactions, retries, per agent."""
    commands = [
        ("COMMANDS", _consumer(f"{aggregate}-commands", f"commands.*.*.{aggregate}.*"))
        for aggregate in AGGREGATES
    ]
    work = [("WORK", _agent_consumer(agent_id)) for agent_id in agents]
    events = [("EVENTS", _consumer("reactions", "events.>"))]
    retries = [("RETRY", _consumer("retries", "retry.*"))]
    return (*commands, *events, *retries, *work)


async def bootstrap(settings: Settings) -> None:
    """Connect as `admin` and make the streams and consumers of these settings."""
    async with admin_connection(settings) as nc:
        await bootstrap_streams(
            nc,
            [settings.agent_id],
            replicas=settings.nats.replicas,
            events_max_bytes=settings.nats.events_max_bytes,
        )


@asynccontextmanager
async def admin_connection(settings: Settings) -> AsyncIterator[Client]:
    """A connection that may do everything; it gives up rather than reconnect.

    Raises:
        BootstrapError: There is no server, or it refuses the login.
    """
    login = settings.nats_login("admin")
    nc = Client()
    try:
        await nc.connect(
            servers(login.url),
            user=login.user,
            password=login.password,
            inbox_prefix=login.inbox_prefix,
            allow_reconnect=False,
            max_reconnect_attempts=CONNECT_TRIES,  # else the first connection waits two minutes
            reconnect_time_wait=RETRY_S,
            error_cb=_ignore,  # the call that failed raises as well
            **encryption(login.url),
        )
    except (OSError, NatsError) as error:
        await close(nc)  # a login that is refused leaves the socket open
        raise BootstrapError(
            f"No connection to NATS at {login.url} as {login.user}: {reason(error, login.url)}.",
            "Check that it runs, and FINETRAIL_NATS__URL and FINETRAIL_NATS__ADMIN__PASSWORD.",
        ) from error
    try:
        yield nc
    finally:
        await close(nc)


async def bootstrap_streams(
    nc: Client, agents: Sequence[str], *, replicas: int = 1, events_max_bytes: int = -1
) -> None:
    """Create or update every stream and consumer.

    Raises:
        BootstrapError: One exists in a form that must not be changed, or the server refuses.
        StackError: A newer build has written this log; nothing was changed.
    """
    wanted = stream_configs(replicas=replicas, events_max_bytes=events_max_bytes)
    log = await _current(nc, "STREAM.INFO.EVENTS")
    check_stream((log or {}).get("metadata", {}), "The log")
    for stream in wanted:
        await _ensure_stream(nc, stream)
    for name, consumer in consumer_configs(agents):
        await _ensure_consumer(nc, name, consumer)


async def ensure_agent(nc: Client, agent_id: str) -> None:
    """Make the work consumer of an agent, which it may not make itself."""
    await _ensure_consumer(nc, "WORK", _agent_consumer(agent_id))


async def remove_agent(nc: Client, agent_id: str) -> None:
    """Take away a revoked agent's consumer and what was put there for it."""
    absent: dict[str, Any] = {}
    with suppress(JetStreamRefused):  # it was removed before
        await _ask(nc, f"CONSUMER.DELETE.WORK.agent-{token(agent_id)}", absent)
    with suppress(JetStreamRefused):
        await _ask(nc, "STREAM.PURGE.WORK", {"filter": work_subject(agent_id)})


async def differences(
    nc: Client, agents: Sequence[str], *, replicas: int = 1, events_max_bytes: int = -1
) -> list[str]:
    """What is not as this build needs it, in words; empty when all is well."""
    found: list[str] = []
    for stream in stream_configs(replicas=replicas, events_max_bytes=events_max_bytes):
        name = stream["name"]
        found += _described(name, stream, await _current(nc, f"STREAM.INFO.{name}"))
    for stream_name, consumer in consumer_configs(agents):
        name = consumer["durable_name"]
        current = await _current(nc, f"CONSUMER.INFO.{stream_name}.{name}")
        found += _described(f"{stream_name}/{name}", consumer, current)
    return found


async def open_dead_letters(nc: Client) -> int:
    """How many messages have been put aside and wait for somebody to look at them."""
    answer = await _ask(nc, "STREAM.INFO.DEAD", {})
    count: int = answer["state"]["messages"]
    return count


async def _ensure_stream(nc: Client, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    current = await _current(nc, f"STREAM.INFO.{name}")
    if current is None:
        await _change(nc, f"STREAM.CREATE.{name}", wanted, name)
        return
    changed = _changed(wanted, current)
    illegal = [key for key in FIXED if key in changed]
    lost = set(current["subjects"]) - set(wanted["subjects"])
    if illegal or lost:
        raise BootstrapError(
            f"Stream {name} exists in another form: "
            f"{'; '.join(_described(name, wanted, current))}.",
            "These differences would lose messages, so they are not changed. Use another NATS "
            "account, or move the stream's messages into one of the right form yourself.",
        )
    if changed:
        await _change(nc, f"STREAM.UPDATE.{name}", {**current, **wanted}, name)


async def _ensure_consumer(nc: Client, stream: str, wanted: dict[str, Any]) -> None:
    name = wanted["durable_name"]
    current = await _current(nc, f"CONSUMER.INFO.{stream}.{name}")
    if current is not None and not _changed(wanted, current):
        return
    body = {"stream_name": stream, "config": wanted}
    subject = f"CONSUMER.CREATE.{stream}.{name}.{wanted['filter_subject']}"
    await _change(nc, subject, body, f"{stream}/{name}")


async def _current(nc: Client, request: str) -> dict[str, Any] | None:
    try:
        answer = await _ask(nc, request, {})
    except JetStreamRefused as error:
        if error.code == NOT_FOUND:
            return None
        raise BootstrapError(f"NATS refuses {request}: {error}.") from error
    config: dict[str, Any] = answer["config"]
    return config


async def _change(nc: Client, request: str, body: Mapping[str, Any], name: str) -> None:
    try:
        await _ask(nc, request, body)
    except JetStreamRefused as error:
        raise BootstrapError(f"NATS refuses to make {name}: {error}.") from error


async def _ask(nc: Client, request: str, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        reply = await nc.request(
            f"$JS.API.{request}", json.dumps(body).encode(), timeout=API_TIMEOUT_S
        )
    except NatsError as error:
        raise BootstrapError(
            f"JetStream does not answer {request}: {error}.",
            "Check that JetStream is on for this account and that `admin` may use $JS.API.>.",
        ) from error
    answer: dict[str, Any] = json.loads(reply.data)
    if "error" in answer:
        raise JetStreamRefused(answer["error"]["code"], answer["error"]["description"])
    return answer


def _changed(wanted: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """What differs; the server leaves out what has its zero value."""
    return {
        key: value
        for key, value in wanted.items()
        if not _same(value, current.get(key, _zero(value)))
    }


def _same(wanted: object, current: object) -> bool:
    """Whether the server has what is wanted; to metadata it adds what it says itself."""
    if isinstance(wanted, dict) and isinstance(current, dict):
        return wanted.items() <= current.items()
    return wanted == current


def _described(
    name: str, wanted: Mapping[str, Any], current: Mapping[str, Any] | None
) -> list[str]:
    if current is None:
        return [f"{name} is missing"]
    return [
        f"{name} was made by another build"
        if key == "metadata"
        else f"{name}.{key} is {current.get(key)!r} and should be {value!r}"
        for key, value in _changed(wanted, current).items()
    ]


def _zero(value: object) -> object:
    return type(value)() if isinstance(value, bool | int | str) else None


def _consumer(name: str, filter_subject: str) -> dict[str, Any]:
    return {
        "durable_name": name,
        "name": name,
        "filter_subject": filter_subject,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": _ns(ACK_WAIT),
        "max_deliver": MAX_DELIVER,
        "max_ack_pending": MAX_ACK_PENDING,
    }


def _agent_consumer(agent_id: str) -> dict[str, Any]:
    return _consumer(f"agent-{token(agent_id)}", work_subject(agent_id))


def _ns(span: timedelta) -> int:
    return span // timedelta(microseconds=1) * 1000


async def _ignore(_error: Exception) -> None:
    """Keep the client from writing what is raised anyway to the log."""
