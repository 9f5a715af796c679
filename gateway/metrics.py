"""What a gateway counts for Prometheus; labels are route templates and classes, never ids."""

from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Of answers, in seconds: from a health check to an upload. Request statistics use the same.
BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip

REGISTRY: Final = CollectorRegistry()
REQUESTS: Final = Counter(
    "finetrail_http_requests",
    "Answered requests.",
    ("method", "route", "status"),
    registry=REGISTRY,
)
REQUEST_SECONDS: Final = Histogram(
    "finetrail_http_request_seconds",
    "Time to the end of an answer, or to the beginning of a stream of events.",
    ("method", "route", "status_class"),
    buckets=BUCKETS_S,
    registry=REGISTRY,
)
OPEN_STREAMS: Final = Gauge(
    "finetrail_http_streams_open", "Streams of events that clients read now.", registry=REGISTRY
)
STREAM_MESSAGES: Final = Counter(
    "finetrail_http_stream_messages",
    "Messages sent in streams of events, by the stream they come from.",
    ("log",),
    registry=REGISTRY,
)
ADDRESSES_LEFT_OUT: Final = Counter(
    "finetrail_addresses_left_out",
    "Requests whose client's address was not recorded: it could not be sealed.",
    registry=REGISTRY,
)


def page() -> bytes:
    return generate_latest(REGISTRY)


@lru_cache(maxsize=4096)  # there are fewer, and looking labels up costs more than counting
def request_figures(
    method: str, route: str, status: str, status_class: str
) -> tuple[Counter, Histogram]:
    return (
        REQUESTS.labels(method, route, status),
        REQUEST_SECONDS.labels(method, route, status_class),
    )
