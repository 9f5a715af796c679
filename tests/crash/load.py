"""Clients that go on while things die: each repeats a request until it is acknowledged, and remembers that."""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from typing_extensions import override

from tests.e2e.harness import NO_AUTHORITIES, Stack

AWAY: Final = (httpx.TransportError, FileNotFoundError, json.JSONDecodeError, KeyError)
REPEAT_S: Final = 0.1
REQUEST_S: Final = 15.0  # longer than the gateway waits for a decision


@dataclass(frozen=True, slots=True)
class Acknowledged:
    at: float
    kind: str  # of the event that must stand in the log
    name: str  # by which it is found there


@dataclass
class Load:
    """What all clients share."""

    stack: Stack
    acknowledged: list[Acknowledged] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def post(self, path: str, key: str, **request: Any) -> Any:
        """Repeat one request under one key until it is answered; None when the load is stopped.

        Raises:
            AssertionError: It is refused; these requests are all right.
        """
        while True:
            try:
                answer = httpx.post(
                    f"{self.stack.url}/api/v1{path}",
                    headers={**self.authorization, "Idempotency-Key": key},
                    timeout=REQUEST_S,
                    trust_env=False,
                    verify=NO_AUTHORITIES,
                    **request,
                )
                if answer.is_success:
                    return answer.json()
                assert answer.status_code >= 500, answer.text
            except AWAY:
                pass
            if self.stopped.wait(REPEAT_S):
                return None

    def get(self, path: str) -> Any:
        """One answer, or None while there is none to be had."""
        try:
            answer = httpx.get(
                f"{self.stack.url}/api/v1{path}",
                headers=self.authorization,
                timeout=REQUEST_S,
                trust_env=False,
                verify=NO_AUTHORITIES,
            )
        except AWAY:
            return None
        return answer.json() if answer.is_success else None

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.stack.key}"}

    def note(self, kind: str, name: str) -> None:
        self.acknowledged.append(Acknowledged(time.monotonic(), kind, name))


class Client(ABC):
    """A thread that repeats `act` until the load is stopped."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(2 * REQUEST_S)
        if self._error is not None:
            raise self._error

    @abstractmethod
    def act(self, number: int) -> None: ...

    def _run(self) -> None:
        number = 0
        try:
            while not self._load.stopped.is_set():
                number += 1
                self.act(number)
        except AssertionError as error:
            self._error = error


class Keys(Client):
    """Issues keys, seldom: they all stand in one stream, which every decision loads."""

    @override
    def act(self, number: int) -> None:
        name = f"load-{number}"
        if self._load.post("/keys", name, json={"name": name, "role": "viewer"}):
            self._load.note("KeyIssued", name)
        self._load.stopped.wait(1.0)


class Uploads(Client):
    """Uploads datasets, no two of them with the same bytes."""

    def __init__(self, load: Load, who: str) -> None:
        super().__init__(load)
        self._who = who

    @override
    def act(self, number: int) -> None:
        name = f"{self._who}-{number}"
        if upload(self._load, name):
            self._load.note("DatasetRegistered", name)
        self._load.stopped.wait(0.2)


def upload(load: Load, name: str) -> Any:
    rows = "".join(f"{name} says {n},{'yes' if n % 2 else 'no'}\n" for n in range(20))
    return load.post(
        "/datasets",
        name,
        params={"filename": f"{name}.csv", "name": name},
        content=f"text,label\n{rows}".encode(),
    )


class Reader(Client):
    """Follows the whole log over SSE, and goes on behind the last id when it is cut off."""

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self.ids: list[int] = []
        self.gaps = 0
        self.agent_seen = 0  # sequence of the newest event that an agent has caused

    @property
    def last(self) -> int:
        return self.ids[-1] if self.ids else 0

    @override
    def act(self, number: int) -> None:
        headers = {**self._load.authorization, "Accept": "text/event-stream"}
        if self.ids:
            headers["Last-Event-ID"] = str(self.last)
        try:
            url = f"{self._load.stack.url}/api/v1/events"
            timeout = httpx.Timeout(5, read=30)
            with (
                httpx.Client(timeout=timeout, trust_env=False, verify=NO_AUTHORITIES) as client,
                client.stream("GET", url, headers=headers) as answer,
            ):
                for line in answer.iter_lines() if answer.is_success else ():
                    self._hear(line)
                    if self._load.stopped.is_set():
                        return
        except AWAY:
            pass
        self._load.stopped.wait(REPEAT_S)

    def _hear(self, line: str) -> None:
        if line.startswith("id:"):
            self.ids.append(int(line[3:]))
        elif line.startswith("event:") and line[6:].strip() == "gap":
            self.gaps += 1
        elif line.startswith("data:") and '"actor":"agent:' in line.replace(" ", ""):
            self.agent_seen = self.last


@dataclass
class Job:
    number: int
    seed: int
    id: str
    submitted_at: float
    ended_at: float | None = None
    status: str = "queued"


class Jobs(Client):
    """Keeps two jobs unfinished: one that trains or is evaluated, and one that waits."""

    def __init__(self, load: Load, dataset_id: str, training: dict[str, Any], seeds: int) -> None:
        super().__init__(load)
        self._dataset_id = dataset_id
        self._training = training
        self._seeds = seeds
        self.jobs: list[Job] = []
        self.wanted = True

    @property
    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if job.ended_at is None]

    @override
    def act(self, number: int) -> None:
        for job in self.unfinished:
            self._look(job)
        if self.wanted and len(self.unfinished) < 2:
            self._submit()
        self._load.stopped.wait(0.5)

    def _submit(self) -> None:
        number = len(self.jobs) + 1
        seed = number % self._seeds
        body = {
            "model": "crash",
            "dataset_id": self._dataset_id,
            "seed": seed,
            "hyperparameters": self._training,
        }
        submitted_at = time.monotonic()
        if found := self._load.post("/jobs", f"job-{number}", json=body):
            self.jobs.append(Job(number, seed, found["id"], submitted_at))
            self._load.note("JobSubmitted", found["id"])

    def _look(self, job: Job) -> None:
        found = self._load.get(f"/jobs/{job.id}")
        if not found:
            return
        job.status = found["status"]
        if job.status in {"failed", "cancelled"}:
            job.ended_at = time.monotonic()
        elif found["evaluation_id"]:
            evaluation = self._load.get(f"/evaluations/{found['evaluation_id']}")
            if evaluation and evaluation["status"] in {"completed", "failed", "cancelled"}:
                job.ended_at = time.monotonic()


@contextmanager
def acting(load: Load, clients: Sequence[Client]) -> Iterator[None]:
    with ExitStack() as ends:
        for client in clients:
            client.start()
            ends.callback(client.join)
        ends.callback(load.stopped.set)
        yield
