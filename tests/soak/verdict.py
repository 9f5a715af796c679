"""Whether what was sampled over a long run stays flat: rules that can fail, as functions of the samples alone.

Growth is judged twice, by the median of all slopes between two samples (Theil and Sen), which a fifth of
wild ones does not move: within the lives of a process, once it is warm, and from life to life, between
the least that each has had. What a run is too short to tell is said to be unknown, and is no growth.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from typing import Any, Final

HOUR_S: Final = 3600.0
MIB: Final = 1024.0 * 1024.0
WARM_S: Final = 60.0  # caches and pools of a process fill in less
BORN_S: Final = 15.0  # after which it has read what it begins with
ENOUGH: Final = 100  # samples of one life; their pairs tell as much as all of them
APART_S: Final = 15.0  # nearer samples say more of the moment than of the trend
LIVES: Final = 4  # fewer have no trend
LONG_S: Final = 75.0  # of one life, once it is warm; shorter ones have no trend either
WINDOW_S: Final = 30.0  # of what has no lives, the least is taken of each


@dataclass(frozen=True, slots=True)
class Point:
    at: float  # seconds since the run began
    life: int  # of the process; another number after each death
    age: float  # seconds since that life was first seen
    value: float


Series = Sequence[Point]


@dataclass(frozen=True, slots=True)
class Bound:
    """Growth is a leak when it is faster than ``per_hour`` and came to more than ``noise``."""

    per_hour: float
    noise: float


@dataclass(frozen=True, slots=True)
class Trend:
    """One series: its first and last floor, how fast it grows, and what is wrong with that."""

    first: float
    last: float
    most: float
    within_per_hour: float | None  # None: too short to tell
    between_per_hour: float | None
    wrong: tuple[str, ...]


@dataclass(slots=True)
class Verdict:
    trends: dict[str, dict[str, Trend]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def flat(self) -> bool:
        return not self.wrong


def slope(pairs: Sequence[tuple[tuple[float, float], tuple[float, float]]]) -> float | None:
    """The median of the slopes between two points each; None where there are none."""
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs if x2 > x1]
    return statistics.median(slopes) if slopes else None


def within_lives(series: Series) -> tuple[float | None, float]:
    """How fast it grows while a process lives, by the second; and what that comes to in the longest life."""
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    longest = 0.0
    for life in _lives(series):
        warm = [point for point in life if point.age >= WARM_S]
        if not warm or warm[-1].age - warm[0].age < LONG_S:
            continue
        longest = max(longest, warm[-1].age - warm[0].age)
        warm = warm[:: len(warm) // ENOUGH + 1]
        pairs += [
            ((one.at, one.value), (other.at, other.value))
            for one, other in combinations(warm, 2)
            if other.at - one.at >= APART_S
        ]
    found = slope(pairs)
    return found, (found or 0.0) * longest


def floors(series: Series, born_s: float = BORN_S) -> list[tuple[float, float]]:
    """When each life began, and the least that it has had since it was all there."""
    found = []
    for life in _lives(series):
        born = [point.value for point in life if point.age >= born_s]
        if born:
            found.append((life[0].at, min(born)))
    return found


def between_lives(least: Sequence[tuple[float, float]], since: float) -> tuple[float | None, float]:
    """How fast the floors rise from ``since`` on, by the second; and what that came to."""
    late = [one for one in least if one[0] >= since]
    if len(late) < LIVES:
        return None, 0.0
    found = slope(list(combinations(late, 2)))
    return found, (found or 0.0) * (late[-1][0] - late[0][0])


def judge(name: str, series: Series, bound: Bound, since: float) -> Trend:
    """What has lives: a figure of a process."""
    return _judged(name, series, floors(series), within_lives(series), bound, since)


def judge_whole(name: str, series: Series, bound: Bound, since: float) -> Trend:
    """What outlives processes: bytes on a disk, by the least of each window."""
    windows = [Point(point.at, int(point.at // WINDOW_S), 0.0, point.value) for point in series]
    return _judged(name, series, floors(windows, 0.0), (None, 0.0), bound, since)


def at_rest(series: Series, span: tuple[float, float]) -> float | None:
    """The least within a time in which nobody asked for anything."""
    found = [point.value for point in series if span[0] <= point.at <= span[1]]
    return min(found) if found else None


def judge_rest(
    name: str, series: Series, before: tuple[float, float], after: tuple[float, float], more: float
) -> list[str]:
    """Whether at rest it is back where it was, up to ``more``."""
    first, last = at_rest(series, before), at_rest(series, after)
    if first is None or last is None:
        return [f"{name} was not seen at rest {'before' if first is None else 'after'} the load"]
    if last > first + more:
        return [f"{name} was {first:g} at rest before the load and {last:g} after it"]
    return []


def shown(trends: Mapping[str, Mapping[str, Trend]]) -> dict[str, Any]:
    """For the report; slopes are by the hour."""
    return {
        role: {
            measure: {
                "first": round(trend.first, 1),
                "last": round(trend.last, 1),
                "most": round(trend.most, 1),
                "slope_within_lives": _rounded(trend.within_per_hour),
                "slope_between_lives": _rounded(trend.between_per_hour),
            }
            for measure, trend in its.items()
        }
        for role, its in trends.items()
    }


def _judged(
    name: str,
    series: Series,
    least: Sequence[tuple[float, float]],
    within: tuple[float | None, float],
    bound: Bound,
    since: float,
) -> Trend:
    between = between_lives(least, since)
    wrong = [
        f"{name} grows {where} by {rate * HOUR_S:,.1f} an hour (came to {grown:,.1f})"
        for where, (rate, grown) in {"while it lives": within, "from life to life": between}.items()
        if rate is not None and rate * HOUR_S > bound.per_hour and grown > bound.noise
    ]
    ends = [value for _, value in least] or [point.value for point in series]
    return Trend(
        first=ends[0],
        last=ends[-1],
        most=max(point.value for point in series),
        within_per_hour=None if within[0] is None else within[0] * HOUR_S,
        between_per_hour=None if between[0] is None else between[0] * HOUR_S,
        wrong=tuple(wrong),
    )


def _lives(series: Series) -> Iterable[list[Point]]:
    return [list(life) for _, life in groupby(series, key=lambda point: point.life)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
