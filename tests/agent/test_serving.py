"""Predictions over the agent's serving child."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from domain.blobs import BlobRef, FileEntry
from domain.subjects import inference_subject
from domain.work import PredictReply, PredictRequest
from gpu_agent import serving_child, serving_process
from tests.agent.conftest import RunAgent
from tests.agent.core import Core, alive, pids, spec_of, until

pytestmark = pytest.mark.infra

MODEL = UUID(int=7)


def request(adapter: BlobRef, *texts: str, request_id: str = "1") -> PredictRequest:
    return PredictRequest(
        request_id=request_id,
        workspace="default",
        model_id=MODEL,
        version_id=UUID(int=8),
        base_model="finetrail/minilm",
        labels=("a", "b"),
        adapter=(FileEntry(path="lora_adapters/adapter_model.safetensors", blob=adapter),),
        max_length=128,
        texts=texts,
    )


async def ask(core: Core, asked: PredictRequest) -> PredictReply:
    subject = inference_subject("default", MODEL)
    msg = await core.nc.request(subject, asked.model_dump_json().encode(), timeout=20)
    return PredictReply.model_validate_json(msg.data)


async def serving(core: Core) -> None:
    await until(lambda: core.presences and core.presences[-1].serving == "ready")


async def test_texts_are_predicted(core: Core, run: RunAgent, rows: BlobRef) -> None:
    async with run():
        await serving(core)
        reply = await ask(core, request(rows, "one", "two"))

    assert reply.error is None
    assert [prediction.label for prediction in reply.predictions] == ["a", "a"]


async def test_a_request_that_kills_the_child_is_refused_and_the_next_is_answered(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    async with run():
        await serving(core)
        died, answered = await asyncio.gather(
            ask(core, request(rows, "die")), ask(core, request(rows, "fine", request_id="2"))
        )

    assert died.error is not None
    assert (died.error.code, died.error.retryable) == ("serving_restarted", True)
    assert answered.error is None


async def test_a_child_that_is_killed_comes_back_without_being_asked(
    core: Core, run: RunAgent, rows: BlobRef, pid_file: Path
) -> None:
    async with run():
        await serving(core)
        await ask(core, request(rows, "one"))
        (first,) = pids(pid_file)
        kill(first)
        await until(lambda: len(pids(pid_file)) == 2)
        reply = await ask(core, request(rows, "two"))

    assert reply.error is None
    assert not any(alive(pid) for pid in pids(pid_file))


async def test_the_child_is_warm_after_the_first_training(
    core: Core, run: RunAgent, rows: BlobRef, pid_file: Path
) -> None:
    job_id = core.submit(spec_of("happy", rows))

    async with run():
        await core.assign(job_id)
        await until(lambda: len(pids(pid_file)) == 2)

    assert core.types(job_id)[-1] == "JobSucceeded"


async def test_an_answer_that_never_comes_is_refused_at_the_deadline(
    core: Core, run: RunAgent, rows: BlobRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_child, "DEADLINE_S", 1.5)
    monkeypatch.setattr(serving_process, "SILENT_S", 1.0)

    async with run():
        await serving(core)
        await ask(core, request(rows, "one"))
        late = await ask(core, request(rows, "wait"))
        after = await ask(core, request(rows, "two", request_id="2"))

    assert late.error is not None
    assert late.error.code in {"deadline", "serving_restarted"}
    assert late.error.retryable
    assert after.error is None


async def test_more_requests_than_may_wait_are_refused(
    core: Core, run: RunAgent, rows: BlobRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_child, "MAX_WAITING", 2)

    async with run():
        await serving(core)
        replies = await asyncio.gather(
            *(ask(core, request(rows, "one", request_id=str(number))) for number in range(5))
        )

    codes = [reply.error.code for reply in replies if reply.error is not None]
    assert codes == ["busy"] * 3


async def test_an_adapter_that_is_gone_is_named(core: Core, run: RunAgent) -> None:
    async with run():
        await serving(core)
        reply = await ask(core, request(BlobRef(sha256="0" * 64, size=1, crc32=0), "one"))

    assert reply.error is not None
    assert (reply.error.code, reply.error.retryable) == ("adapter_unreadable", False)


async def test_a_request_that_cannot_be_read_is_refused(core: Core, run: RunAgent) -> None:
    async with run():
        await serving(core)
        msg = await core.nc.request(inference_subject("default", MODEL), b"{}", timeout=20)

    reply = PredictReply.model_validate_json(msg.data)
    assert reply.error is not None
    assert reply.error.code == "bad_request"


def kill(pid: int) -> None:
    import os
    import signal

    os.kill(pid, signal.SIGKILL)
