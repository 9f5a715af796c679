"""The main job as a person does it: the demo, a shell script with curl alone, and the command line."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import psutil
import pytest

from tests.docs.blocks import blocks
from tests.e2e.harness import ROOT, THREADS, Stack

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_demo_ends_with_a_better_model_and_leaves_nothing_running(tmp_path: Path) -> None:
    before = set(psutil.pids())

    done = subprocess.run(
        [sys.executable, "-m", "finetrail", "demo", "--json"],
        cwd=ROOT,
        env={**os.environ, **THREADS, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(result) == {
        "dataset_id",
        "job_id",
        "model",
        "version",
        "evaluation",
        "zip_bytes",
        "events",
        "seconds",
    }
    assert set(result["seconds"]) == {"setup", "train", "evaluate", "total"}
    evaluation = result["evaluation"]
    assert evaluation["fine_tuned"]["accuracy"] >= 0.95
    assert evaluation["untrained"]["accuracy"] < 0.4  # eight labels: chance is 0.125
    assert 0 <= evaluation["p_value"] <= 1
    assert evaluation["ci95"][0] <= evaluation["ci95"][1]
    assert result["version"] == 1
    assert result["events"] > 20
    assert list(tmp_path.iterdir()) == []
    left = [
        " ".join(process.cmdline())
        for process in psutil.process_iter()
        if process.pid not in before and str(tmp_path) in str(_environment(process))
    ]
    assert left == []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_whole_path_works_with_curl_alone(
    stack: Stack, few_rows: bytes, tmp_path: Path
) -> None:
    data = tmp_path / "messages.csv"
    data.write_bytes(few_rows)

    done = subprocess.run(
        ["sh", str(ROOT / "examples" / "main_job.sh"), str(data), str(tmp_path / "model.zip")],
        env={**os.environ, "URL": stack.url, "KEY": stack.key, "MODEL": "by-curl"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "[INFO]" in done.stdout  # log lines were shown while it trained
    archive = zipfile.ZipFile(tmp_path / "model.zip")
    assert archive.testzip() is None
    assert {"README.md", "metrics.json", "lora_adapters/adapter_model.safetensors"} <= set(
        archive.namelist()
    )
    active = stack.get("/models/by-curl")["active"]
    assert active["number"] == 1


def test_the_command_line_does_the_same(stack: Stack, few_rows: bytes, tmp_path: Path) -> None:
    data = tmp_path / "messages.csv"
    data.write_bytes(few_rows)

    job = stack.cli("train", str(data), "--model", "by-cli", "--epochs", "2", "--follow")
    stack.cli("activate", "by-cli", "1")
    answer = stack.cli("predict", "by-cli", "where is my parcel?")
    stack.cli("download", "by-cli", "1", "-o", str(tmp_path / "cli.zip"))
    links = [stack.cli("link", "by-cli"), stack.cli("datasets", "link", job["dataset_id"])]
    linked = [httpx.get(link["url"], trust_env=False).content for link in links]

    assert job["status"] == "succeeded"
    assert answer["predictions"][0]["label"] in set(
        stack.get("/models/by-cli/versions/1")["labels"]
    )
    assert zipfile.ZipFile(tmp_path / "cli.zip").testzip() is None
    assert linked == [(tmp_path / "cli.zip").read_bytes(), few_rows]
    issued = stack.events(type="LinkIssued")
    assert {link["id"] for link in links} <= {event["data"]["link_id"] for event in issued}
    activated = stack.events(type="ModelActivated")[-1]
    assert activated["actor"].startswith("key:")


def test_the_program_in_the_documentation_is_told_that_a_job_has_succeeded(
    stack: Stack, few_rows: bytes, tmp_path: Path
) -> None:
    (program,) = [
        block.text
        for block in blocks(ROOT / "docs" / "how-to" / "subscribe-to-events.md")
        if block.language == "python"
    ]
    if not stack.events(type="JobSucceeded"):
        data = tmp_path / "messages.csv"
        data.write_bytes(few_rows)
        stack.cli("train", str(data), "--model", "for-others", "--epochs", "1", "--follow")
    succeeded = stack.events(type="JobSucceeded")
    (tmp_path / "feed.json").write_text(json.dumps(stack.cli("feed", "credentials")))

    told = subprocess.run(
        [sys.executable, "-I", "-"],  # isolated: it finds nothing of ours in the current folder
        input=program,
        cwd=tmp_path,
        env={**os.environ, "FINETRAIL_URL": stack.url, "AT_MOST": str(len(succeeded))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert told.returncode == 0, told.stderr[-3000:]
    lines = told.stdout.splitlines()
    assert [line.split()[1] for line in lines] == [event["id"] for event in succeeded]
    tailed = stack.cli("feed", "tail", "--type", "job_succeeded", "--since", "1", "--limit", "1")
    assert (tailed["id"], tailed["log_sequence"]) == (succeeded[0]["id"], succeeded[0]["sequence"])

    stack.cli("feed", "rebuild", "--yes")
    again = stack.cli("feed", "tail", "--type", "job_succeeded", "--since", "1", "--limit", "1")
    assert again == tailed
