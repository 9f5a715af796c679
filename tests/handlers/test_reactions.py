"""What follows from what, on a log in memory."""

import hashlib
from pathlib import Path

import pytest

from adapters.local_blobs import LocalBlobs, blob_path
from domain.agents.events import AgentRevoked
from domain.blobs import BlobRef
from domain.datasets.events import DatasetRegistered
from domain.jobs.events import JobEvent, JobReprioritised
from domain.messages import StreamId
from domain.placement import Needs
from domain.queues.events import (
    SlotsOffered,
    SlotsWithdrawn,
    WorkAssigned,
    WorkKind,
    WorkQueued,
)
from domain.subjects import derived_id
from domain.work import EvaluateAssignment, StopWork, TrainAssignment
from handlers.follow_ups import queue_stream
from handlers.validation import validate
from tests import samples
from tests.domain import test_dataset as dataset
from tests.domain import test_evaluation as evaluation
from tests.domain import test_job as job
from tests.domain import test_model as model
from tests.domain import test_model_version as version
from tests.handlers.inside import Inside
from tests.samples import AGENT, EVALUATION, JOB, MODEL, VERSION

QUEUE = queue_stream(samples.WORKSPACE).id
CSV = b"text,intent\nmoney back,refund\nmoney back,refund\nstop it,cancel\nnow stop it,cancel\n"


@pytest.fixture
def inside() -> Inside:
    return Inside()


def assigned(kind: WorkKind = "train", attempt: int = 1) -> WorkAssigned:
    work_id = JOB if kind == "train" else EVALUATION
    return WorkAssigned(
        work_id=work_id,
        kind=kind,
        attempt=attempt,
        agent_id=str(AGENT),
        reason="first",
    )


def registered(content: bytes, rows: int = 4, sha256: str | None = None) -> DatasetRegistered:
    named = sha256 or hashlib.sha256(content).hexdigest()
    return dataset.registered.model_copy(
        update={
            "blob": BlobRef(sha256=named, size=len(content), crc32=0),
            "rows": rows,
            "labels": {"cancel": 2, "refund": 2},
        }
    )


async def test_a_submission_creates_the_model_and_queues_the_first_attempt(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)

    await inside.react()

    assert await inside.types() == ["JobSubmitted", "ModelCreated", "WorkQueued"]
    assert {asked.source for asked in inside.bus.sent} == {"reaction"}
    first = (await inside.store.everything())[0]
    assert {asked.causation_id for asked in inside.bus.sent} == {first.id}
    assert {asked.correlation_id for asked in inside.bus.sent} == {first.correlation_id}


async def test_an_event_that_comes_twice_leads_to_the_same_things_once(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    await inside.react()
    before = await inside.types()
    first = list(inside.bus.sent)

    await inside.react_again()

    assert await inside.types() == before
    assert inside.bus.sent[len(first) :] == first


async def test_assigned_work_is_handed_over_with_all_that_it_takes(inside: Inside) -> None:
    started = job.started().model_copy(update={"base_model": samples.MADE_HERE})
    history = (job.submitted, job.claimed(), started, job.saved(20), job.interrupted())
    await inside.happened("job", JOB, *history)
    await inside.happened("queue", QUEUE, assigned(attempt=2))

    await inside.react()

    (hand,) = inside.handed
    assert hand.agent_id == str(AGENT)
    assert hand.message == TrainAssignment(
        workspace=samples.WORKSPACE,
        job_id=JOB,
        attempt=2,
        spec=samples.SPEC,
        resume_from=samples.checkpoint(20),
        threads=samples.ENVIRONMENT.threads,
        base_model=samples.MADE_HERE,
        correlation_id=(await inside.store.everything())[0].correlation_id,
        causation_id=hand.id,
    )
    last = (await inside.store.read(StreamId(samples.WORKSPACE, "queue", QUEUE))).events
    assert hand.id in {recorded.id for recorded in last}


async def test_assigned_evaluations_are_handed_over_too(inside: Inside) -> None:
    await inside.happened("evaluation", EVALUATION, evaluation.requested)
    await inside.happened("queue", QUEUE, assigned("evaluate"))

    await inside.react()

    (hand,) = inside.handed
    assert isinstance(hand.message, EvaluateAssignment)
    assert hand.message.adapter == samples.ADAPTER
    assert hand.message.labels == ("cancel", "refund")
    assert hand.message.threads == 2


@pytest.mark.parametrize("since", [[job.cancelled(0)], [job.interrupted()], [job.claimed()]])
async def test_work_that_is_no_longer_to_be_claimed_is_not_handed_over(
    inside: Inside, since: list[JobEvent]
) -> None:
    await inside.happened("job", JOB, job.submitted, *since)
    await inside.happened("queue", QUEUE, assigned())

    await inside.react()

    assert inside.handed == []


async def queued_works(inside: Inside) -> list[WorkQueued]:
    history = await inside.store.read(StreamId(samples.WORKSPACE, "queue", QUEUE))
    return [one.event for one in history.events if isinstance(one.event, WorkQueued)]


async def test_a_job_waits_where_and_as_urgently_as_it_was_asked_to(inside: Inside) -> None:
    needs = Needs(accelerator="gpu")
    placed = {"submitted_by": "key:ann", "priority": 70, "pool": "lab", "needs": needs}
    await inside.happened("job", JOB, job.submitted.model_copy(update=placed))
    await inside.react()

    (work,) = await queued_works(inside)

    assert (work.user, work.priority, work.pool, work.needs) == ("key:ann", 70, "lab", needs)


async def test_a_change_of_priority_moves_the_work_and_holds_for_later_attempts(
    inside: Inside,
) -> None:
    await inside.happened("job", JOB, job.submitted)
    await inside.react()
    await inside.happened("job", JOB, JobReprioritised(job_id=JOB, priority=90))
    await inside.happened("job", JOB, job.claimed(), job.interrupted())
    await inside.react()

    assert "WorkReprioritised" in await inside.types()
    assert [work.priority for work in await queued_works(inside)] == [50, 90]


async def test_an_evaluation_is_on_the_account_of_the_jobs_user_and_waits_as_the_job_did(
    inside: Inside,
) -> None:
    placed = {"submitted_by": "key:ann", "priority": 70, "pool": "lab"}
    await inside.happened("job", JOB, job.submitted.model_copy(update=placed))
    await inside.happened("evaluation", EVALUATION, evaluation.requested)
    await inside.react()

    work = (await queued_works(inside))[-1]

    assert (work.kind, work.user, work.priority, work.pool) == ("evaluate", "key:ann", 70, "lab")


async def test_an_evaluation_that_somebody_asks_for_is_on_their_account(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    await inside.happened("evaluation", EVALUATION, evaluation.requested, source="gateway")
    await inside.react()

    assert (await queued_works(inside))[-1].user == "gateway"


async def test_nothing_is_known_of_a_revoked_agent_any_more(inside: Inside) -> None:
    offered = SlotsOffered(
        agent_id=str(AGENT), name="box", slots=1, methods=(), accelerator="cpu", memory_bytes=1
    )
    await inside.happened("queue", QUEUE, offered)
    await inside.happened("agent", AGENT, AgentRevoked(agent_id=AGENT))
    await inside.react()

    last = (await inside.store.everything())[-1].event
    assert last == SlotsWithdrawn(agent_id=str(AGENT), reason="revoked", for_good=True)


async def test_an_interrupted_job_is_queued_again(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted, job.claimed(), job.interrupted())

    await inside.react()

    (queued,) = (r.event for r in await inside.store.everything() if r.stream.aggregate == "queue"
                 and r.event.model_dump()["attempt"] == 2)  # fmt: skip
    assert type(queued).__name__ == "WorkQueued"


async def test_a_cancelled_job_stops_its_agent_and_leaves_the_queue(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    await inside.react()
    await inside.happened("job", JOB, job.claimed(), job.requested)
    await inside.react()

    (hand,) = inside.handed
    assert hand.agent_id == str(AGENT)
    assert hand.message == StopWork(
        workspace=samples.WORKSPACE, work_id=JOB, attempt=1, reason="cancelled"
    )

    await inside.happened("job", JOB, job.cancelled(1))
    await inside.react()
    assert (await inside.types())[-1] == "WorkWithdrawn"


async def test_a_success_becomes_a_numbered_version_that_is_evaluated(inside: Inside) -> None:
    for file in samples.ADAPTER:
        inside.blobs.sizes[file.blob.sha256] = file.blob.size
    for file in samples.MADE_HERE.files:
        inside.blobs.sizes[file.blob.sha256] = file.blob.size
    started = job.started().model_copy(update={"base_model": samples.MADE_HERE})
    history = (job.submitted, job.claimed(), started, job.succeeded())
    await inside.happened("job", JOB, *history)

    await inside.react()

    types = await inside.types()
    for name in ("VersionNumbered", "VersionRegistered", "ModelReady", "EvaluationRequested"):
        assert types.count(name) == 1, name
    events = {
        type(recorded.event).__name__: recorded for recorded in await inside.store.everything()
    }
    facts = events["VersionRegistered"].event.model_dump()
    assert facts["label"] == samples.NOW.strftime("%Y%m%d-%H%M%S")
    assert facts["number"] == 1
    assert facts["version_id"] == derived_id(samples.WORKSPACE, "version", str(JOB))
    assert facts["model_id"] == derived_id(samples.WORKSPACE, "model", "support-intents")
    assert facts["environment"] == samples.ENVIRONMENT.model_dump()
    assert facts["base_model"] == samples.MADE_HERE.model_dump()
    evaluated = events["EvaluationRequested"].event.model_dump()
    assert evaluated["base_model"] == facts["base_model"]
    assert events["EvaluationRequested"].stream.id == derived_id(
        samples.WORKSPACE, "evaluation", str(facts["version_id"])
    )


@pytest.mark.parametrize("size", [None, 1])
async def test_a_version_whose_files_are_not_whole_fails(inside: Inside, size: int | None) -> None:
    first, second = samples.ADAPTER
    inside.blobs.sizes[first.blob.sha256] = first.blob.size
    if size:
        inside.blobs.sizes[second.blob.sha256] = size
    await inside.happened("model_version", VERSION, version.registered)

    await inside.react()

    (*_, failed) = await inside.store.everything()
    assert type(failed.event).__name__ == "ModelFailed"
    assert second.path in failed.event.model_dump()["message"]


async def test_a_version_whose_base_model_is_not_whole_fails(inside: Inside) -> None:
    for file in samples.ADAPTER:
        inside.blobs.sizes[file.blob.sha256] = file.blob.size
    registered = version.registered.model_copy(update={"base_model": samples.MADE_HERE})
    await inside.happened("model_version", VERSION, registered)

    await inside.react()

    (*_, failed) = await inside.store.everything()
    assert type(failed.event).__name__ == "ModelFailed"
    assert "base_model/config.json" in failed.event.model_dump()["message"]


async def test_an_evaluation_is_queued_queued_again_and_withdrawn(inside: Inside) -> None:
    await inside.happened("evaluation", EVALUATION, evaluation.requested, evaluation.started())
    await inside.react()
    await inside.happened("evaluation", EVALUATION, evaluation.interrupted())
    await inside.react()
    await inside.happened("evaluation", EVALUATION, evaluation.started(2), evaluation.completed)
    await inside.react()

    queue = [r.event for r in await inside.store.everything() if r.stream.aggregate == "queue"]
    assert [type(event).__name__ for event in queue] == [
        "WorkQueued",
        "WorkQueued",
        "WorkWithdrawn",
    ]


async def test_cancelling_a_running_evaluation_stops_its_agent(inside: Inside) -> None:
    history = (evaluation.requested, evaluation.started(), evaluation.cancelled(str(AGENT)))
    await inside.happened("evaluation", EVALUATION, *history)

    await inside.react()

    (hand,) = inside.handed
    assert isinstance(hand.message, StopWork)
    assert hand.message.work_id == EVALUATION


async def test_cancelling_a_waiting_evaluation_stops_nobody(inside: Inside) -> None:
    await inside.happened("evaluation", EVALUATION, evaluation.requested, evaluation.cancelled(""))

    await inside.react()

    assert inside.handed == []


async def test_stored_bytes_are_read_again_and_stated(inside: Inside) -> None:
    event = registered(CSV)
    inside.blobs.contents[event.blob.sha256] = CSV
    await inside.happened("dataset", samples.DATASET, event)

    await inside.react()

    (_, validated) = await inside.store.everything()
    facts = validated.event.model_dump()
    assert facts["type"] == "DatasetValidated"
    assert facts["duplicate_rows"] == 1
    assert facts["longest_text_chars"] == len("now stop it")


async def test_stored_conversations_are_counted_and_one_is_shown(inside: Inside) -> None:
    content = b"".join(
        b'{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"}]}\n'
        % pair
        for pair in [(b"a", b"x"), (b"a", b"x"), (b"a", b"y"), (b"bcd", b"x")]
    )
    event = registered(content).model_copy(
        update={"kind": "chat", "format": "jsonl", "text_column": "messages", "label_column": "", "labels": {}}
    )  # fmt: skip
    inside.blobs.contents[event.blob.sha256] = content
    await inside.happened("dataset", samples.DATASET, event)

    await inside.react()

    (_, validated) = await inside.store.everything()
    assert validated.event.model_dump(exclude={"dataset_id"}) == {
        "type": "DatasetValidated",
        "duplicate_rows": 1,
        "conflicting_texts": 1,
        "longest_text_chars": 4,
        "mean_text_chars": 2.5,
        "messages": 8,
        "supervised_messages": 4,
        "example": (
            {"text": "user: a", "supervised": False},
            {"text": "assistant: x", "supervised": True},
        ),
        "table": None,
    }


@pytest.mark.parametrize(
    ("content", "named", "rows", "code"),
    [
        (CSV, None, 5, "content_differs"),
        (CSV, "f" * 64, 4, "blob_damaged"),
        (b"text,intent\nmoney back\n", None, 4, "missing_field"),
    ],
)
async def test_stored_bytes_that_do_not_hold_what_was_said_are_rejected(
    inside: Inside, content: bytes, named: str | None, rows: int, code: str
) -> None:
    event = registered(content, rows, named)
    inside.blobs.contents[event.blob.sha256] = content
    await inside.happened("dataset", samples.DATASET, event)

    await inside.react()

    (_, rejected) = await inside.store.everything()
    facts = rejected.event.model_dump()
    assert facts["type"] == "DatasetRejected"
    if code != "missing_field":  # the parser's own codes are its own tests' business
        assert facts["code"] == code


async def test_bytes_that_are_gone_are_a_rejection_not_an_error(inside: Inside) -> None:
    await inside.happened("dataset", samples.DATASET, registered(CSV))

    await inside.react()

    (_, rejected) = await inside.store.everything()
    assert rejected.event.model_dump()["code"] == "blob_missing"


async def test_bytes_that_the_store_calls_damaged_are_rejected_not_read_for_ever(
    inside: Inside, tmp_path: Path
) -> None:
    blobs = LocalBlobs(tmp_path)
    async with blobs.writer() as writer:
        await writer.write(CSV)
        ref = await writer.commit()
    blob_path(tmp_path, ref.sha256).write_bytes(CSV.replace(b"now", b"new"))

    verdict = await validate(registered(CSV), blobs)

    assert verdict.problem_code == "blob_damaged"


async def test_most_events_lead_to_nothing(inside: Inside) -> None:
    await inside.happened("model", MODEL, model.created)

    await inside.react()

    assert inside.commands() == []
