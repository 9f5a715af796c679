"""Everything a person does with a server, one method each."""

from types import TracebackType
from typing import Final, Self

import httpx

from finetrail.client.chat import ChatCalls
from finetrail.client.datasets import DatasetCalls
from finetrail.client.dead_letters import DeadLetterCalls
from finetrail.client.jobs import JobCalls
from finetrail.client.log import LogCalls
from finetrail.client.monitoring import MonitoringCalls
from finetrail.client.notifications import NotificationCalls
from finetrail.client.past import PastCalls
from finetrail.client.people import PeopleCalls
from finetrail.client.queueing import QueueCalls
from finetrail.client.registry import RegistryCalls
from finetrail.client.transport import Transport
from finetrail.client.webhooks import WebhookCalls

DEFAULT_URL: Final = "http://127.0.0.1:8420"


class Client(
    DatasetCalls,
    JobCalls,
    RegistryCalls,
    ChatCalls,
    LogCalls,
    DeadLetterCalls,
    MonitoringCalls,
    PastCalls,
    PeopleCalls,
    WebhookCalls,
    NotificationCalls,
    QueueCalls,
):
    """A connection to one server as one API key; threads may share it.

    A call is tried again for ``patience_s`` where that is safe: reads, and writes, which carry an
    ``Idempotency-Key`` and so are done once however often they arrive.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str | None = None,
        *,
        patience_s: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(Transport(url, key, patience_s=patience_s, transport=transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def url(self) -> str:
        return self._transport.url
