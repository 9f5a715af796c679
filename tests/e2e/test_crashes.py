"""What the crash matrix leaves out: the parent alone, a crash in evaluation, Postgres away for long, a stop."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import httpx
import psutil
import pytest

from tests.e2e.harness import NO_AUTHORITIES, Stack, running_stack, wait_for

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(600)]

# 15 steps an epoch: enough of them for a kill in the middle, with a checkpoint just before.
TRAINING = {"epochs": 3, "batch_size": 16, "checkpoint_every": 7, "max_length": 64}
POSTGRES_AWAY_S = 30.0
TRAFFIC_S = 0.2  # between keys: they all stand in one stream, which every decision loads
STOP_S = 40.0  # the agent alone may take up to ten seconds to bring its child to an end


class Traffic:
    """A client that goes on asking while things die, and remembers what was acknowledged."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(TRAFFIC_S):
            number += 1
            name = f"traffic-{id(self)}-{number}"
            try:
                answer = httpx.post(
                    f"{self._stack.url}/api/v1/keys",
                    json={"name": name, "role": "viewer"},
                    headers={"Authorization": f"Bearer {self._stack.key}"},
                    timeout=5,
                    trust_env=False,
                    verify=NO_AUTHORITIES,
                )
            except (httpx.TransportError, FileNotFoundError):
                continue
            if answer.is_success:
                self.acknowledged.append(name)


@pytest.fixture(scope="module")
def crash_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("crashes") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def dataset_id(crash_stack: Stack, few_rows: bytes) -> str:
    return str(crash_stack.upload(few_rows)["id"])


@pytest.fixture(scope="module")
def crashed_in_evaluation(crash_stack: Stack, dataset_id: str) -> tuple[str, Traffic]:
    """A job whose training nobody disturbed, and what was acknowledged while its agent died."""
    job_id = submit(crash_stack, dataset_id)
    with Traffic(crash_stack) as traffic:
        in_evaluation(crash_stack, job_id)
        crash_stack.kill("agent")
        assert crash_stack.evaluation_until_done(job_id)["status"] == "completed"
    return job_id, traffic


@pytest.fixture(scope="module")
def expected(crash_stack: Stack, crashed_in_evaluation: tuple[str, Traffic]) -> str:
    """SHA-256 of the adapter that the same job makes when nobody disturbs its training."""
    return crash_stack.adapter_sha256(crashed_in_evaluation[0])


def submit(stack: Stack, dataset_id: str) -> str:
    body = {"model": "crash", "dataset_id": dataset_id, "seed": 3, "hyperparameters": TRAINING}
    return str(stack.post("/jobs", body)["id"])


def step_of(job: Any) -> int:
    return int((job["progress"] or {}).get("step") or 0)


def in_mid_training(stack: Stack, job_id: str) -> None:
    stack.job_until(job_id, lambda job: step_of(job) >= 10)


def in_evaluation(stack: Stack, job_id: str) -> None:
    def running() -> bool:
        evaluation_id = stack.get(f"/jobs/{job_id}")["evaluation_id"]
        return bool(evaluation_id) and (
            stack.get(f"/evaluations/{evaluation_id}")["status"] == "running"
        )

    wait_for("the evaluation running", running)


def check_log(stack: Stack, job_id: str, traffic: Traffic) -> None:
    events = stack.events()
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(set(sequences))
    of_job = [event for event in events if event["aggregate_id"] == job_id]
    kinds = Counter(event["type"] for event in of_job)
    assert kinds["JobSubmitted"] == kinds["JobSucceeded"] == 1
    epochs = [event["data"]["epoch"] for event in of_job if event["type"] == "EpochCompleted"]
    assert epochs == [1, 2, 3]
    checkpoints = [
        event["data"]["checkpoint"]["step"]
        for event in of_job
        if event["type"] == "CheckpointSaved"
    ]
    assert checkpoints == sorted(set(checkpoints))
    versions = [
        event
        for event in events
        if event["type"] == "VersionRegistered" and event["data"]["job_id"] == job_id
    ]
    results = [
        event
        for event in events
        if event["type"] == "EvaluationCompleted"
        and event["data"]["version_id"] == versions[0]["aggregate_id"]
    ]
    assert len(versions) == len(results) == 1
    issued = Counter(event["data"]["name"] for event in events if event["type"] == "KeyIssued")
    assert [name for name in traffic.acknowledged if issued[name] != 1] == []
    assert traffic.acknowledged, "no command was acknowledged: the check would be empty"


def test_the_processes_and_then_their_parent_are_killed_and_no_result_is_lost(
    crash_stack: Stack, dataset_id: str, expected: str
) -> None:
    job_id = submit(crash_stack, dataset_id)
    with Traffic(crash_stack) as traffic:
        in_mid_training(crash_stack, job_id)

        crash_stack.kill("core")
        wait_for("the gateway being back", crash_stack.is_ready)
        crash_stack.kill_parent()
        crash_stack.start()

        assert crash_stack.evaluation_until_done(job_id)["status"] == "completed"
    assert crash_stack.adapter_sha256(job_id) == expected
    check_log(crash_stack, job_id, traffic)


def test_a_crash_in_evaluation_does_not_train_again(
    crash_stack: Stack, crashed_in_evaluation: tuple[str, Traffic]
) -> None:
    job_id, traffic = crashed_in_evaluation

    started = [
        e for e in crash_stack.events(aggregate="job", id=job_id) if e["type"] == "JobStarted"
    ]
    assert len(started) == 1
    check_log(crash_stack, job_id, traffic)


def test_training_goes_on_while_postgres_is_away(
    crash_stack: Stack, dataset_id: str, expected: str
) -> None:
    job_id = submit(crash_stack, dataset_id)
    in_mid_training(crash_stack, job_id)
    cluster = (crash_stack.folder / "postgres").resolve()
    mode = cluster.stat().st_mode & 0o777

    cluster.chmod(0o000)  # it cannot be started again until this is undone
    try:
        crash_stack.kill("postgres")
        began = time.monotonic()
        children = crash_stack.training_processes()
        assert len(children) == 1
        gone, _ = psutil.wait_procs(children, timeout=POSTGRES_AWAY_S)
        time.sleep(max(0.0, POSTGRES_AWAY_S - (time.monotonic() - began)))
    finally:
        cluster.chmod(mode)

    assert gone, "training did not come to its end while Postgres was away"
    assert crash_stack.evaluation_until_done(job_id)["status"] == "completed"
    events = crash_stack.events(aggregate="job", id=job_id)
    assert [e["type"] for e in events].count("JobStarted") == 1
    assert crash_stack.adapter_sha256(job_id) == expected


def test_a_stop_in_mid_training_leaves_nothing_running_and_the_next_start_goes_on(
    crash_stack: Stack, dataset_id: str, expected: str
) -> None:
    job_id = submit(crash_stack, dataset_id)
    logs = f"/api/v1/jobs/{job_id}/logs"
    with crash_stack.http.stream("GET", logs, headers={"Accept": "text/event-stream"}) as stream:
        assert any(line.startswith("id:") for line in stream.iter_lines())
        in_mid_training(crash_stack, job_id)

        began = time.monotonic()
        crash_stack.stop()  # the open stream must not hold it up
        took = time.monotonic() - began
        left = crash_stack.processes()
    crash_stack.start()

    assert left == []
    assert took < STOP_S
    assert crash_stack.evaluation_until_done(job_id)["status"] == "completed"
    assert crash_stack.adapter_sha256(job_id) == expected
