"""From a command to its events: once, whoever else writes, with facts from the log."""

from typing import Any
from uuid import UUID

import pytest

from domain.datasets.events import DatasetDeleted
from domain.errors import NotYours, Rejected, VersionConflict
from domain.evaluations.commands import ClaimEvaluation, RunEvaluation
from domain.jobs import job as jobs
from domain.jobs.commands import CancelJob, ClaimJob, DatasetFacts, ExpireLease, SubmitJob
from domain.jobs.events import JobSubmitted
from domain.messages import StreamId
from domain.models.commands import ActivateModel
from domain.models.model import VersionNotReady
from domain.queues.commands import Enqueue
from domain.queues.events import WorkAssigned
from domain.queues.queue import queue_id
from handlers.authority import ForbiddenSource, Misaddressed
from handlers.execute import execute
from tests import samples
from tests.domain import test_dataset as dataset
from tests.domain import test_job as job
from tests.domain import test_model as model
from tests.domain import test_model_version as version
from tests.handlers.inside import Inside, envelope
from tests.samples import AGENT, DATASET, EVALUATION, JOB, MODEL, VERSION


@pytest.fixture
def inside() -> Inside:
    return Inside()


def submit(**changes: Any) -> SubmitJob:
    return SubmitJob(job_id=JOB, model_name="support", dataset_id=DATASET, **changes)


def given(agent: UUID) -> WorkAssigned:
    return WorkAssigned(work_id=JOB, kind="train", attempt=1, agent_id=str(agent), reason="free")


async def test_a_command_leads_to_its_event_once_however_often_it_comes(inside: Inside) -> None:
    await inside.happened("dataset", DATASET, dataset.registered, dataset.validated)
    asked = envelope(submit(), "job", JOB)

    first = await inside.desk.decide(asked)
    await inside.desk.decide(envelope(CancelJob(job_id=JOB), "job", JOB, command_id=2))
    again = await inside.desk.decide(asked)

    assert first.status == again.status == "recorded"
    assert first.sequence == again.sequence == 3
    assert (await inside.types())[2:] == ["JobSubmitted", "JobCancelled"]


async def test_an_old_activation_that_comes_again_does_not_roll_back(inside: Inside) -> None:
    second = UUID(int=2)
    other = version.registered.model_copy(update={"version_id": second})
    history = (model.created, model.numbered(2).model_copy(update={"version_id": VERSION}))
    await inside.happened("model", MODEL, *history, model.numbered(2))
    await inside.happened("model_version", VERSION, version.registered, version.ready)
    ready = version.ready.model_copy(update={"version_id": second})
    await inside.happened("model_version", second, other, ready)
    first = envelope(ActivateModel(model_id=MODEL, version_id=VERSION), "model", MODEL)
    then = envelope(ActivateModel(model_id=MODEL, version_id=second), "model", MODEL, command_id=2)
    await inside.desk.decide(first)
    await inside.desk.decide(then)

    await inside.desk.decide(first)

    last = (await inside.store.everything())[-1]
    assert getattr(last.event, "version_id", None) == second


async def test_a_command_that_changes_nothing_says_where_the_stream_stands(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted, job.cancelled(0))

    outcome = await inside.desk.decide(envelope(CancelJob(job_id=JOB), "job", JOB))

    assert (outcome.status, outcome.sequence) == ("unchanged", 2)


async def test_a_refusal_leaves_nothing_behind(inside: Inside) -> None:
    with pytest.raises(Rejected):
        await inside.desk.decide(envelope(CancelJob(job_id=JOB), "job", JOB))

    assert await inside.types() == []


async def test_a_decision_is_taken_again_when_somebody_was_first(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    store, append = inside.store, inside.store.append

    async def overtaken(*args: Any, **kwargs: Any) -> int:
        store.append = append  # type: ignore[method-assign]
        await inside.happened("job", JOB, job.claimed())
        return await append(*args, **kwargs)

    store.append = overtaken  # type: ignore[method-assign]

    await inside.desk.decide(envelope(CancelJob(job_id=JOB), "job", JOB))

    assert await inside.types() == ["JobSubmitted", "JobClaimed", "CancellationRequested"]


async def test_a_stream_that_never_holds_still_is_given_up_for_now(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)

    async def conflict(*_: Any, **__: Any) -> int:
        raise VersionConflict

    inside.store.append = conflict  # type: ignore[method-assign]

    with pytest.raises(VersionConflict):
        await execute(
            envelope(CancelJob(job_id=JOB), "job", JOB),
            jobs.decider,
            inside.histories,
            lambda: samples.NOW,
        )


async def test_a_known_stream_is_read_only_from_where_it_was_left(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    asked: list[int] = []
    read = inside.store.read

    async def watched(stream: StreamId, after: int = 0, *, limit: int | None = None) -> Any:
        asked.append(after)
        return await read(stream, after, limit=limit)

    inside.store.read = watched  # type: ignore[method-assign]
    stream = StreamId("default", "job", JOB)

    await inside.histories.load(stream, jobs.decider)
    await inside.histories.load(stream, jobs.decider)

    assert asked == [0, 1]


async def test_what_the_sender_says_about_a_dataset_does_not_count(inside: Inside) -> None:
    forged = submit(train=DatasetFacts(status="valid", ref=samples.TRAIN))

    with pytest.raises(jobs.DatasetUnusable, match="does not exist"):
        await inside.desk.decide(envelope(forged, "job", JOB))


async def test_the_dataset_is_taken_as_the_log_knows_it(inside: Inside) -> None:
    await inside.happened("dataset", DATASET, dataset.registered, dataset.validated)
    await inside.desk.decide(envelope(submit(), "job", JOB))

    event = (await inside.store.everything())[-1].event

    assert isinstance(event, JobSubmitted)
    assert event.spec.train == samples.TRAIN


async def test_a_deleted_dataset_is_not_trained_on(inside: Inside) -> None:
    history = (dataset.registered, dataset.validated, DatasetDeleted(dataset_id=DATASET))
    await inside.happened("dataset", DATASET, *history)

    with pytest.raises(jobs.DatasetUnusable, match="deleted"):
        await inside.desk.decide(envelope(submit(), "job", JOB))


async def test_only_a_ready_version_of_that_very_model_is_activated(inside: Inside) -> None:
    numbered = model.numbered(1).model_copy(update={"version_id": VERSION})
    await inside.happened("model", MODEL, model.created, numbered)
    claimed_ready = ActivateModel(model_id=MODEL, version_id=VERSION, version_status="ready")

    with pytest.raises(VersionNotReady, match="absent"):
        await inside.desk.decide(envelope(claimed_ready, "model", MODEL))
    await inside.happened("model_version", VERSION, version.registered)
    with pytest.raises(VersionNotReady, match="uploading"):
        await inside.desk.decide(envelope(claimed_ready, "model", MODEL))
    await inside.happened("model_version", VERSION, version.ready)
    outcome = await inside.desk.decide(envelope(claimed_ready, "model", MODEL))

    assert outcome.status == "recorded"


async def test_a_version_that_is_registered_under_another_model_is_absent(inside: Inside) -> None:
    numbered = model.numbered(1).model_copy(update={"version_id": VERSION})
    foreign = version.registered.model_copy(update={"model_id": UUID(int=99)})
    await inside.happened("model", MODEL, model.created, numbered)
    await inside.happened("model_version", VERSION, foreign, version.ready)
    asked = ActivateModel(model_id=MODEL, version_id=VERSION)

    with pytest.raises(VersionNotReady, match="absent"):
        await inside.desk.decide(envelope(asked, "model", MODEL))


async def test_an_evaluation_takes_spec_labels_files_and_threads_from_the_version(
    inside: Inside,
) -> None:
    await inside.happened("model_version", VERSION, version.registered, version.ready)
    asked = RunEvaluation(evaluation_id=EVALUATION, version_id=VERSION, threads=64)

    await inside.desk.decide(envelope(asked, "evaluation", EVALUATION))

    event = (await inside.store.everything())[-1].event
    assert event.model_dump(include={"spec", "labels", "adapter", "threads", "job_id"}) == {
        "spec": samples.SPEC.model_dump(),
        "labels": ("cancel", "refund"),
        "adapter": tuple(file.model_dump() for file in samples.ADAPTER),
        "threads": samples.ENVIRONMENT.threads,
        "job_id": JOB,
    }


async def test_a_report_bears_the_id_of_the_agent_that_sent_it(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    await inside.happened("queue", queue_id(samples.WORKSPACE), given(AGENT))
    forged = ClaimJob(job_id=JOB, attempt=1, agent_id="somebody-else", boot_id="b")

    await inside.desk.decide(envelope(forged, "job", JOB, source=str(AGENT)))

    event = (await inside.store.everything())[-1].event
    assert event.model_dump()["agent_id"] == str(AGENT)


async def test_an_agent_claims_only_the_attempt_that_it_was_given(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    claim = envelope(ClaimJob(job_id=JOB, attempt=1, boot_id="b"), "job", JOB, source=str(AGENT))

    with pytest.raises(NotYours):
        await inside.desk.decide(claim)  # it waits, and was given to nobody
    await inside.happened("queue", queue_id(samples.WORKSPACE), given(UUID(int=5)))
    with pytest.raises(NotYours):
        await inside.desk.decide(claim)


@pytest.mark.parametrize("source", ["gateway", "operator", "reaction"])
async def test_reports_come_from_agents_only(inside: Inside, source: str) -> None:
    claim_job = ClaimJob(job_id=JOB, attempt=1, boot_id="b")
    claim_evaluation = ClaimEvaluation(evaluation_id=EVALUATION, attempt=1, boot_id="b")

    with pytest.raises(ForbiddenSource):
        await inside.desk.decide(envelope(claim_job, "job", JOB, source=source))
    with pytest.raises(ForbiddenSource):
        await inside.desk.decide(
            envelope(claim_evaluation, "evaluation", EVALUATION, source=source)
        )


async def test_an_agent_may_only_report_and_enrol_itself(inside: Inside) -> None:
    for command, aggregate, id_ in (
        (CancelJob(job_id=JOB), "job", JOB),
        (submit(), "job", JOB),
        (ActivateModel(model_id=MODEL, version_id=VERSION), "model", MODEL),
        (ExpireLease(job_id=JOB, attempt=1, reason="r"), "job", JOB),
        (_enrol(samples.OTHER_AGENT), "agent", samples.OTHER_AGENT),
    ):
        with pytest.raises(ForbiddenSource):
            await inside.desk.decide(envelope(command, aggregate, id_, source=str(AGENT)))  # type: ignore[arg-type]

    own = envelope(_enrol(AGENT), "agent", AGENT, source=str(AGENT))
    assert (await inside.desk.decide(own)).status == "recorded"


async def test_what_only_reactions_decide_is_refused_from_people(inside: Inside) -> None:
    work = Enqueue(work_id=JOB, kind="train", method=samples.METHOD, attempt=1)

    for source in ("gateway", "operator"):
        with pytest.raises(ForbiddenSource):
            await inside.desk.decide(
                envelope(work, "queue", queue_id(samples.WORKSPACE), source=source)
            )


async def test_a_command_speaks_of_the_thing_it_was_sent_to(inside: Inside) -> None:
    await inside.happened("job", JOB, job.submitted)
    queue = queue_id("other")
    work = Enqueue(work_id=JOB, kind="train", method=samples.METHOD, attempt=1)

    with pytest.raises(Misaddressed):
        await inside.desk.decide(envelope(CancelJob(job_id=UUID(int=5)), "job", JOB))
    with pytest.raises(Misaddressed):
        await inside.desk.decide(envelope(CancelJob(job_id=JOB), "dataset", JOB))
    with pytest.raises(Misaddressed):
        await inside.desk.decide(envelope(work, "queue", queue, source="reaction"))


def _enrol(agent: UUID) -> Any:
    from domain.agents.commands import EnrolAgent

    return EnrolAgent(agent_id=agent, name="n", accelerator="cpu", memory_bytes=1, methods=())
