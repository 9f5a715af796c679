"""Kills every process again and again under load, and says what it has cost.

    python -m tests.crash.matrix [--moments 100] [--seed 0] [--report crashes.json]

Each moment is drawn from the seed: who dies, and how long after the last recovery. The last line is
one JSON object; the exit status is 1 when something was lost, doubled or differs.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from finetrail.settings import Settings, available_cores
from finetrail.stack.state import resolve_settings
from projections.projection import registry, step_metrics
from tests.crash.load import Acknowledged, Job, Jobs, Keys, Load, Reader, Uploads, acting, upload
from tests.e2e.harness import Stack, running_stack, wait_for
from tests.projections.support import all_rows, drop_everything

VICTIMS: Final = ("gateway", "handlers", "projections", "agent", "nats", "postgres", "everything")
TRAINING: Final = {"epochs": 2, "batch_size": 8, "checkpoint_every": 4, "max_length": 32}
ROWS_PER_LABEL: Final = 10
RECOVER_S: Final = 120.0
ARCHIVE_S: Final = 1.0  # often, so that deaths fall into it


@dataclass(frozen=True, slots=True)
class Moment:
    victim: str
    killed_at: float
    answers_s: float  # until a command sent after the kill was acknowledged and could be read
    works_s: float | None  # until the agent had caused another event; None if nobody waited


@dataclass
class Findings:
    """What is wrong, each with the time of what it is about."""

    lost: list[Acknowledged] = field(default_factory=list)
    doubled: list[tuple[float, str]] = field(default_factory=list)
    different: list[Job] = field(default_factory=list)
    stream: list[str] = field(default_factory=list)  # of readers: gaps, repeats
    views: list[str] = field(default_factory=list)  # tables that differ from a rebuild

    @property
    def any(self) -> bool:
        return bool(self.lost or self.doubled or self.different or self.stream or self.views)


class Matrix:
    """One stack under load, and the moments it has been through."""

    def __init__(self, stack: Stack, rows: bytes, seeds: int, *, wait_for_work: bool) -> None:
        self._stack = stack
        self._wait_for_work = wait_for_work
        self.load = Load(stack)
        dataset_id = stack.upload(rows)["id"]
        self.expected = {seed: self._undisturbed(dataset_id, seed) for seed in range(seeds)}
        self.jobs = Jobs(self.load, dataset_id, TRAINING, seeds)
        self.reader = Reader(self.load)
        self.moments: list[Moment] = []

    def _undisturbed(self, dataset_id: str, seed: int) -> str:
        body = {
            "model": "crash",
            "dataset_id": dataset_id,
            "seed": seed,
            "hyperparameters": TRAINING,
        }
        job_id = self._stack.post("/jobs", body)["id"]
        assert self._stack.evaluation_until_done(job_id)["status"] == "completed"
        return self._stack.adapter_sha256(job_id)

    @contextmanager
    def loaded(self) -> Iterator[None]:
        self.readers = (self.reader, Reader(self.load))
        uploads = (Uploads(self.load, "first"), Uploads(self.load, "second"))
        with acting(self.load, (self.jobs, *self.readers, Keys(self.load), *uploads)):
            wait_for("load", lambda: self.jobs.jobs and self.reader.last)
            yield
            self.jobs.wanted = False
            wait_for("the jobs' end", lambda: not self.jobs.unfinished, within_s=300, every_s=0.5)
            last = self._stack.events()[-1]["sequence"]
            wait_for("readers", lambda: min(reader.last for reader in self.readers) >= last)

    def kill(self, victim: str) -> None:
        """Kill it, and wait until everything is as if nothing had happened."""
        before = self.reader.last
        killed_at = time.monotonic()
        if victim == "everything":
            self._stack.kill_tree()
            self._stack.start()
        else:
            wait_for(victim, lambda: victim in self._stack.pids())
            self._stack.kill(victim)
        probe = upload(self.load, f"probe-{len(self.moments)}")
        wait_for("a read", lambda: self.load.get(f"/datasets/{probe['id']}"), within_s=RECOVER_S)
        answers_s = time.monotonic() - killed_at
        works_s = None
        if self._wait_for_work:
            wait_for("work", lambda: self.reader.agent_seen > before, within_s=RECOVER_S)
            works_s = time.monotonic() - killed_at
        self.moments.append(Moment(victim, killed_at, answers_s, works_s))

    def check(self) -> Findings:
        found = Findings()
        events = self._stack.events()
        self._check_commands(events, found)
        for job in self.jobs.jobs:
            found.doubled += [(job.submitted_at, what) for what in wrong_with(job.id, events)]
            if job.status != "succeeded" or (
                self._stack.adapter_sha256(job.id) != self.expected[job.seed]
            ):
                found.different.append(job)
        log = [event["sequence"] for event in events]
        for reader in self.readers:
            if reader.gaps or reader.ids != [one for one in log if one <= reader.last]:
                found.stream.append(told(reader.ids, log, reader.gaps))
        found.views = self._check_views()
        return found

    def _check_commands(self, events: list[Any], found: Findings) -> None:
        names = {"KeyIssued": "name", "DatasetRegistered": "name", "JobSubmitted": "job_id"}
        stand = Counter(
            (event["type"], event["data"][names[event["type"]]])
            for event in events
            if event["type"] in names
        )
        asked = list(self.load.acknowledged)
        found.lost = [one for one in asked if not stand[one.kind, one.name]]
        at = {(one.kind, one.name): one.at for one in asked}
        found.doubled += [
            (at.get(what, self.load.acknowledged[-1].at), f"{what[0]} of {what[1]}")
            for what, times in stand.items()
            if times > 1
        ]

    def _check_views(self) -> list[str]:
        """Tables that differ from what a rebuild from the log makes of them."""
        with mock.patch.dict(os.environ, self._stack.environment):
            dsn = resolve_settings(Settings()).postgres_dsn
        ours = {view.table.name for one in (registry, step_metrics) for view in one.views}
        self._wait_for_the_last_lines()
        before = asyncio.run(all_rows(dsn))
        asyncio.run(drop_everything(dsn))
        self._stack.kill("projections")

        def different() -> list[str]:
            rows = asyncio.run(all_rows(dsn))
            return sorted(name for name in ours if rows.get(name) != before[name])

        try:
            wait_for("the rebuild", lambda: not different(), within_s=60, every_s=0.5)
        except AssertionError:
            return different()
        return []

    def _wait_for_the_last_lines(self) -> None:
        """Log lines that are archived are an event, after which the rows would be others."""
        seen = [0, time.monotonic()]  # the last sequence, and since when

        def over() -> bool:
            newest = self._stack.get("/events", limit=1)["items"][0]
            if newest["sequence"] != seen[0]:
                seen[:] = newest["sequence"], time.monotonic()
            return time.monotonic() - seen[1] > 3 * ARCHIVE_S

        wait_for("the end of what is archived", over, every_s=0.5)


def wrong_with(job_id: str, events: list[Any]) -> list[str]:
    """What of one job stands in the log another number of times than once, or out of order."""
    its = [event for event in events if event["aggregate_id"] == job_id]
    kinds = Counter(event["type"] for event in its)
    ends = kinds["JobSucceeded"] + kinds["JobFailed"] + kinds["JobCancelled"]
    epochs = [event["data"]["epoch"] for event in its if event["type"] == "EpochCompleted"]
    steps = [e["data"]["checkpoint"]["step"] for e in its if e["type"] == "CheckpointSaved"]
    versions = [
        event["aggregate_id"]
        for event in events
        if event["type"] == "VersionRegistered" and event["data"]["job_id"] == job_id
    ]
    results = sum(
        event["type"] == "EvaluationCompleted" and event["data"]["version_id"] in versions
        for event in events
    )
    counts = {
        "submissions": kinds["JobSubmitted"],
        "ends": ends,
        "versions": len(versions),
        "results": results,
    }
    wrong = [f"{number} {what} of job {job_id}" for what, number in counts.items() if number != 1]
    if epochs != list(range(1, TRAINING["epochs"] + 1)):
        wrong.append(f"epochs {epochs} of job {job_id}")
    if steps != sorted(set(steps)):
        wrong.append(f"checkpoints {steps} of job {job_id}")
    return wrong


def told(ids: list[int], log: list[int], gaps: int) -> str:
    missing = sorted(set(log) - set(ids))[:5]
    again = [one for one, times in Counter(ids).items() if times > 1][:5]
    return f"{gaps} gap events, missing {missing}, again {again}"


def report(matrix: Matrix, found: Findings) -> dict[str, Any]:
    moments = matrix.moments
    rows = {
        victim: _of_victim(matrix, found, [one for one in moments if one.victim == victim])
        for victim in VICTIMS
    }
    return {
        "moments": len(moments),
        "jobs": len(matrix.jobs.jobs),
        "acknowledged": len(matrix.load.acknowledged),
        "lost": [f"{one.kind} of {one.name}" for one in found.lost],
        "doubled": [what for _, what in found.doubled],
        "different_bytes": [job.id for job in found.different],
        "streams": found.stream,
        "views_that_differ": found.views,
        "victims": rows,
    }


def _of_victim(matrix: Matrix, found: Findings, moments: list[Moment]) -> dict[str, Any]:
    """What came between its deaths and the next of anybody, and the jobs that were unfinished."""
    ends = [one.killed_at for one in matrix.moments[1:]] + [float("inf")]
    until = {one.killed_at: end for one, end in zip(matrix.moments, ends, strict=True)}

    def within(at: float) -> bool:
        return any(one.killed_at <= at < until[one.killed_at] for one in moments)

    def hit(job: Job) -> bool:
        end = job.ended_at or float("inf")
        return any(job.submitted_at <= one.killed_at <= end for one in moments)

    return {
        "kills": len(moments),
        "jobs": sum(map(hit, matrix.jobs.jobs)),
        "acknowledged": sum(within(one.at) for one in matrix.load.acknowledged),
        "lost": sum(within(one.at) for one in found.lost),
        "doubled": sum(within(at) for at, _ in found.doubled),
        "different_bytes": sum(map(hit, found.different)),
        "answers_s": _spread([one.answers_s for one in moments]),
        "works_s": _spread([one.works_s for one in moments if one.works_s is not None]),
    }


def _spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"p50": round(statistics.median(seconds), 2), "max": round(max(seconds), 2)}


def victims(chance: random.Random) -> Iterator[str]:
    """Everybody as often as everybody else, in an order of chance."""
    while True:
        yield from chance.sample(VICTIMS, len(VICTIMS))


def run(
    folder: Path,
    *,
    moments: int,
    seed: int,
    seeds: int = 2,
    longest_wait_s: float = 6.0,
    wait_for_work: bool = True,
) -> dict[str, Any]:
    """The report of so many moments on a stack of their own."""
    chance = random.Random(seed)
    settings = {
        "FINETRAIL_LOGS__ARCHIVE_SECONDS": str(ARCHIVE_S),
        # As the product chooses them: bytes must stay the same where threads share the work too.
        "FINETRAIL_AGENT__THREADS": str(available_cores()),
    }
    with running_stack(folder, program=("tests.crash.up",), **settings) as stack:
        matrix = Matrix(stack, rows(), seeds, wait_for_work=wait_for_work)
        with matrix.loaded():
            for number, victim in zip(range(moments), victims(chance), strict=False):
                time.sleep(chance.uniform(0.0, longest_wait_s))
                matrix.kill(victim)
                now = matrix.moments[-1]
                print(f"{number + 1:4} {victim:12} {now.answers_s:6.2f} s", file=sys.stderr)
        return report(matrix, matrix.check())


def rows() -> bytes:
    """Of every label as many rows, the same ones each time."""
    kinds = ("billing", "delivery", "login", "refund")
    rows = [f"row {n} about {kind},{kind}\n" for n in range(ROWS_PER_LABEL) for kind in kinds]
    return f"text,label\n{''.join(rows)}".encode()


def is_clean(found: dict[str, Any]) -> bool:
    wrong = ("lost", "doubled", "different_bytes", "streams", "views_that_differ")
    return not any(found[name] for name in wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="also write the JSON object to this file")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder) / "data", moments=asked.moments, seed=asked.seed)
    found = {"seed": asked.seed, "seconds": round(time.monotonic() - began), **found}
    if asked.report:
        asked.report.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found))
    raise SystemExit(not is_clean(found))


if __name__ == "__main__":
    main()
