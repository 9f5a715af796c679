"""A soak: everything that users do, at once and without pause, while processes die; then it is looked at what is left."""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock
from uuid import UUID

from finetrail.blob_care import check_blobs, collect
from finetrail.settings import Settings
from finetrail.stack.processes import MAX_LOG_BYTES
from finetrail.stack.state import resolve_settings
from tests.crash.load import Load, acting
from tests.crash.matrix import RECOVER_S, TRAINING, Matrix, rows
from tests.e2e.harness import Stack, running_stack, wait_for
from tests.infra import free_port
from tests.soak.clients import (
    Cancels,
    Datasets,
    Downloads,
    KeyChanges,
    Pasts,
    Rebuilds,
    User,
    Watchers,
)
from tests.soak.hooks import Hook, Hooks, missed
from tests.soak.rules import Spans, judged
from tests.soak.sampling import Sampler
from tests.soak.up import PORT, ROLES
from tests.soak.verdict import shown

VICTIMS: Final = (
    "gateway",
    "handlers",
    "projections",
    "delivery",
    "agent",
    "nats",
    "postgres",
    "everything",
)
PAUSE_S: Final = (5.0, 25.0)  # between two deaths
CALM: Final = 0.25  # of the loaded time, at its end: nobody dies, so lives are long enough to judge
WARM_UP_S: Final = 25.0  # of load before the first rest, so that pools are as full as later
REST_S: Final = 50.0  # the server forgets a consumer that nobody asks after 30 s
LOOKED_AT_S: Final = 15.0  # of a rest, at its end
SEEDS: Final = 2
ARCHIVE_S: Final = 2.0
UNFINISHED: Final = 8  # blobs that an attempt or an upload may have stored when it was ended
HOOKS: Final = (None, ("job.*",))


@dataclass
class Soaked:
    """What a run came to."""

    kills: Counter[str]
    done: dict[str, Counter[str]]
    spans: Spans
    seconds: float


class Soak:
    """One stack, its load, its sampler and its receiver."""

    def __init__(self, stack: Stack, sampler: Sampler, hooks: Hooks, seed: int) -> None:
        self._stack = stack
        self._sampler = sampler
        self._hooks = hooks
        self._seed = seed
        self._url = hooks.start()
        self.matrix = Matrix(stack, rows(), SEEDS, wait_for_work=False)
        self.hooks = [self._hook(types) for types in HOOKS]
        self._dataset_id = stack.upload(rows(), "cancelled.csv")["id"]
        self.cancelled: list[str] = []
        self._events: list[Any] = []

    def run(self, minutes: float) -> Soaked:
        began, samples = time.monotonic(), self._sampler.samples
        self._sampler.start()
        self._say("warming up")
        with self._using("warm"):
            time.sleep(WARM_UP_S)
        before = self._rest()
        half = samples.now() + minutes * 30
        kills: Counter[str] = Counter()
        with self.matrix.loaded(), self._using("soak") as users:
            end = time.monotonic() + minutes * 60
            for victim in self._victims(end - minutes * 60 * CALM):
                kills[victim] += 1
                self._say(victim)
                self.matrix.kill(victim)
            self._say("nobody any more")
            time.sleep(max(0.0, end - time.monotonic()))
            self._say("the end of the load")
        self._settle()
        after = self._rest()
        self._say("the end of the rest")
        self._sampler.stop()
        done = {type(user).__name__: user.done for user in users}
        return Soaked(kills, done, Spans(before, after, half), time.monotonic() - began)

    def _say(self, what: str) -> None:
        print(f"{self._sampler.samples.now():7.0f} s {what}", file=sys.stderr, flush=True)

    def _hook(self, types: tuple[str, ...] | None) -> Hook:
        body = {"url": self._url, "event_types": list(types) if types else None}
        made = self._stack.post("/webhooks", body)
        return Hook(UUID(made["id"]), types, made["sequence"])

    @contextmanager
    def _using(self, tag: str) -> Iterator[Sequence[User]]:
        """Every kind of user for the length of the block."""
        load, name = Load(self._stack, self.matrix.load.acknowledged), f"{tag}-{self._seed}"
        cancels = Cancels(load, name, self._dataset_id, TRAINING)
        kinds = (Watchers, Pasts, Datasets, KeyChanges, Downloads, Rebuilds)
        users = (cancels, *(kind(load, name) for kind in kinds))
        with acting(load, users):
            yield users
        self.cancelled += cancels.jobs
        wait_for("the end of cancelled jobs", lambda: all(map(self._ended, cancels.jobs)))

    def _ended(self, job_id: str) -> bool:
        job = self._stack.get(f"/jobs/{job_id}")
        if job["status"] in {"cancelled", "failed"}:
            return True
        if job["status"] != "succeeded" or not job["evaluation_id"]:
            return False
        status = self._stack.get(f"/evaluations/{job['evaluation_id']}")["status"]
        return status in {"completed", "failed", "cancelled"}

    def _victims(self, until: float) -> Iterator[str]:
        chance = random.Random(self._seed)
        while True:
            for victim in chance.sample(VICTIMS, len(VICTIMS)):
                time.sleep(chance.uniform(*PAUSE_S))
                if time.monotonic() > until:
                    return
                yield victim

    def _settle(self) -> None:
        """Have everything delivered that waits for another attempt."""
        self._say("what was not delivered yet")
        self._hooks.stay_up()
        for hook in self.hooks:
            for deed in ("disable", "enable"):
                wait_for(deed, partial(self._done, f"/webhooks/{hook.id}/{deed}"))
        with suppress(AssertionError):  # what has not come by then is told at the end
            wait_for("deliveries", self._all_delivered, within_s=RECOVER_S, every_s=1.0)

    def _done(self, path: str) -> bool:
        return self._stack.http.post(f"/api/v1{path}").is_success

    def _all_delivered(self) -> bool:
        return not any(self._missed(hook) for hook in self.hooks)

    def _missed(self, hook: Hook) -> list[str]:
        """Of what has happened by now; a part of the log is read only once."""
        after = self._events[-1]["sequence"] if self._events else 0
        while page := self._stack.get("/events", after=after, limit=100)["items"]:
            self._events += page
            after = page[-1]["sequence"]
        return missed(hook, self._events, self._hooks.taken.told)

    def _rest(self) -> tuple[float, float]:
        """Leave everything alone; the end of that time."""
        self._say("rest")
        time.sleep(REST_S)
        now = self._sampler.samples.now()
        return now - LOOKED_AT_S, now

    def check(self, kills: int) -> dict[str, Any]:
        """What is lost, doubled, different, not delivered, or left lying about."""
        told = self._hooks.taken.told
        undelivered = [wrong for hook in self.hooks for wrong in self._missed(hook)]
        events = self._events
        ends = Counter(
            event["aggregate_id"]
            for event in events
            if event["type"] in {"JobCancelled", "JobSucceeded", "JobFailed"}
        )
        settings = resolve_settings(Settings())
        damaged = asyncio.run(check_blobs(settings)).damaged
        now = datetime.now(UTC)
        unnamed = asyncio.run(
            collect(settings, now=now, older_than=timedelta(0), delete=False)
        ).blobs
        leftover = []
        if len(unnamed) > UNFINISHED * (kills + len(self.cancelled)):
            leftover.append(f"{len(unnamed)} blobs that nothing refers to")
        logs = {path.name: path.stat().st_size for path in (self._stack.folder / "logs").iterdir()}
        leftover += [
            f"{name} has {size:,} bytes" for name, size in logs.items() if size > 2 * MAX_LOG_BYTES
        ]
        found = self.matrix.check()
        return {
            "lost": [f"{one.kind} of {one.name}" for one in found.lost],
            "doubled": [what for _, what in found.doubled],
            "different_bytes": [job.id for job in found.different],
            "streams": found.stream,
            "views_that_differ": found.views,
            "not_ended_once": [id_ for id_ in self.cancelled if ends[id_] != 1],
            "not_delivered": undelivered,
            "damaged_blobs": [str(one) for one in damaged],
            "left_over": leftover,
            "figures": {
                "events": events[-1]["sequence"],
                "deliveries": len(told),
                "delivered_again": len(told) - len({one.id for one in told}),
                "deliveries_refused": self._hooks.refused,
                "blobs_nothing_refers_to": len(unnamed),
                "bytes_of_those": sum(blob.size for blob in unnamed),
                "log_bytes": sum(logs.values()),
            },
        }


def soak(folder: Path, *, minutes: float, seed: int) -> dict[str, Any]:
    """The report of one run on a stack of its own."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    ports = {role: free_port() for role in (*ROLES, "agent")}
    settings = {
        "TMPDIR": str(scratch),
        "FINETRAIL_LOGS__ARCHIVE_SECONDS": str(ARCHIVE_S),
        "FINETRAIL_WEBHOOKS__ALLOW_PRIVATE": "true",
        "FINETRAIL_METRICS__AGENT_PORT": str(ports["agent"]),
        **{PORT.format(role.upper()): str(ports[role]) for role in ROLES},
    }
    hooks = Hooks(seed)
    with (
        running_stack(folder / "data", program=("tests.soak.up",), **settings) as stack,
        # Once for all threads: what a patch of the environment takes back, another may be reading.
        mock.patch.dict(os.environ, stack.environment),
    ):
        try:
            sampler = Sampler(stack, ports, scratch)
            one = Soak(stack, sampler, hooks, seed)
            soaked = one.run(minutes)
            verdict = judged(sampler.samples.series, soaked.spans)
            checked = one.check(soaked.kills.total())
        except BaseException:
            print(stack.output(), file=sys.stderr)  # its folder is about to go
            raise
        finally:
            hooks.stop()
    figures = checked.pop("figures")
    return {
        "seed": seed,
        "minutes": minutes,
        "seconds": round(soaked.seconds),
        "kills": dict(soaked.kills),
        "jobs": len(one.matrix.jobs.jobs),
        "jobs_cancelled": len(one.cancelled),
        "acknowledged": len(one.matrix.load.acknowledged),
        **figures,
        "done": {name: dict(counts) for name, counts in soaked.done.items()},
        "not_sampled": dict(sampler.errors),
        "roles": shown(verdict.trends),
        **checked,
        "not_flat": verdict.wrong,
        "flat": verdict.flat and not any(checked.values()),
    }
