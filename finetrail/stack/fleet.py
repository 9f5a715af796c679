"""Lets agents on other machines in and out: the NATS users and work consumers of those that have joined.

Whoever owns the server does this, for nobody else may: the supervisor of the embedded stack. It reads
the log, so what it missed while it was away it does when it is back.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from adapters.nats_feed import NatsFeed
from domain.agents.events import AgentJoined, AgentRevoked
from domain.agents.joining import user_key
from domain.catalog import UnknownType
from domain.errors import StoreUnavailable
from domain.messages import Event
from domain.wire import decode_recorded
from finetrail import bootstrap
from finetrail.settings import Settings
from finetrail.stack.errors import StackError

AGENT_EVENTS: Final = "events.*.agent.*"
PAGE: Final = 1000
LOOK_S: Final = 5.0  # looks at the log now and then, should the live copy have lost something
RETRY_S: Final = 1.0

Admit = Callable[[Mapping[str, str]], Awaitable[None]]

_log = logging.getLogger(__name__)


class Fleet:
    """Who has joined and was not revoked, as far as the log was read."""

    def __init__(self) -> None:
        self.joined: dict[str, str] = {}  # public key by agent
        self.revoked: set[str] = set()
        self._reached = 0

    async def read(self, nc: Client) -> None:
        """Take in what the log has new.

        Raises:
            StoreUnavailable: It cannot be read now.
        """
        feed, more = NatsFeed(nc), True
        while more:
            messages, more = await feed.page("EVENTS", AGENT_EVENTS, self._reached, PAGE)
            for message in messages:
                self._reached = message.sequence
                with contextlib.suppress(UnknownType):  # of a newer build, which has other rules
                    recorded = decode_recorded(
                        message.subject, message.sequence, message.headers, message.data
                    )
                    self._apply(recorded.event)

    def _apply(self, event: Event) -> None:
        if isinstance(event, AgentJoined):
            if user_key(event.public_key) is None:
                _log.error("agent %s has no key of a NATS user: it is not let in", event.agent_id)
                return
            # A machine that asked again with another token. The server takes no key twice: it would
            # refuse its whole configuration, now and at its next start.
            for agent_id, key in list(self.joined.items()):
                if key == event.public_key:
                    del self.joined[agent_id]
            self.joined[str(event.agent_id)] = event.public_key
        elif isinstance(event, AgentRevoked):
            self.joined.pop(str(event.agent_id), None)
            self.revoked.add(str(event.agent_id))


async def joined_agents(nc: Client) -> dict[str, str]:
    """Public keys by agent of all that have joined and were not revoked.

    Raises:
        StoreUnavailable: The log cannot be read.
    """
    fleet = Fleet()
    await fleet.read(nc)
    return fleet.joined


async def keep(settings: Settings, admit: Admit) -> None:
    """Keep consumers and, by ``admit``, the server's users as the log says, until cancelled.

    Args:
        admit: is given all public keys by agent whenever they have changed.
    """
    while True:
        try:
            async with bootstrap.admin_connection(settings) as nc:
                await _follow(nc, admit)
        except (StackError, StoreUnavailable, NatsError, OSError) as error:
            _log.debug("agents are looked after again soon: %s", error)
        await asyncio.sleep(RETRY_S)


async def _follow(nc: Client, admit: Admit) -> None:
    fleet, known, removed = Fleet(), None, set[str]()
    news = asyncio.Event()

    async def hear(_msg: Msg) -> None:
        news.set()

    await nc.subscribe(f"live.{AGENT_EVENTS}", cb=hear)
    while nc.is_connected:
        news.clear()
        await fleet.read(nc)
        if fleet.joined != known:
            for agent_id in fleet.joined.keys() - (known or {}).keys():
                await bootstrap.ensure_agent(nc, agent_id)
            known = dict(fleet.joined)
            await admit(known)
        for agent_id in fleet.revoked - removed:
            await bootstrap.remove_agent(nc, agent_id)
            removed.add(agent_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await news.wait()
