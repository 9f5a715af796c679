"""What is flat and what is not: planted leaks are found, noise and restarts are not taken for leaks."""

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak.rules import COUNTS, MORE, OURS, ROLES, Spans, judged, unexplained
from tests.soak.verdict import (
    HOUR_S,
    MIB,
    Bound,
    Point,
    at_rest,
    judge,
    judge_rest,
    judge_whole,
    slope,
    within_lives,
)

BOUND = Bound(per_hour=48 * MIB, noise=8 * MIB)
EVERY_S = 6.0  # half as many samples as a run takes
HALF_S, END_S = 900.0, 1800.0
SPANS = Spans((30.0, 60.0), (END_S - 60, END_S), HALF_S)
Shape = Callable[[float, float], float]


def sampled(value: Shape, deaths: tuple[float, ...] = (), until: float = END_S) -> list[Point]:
    """``value`` of the time and of the age, every few seconds, with a process that dies at these times."""
    points, at = [], 0.0
    while at <= until:
        born = max((death for death in deaths if death <= at), default=0.0)
        life = sum(death <= at for death in deaths)
        points.append(Point(at, life, at - born, value(at, at - born)))
        at += EVERY_S
    return points


def deaths_every(seconds: float, until: float = END_S * 0.75) -> tuple[float, ...]:
    return tuple(seconds * n for n in range(1, int(until / seconds) + 1))


def noise(seed: int, size: float) -> Iterator[float]:
    chance = random.Random(seed)
    while True:
        yield chance.uniform(-size, size)


@given(
    level=st.floats(10 * MIB, 500 * MIB), seed=st.integers(0, 1000), lasts=st.floats(60.0, 400.0)
)
@settings(max_examples=30, deadline=None)
def test_a_level_with_noise_is_flat_however_often_the_process_dies(
    level: float, seed: int, lasts: float
) -> None:
    ripple = noise(seed, 2 * MIB)

    trend = judge("x", sampled(lambda *_: level + next(ripple), deaths_every(lasts)), BOUND, HALF_S)

    assert trend.wrong == ()


@given(per_hour=st.floats(120 * MIB, 2000 * MIB), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_what_a_process_loses_while_it_lives_is_found_though_deaths_give_it_back(
    per_hour: float, seed: int
) -> None:
    ripple = noise(seed, MIB)

    def leaking(_: float, age: float) -> float:
        return 80 * MIB + age / HOUR_S * per_hour + next(ripple)

    trend = judge("x", sampled(leaking, deaths_every(100.0)), BOUND, HALF_S)

    assert trend.within_per_hour == pytest.approx(per_hour, rel=0.2)
    assert any("while it lives" in wrong for wrong in trend.wrong)


@given(per_hour=st.floats(120 * MIB, 2000 * MIB), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_what_each_new_process_begins_with_more_of_is_found(per_hour: float, seed: int) -> None:
    ripple, deaths = noise(seed, MIB), deaths_every(70.0, until=END_S)

    def inheriting(at: float, age: float) -> float:
        return 80 * MIB + (at - age) / HOUR_S * per_hour + next(ripple)

    trend = judge("x", sampled(inheriting, deaths), BOUND, HALF_S)

    assert any("from life to life" in wrong for wrong in trend.wrong)


def test_what_fills_up_in_the_first_minute_of_a_life_is_no_leak() -> None:
    def warming(_: float, age: float) -> float:
        return 80 * MIB + min(age, 50.0) * MIB

    assert judge("x", sampled(warming, deaths_every(110.0)), BOUND, HALF_S).wrong == ()


def test_what_goes_up_and_comes_down_again_is_no_leak() -> None:
    def collected(_: float, age: float) -> float:
        return 80 * MIB + (age % 45.0) * MIB

    assert judge("x", sampled(collected), BOUND, HALF_S).wrong == ()


def test_a_run_too_short_to_tell_says_so_and_is_no_leak() -> None:
    trend = judge("x", sampled(lambda at, _: at * MIB, until=90.0), BOUND, 45.0)

    assert (trend.within_per_hour, trend.between_per_hour, trend.wrong) == (None, None, ())


def test_a_fifth_of_wild_samples_moves_no_trend() -> None:
    def wild(at: float, _: float) -> float:
        return 1000 * MIB if at % 15 == 0 else 80 * MIB

    assert judge("x", sampled(wild), BOUND, HALF_S).wrong == ()


@given(st.floats(-1e6, 1e6), st.floats(-1e3, 1e3))
def test_the_slope_of_a_line_is_its_slope(begin: float, rise: float) -> None:
    line = [(float(x), begin + rise * x) for x in range(5)]

    assert slope(list(pairwise(line))) == pytest.approx(rise, abs=1e-6)


def test_there_is_no_slope_without_points() -> None:
    assert slope([]) is None
    assert within_lives([]) == (None, 0.0)
    assert slope([((1.0, 1.0), (1.0, 9.0))]) is None


def test_a_disk_that_fills_is_found_by_the_least_of_each_window() -> None:
    def breathing(at: float, _: float) -> float:  # a rebuild doubles it for a moment
        return at / HOUR_S * 200 * MIB + (500 * MIB if at % 60 < 25 else 0)

    found = judge_whole("x", sampled(breathing), BOUND, HALF_S)
    still = judge_whole("x", sampled(lambda at, _: 5 * MIB * (at % 60 < 25)), BOUND, HALF_S)

    assert any("from life to life" in wrong for wrong in found.wrong)
    assert still.wrong == ()


def test_at_rest_it_must_be_back_where_it_was() -> None:
    points = sampled(lambda at, _: 7 if at < 100 else 9 + (at % 12 == 0))

    assert at_rest(points, SPANS.after) == 9
    assert judge_rest("tasks", points, SPANS.before, SPANS.after, 2) == []
    (wrong,) = judge_rest("tasks", points, SPANS.before, SPANS.after, 1)
    assert wrong == "tasks was 7 at rest before the load and 9 after it"
    (unseen,) = judge_rest("tasks", points[:100], SPANS.before, SPANS.after, 1)
    assert unseen == "tasks was not seen at rest after the load"


def flat_run() -> dict[tuple[str, str], list[Point]]:
    """What a run of which nothing can be said would have sampled."""
    measures = {(role, measure) for role, its in MORE.items() for measure in its}
    measures |= {(role, measure) for role in OURS for measure in COUNTS}
    measures |= {(role, "memory") for role in ROLES}
    measures |= {("nats", "fds"), ("nats", "connections"), ("log", "bytes"), ("log", "events")}
    measures |= {("log", "telemetry"), ("disk", "nats bytes"), ("database", "bytes")}
    return {one: sampled(lambda *_: 5.0) for one in measures}


def test_a_run_in_which_nothing_changes_is_flat() -> None:
    assert judged(flat_run(), SPANS).wrong == []


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_leak_planted_anywhere_is_found(data: st.DataObject) -> None:
    series = flat_run()
    judged_ones = [one for one in series if one not in {("log", name) for name in EXPLAINING}]
    planted = data.draw(st.sampled_from(sorted(judged_ones)))

    series[planted] = sampled(lambda at, _: 5.0 + at * MIB)

    assert any(planted[0] in wrong for wrong in judged(series, SPANS).wrong), planted


EXPLAINING = ("bytes", "events", "telemetry")  # that these grow is what the disk grows by


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_what_was_never_sampled_is_not_flat(data: st.DataObject) -> None:
    series = flat_run()
    missing = data.draw(st.sampled_from(sorted(series)))

    del series[missing]

    assert judged(series, SPANS).wrong, missing


def test_files_that_grow_by_what_the_log_holds_are_explained() -> None:
    series = flat_run()
    series["log", "bytes"] = sampled(lambda at, _: at * 2.0 * MIB / 60)
    series["disk", "nats bytes"] = sampled(lambda at, _: at * 2.1 * MIB / 60)

    assert judged(series, SPANS).wrong == []
    rest = unexplained(series)["nats beside messages"]
    assert rest[-1].value == pytest.approx(END_S * 0.1 * MIB / 60, rel=0.1)
