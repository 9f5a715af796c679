"""Asks the log, before a role touches it, whether a newer build has used it."""

import asyncio
import json
import logging
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from adapters.nats_connection import close, connect
from finetrail.settings import NatsRole, Settings
from finetrail.stack.data_format import check_stream

ASK_S: Final = 5.0
RETRY_S: Final = 0.5
NOT_FOUND: Final = 404
# Agents cannot ask: they reach nothing of the log, and say what they have to say by commands.
LOGINS: Final[dict[str, NatsRole]] = {
    "core": "handlers",
    "gateway": "gateway",
    "handlers": "handlers",
    "projections": "projections",
    "delivery": "delivery",
}

_log = logging.getLogger(__name__)


async def check_log(settings: Settings, role: str) -> None:
    """See that this build may serve this log; while NATS is away it is waited for.

    Raises:
        StackError: A newer build has used it.
    """
    if role not in LOGINS:
        return
    login = settings.nats_login(LOGINS[role])
    nc = await connect(
        login.url,
        user=login.user,
        password=login.password,
        name=f"finetrail {role}: compatibility",
        inbox_prefix=login.inbox_prefix,
    )
    try:
        metadata = await _metadata(nc)
    finally:
        await close(nc)
    check_stream(metadata, f"The log at {login.url}")


async def _metadata(nc: Client) -> dict[str, str]:
    """What the log says of itself; nothing where there is none yet.

    A server that was just started, or a cluster without a leader, cannot tell: it is asked again.
    """
    said = False
    while not nc.is_closed:
        try:
            reply = await nc.request("$JS.API.STREAM.INFO.EVENTS", b"{}", timeout=ASK_S)
            answer = json.loads(reply.data)
            refusal = answer.get("error")
            if refusal is None or refusal["code"] == NOT_FOUND:
                found: dict[str, str] = answer.get("config", {}).get("metadata", {})
                return found
            problem = refusal["description"]
        except NatsError as error:
            problem = repr(error)
        if not said:
            _log.warning("the log does not say yet which build has used it: %s", problem)
        said = True
        await asyncio.sleep(RETRY_S)
    return {}  # the role says itself what is wrong with its login
