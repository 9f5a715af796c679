"""Two agents on two network hosts, one store: both work, and neither can take, see or forge what is the other's."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.harness import ROOT, Stack, running_stack, wait_for
from tests.infra import free_port

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(240)]
W = "default"
FEW = {"epochs": 1}


@dataclass
class Host:
    """Where the second agent runs: what to put before its command, and how it sees the stack."""

    address: str
    before: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A network of its own where this machine lets us make one, or else another loopback address."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        yield Host("127.0.0.2")
        return
    with namespace() as made:
        yield made or Host("127.0.0.2")


@contextmanager
def namespace() -> Iterator[Host | None]:
    """A network of its own, joined to ours by one cable."""
    tag = f"{os.getpid() % 100_000}"
    name, ours, theirs = f"ft{tag}", f"fta{tag}", f"ftb{tag}"
    subnet = f"10.231.{os.getpid() % 250}"
    steps = (
        f"ip netns add {name}",
        f"ip link add {ours} type veth peer name {theirs} netns {name}",
        f"ip addr add {subnet}.1/30 dev {ours}",
        f"ip link set {ours} up",
        f"ip -n {name} addr add {subnet}.2/30 dev {theirs}",
        f"ip -n {name} link set {theirs} up",
        f"ip -n {name} link set lo up",
    )
    try:
        done = all(
            subprocess.run(step.split(), capture_output=True, check=False).returncode == 0
            for step in steps
        )
        yield Host(f"{subnet}.1", ("ip", "netns", "exec", name)) if done else None
    finally:
        for step in (f"ip link del {ours}", f"ip netns del {name}"):
            subprocess.run(step.split(), capture_output=True, check=False)


@dataclass
class Second:
    """The other machine and its agent."""

    folder: Path
    host: Host
    token: str
    joined: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.joined["agent_id"])

    @property
    def seed(self) -> str:
        return (self.folder / "agent.seed").read_text().strip()

    def command(self, *arguments: str) -> list[str]:
        return [*self.host.before, sys.executable, "-m", "finetrail", *arguments]


@pytest.fixture(scope="module")
def stack(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {
        "FINETRAIL_NATS__LISTEN": "0.0.0.0",  # noqa: S104 - the other host is to reach it
        "FINETRAIL_NATS__PORT": str(free_port()),
        "FINETRAIL_GATEWAY__HOST": "0.0.0.0",  # noqa: S104 - likewise
        "FINETRAIL_GATEWAY__ALLOWED_HOSTS": host.address,
        "FINETRAIL_AGENT__THREADS": "1",
    }
    with running_stack(tmp_path_factory.mktemp("two") / "data", **settings) as running:
        yield running


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FINETRAIL")}
    return {**kept, "FINETRAIL_DATA_DIR": str(folder), "FINETRAIL_AGENT__THREADS": "1"}


@pytest.fixture(scope="module")
def second(stack: Stack, host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    folder = tmp_path_factory.mktemp("second") / "data"
    token = stack.post("/agents/join-tokens", {"name": "second"})["token"]
    url = f"http://{host.address}:{httpx.URL(stack.url).port}"
    machine = Second(folder, host, token, {})
    done = subprocess.run(
        [*machine.command("agent", "join", url, token), "--name", "second", "--json"],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    machine.joined = json.loads(done.stdout)
    log = (folder.parent / "agent.log").open("wb")
    process = subprocess.Popen(
        machine.command("agent"), cwd=ROOT, env=environment(folder), stdout=log, stderr=log
    )
    try:
        yield machine
    finally:
        log.close()
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()


def agents(stack: Stack) -> dict[str, Any]:
    return {agent["name"]: agent for agent in stack.get("/agents")["items"]}


def test_jobs_run_on_both(stack: Stack, second: Second, few_rows: bytes) -> None:
    first = next(name for name in agents(stack) if name != "second")
    wait_for("both being there", lambda: all(a["connected"] for a in agents(stack).values()))
    dataset = stack.upload(few_rows)
    jobs = [
        stack.post("/jobs", {"dataset_id": dataset["id"], "model": name, "hyperparameters": FEW})
        for name in ("one", "two")
    ]

    done = [
        stack.job_until(job["id"], lambda job: job["status"] != "queued" and job["ended_at"])
        for job in jobs
    ]

    assert [job["status"] for job in done] == ["succeeded", "succeeded"]
    assert {job["agent_id"] for job in done} == {second.id, agents(stack)[first]["id"]}
    theirs = next(job for job in done if job["agent_id"] == second.id)
    lines = stack.get(f"/jobs/{theirs['id']}/logs")["items"]
    assert lines
    assert stack.get(f"/jobs/{theirs['id']}/metrics")["items"]
    assert not list(second.folder.glob("blobs/**/*"))  # its store is the other machine's
    wait_for(
        "both evaluations", lambda: all(stack.evaluation_until_done(job["id"]) for job in jobs)
    )
