"""Three users, two agents, priorities and quotas on a real stack: what runs when, why the rest waits.

All that the stack says is compared with what a simple model makes of the same events of the log.
FINETRAIL_TEST_QUEUE_JOBS says how many jobs there are.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from domain.queues.events import QueueEvent, WorkAssigned
from tests.domain.queue_model import Model
from tests.e2e.harness import ROOT, Stack, running_stack, wait_for

JOBS = int(os.environ.get("FINETRAIL_TEST_QUEUE_JOBS", "12"))
SAMPLES = 10
ENDED = {"succeeded", "failed", "cancelled"}
KINDS = {class_.__name__: class_ for class_ in get_args(QueueEvent)}
ROWS = "text,label\n" + "".join(f"please do {n},{'ab'[n % 2]}\n" for n in range(20))

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(240 + 10 * JOBS)]


@dataclass
class Sample:
    """What the stack said of all that waits, behind one event of the queue."""

    sequence: int
    told: dict[str, tuple[int, str, int]]
    reasons: dict[str, str]


@dataclass
class Story:
    """Everything that happened, and what was said meanwhile."""

    jobs: dict[str, Any]
    events: list[tuple[int, QueueEvent]]
    samples: list[Sample]
    users: dict[str, str]  # name -> actor
    refused: httpx.Response


class Second:
    """Another agent, of the pool `lab`, that can be killed and started again."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        token = stack.post("/agents/join-tokens", {"name": "second"})["token"]
        self._environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("FINETRAIL")},
            "FINETRAIL_DATA_DIR": str(folder),
            "FINETRAIL_AGENT__POOL": "lab",
        }
        self._log = folder.parent / "second.log"
        self._process: subprocess.Popen[bytes] | None = None
        done = subprocess.run(
            [sys.executable, "-m", "finetrail", "agent", "join", stack.url, token, "--json"],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        self.id = str(json.loads(done.stdout)["agent_id"])

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.queueing.agent"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("queue") / "data"
    with running_stack(folder, program=("tests.queueing.up",)) as running:
        yield running


@pytest.fixture(scope="module")
def story(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    second = Second(stack, tmp_path_factory.mktemp("second") / "data")
    try:
        yield lived(stack, second)
    finally:
        second.stop()


def lived(stack: Stack, second: Second) -> Story:
    keys = {
        name: stack.post("/keys", {"name": name, "role": "editor"})
        for name in ("ann", "bob", "carl")
    }
    users = {name: f"key:{key['key_id']}" for name, key in keys.items()}
    policy = {
        "patience": 8,
        "memory": 5,
        "users": {
            users["ann"]: {"weight": 2},
            users["bob"]: {"running": 1},
            users["carl"]: {"queued": JOBS // 3},
        },
    }
    put = stack.http.put("/api/v1/queue/policy", json=policy)
    assert put.status_code == 200, put.text
    dataset = stack.upload(ROWS.encode())["id"]
    wait_for("the dataset", lambda: stack.get(f"/datasets/{dataset}")["status"] == "valid")
    chance = random.Random(0)
    names = ("ann", "bob", "carl")
    submitted = [submit(stack, keys[names[n % 3]], dataset, chance, n) for n in range(JOBS)]
    answer = send(stack, keys["carl"], {"model": "lasts-1", "dataset_id": dataset})
    while answer.status_code == 202:  # until he has as many waiting as he may have
        submitted.append(answer.json()["id"])
        answer = send(stack, keys["carl"], {"model": "lasts-1", "dataset_id": dataset})
    stack.post(f"/jobs/{submitted[JOBS - 1]}/priority", {"priority": 90})
    samples = [sample(stack)]  # nobody is there for those of the lab
    second.start()
    killed = restarted = False
    for share in range(1, SAMPLES):
        wanted = share * JOBS // SAMPLES
        wait_for(f"{wanted} jobs having ended", lambda: len(ended(stack)) >= wanted)  # noqa: B023
        samples.append(sample(stack))
        if not killed and wanted >= JOBS // 4:
            wait_for("the second having a job", lambda: holds_job(stack, second.id), every_s=0.02)
            second.kill()
            killed = True
        elif killed and not restarted and wanted >= JOBS // 2:
            second.start()
            restarted = True
    unwanted = [
        job["id"] for job in stack.get("/jobs", limit=100)["items"] if job["pool"] == "nowhere"
    ]
    for job_id in unwanted:
        stack.post(f"/jobs/{job_id}/cancel", {})
    wait_for(
        "everything having ended",
        lambda: len(ended(stack)) == len(submitted),
        within_s=120 + 5 * JOBS,
    )
    wait_for("the last evaluation", lambda: evaluated(stack) and not stack.get("/queue")["items"])
    jobs = {job["id"]: job for job in ended(stack)}
    log = stack.events(aggregate="queue")
    return Story(jobs, [decoded(one) for one in log], samples, users, answer)


def submit(stack: Stack, key: Any, dataset: str, chance: random.Random, number: int) -> str:
    body = {
        "model": f"lasts-{chance.randint(2, 6)}",
        "dataset_id": dataset,
        "priority": chance.choice((30, 50, 50, 50, 70)),
    }
    if number % 5 == 2:
        body["pool"] = "lab"
    if number % 13 == 4:
        body["pool"] = "nowhere"
    answer = send(stack, key, body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def send(stack: Stack, key: Any, body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key['secret']}"}
    return stack.http.post("/api/v1/jobs", json=body, headers=headers)


def ended(stack: Stack) -> list[Any]:
    return [job for job in stack.get("/jobs", limit=100)["items"] if job["status"] in ENDED]


def evaluated(stack: Stack) -> bool:
    """Whether every job that made a version has its evaluation."""
    done = stack.get("/evaluations", limit=100)["items"]
    made = [job for job in ended(stack) if job["status"] == "succeeded"]
    return sum(one["status"] == "completed" for one in done) == len(made)


def holds_job(stack: Stack, agent_id: str) -> bool:
    running = stack.get("/jobs", limit=100, status="running")["items"]
    return any(job["agent_id"] == agent_id for job in running)


def sample(stack: Stack) -> Sample:
    answer = stack.http.get("/api/v1/queue")
    items = [item for item in answer.json()["items"] if item["waiting"]]
    return Sample(
        int(answer.headers["As-Of-Sequence"]),
        {
            item["work_id"]: tuple(item["waiting"][name] for name in ("position", "code", "ahead"))
            for item in items
        },
        {item["work_id"]: item["waiting"]["reason"] for item in items},
    )


def decoded(event: Any) -> tuple[int, QueueEvent]:
    found: QueueEvent = KINDS[event["type"]].model_validate(event["data"])
    return event["sequence"], found


def test_every_job_comes_to_its_end_though_an_agent_was_killed(story: Story) -> None:
    statuses = Counter((job["status"], job["pool"] == "nowhere") for job in story.jobs.values())
    attempts = [job["attempt"] for job in story.jobs.values()]

    assert len(story.jobs) >= JOBS
    assert set(statuses) <= {("succeeded", False), ("cancelled", True)}
    assert max(attempts) == 2


def test_the_order_is_what_the_policy_says_and_no_quota_is_overstepped(story: Story) -> None:
    model, started = Model(), 0
    for _, event in story.events:
        if isinstance(event, WorkAssigned):
            started += 1
            assert event.work_id == model.next(), event.reason
        model.hear(event)
        assert model.running(story.users["bob"]) <= 1
        assert all(model.free(agent) >= 0 for agent in model.agents.values() if agent["there"])
    trained = sum(job["status"] == "succeeded" for job in story.jobs.values())
    assert started >= 2 * trained  # each is evaluated too


def test_why_each_work_waits_is_what_a_simple_model_says(story: Story) -> None:
    assert len(story.samples) == SAMPLES
    for one in story.samples:
        model = Model(event for sequence, event in story.events if sequence <= one.sequence)
        assert one.told == {str(id_): why for id_, why in model.why().items()}
    codes = {code for one in story.samples for _, code, _ in one.told.values()}
    assert {"behind", "no_agent_of_pool"} <= codes


def test_a_submission_over_the_quota_is_refused(story: Story) -> None:
    assert (story.refused.status_code, story.refused.json()["code"]) == (429, "queue_quota_reached")


def test_playing_the_events_again_gives_the_same_decisions(stack: Stack, story: Story) -> None:
    checked = stack.cli("queue", "replay")

    assert checked["differences"] == []
    assert checked["decisions"] == sum(isinstance(event, WorkAssigned) for _, event in story.events)


def test_another_policy_would_have_given_another_order(
    stack: Stack, story: Story, tmp_path: Path
) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"users": {story.users["carl"]: {"weight": 1000}}}))

    found: Sequence[Any] = stack.cli("queue", "replay", "--policy", str(file))

    trained = {one["work_id"] for one in found if one["kind"] == "train"}
    assert story.jobs.keys() <= trained
    would = [
        one["work_id"] for one in sorted(started(found), key=lambda one: one["would_start_at"])
    ]
    was = [one["work_id"] for one in sorted(started(found), key=lambda one: one["started_at"])]
    assert sorted(would) == sorted(was)
    assert would != was


def started(found: Sequence[Any]) -> list[Any]:
    return [one for one in found if one["would_start_at"] and one["started_at"]]
