"""What becomes of the work that an agent is given."""

import asyncio
import errno
import shutil
from pathlib import Path
from uuid import UUID

import pytest

from adapters.blob_files import NoSpace
from adapters.local_blobs import LocalBlobs
from domain.base_models import BaseModelRecord
from domain.blobs import BlobRef, FileEntry
from domain.errors import PayloadTooLarge
from domain.jobs.commands import CancelJob, ClaimJob, CompleteJob, ExpireLease
from domain.jobs.events import (
    CheckpointSaved,
    EpochCompleted,
    JobStarted,
    JobSucceeded,
    MicroBatchHalved,
)
from domain.jobs.spec import TINY
from domain.messages import Command
from finetrail.settings import Settings
from gpu_agent import agent as agent_module
from gpu_agent import attempt as attempt_module
from gpu_agent.agent import WorkFolderTaken
from tests.agent.conftest import RunAgent
from tests.agent.core import OTHER_AGENT, Core, alive, pids, spec_of, until
from tests.infra import NatsServer

pytestmark = pytest.mark.infra


async def test_work_is_claimed_reported_and_completed(
    core: Core, run: RunAgent, rows: BlobRef, blobs: LocalBlobs, settings: Settings
) -> None:
    job_id = core.submit(spec_of("happy", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))
        await core.all_work_is_acknowledged()

    assert core.types(job_id) == [
        "JobSubmitted",
        "JobClaimed",
        "JobStarted",
        "EpochCompleted",
        "JobSucceeded",
    ]
    succeeded = core.last(job_id)
    assert isinstance(succeeded, JobSucceeded)
    assert [entry.path for entry in succeeded.adapter] == [
        "lora_adapters/adapter_config.json",
        "lora_adapters/adapter_model.safetensors",
    ]
    assert await blobs.size(succeeded.adapter[1].blob.sha256) == len(b"weights")
    left = [path.name for path in settings.agent_work_dir.iterdir() if path.name != "serving"]
    assert left == ["lock"]


async def test_steps_and_lines_are_in_the_log_before_the_job_ends(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    job_id = core.submit(spec_of("happy", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))
        lines, steps = await core.lines(job_id), await core.steps(job_id)

    assert [(line.level, line.message) for line in lines] == [
        ("INFO", "training begins"),
        ("WARNING", "UserWarning: this is only a stand-in"),
    ]
    assert [step.step for step in steps] == [1, 2]


async def test_presence_lists_what_is_held(core: Core, run: RunAgent, rows: BlobRef) -> None:
    job_id = core.submit(spec_of("patient", rows))

    async with run() as stop:
        await core.assign(job_id)
        await until(lambda: core.presences and core.presences[-1].held)
        stop.set()
        await until(core.ended(job_id, "JobInterrupted"))

    held = next(presence for presence in core.presences if presence.held)
    assert (held.held[0].work_id, held.held[0].attempt) == (job_id, 1)
    assert (held.slots, held.name, held.accelerator) == (1, "tester", "cpu")


async def test_work_that_another_holds_is_dropped(
    core: Core, run: RunAgent, rows: BlobRef, pid_file: Path
) -> None:
    job_id = core.submit(spec_of("happy", rows))
    core.decide(
        "job", job_id, ClaimJob(job_id=job_id, attempt=1, boot_id="x", agent_id=OTHER_AGENT)
    )

    async with run():
        await core.assign(job_id)
        await core.all_work_is_acknowledged()

    assert core.types(job_id) == ["JobSubmitted", "JobClaimed"]
    assert pids(pid_file) == []


async def test_work_that_comes_again_after_its_end_is_not_done_again(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    job_id = core.submit(spec_of("crash", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobInterrupted"))
        before = len(core.commands)
        await core.assign(job_id)
        await core.all_work_is_acknowledged()

    assert len(core.commands) == before


async def test_a_refused_report_kills_the_child(
    core: Core, run: RunAgent, rows: BlobRef, pid_file: Path
) -> None:
    job_id = core.submit(spec_of("patient", rows))

    async with run():
        await core.assign(job_id)
        await until(lambda: "EpochCompleted" in core.types(job_id))
        (pid,) = pids(pid_file)
        core.decide("job", job_id, ExpireLease(job_id=job_id, attempt=1, reason="silent"))
        await until(lambda: not alive(pid))
        await core.all_work_is_acknowledged()

    assert core.last(job_id).reason == "silent"


async def test_a_result_that_is_refused_fails_the_job_instead_of_training_it_again(
    core: Core, run: RunAgent, rows: BlobRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = core.decide

    def refuse_the_result(aggregate: str, id_: UUID, command: Command) -> None:
        if isinstance(command, CompleteJob):
            raise PayloadTooLarge("the event is too large")
        decide(aggregate, id_, command)

    monkeypatch.setattr(core, "decide", refuse_the_result)
    job_id = core.submit(spec_of("happy", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobFailed"))
        await core.all_work_is_acknowledged()

    assert core.last(job_id).code == "payload_too_large"
    assert "the event is too large" in core.last(job_id).message


async def test_a_child_that_falls_silent_is_killed_and_gives_the_work_back(
    core: Core,
    run: RunAgent,
    rows: BlobRef,
    pid_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt_module, "SILENCE_S", 1.0)
    job_id = core.submit(spec_of("stubborn", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobInterrupted"))
        lines = await core.lines(job_id)

    assert "the process said nothing for 1 s; killing it" in [line.message for line in lines]
    assert not any(alive(pid) for pid in pids(pid_file))


async def test_a_child_that_dies_gives_the_work_back_with_the_reason(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    job_id = core.submit(spec_of("crash", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobInterrupted"))
        lines = await core.lines(job_id)

    assert core.last(job_id).reason == ("training process was killed by signal 9 (out of memory?)")
    assert "boom: something is very wrong" in [line.message for line in lines]


async def test_a_child_that_leaves_without_a_result_gives_the_work_back(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    job_id = core.submit(spec_of("exit", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobInterrupted"))

    assert "exit status 7" in core.last(job_id).reason


async def test_a_failure_that_would_repeat_ends_the_job(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    job_id = core.submit(spec_of("fails", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobFailed"))

    assert core.last(job_id).code == "loss_not_finite"


async def test_a_dataset_that_is_gone_ends_the_job(core: Core, run: RunAgent) -> None:
    job_id = core.submit(spec_of("happy", BlobRef(sha256="0" * 64, size=1, crc32=0)))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobFailed"))

    assert core.last(job_id).code == "input_unreadable"


async def test_stopped_work_ends_at_the_next_step(core: Core, run: RunAgent, rows: BlobRef) -> None:
    job_id = core.submit(spec_of("patient", rows))

    async with run():
        await core.assign(job_id)
        await until(lambda: "EpochCompleted" in core.types(job_id))
        core.decide("job", job_id, CancelJob(job_id=job_id))
        await core.stop_work(job_id)
        await until(core.ended(job_id, "JobCancelled"))
        await core.all_work_is_acknowledged()


async def test_a_child_that_does_not_stop_is_killed(
    core: Core,
    run: RunAgent,
    rows: BlobRef,
    pid_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_module, "CANCEL_S", 0.2)
    job_id = core.submit(spec_of("stubborn", rows))

    async with run():
        await core.assign(job_id)
        await until(lambda: "JobStarted" in core.types(job_id))
        await core.stop_work(job_id)
        await until(core.ended(job_id, "JobInterrupted"))

    assert core.last(job_id).reason == "cancelled"
    assert not any(alive(pid) for pid in pids(pid_file))


async def test_a_stopped_agent_gives_its_work_back_at_once(
    core: Core, run: RunAgent, rows: BlobRef, pid_file: Path
) -> None:
    job_id = core.submit(spec_of("patient", rows))

    async with run() as stop:
        await core.assign(job_id)
        await until(lambda: "EpochCompleted" in core.types(job_id))
        stop.set()
        await until(core.ended(job_id, "JobInterrupted"))

    assert core.last(job_id).reason == "agent stopped"
    assert await core.work_left() == 0
    assert not any(alive(pid) for pid in pids(pid_file))


async def test_an_evaluation_brings_its_outputs_and_a_result_that_an_event_can_hold(
    core: Core, run: RunAgent, rows: BlobRef, blobs: LocalBlobs
) -> None:
    spec = spec_of("any", rows)

    async with run():
        evaluation_id = await core.assign_evaluation(spec, rows)
        await until(core.ended(evaluation_id, "EvaluationCompleted"))

    completed = core.last(evaluation_id)
    assert {len(example.text) for example in completed.summary.examples} == {500}
    assert len(completed.model_dump_json().encode()) < 64 * 1024
    assert await blobs.size(completed.outputs.sha256) == len('{"text": "all of it"}\n')


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; a gated child does one epoch for each file that appears in it."""
    folder = tmp_path / "gates"
    folder.mkdir()
    monkeypatch.setenv("STAND_IN_GATES", str(folder))
    return folder


def open_gates(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / str(number)).touch()


async def test_memory_that_ran_out_is_in_the_log(core: Core, run: RunAgent, rows: BlobRef) -> None:
    job_id = core.submit(spec_of("halves", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))

    halved = [event for event in core.events[job_id] if isinstance(event, MicroBatchHalved)]
    assert [(event.step, event.micro_batch_tokens) for event in halved] == [(1, 512)]
    assert len(halved[0].reason) == 2000


async def test_a_checkpoint_is_stored_reported_and_removed(
    core: Core, run: RunAgent, rows: BlobRef, blobs: LocalBlobs, gates: Path, settings: Settings
) -> None:
    job_id = core.submit(spec_of("gated-2", rows))

    async with run():
        await core.assign(job_id)
        open_gates(gates, 1)
        await until(core.ended(job_id, "EpochCompleted"))
        left = list((settings.agent_work_dir / str(job_id) / "1" / "checkpoints").iterdir())
        open_gates(gates, 2)
        await until(core.ended(job_id, "JobSucceeded"))

    saved = next(event for event in core.events[job_id] if isinstance(event, CheckpointSaved))
    (entry,) = saved.checkpoint.files
    assert entry.path == "state.json"
    assert await blobs.size(entry.blob.sha256) == len('{"step": 1}')
    assert left == []


async def test_no_report_and_no_step_is_lost_when_the_server_is_killed(
    core: Core, run: RunAgent, rows: BlobRef, server: NatsServer, gates: Path, settings: Settings
) -> None:
    job_id = core.submit(spec_of("gated-6", rows))

    async with run():
        await core.assign(job_id)
        open_gates(gates, 1, 2)
        await until(lambda: core.types(job_id).count("EpochCompleted") == 2)
        await server.kill()
        open_gates(gates, 3, 4, 5, 6)
        adapter = settings.agent_work_dir / str(job_id) / "1" / "adapter"
        await until(adapter.is_dir, "the child goes on without the server")
        await server.start()
        await until(core.ended(job_id, "JobSucceeded"))
        steps = await core.steps(job_id)
        await core.all_work_is_acknowledged()

    epochs = [event for event in core.events[job_id] if isinstance(event, EpochCompleted)]
    assert [event.epoch for event in epochs] == [1, 2, 3, 4, 5, 6]
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]


async def test_reports_wait_for_handlers_that_are_away(
    core: Core, run: RunAgent, rows: BlobRef, gates: Path, settings: Settings
) -> None:
    job_id = core.submit(spec_of("gated-3", rows))

    async with run():
        await core.assign(job_id)
        open_gates(gates, 1)
        await until(core.ended(job_id, "EpochCompleted"))
        core.paused = True
        open_gates(gates, 2, 3)
        adapter = settings.agent_work_dir / str(job_id) / "1" / "adapter"
        await until(adapter.is_dir, "the child goes on without the handlers")
        core.paused = False
        await until(core.ended(job_id, "JobSucceeded"))

    epochs = [event for event in core.events[job_id] if isinstance(event, EpochCompleted)]
    assert [event.epoch for event in epochs] == [1, 2, 3]


async def test_an_agent_waits_for_a_server_that_is_away_at_its_start(
    core: Core, run: RunAgent, rows: BlobRef, server: NatsServer
) -> None:
    job_id = core.submit(spec_of("happy", rows))
    await core.assign(job_id)
    await server.kill()

    async with run():
        await asyncio.sleep(0)  # lets it begin
        await server.start()
        await until(core.ended(job_id, "JobSucceeded"))


async def test_a_stopped_agent_does_not_wait_for_a_server_that_is_away(
    core: Core,
    run: RunAgent,
    rows: BlobRef,
    server: NatsServer,
    pid_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_module, "GIVE_BACK_S", 0.3)
    monkeypatch.setattr(agent_module, "RELEASE_S", 0.1)
    job_id = core.submit(spec_of("patient", rows))

    async with asyncio.timeout(20), run() as stop:
        await core.assign(job_id)
        await until(lambda: "EpochCompleted" in core.types(job_id))
        await server.kill()
        stop.set()

    assert not any(alive(pid) for pid in pids(pid_file))


async def test_an_agent_that_never_reached_a_server_can_be_stopped(
    run: RunAgent, server: NatsServer
) -> None:
    await server.kill()

    async with asyncio.timeout(10), run() as stop:
        stop.set()


async def test_work_that_comes_again_while_it_is_held_is_not_begun_again(
    core: Core, run: RunAgent, rows: BlobRef, gates: Path, pid_file: Path
) -> None:
    job_id = core.submit(spec_of("gated-1", rows))
    after = core.submit(spec_of("happy", rows))

    async with run():
        await core.assign(job_id)
        await until(lambda: "JobStarted" in core.types(job_id))
        await core.assign(job_id)
        await core.assign(after)  # taken after the repeated message
        await until(
            lambda: len(core.presences[-1].held) == 2, "it holds what waits for a free slot too"
        )
        assert len(pids(pid_file)) == 1
        open_gates(gates, 1)
        await until(core.ended(after, "JobSucceeded"))

    claims = [command for command in core.commands if isinstance(command, ClaimJob)]
    assert [claim.job_id for claim in claims] == [job_id, after]


async def test_a_result_waits_for_room_on_the_disk(
    core: Core, run: RunAgent, rows: BlobRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "FIRST_PAUSE_S", 0.05)
    put_file, full = LocalBlobs.put_file, [True, True]

    async def put(self: LocalBlobs, path: Path) -> BlobRef:
        if full:
            full.pop()
            raise NoSpace(path)
        return await put_file(self, path)

    monkeypatch.setattr(LocalBlobs, "put_file", put)
    job_id = core.submit(spec_of("happy", rows))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))
        lines = await core.lines(job_id)

    waits = [line for line in lines if "no space is left" in line.message]
    assert [(line.level, line.source) for line in waits] == [("WARNING", "system")] * 2


def starts(core: Core, job_id: UUID) -> list[JobStarted]:
    return [event for event in core.events[job_id] if isinstance(event, JobStarted)]


async def test_a_base_model_that_was_made_here_is_stored_before_the_start_is_reported(
    core: Core, run: RunAgent, rows: BlobRef, blobs: LocalBlobs
) -> None:
    job_id = core.submit(spec_of("happy", rows, TINY))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))

    (started,) = starts(core, job_id)
    assert started.base_model is not None
    stored = {entry.path: entry.blob for entry in started.base_model.files}
    assert set(stored) == {"base_model/config.json", "base_model/model.safetensors"}
    assert await blobs.size(stored["base_model/model.safetensors"].sha256) == 16
    assert started.supervision is not None
    assert len(started.supervision.example[0].text) < 50_000
    assert len(started.model_dump_json().encode()) < 64 * 1024


async def test_a_later_attempt_on_another_machine_runs_on_the_same_base_model(
    core: Core, run: RunAgent, rows: BlobRef, settings: Settings
) -> None:
    job_id = core.submit(spec_of("patient", rows, TINY))
    async with run():
        await core.assign(job_id)
        await until(lambda: starts(core, job_id))
    await until(core.ended(job_id, "JobInterrupted"))
    shutil.rmtree(settings.agent_work_dir)  # of the other machine nothing is left

    async with run():
        await core.assign(job_id, attempt=2)
        await until(lambda: len(starts(core, job_id)) == 2)

    first, second = starts(core, job_id)
    assert second.base_model == first.base_model
    assert second.base_model is not None


async def test_an_evaluation_gets_the_base_model_that_was_trained_on(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    record = BaseModelRecord(
        id=TINY,
        sha256={"config.json": rows.sha256},
        files=(FileEntry(path="base_model/config.json", blob=rows),),
    )

    async with run():
        evaluation_id = await core.assign_evaluation(spec_of("any", rows, TINY), rows, record)
        await until(core.ended(evaluation_id, "EvaluationCompleted"))


async def test_what_was_made_or_fetched_here_outlives_the_agent(
    core: Core, run: RunAgent, rows: BlobRef, settings: Settings
) -> None:
    job_id = core.submit(spec_of("happy", rows, TINY))
    made = settings.agent_work_dir / "base_models" / "made" / "model.safetensors"

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))
    content = made.read_bytes()
    before = len(core.presences)
    async with run():
        await until(lambda: len(core.presences) > before)

    assert made.read_bytes() == content


async def test_a_base_model_waits_for_room_on_the_disk(
    core: Core, run: RunAgent, rows: BlobRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "FIRST_PAUSE_S", 0.05)
    put_file, full = LocalBlobs.put_file, [True]

    async def put(self: LocalBlobs, path: Path) -> BlobRef:
        if full:
            full.pop()
            raise NoSpace(path)
        return await put_file(self, path)

    monkeypatch.setattr(LocalBlobs, "put_file", put)
    job_id = core.submit(spec_of("happy", rows, TINY))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobSucceeded"))
        lines = await core.lines(job_id)

    assert any("the base model cannot be stored, trying again" in line.message for line in lines)
    assert core.types(job_id)[2:4] == ["JobStarted", "EpochCompleted"]


async def test_work_is_given_back_at_once_when_its_base_model_can_never_be_stored(
    core: Core,
    run: RunAgent,
    rows: BlobRef,
    pid_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def put(_: LocalBlobs, path: Path) -> BlobRef:
        raise OSError(errno.EIO, "the disk is broken", str(path))

    monkeypatch.setattr(LocalBlobs, "put_file", put)
    job_id = core.submit(spec_of("patient", rows, TINY))

    async with run():
        await core.assign(job_id)
        await until(core.ended(job_id, "JobInterrupted"))
        await core.all_work_is_acknowledged()

        assert not any(alive(pid) for pid in pids(pid_file))
    assert core.last(job_id).reason == (
        "the base model could not be stored: the disk is broken: config.json"
    )


async def test_only_what_an_agent_made_is_cleared_from_its_folder(
    core: Core, run: RunAgent, settings: Settings
) -> None:
    folder = settings.agent_work_dir
    left = folder / "018f0000-0000-7000-8000-0000000000ff" / "1"
    mine = folder / "thesis"
    left.mkdir(parents=True)
    mine.mkdir()

    async with run():
        await until(lambda: core.presences)

    assert mine.is_dir()
    assert not left.parent.exists()


async def test_a_second_agent_does_not_take_the_same_folder(core: Core, run: RunAgent) -> None:
    async with run():
        await until(lambda: core.presences)

        with pytest.raises(WorkFolderTaken):
            async with run() as stop:
                await stop.wait()
