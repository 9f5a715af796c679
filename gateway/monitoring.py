"""How this gateway does, over HTTP: its metrics now, and its requests over time."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated, Final

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from domain.request_figures import RequestFigures
from gateway.problems import Problem, invalid
from gateway.request_statistics import MINUTE_S, RequestStatistics, quantile_s

DEFAULT_SPAN: Final = timedelta(hours=1)
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9998  # the other end of a span, and another time zone, still have a name
MAX_POINTS: Final = 1500  # of a graph; a day by minutes has 1,440
STEPS: Final = 60  # of a graph whose step is left out

# Text: of what cannot be read the framework would name our variable, not the parameter.
From = Annotated[str | None, QueryParameter(name="from", format="date-time", description="An hour before `to` if left out.")]  # fmt: skip
To = Annotated[str | None, QueryParameter(name="to", format="date-time", description="Now if left out.")]  # fmt: skip
Route = Annotated[str | None, QueryParameter(max_length=200, description="One route, as `/api/v1/jobs/{job_id}`.")]  # fmt: skip
Step = Annotated[int | None, QueryParameter(ge=MINUTE_S, le=30 * 86400, description="Seconds that one figure stands for, in whole minutes; suits the span if left out.")]  # fmt: skip


class Requests(msgspec.Struct):
    """Requests to one route with one class of status in `step_s` seconds from `time` on."""

    time: datetime
    method: str
    route: str
    status: str
    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float


class RequestsOverTime(msgspec.Struct):
    """Oldest first; a time without requests has no item. Quantiles are read off buckets."""

    since: datetime
    until: datetime
    step_s: int
    items: list[Requests]


class Exposition:
    """The text that Prometheus asks for."""

    def __init__(self, page: Callable[[], bytes]) -> None:
        self.page = page


class MetricsController(Controller):
    path = "/metrics"
    tags = ("system",)

    @get("/")
    async def metrics(self, exposition: NamedDependency[Exposition]) -> Response[bytes]:
        """What the gateway's process counts, in Prometheus' text format."""
        text = await asyncio.to_thread(exposition.page)  # it reads files of the system, too
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


class RequestsController(Controller):
    path = "/admin/requests"
    tags = ("admin",)

    @get("/")
    async def requests(
        self,
        statistics: NamedDependency[RequestStatistics],
        since: From = None,
        until: To = None,
        route: Route = None,
        step: Step = None,
    ) -> RequestsOverTime:
        """Requests, latency and status by route over time, of all gateways together; kept for 30 days."""
        first, last, step_s = _span(since, until, step)
        await statistics.flush()
        try:
            found = await statistics.store.read(first, last, step_s, route)
        except ConnectionError as error:
            raise Problem(
                "statistics_unavailable", "The request statistics cannot be read now."
            ) from error
        return RequestsOverTime(first, last, step_s, [_answer(one) for one in found])


def _span(since: str | None, until: str | None, step: int | None) -> tuple[datetime, datetime, int]:
    last = datetime.now(UTC) if until is None else _time(until, "to")
    first = last - DEFAULT_SPAN if since is None else _time(since, "from")
    first = first.replace(second=0, microsecond=0)
    if first >= last:
        raise invalid("from", "it is not before `to`")
    seconds = (last - first).total_seconds()
    step_s = _whole_minutes(step or seconds / STEPS)
    if seconds / step_s > MAX_POINTS:
        least = _whole_minutes(seconds / MAX_POINTS)
        raise invalid("step", f"so long a time takes steps of at least {least} seconds")
    return first, last, step_s


def _whole_minutes(seconds: float) -> int:
    """As many seconds or more, in whole minutes."""
    return MINUTE_S * ceil(seconds / MINUTE_S)


def _time(text: str, name: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(name, "it is no time such as 2026-11-20T17:43:05Z") from None
    if time.tzinfo is None:
        raise invalid(name, "it has no time zone, such as Z")
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise invalid(name, f"its year is not within {FIRST_YEAR} and {LAST_YEAR}")
    return time.astimezone(UTC)


def _answer(found: RequestFigures) -> Requests:
    buckets, slowest_s = tuple(found.buckets), found.slowest_s
    return Requests(
        time=found.time,
        method=found.method,
        route=found.route,
        status=found.status,
        count=found.count,
        mean_ms=_ms(found.seconds / found.count),
        p50_ms=_ms(quantile_s(buckets, slowest_s, 0.5)),
        p95_ms=_ms(quantile_s(buckets, slowest_s, 0.95)),
        max_ms=_ms(slowest_s),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
