"""Logs over SSE by plain curl: live, and continued after a cut without a gap or a repeat."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import Stack, wait_for

pytestmark = [
    pytest.mark.infra,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


@contextmanager
def curl(
    stack: Stack, job_id: str, output: Path, last_event_id: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [
                "curl",
                "-sN",
                "-H",
                f"Authorization: Bearer {stack.key}",
                "-H",
                "Accept: text/event-stream",
                *(["-H", f"Last-Event-ID: {last_event_id}"] if last_event_id else []),
                f"{stack.url}/api/v1/jobs/{job_id}/logs",
            ],
            stdout=sink,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def ids(output: Path) -> list[int]:
    return [
        int(found) for found in re.findall(rb"^id: ?(\d+)\r?$", output.read_bytes(), re.MULTILINE)
    ]


def recorded_ids(stack: Stack, job_id: str) -> list[int]:
    found: list[int] = []
    after = 0
    while items := stack.get(f"/jobs/{job_id}/logs", after=after, limit=1000)["items"]:
        found += [item["sequence"] for item in items]
        after = found[-1]
    return sorted(set(found))


def test_lines_are_live_and_a_reconnect_goes_on_across_a_gateway_restart(
    stack: Stack, few_rows: bytes, tmp_path: Path
) -> None:
    dataset_id = stack.upload(few_rows)["id"]
    body = {"model": "streams", "dataset_id": dataset_id, "hyperparameters": {"epochs": 2}}
    job_id = stack.post("/jobs", body)["id"]
    first, second, after_end = tmp_path / "first", tmp_path / "second", tmp_path / "after-end"

    with curl(stack, job_id, first):
        wait_for("live lines", lambda: len(ids(first)) >= 3)
        running = stack.get(f"/jobs/{job_id}")["status"]
    last = ids(first)[-1]
    stack.kill("core")
    wait_for("the gateway being back", stack.is_ready)
    with curl(stack, job_id, second, last) as process:
        stack.job_until(job_id, lambda job: job["status"] == "succeeded")
        wait_for("the stream's end", lambda: b"event: end" in second.read_bytes())
        wait_for("curl's end", lambda: process.poll() is not None, within_s=10)
    with curl(stack, job_id, after_end, last):
        wait_for("the end again", lambda: b"event: end" in after_end.read_bytes(), within_s=20)

    assert running == "running"
    assert re.search(rb"\[\d\d:\d\d:\d\d\] \[INFO\] ", first.read_bytes())
    recorded = recorded_ids(stack, job_id)
    received = [i for i in ids(first) + ids(second) if i in set(recorded)]
    assert received == recorded
    assert [i for i in ids(after_end) if i in set(recorded)] == [i for i in recorded if i > last]
