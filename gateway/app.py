"""The application: every route, its dependencies, and what holds for all of them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

from litestar import Litestar, Request, Response, Router
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers.base import BaseRouteHandler
from litestar.types import ASGIApp, ControllerRouterHandler, Receive, Scope, Send

from gateway.addresses import Addresses
from gateway.administration import AgentsController, KeyMaker, KeysController
from gateway.agent_blobs import AgentBlobs, AgentBlobsController, Uploads
from gateway.as_of import Past, past_is_known, provide_listed, provide_shown
from gateway.authentication import Middleware, access_control
from gateway.commanding import Commands, provide_caller
from gateway.datasets import DatasetsController, Intake
from gateway.dead_letters import DeadLettersController, Letters
from gateway.diff import DiffController
from gateway.evaluations import EvaluationsController
from gateway.events import EventsController, JobEventsController
from gateway.fleet import Presences
from gateway.following import Streams
from gateway.front import LOOPBACK, front
from gateway.health import HealthController, readiness
from gateway.hub import Hub
from gateway.inference import Catalog
from gateway.job_logs import JobLogsController
from gateway.jobs import JobsController
from gateway.joining import Joining, JoiningController
from gateway.keyring import Keyring
from gateway.links import Linker, LinksController
from gateway.log_archive import LogArchive
from gateway.log_chunks import ChunkIntake, LogChunksController
from gateway.metrics import page
from gateway.models import ModelsController
from gateway.monitoring import Exposition, MetricsController, RequestsController
from gateway.notifications import Notifications, NotificationsController
from gateway.observing import observed
from gateway.openai_api import errors as openai_errors
from gateway.openai_api.generating import Generator
from gateway.openai_api.models import Models
from gateway.openai_api.routes import Answering, openai_router
from gateway.openapi import SchemaController, description_of, openapi_config
from gateway.people import Holdings, PeopleController
from gateway.ports import (
    Blobs,
    CommandBus,
    Feed,
    Inference,
    PersonKeys,
    ReadMarks,
    RequestStore,
    Sealer,
    WebhookSender,
    WebhookStore,
)
from gateway.predicting import Predictor
from gateway.problems import Problem, as_response
from gateway.queueing import QueueController, Waits
from gateway.request_statistics import RequestStatistics
from gateway.schema_routes import PublishedController
from gateway.sealing import Sealing
from gateway.sse import EventStreams
from gateway.strict_json import StrictRequest
from gateway.tickets import Tickets, ticket_key
from gateway.webhook_care import WebhookCare
from gateway.webhooks import WebhooksController
from gateway.why import Reasons, WhyController
from projections.queries import Queries

MAX_BODY_BYTES: Final = 16 * 1024 * 1024  # of JSON: 256 texts of 20,000 characters fit, escaped
OWN: Final = "gateway"  # in a request's state: what belongs to the gateway that it has come to
GUARD: Final = "guard"
JSON: Final = frozenset({"application/json"})
API_ROUTES: Final[Sequence[ControllerRouterHandler]] = (
    DatasetsController,
    LinksController,
    JobsController,
    JobLogsController,
    LogChunksController,
    JobEventsController,
    ModelsController,
    EvaluationsController,
    EventsController,
    DiffController,
    WhyController,
    KeysController,
    PeopleController,
    AgentsController,
    JoiningController,
    AgentBlobsController,
    QueueController,
    RequestsController,
    DeadLettersController,
    WebhooksController,
    NotificationsController,
)


@dataclass(frozen=True, slots=True)
class Config:
    """What the gateway is told about itself."""

    workspace: str
    pepper: bytes  # what the hashes of keys depend on
    max_upload_bytes: int
    allowed_hosts: Sequence[str] = LOOPBACK
    link_minutes: int = 15  # that a link is good for when nobody says
    public_url: str | None = None  # where others reach it; the host they name if not set
    record_addresses: bool = True  # of clients, with what their requests led to
    trusted_proxies: Sequence[str] = ()  # whose word on a client's address is taken
    private_webhooks: bool = False  # whether webhooks may be at addresses of this network
    nats_url: str = "nats://127.0.0.1:4222"  # what agents that join are told; see `gateway.joining`
    replica_lag_s: float = 0.0  # how far a replica of the log may be behind; 0 where there is one
    heartbeat_s: float = 15.0  # proxies close connections that are silent for a minute
    ping_s: float = 10.0  # while a model is silent; people wait for its first word


class Gateway:
    """The application and the two tasks it needs: following the log, and the keys in it."""

    def __init__(
        self,
        config: Config,
        *,
        bus: CommandBus,
        queries: Queries,
        feed: Feed,
        blobs: Blobs,
        inference: Inference,
        requests: RequestStore,
        webhooks: WebhookStore,
        sender: WebhookSender,
        marks: ReadMarks,
        person_keys: PersonKeys,
        sealer: Sealer,
        metrics: Callable[[], bytes] = page,
    ) -> None:
        workspace = config.workspace
        self.statistics = RequestStatistics(requests)
        self.hub = Hub(feed)
        self.keyring = Keyring(self.hub, feed, workspace)
        self.readiness = readiness(feed, queries, self.keyring)
        self.catalog = Catalog(queries, workspace)
        self.presences = Presences()
        tickets = Tickets(ticket_key(config.pepper))
        self.agent_blobs = AgentBlobs(queries, feed, blobs, tickets, workspace)
        self.generator = Generator(inference)
        models = Models(self.catalog, workspace)
        sealing = self.sealing = Sealing(person_keys, sealer, queries, workspace)
        commands = Commands(bus, queries, sealing, workspace)
        streams = EventStreams(self.hub, feed, config.heartbeat_s, config.replica_lag_s)
        archive = LogArchive(feed, blobs, workspace)
        given = {
            "workspace": workspace,
            "queries": queries,
            "feed": feed,
            "blobs": blobs,
            "commands": commands,
            "sealing": sealing,
            "holdings": Holdings(queries, sealing, workspace),
            "addresses": Addresses(config.trusted_proxies, recorded=config.record_addresses),
            "reasons": Reasons(queries, feed, sealing, workspace),
            "past": Past(queries, feed, workspace),
            "streams": Streams(streams, self.keyring),
            "intake": Intake(
                blobs,
                commands,
                queries,
                self.hub,
                sealing,
                workspace=workspace,
                max_bytes=config.max_upload_bytes,
            ),
            "fleet": self.presences,
            "waits": Waits(queries, workspace),
            "joining": Joining(config.pepper, bus, workspace, config.nats_url, config.public_url),
            "uploads": Uploads(tickets, blobs),
            "linker": Linker(
                tickets,
                commands,
                blobs,
                feed,
                sealing,
                workspace,
                config.link_minutes,
                config.public_url,
            ),
            "predictor": Predictor(inference, queries, workspace),
            "openai_models": models,
            "answering": Answering(models, self.generator, self.keyring, workspace, config.ping_s),
            "maker": KeyMaker(config.pepper, self.keyring, workspace),
            "readiness": self.readiness,
            "statistics": self.statistics,
            "exposition": Exposition(metrics),
            "letters": Letters(feed, workspace),
            "notifications": Notifications(queries, Letters(feed, workspace), marks, workspace),
            "care": WebhookCare(
                webhooks, sender, config.pepper, allow_private=config.private_webhooks
            ),
            "log_archive": archive,
            "chunk_intake": ChunkIntake(feed, blobs, archive, commands, workspace),
        }

        guard = access_control(self.keyring, config.pepper)
        self.litestar = _litestar(frozenset(given))
        own = {**given, GUARD: guard}

        async def of_this_gateway(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("state", {})[OWN] = own
            await self.litestar(scope, receive, send)

        fronted = front(of_this_gateway, config.allowed_hosts)
        self.app: ASGIApp = observed(fronted, workspace, self.statistics.observe)

    async def run(self) -> None:
        """Follow the log and the keys in it, and keep statistics, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.hub.run(), name="hub")
            tasks.create_task(self.keyring.run(), name="keyring")
            tasks.create_task(self.statistics.run(), name="request statistics")

    def drain(self) -> None:
        """Say no to new traffic and end every stream; clients come back with their last id."""
        self.readiness.drain()
        self.generator.drain()
        self.hub.close()


@cache
def _litestar(given: frozenset[str], *, described: bool = False) -> Litestar:
    """The routes, put together once for all gateways of a process, which takes a fifth of a second.

    What each gateway gives to them comes with every request. ``described`` is a copy that is only
    asked what it is.
    """

    def description() -> bytes:
        return _description(given)

    extra = {} if described else {"description": Provide(description, sync_to_thread=True)}
    undescribed = [] if described else [SchemaController]
    system = [HealthController, MetricsController, PublishedController, *undescribed]
    return Litestar(
        [Router("/api/v1", route_handlers=API_ROUTES), openai_router(), *system],
        dependencies={
            "caller": Provide(provide_caller, sync_to_thread=False),
            "shown": Provide(provide_shown),
            "listed": Provide(provide_listed),
            **{name: _given(name) for name in sorted(given)},
            **extra,
        },
        middleware=[] if described else [_guarded],
        guards=[json_only, past_is_known],
        request_class=StrictRequest,
        exception_handlers={Exception: _as_error},
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=openapi_config() if described else None,
        logging_config=None,
        debug=False,
    )


@cache
def _description(given: frozenset[str]) -> bytes:
    return description_of(partial(_litestar, given, described=True))


def _guarded(app: ASGIApp) -> ASGIApp:
    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        guard: Middleware = scope["state"][OWN][GUARD]
        await guard(app)(scope, receive, send)

    return guarded


def _as_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    if openai_errors.speaks_openai(request.scope["path"]):
        return openai_errors.as_response(request, error)
    return as_response(request, error)


def _given(name: str) -> Provide:
    def provide(scope: Scope) -> Any:
        return scope["state"][OWN][name]

    return Provide(provide, sync_to_thread=False)


def json_only(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A form that a browser would send without asking us first is not taken for JSON."""
    if handler.opt.get("any_body"):
        return
    media_type = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in JSON:
        raise Problem(
            "unsupported_media_type", "Send the body as application/json.", supported=sorted(JSON)
        )
