"""What may grow and by how much: the bounds of a soak, each with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.soak.verdict import MIB, Bound, Point, Series, Trend, Verdict, judge, judge_rest
from tests.soak.verdict import judge_whole as whole

OURS: Final = ("gateway", "handlers", "projections", "delivery", "agent")
ROLES: Final = (*OURS, "nats", "postgres")

# Keys, webhooks and models are held in memory, so some growth is what was acknowledged; a kilobyte that
# is lost with each request comes to more than this.
OF_OURS: Final = Bound(per_hour=48 * MIB, noise=8 * MIB)
# Their garbage is collected in large strides, and what they cache is part of the log.
OF_SERVERS: Final = Bound(per_hour=160 * MIB, noise=48 * MIB)
# A rebuild folds 10,000 events at once, so what it takes grows with the log up to there: by 6 KB each.
OF_REBUILDS: Final = Bound(per_hour=48 * MIB, noise=64 * MIB)
MEMORY: Final = {
    **dict.fromkeys(OURS, OF_OURS),
    **dict.fromkeys(ROLES[-2:], OF_SERVERS),
    "projections": OF_REBUILDS,
}
COUNTED: Final = Bound(per_hour=60, noise=10)  # one a minute is one too many
COUNTS: Final = ("tasks", "fds", "threads", "connections")

# At rest, what is more than before the load. Pools keep what they had to open.
POOLS: Final = 14  # of queries and of webhooks, in a gateway
KEPT: Final = 16  # connections of a delivery: eight requests at once to each of two receivers
MORE: Final[Mapping[str, Mapping[str, float]]] = {
    "gateway": {"tasks": 4, "fds": POOLS + 4, "connections": POOLS, "threads": 8},
    "handlers": {"tasks": 4, "fds": 6, "connections": 2, "threads": 8},
    "projections": {"tasks": 4, "fds": 6, "connections": 2, "threads": 8},
    "delivery": {"tasks": 4, "fds": KEPT + 8, "connections": KEPT + 4, "threads": 8},
    "agent": {"tasks": 4, "fds": 8, "connections": 2, "threads": 8},
    "nats": {"fds": 4, "connections": 0, "threads": 8},
    "postgres": {"connections": POOLS + 4, "processes": POOLS + 4},
    "database": {"connections": POOLS + 4, "schemas": 40, "unread_schemas": 0},
    "log": {"consumers": 0},
    "disk": {"unfinished blobs": 0, "temporary files": 0, "attempt files": 0},
}
# A schema for each view is the most that single rebuilds can come to.

GROWING: Final = ("log", "database", "disk")  # whose figures are shown as they are

# What the log's bytes do not explain of NATS' files, and what events do not explain of the database.
UNEXPLAINED: Final = Bound(per_hour=128 * MIB, noise=24 * MIB)
ROW_BYTES: Final = 5 * 1024  # of an event in its rows, their history, the archive and the indexes
STEP_BYTES: Final = 512  # of a telemetry message


@dataclass(frozen=True, slots=True)
class Spans:
    """When nobody asked for anything, before and after the load; and from when on trends count."""

    before: tuple[float, float]
    after: tuple[float, float]
    half: float


def judged(series: Mapping[tuple[str, str], Series], spans: Spans) -> Verdict:
    """Everything that was sampled; what should have been and was not is wrong, too."""
    verdict = Verdict()
    bounds = {(role, "memory"): MEMORY[role] for role in ROLES}
    bounds |= {(role, name): COUNTED for role in OURS for name in COUNTS}
    bounds |= {("nats", name): COUNTED for name in ("fds", "connections")}
    for (role, measure), bound in bounds.items():
        _take(verdict, role, measure, series.get((role, measure), ()), bound, spans)
    for name, rest in unexplained(series).items():
        _take(verdict, "disk", name, rest, UNEXPLAINED, spans, lives=False)
    for (role, measure), points in series.items():
        if role in GROWING and points:
            ends = Trend(
                points[0].value, points[-1].value, max(p.value for p in points), None, None, ()
            )
            verdict.trends.setdefault(role, {})[measure] = ends
    for role, measures in MORE.items():
        for measure, more in measures.items():
            points = series.get((role, measure), ())
            name = f"{role} {measure}"
            verdict.wrong += judge_rest(name, points, spans.before, spans.after, more)
    return verdict


def unexplained(series: Mapping[tuple[str, str], Series]) -> dict[str, list[Point]]:
    """Bytes on disks beside those that the log and its events account for."""
    stored, events = series.get(("log", "bytes"), ()), series.get(("log", "events"), ())
    telemetry = series.get(("log", "telemetry"), ())
    return {
        "nats beside messages": _less(series.get(("disk", "nats bytes"), ()), (stored, 1)),
        "database beside rows": _less(
            series.get(("database", "bytes"), ()), (events, ROW_BYTES), (telemetry, STEP_BYTES)
        ),
    }


def _less(points: Series, *explained: tuple[Series, float]) -> list[Point]:
    """Each point less what was last known of what explains it."""
    found = []
    for point in points:
        known = [(_until(series, point.at), factor) for series, factor in explained]
        rest = point.value - sum(value * factor for value, factor in known if value is not None)
        if all(value is not None for value, _ in known):
            found.append(Point(point.at, point.life, point.age, rest))
    return found


def _until(series: Series, at: float) -> float | None:
    before = [point.value for point in series if point.at <= at]
    return before[-1] if before else None


def _take(
    verdict: Verdict,
    role: str,
    measure: str,
    points: Sequence[Point],
    bound: Bound,
    spans: Spans,
    *,
    lives: bool = True,
) -> None:
    if not points:
        verdict.wrong.append(f"{role} {measure} was never seen")
        return
    trend: Trend = (judge if lives else whole)(f"{role} {measure}", points, bound, spans.half)
    verdict.trends.setdefault(role, {})[measure] = trend
    verdict.wrong += trend.wrong
