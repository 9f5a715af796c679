"""The NATS server: where its program is, whether it answers, who may do what."""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domain.feed import DOMAIN
from domain.subjects import SERVING_QUEUE
from finetrail.settings import NatsRole
from finetrail.stack.errors import StackError

# An inference answer may be thousands of messages long and take minutes to generate.
REPLIES_PER_REQUEST = 1_000_000
REPLY_MINUTES = 10
ANSWERING = {"allow_responses": {"max": REPLIES_PER_REQUEST, "expires": f"{REPLY_MINUTES}m"}}
MAX_PAYLOAD = 1024 * 1024  # anything larger is a blob
# The server's own reservation must not depend on what happens to be free on the disk today.
MAX_STORE = 1024**4


def find_server(folder: Path | None = None) -> Path:
    """The program that the wheel puts beside this interpreter, or else one on the PATH."""
    beside = (folder or Path(sys.executable).parent) / "nats-server"
    if beside.is_file():
        return beside
    if folder is None and (found := shutil.which("nats-server")):
        return Path(found)
    raise StackError(
        f"The program nats-server is missing: it is neither in {beside.parent} nor on the PATH.",
        "Install it with `pip install 'finetrail[embedded]'`, "
        "or point FINETRAIL_NATS__URL at a server of your own.",
    )


async def answers(host: str, port: int) -> bool:
    """Whether a NATS server greets there."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        return (await asyncio.wait_for(reader.readline(), 2)).startswith(b"INFO ")
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()


def permissions(role: NatsRole, agent_id: str) -> dict[str, Any]:
    """What a role may do; everything else is refused. The README of a cluster can copy these."""
    match role:
        case "admin":
            return _allow(publish=[">"], subscribe=[">"])
        case "gateway":
            return {**_gateway(), **ANSWERING}
        case "handlers":
            return _handlers()
        case "projections":
            return _projections()
        case "delivery":
            return _delivery()
        case "agent":
            return _agent(agent_id)
        case "subscriber":
            return _subscriber()


def _gateway() -> dict[str, Any]:
    return _allow(
        publish=[
            "commands.gateway.>",
            "commands.operator.>",
            "telemetry.*.log.*.0",
            "infer.>",
            "control.>",
            "$JS.API.INFO",
            *_reading("EVENTS", "TELEMETRY", "DEAD"),
        ],
        subscribe=["_INBOX_gateway.>", "live.>", "presence.>", "serving.>", "tickets.>"],
    )


def _handlers() -> dict[str, Any]:
    return _allow(
        publish=[
            "events.>",
            "work.>",
            "commands.reaction.>",
            "dead.>",
            "retry.*",
            "_INBOX_gateway.>",
            "_INBOX_agent.>",
            "_INBOX_handlers.>",
            "$JS.API.DIRECT.GET.EVENTS",
            "$JS.API.DIRECT.GET.EVENTS.>",
            "$JS.API.DIRECT.GET.COMMANDS",
            "$JS.API.DIRECT.GET.COMMANDS.>",
            "$JS.API.CONSUMER.INFO.*.*",
            "$JS.API.CONSUMER.MSG.NEXT.*.*",
            "$JS.API.STREAM.INFO.EVENTS",
            # Log lines are followed to be archived.
            "$JS.API.STREAM.INFO.TELEMETRY",
            "$JS.API.CONSUMER.CREATE.TELEMETRY",
            "$JS.API.CONSUMER.CREATE.TELEMETRY.>",
            "$JS.API.CONSUMER.DELETE.TELEMETRY.*",
            "$JS.API.STREAM.MSG.GET.*",
            "$JS.API.STREAM.MSG.DELETE.COMMANDS",
            "$JS.API.STREAM.MSG.DELETE.WORK",
            "$JS.API.STREAM.MSG.DELETE.DEAD",
            "$JS.ACK.>",
        ],
        subscribe=["_INBOX_handlers.>", "presence.>", "$JS.EVENT.ADVISORY.CONSUMER.>"],
    )


def _projections() -> dict[str, Any]:
    consumers = [
        f"$JS.API.CONSUMER.{verb}.{stream}.{rest}"
        for stream in ("EVENTS", "TELEMETRY")
        for verb, rest in (("CREATE", ">"), ("INFO", "*"), ("MSG.NEXT", "*"), ("DELETE", "*"))
    ]
    unnamed = ["$JS.API.CONSUMER.CREATE.EVENTS", "$JS.API.CONSUMER.CREATE.TELEMETRY"]
    feed = ["feed.>", "$JS.API.STREAM.INFO.FEED", "$JS.API.STREAM.MSG.GET.FEED"]
    return _allow(
        publish=[*_reading("EVENTS", "TELEMETRY"), *consumers, *unnamed, *feed, "$JS.ACK.>"],
        subscribe=["_INBOX_projections.>"],
    )


def _delivery() -> dict[str, Any]:
    """Telling webhooks: reads events, and may disable a webhook and put a delivery aside."""
    return _allow(
        publish=["commands.delivery.*.webhook.*", "dead.webhooks.>", *_reading("EVENTS")],
        subscribe=["_INBOX_delivery.>", "live.events.>"],
    )


def _agent(agent_id: str) -> dict[str, Any]:
    consumer = f"WORK.agent-{agent_id}"
    allowed = _allow(
        publish=[
            f"commands.{agent_id}.>",
            f"presence.{agent_id}",
            f"telemetry.*.*.*.*.{agent_id}",
            "serving.*",
            f"tickets.*.{agent_id}",
            f"$JS.API.CONSUMER.INFO.{consumer}",
            f"$JS.API.CONSUMER.MSG.NEXT.{consumer}",
            f"$JS.ACK.{consumer}.>",
        ],
        # Only as one of the queue: an agent hears the requests that it is to answer, no others.
        subscribe=[f"_INBOX_agent.{agent_id}.>", f"infer.> {SERVING_QUEUE}", "control.>"],
    )
    return {**allowed, **ANSWERING}


def _subscriber() -> dict[str, Any]:
    """Other systems: consumers of their own on what is open to them, with any client's inbox."""
    allowed = [
        f"{prefix}.{stream}{rest}"
        for stream in ("FEED", "TELEMETRY")
        for prefix, rest in (
            (f"$JS.{DOMAIN}.API.STREAM.INFO", ""),
            (f"$JS.{DOMAIN}.API.DIRECT.GET", ""),
            (f"$JS.{DOMAIN}.API.DIRECT.GET", ".>"),
            (f"$JS.{DOMAIN}.API.CONSUMER.CREATE", ""),
            (f"$JS.{DOMAIN}.API.CONSUMER.CREATE", ".>"),
            (f"$JS.{DOMAIN}.API.CONSUMER.DURABLE.CREATE", ".*"),
            (f"$JS.{DOMAIN}.API.CONSUMER.INFO", ".*"),
            (f"$JS.{DOMAIN}.API.CONSUMER.MSG.NEXT", ".*"),
            (f"$JS.{DOMAIN}.API.CONSUMER.DELETE", ".*"),
            ("$JS.ACK", ".>"),
            ("$JS.FC", ".>"),
        )
    ]
    return _allow(publish=allowed, subscribe=["_INBOX.>"])


def _reading(*streams: str) -> list[str]:
    return [
        subject
        for stream in streams
        for subject in (
            f"$JS.API.DIRECT.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}.>",
            f"$JS.API.STREAM.INFO.{stream}",
        )
    ]


def _allow(*, publish: Sequence[str], subscribe: Sequence[str]) -> dict[str, Any]:
    return {"publish": {"allow": list(publish)}, "subscribe": {"allow": list(subscribe)}}
