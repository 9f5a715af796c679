"""A language model from the demo to service: what was trained talks, through clients that know nothing of us."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.e2e.harness import ROOT, THREADS, Stack, running_stack, wait_for

pytestmark = [pytest.mark.infra, pytest.mark.slow, pytest.mark.timeout(600)]

MOST_MEMORY = 4 * 1024**3
TEXT = "Classify: Hello, The courier lost the toaster. Thanks."


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What `finetrail demo --chat` printed, and the data directory that it left behind."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "finetrail", "demo", "--chat", "--json", "--keep"],
        cwd=ROOT,
        env={**os.environ, **THREADS, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (data,) = folder.glob("*/data")
    return json.loads(done.stdout.strip().splitlines()[-1]), data


@pytest.fixture(scope="module")
def served(demo: tuple[dict[str, Any], Path]) -> Iterator[Stack]:
    with running_stack(demo[1]) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(demo: tuple[dict[str, Any], Path], served: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as one:
        wait_for("the agent being ready", lambda: _answer(one, demo[0]["model"]))
        yield one


def test_the_demo_trains_evaluates_and_talks(demo: tuple[dict[str, Any], Path]) -> None:
    result, _ = demo

    evaluation = result["evaluation"]
    assert evaluation["rows"] >= 200
    assert evaluation["fine_tuned"]["accuracy"] >= 0.6
    assert evaluation["base"]["accuracy"] <= 0.4  # six labels: chance is 0.167
    assert evaluation["p_value"] < 0.01
    assert evaluation["verdict"] == "better"
    assert evaluation["fine_tuned"]["bits_per_byte"] < evaluation["base"]["bits_per_byte"]
    assert all(answer["answer"] for answer in result["answers"])


def test_an_unmodified_client_lists_and_chats_after_a_restart(
    demo: tuple[dict[str, Any], Path], client: openai.OpenAI
) -> None:
    model = demo[0]["model"]

    listed = [one.id for one in client.models.list()]
    whole = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": TEXT}], temperature=0
    )
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": TEXT}], temperature=0, stream=True
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    base = client.chat.completions.create(
        model="finetrail/tiny", messages=[{"role": "user", "content": "Last: I said hello"}]
    )

    assert model in listed
    assert "finetrail/tiny" in listed
    assert whole.choices[0].message.content == streamed == "delivery"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    assert base.choices[0].finish_reason in {"stop", "length"}


def test_what_is_wrong_is_said_in_the_clients_own_errors(
    demo: tuple[dict[str, Any], Path], served: Stack, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(
            model=demo[0]["model"], messages=[{"role": "user", "content": "long " * 5000}]
        )
    assert long.value.code == "context_length_exceeded"
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_clients_that_go_away_leave_all_places_free(
    demo: tuple[dict[str, Any], Path], client: openai.OpenAI
) -> None:
    rng = random.Random(4)
    for _ in range(50):
        stream = client.chat.completions.create(
            model="finetrail/tiny",
            messages=[{"role": "user", "content": f"Echo: {TEXT * 3}"}],
            stream=True,
        )
        for _ in range(rng.randrange(4)):
            next(iter(stream), None)
        stream.close()

    began = time.monotonic()
    answers = _at_once(16, lambda: _answer(client, demo[0]["model"]))

    assert answers == ["delivery"] * 16
    assert time.monotonic() - began < 10


def test_training_goes_on_beside_serving_and_survives_its_agent(
    demo: tuple[dict[str, Any], Path], served: Stack, client: openai.OpenAI
) -> None:
    first = served.get(f"/jobs/{demo[0]['job_id']}")
    again = {
        "model": first["model"],
        "dataset_id": first["dataset_id"],
        "test_dataset_id": first["test_dataset_id"],
        "base_model": first["base_model"],
        "hyperparameters": {**first["spec"]["hyperparameters"], "checkpoint_every": 10},
        "seed": first["spec"]["seed"],
    }
    job = served.post("/jobs", again)
    steps = first["progress"]["steps"]

    memory = 0
    chatted_in_training = 0
    running = served.job_until(job["id"], lambda one: one["progress"]["step"] >= 12)
    while running["progress"]["step"] < min(40, steps // 2):
        assert _answer(client, first["model"]) == "delivery"
        memory = max(memory, _memory(served))
        chatted_in_training += 1
        running = served.get(f"/jobs/{job['id']}")
    served.kill("agent")
    ended = served.job_until(job["id"], lambda one: one["version"] or one["status"] == "failed")

    assert chatted_in_training > 0
    assert memory < MOST_MEMORY
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["attempt"] == 2
    assert served.adapter_sha256(job["id"]) == served.adapter_sha256(first["id"])
    wait_for("the model talking again", lambda: _answer(client, first["model"]) == "delivery")


def _answer(client: openai.OpenAI, model: str) -> str | None:
    try:
        done = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": TEXT}], temperature=0
        )
    except (openai.InternalServerError, openai.APIConnectionError):
        return None
    return done.choices[0].message.content


def _at_once(count: int, ask: Any) -> list[str | None]:
    answers: list[str | None] = []
    threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def _memory(stack: Stack) -> int:
    """Bytes of the whole tree; what processes share is counted once, in parts."""
    total = 0
    for process in stack.processes():
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
