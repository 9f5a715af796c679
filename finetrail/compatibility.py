"""Asks the log, before a role touches it, whether a newer build has used it."""

import json
import logging
from typing import Final

from nats.errors import Error as NatsError

from adapters.nats_connection import close, connect
from finetrail.settings import NatsRole, Settings
from finetrail.stack.data_format import check_stream

ASK_S: Final = 5.0
# Agents cannot ask: they reach nothing of the log, and say what they have to say by commands.
LOGINS: Final[dict[str, NatsRole]] = {
    "core": "handlers",
    "gateway": "gateway",
    "handlers": "handlers",
    "projections": "projections",
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
        reply = await nc.request("$JS.API.STREAM.INFO.EVENTS", b"{}", timeout=ASK_S)
    except NatsError as error:
        # The role itself waits for the log, or says what is wrong with its login.
        _log.warning("the log does not say which build has used it: %s", error)
        return
    finally:
        await close(nc)
    config = json.loads(reply.data).get("config", {})  # without one there is no log yet
    check_stream(config.get("metadata", {}), f"The log at {login.url}")
