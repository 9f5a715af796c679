"""The rules of a job."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.base_models import BaseModelRecord
from domain.errors import NotFound, NotYours, Rejected, StaleAttempt
from domain.jobs import job as jobs
from domain.jobs.commands import (
    CancelJob,
    ChangePriority,
    ClaimJob,
    CompleteJob,
    DatasetFacts,
    ExpireLease,
    FailJob,
    JobCommand,
    QueueFacts,
    RecordCheckpoint,
    RecordEpoch,
    RecordMicroBatch,
    RecordStart,
    ReleaseJob,
    SubmitJob,
)
from domain.jobs.events import (
    CancellationRequested,
    CheckpointSaved,
    EpochCompleted,
    JobCancelled,
    JobClaimed,
    JobEvent,
    JobFailed,
    JobInterrupted,
    JobReprioritised,
    JobStarted,
    JobSubmitted,
    JobSucceeded,
    MicroBatchHalved,
)
from domain.jobs.job import MAX_ATTEMPTS, decider
from domain.jobs.spec import (
    DEFAULT_BASE_MODEL,
    SFT,
    TINY,
    GrpoConfig,
    HyperparameterChoices,
    Hyperparameters,
    JobSpec,
    LoraChoices,
)
from domain.placement import Needs
from tests import samples
from tests.samples import JOB
from tests.spec import Spec

AGENT, OTHER = str(samples.AGENT), str(samples.OTHER_AGENT)
VALID = DatasetFacts(status="valid", ref=samples.TRAIN)
CHATS = DatasetFacts(status="valid", ref=samples.CHATS)
TERMINAL = (JobSucceeded, JobFailed, JobCancelled)

job = Spec(decider)

submitted = JobSubmitted(job_id=JOB, spec=samples.SPEC)
cancel = CancelJob(job_id=JOB)


def submit(**changes: Any) -> SubmitJob:
    return SubmitJob(
        job_id=JOB,
        model_name="support-intents",
        dataset_id=samples.DATASET,
        **{"train": VALID} | changes,
    )


def test_a_submission_says_who_wants_it_how_urgently_and_where() -> None:
    needs = Needs(accelerator="gpu", memory_bytes=5)
    asked = submit(submitted_by="key:ann", priority=70, pool="lab", needs=needs)
    placed = {"submitted_by": "key:ann", "priority": 70, "pool": "lab", "needs": needs}

    (event,) = job.when(asked).decide()

    assert isinstance(event, JobSubmitted)
    assert {name: getattr(event, name) for name in placed} == placed


@pytest.mark.parametrize(
    ("waiting", "limit", "taken"), [(0, None, True), (2, 3, True), (3, 3, False), (0, 0, False)]
)
def test_a_submission_over_the_quota_is_refused(
    waiting: int, limit: int | None, taken: bool
) -> None:
    asked = submit(queue=QueueFacts(waiting=waiting, limit=limit))

    if taken:
        assert len(job.when(asked).decide()) == 1
    else:
        job.when(asked).then_rejected(jobs.QueueQuotaReached, match=f"{waiting} of your jobs wait")


def test_a_priority_is_changed_until_the_job_has_ended() -> None:
    higher = ChangePriority(job_id=JOB, priority=60)
    moved = JobReprioritised(job_id=JOB, priority=60)

    job.given(submitted).when(higher).then(moved)
    job.given(submitted, claimed()).when(higher).then(moved)
    job.given(submitted, moved).when(higher).then_nothing()
    job.given(submitted, cancelled(0)).when(higher).then_rejected(
        jobs.JobHasEnded, match="cancelled"
    )
    job.when(higher).then_rejected(NotFound)


def claimed(attempt: int = 1, agent: str = AGENT) -> JobClaimed:
    return JobClaimed(job_id=JOB, attempt=attempt, agent_id=agent, boot_id="boot-1")


def claim(attempt: int = 1, agent: str = AGENT) -> ClaimJob:
    return ClaimJob(job_id=JOB, attempt=attempt, agent_id=agent, boot_id="boot-1")


def start(attempt: int = 1, agent: str = AGENT) -> RecordStart:
    return RecordStart(
        job_id=JOB,
        attempt=attempt,
        agent_id=agent,
        environment=samples.ENVIRONMENT,
        total_steps=60,
        total_epochs=3,
        first_step=0,
        train_rows=300,
        validation_rows=30,
        test_rows=80,
        trainable_parameters=1,
        total_parameters=2,
    )


def started(attempt: int = 1) -> JobStarted:
    return JobStarted.model_validate(start(attempt).model_dump(exclude={"type", "agent_id"}))


def epoch(number: int, attempt: int = 1, agent: str = AGENT) -> RecordEpoch:
    return RecordEpoch(
        job_id=JOB,
        attempt=attempt,
        agent_id=agent,
        epoch=number,
        step=20 * number,
        train_loss=0.5,
        seconds=1.0,
    )


def epoch_completed(number: int, attempt: int = 1) -> EpochCompleted:
    return EpochCompleted.model_validate(
        epoch(number, attempt).model_dump(exclude={"type", "agent_id"})
    )


def save(step: int, attempt: int = 1) -> RecordCheckpoint:
    return RecordCheckpoint(
        job_id=JOB, attempt=attempt, agent_id=AGENT, checkpoint=samples.checkpoint(step)
    )


def halve() -> RecordMicroBatch:
    return RecordMicroBatch(
        job_id=JOB,
        attempt=1,
        agent_id=AGENT,
        step=12,
        micro_batch_tokens=1024,
        reason="no memory",
    )


def saved(step: int, attempt: int = 1) -> CheckpointSaved:
    return CheckpointSaved(job_id=JOB, attempt=attempt, checkpoint=samples.checkpoint(step))


def complete(attempt: int = 1, agent: str = AGENT) -> CompleteJob:
    return CompleteJob(
        job_id=JOB,
        attempt=attempt,
        agent_id=agent,
        adapter=samples.ADAPTER,
        labels=("cancel", "refund"),
        train_rows=300,
        trained_tokens=9000,
        steps=60,
        seconds=12.0,
        final_loss=0.05,
        validation_accuracy=0.97,
    )


def succeeded(attempt: int = 1) -> JobSucceeded:
    return JobSucceeded.model_validate(complete(attempt).model_dump(exclude={"type", "agent_id"}))


def fail(attempt: int = 1) -> FailJob:
    return FailJob(job_id=JOB, attempt=attempt, agent_id=AGENT, code="oom", message="no memory")


def release(attempt: int = 1) -> ReleaseJob:
    return ReleaseJob(job_id=JOB, attempt=attempt, agent_id=AGENT, reason="drained")


def expire(attempt: int = 1) -> ExpireLease:
    return ExpireLease(job_id=JOB, attempt=attempt, reason="silent")


def interrupted(attempt: int = 1, reason: str = "silent") -> JobInterrupted:
    return JobInterrupted(job_id=JOB, attempt=attempt, reason=reason)


def cancelled(attempt: int) -> JobCancelled:
    return JobCancelled(job_id=JOB, attempt=attempt)


requested = CancellationRequested(job_id=JOB, attempt=1, agent_id=AGENT)


def test_a_submission_records_what_was_looked_up_in_full() -> None:
    job.when(submit()).then(submitted)


def test_an_id_is_submitted_once() -> None:
    job.given(submitted).when(submit()).then_rejected(jobs.JobExists)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (None, "does not exist"),
        (DatasetFacts(status="absent"), "does not exist"),
        (DatasetFacts(status="pending", ref=samples.TRAIN), "still being validated"),
        (DatasetFacts(status="rejected", message="line 3"), "was rejected: line 3"),
        (DatasetFacts(status="deleted", ref=samples.TRAIN), "was deleted"),
    ],
)
def test_only_a_valid_dataset_is_trained_on(facts: DatasetFacts | None, reason: str) -> None:
    job.when(submit(train=facts)).then_rejected(jobs.DatasetUnusable, reason)


def test_a_test_dataset_must_be_valid_too() -> None:
    command = submit(test_dataset_id=samples.DATASET, test=DatasetFacts(status="pending"))

    job.when(command).then_rejected(jobs.DatasetUnusable, "test dataset")


def test_a_test_dataset_may_not_show_labels_that_training_never_shows() -> None:
    other = samples.TRAIN.model_copy(update={"labels": ("cancel", "unheard")})
    facts = DatasetFacts(status="valid", ref=other)
    command = submit(test_dataset_id=samples.DATASET, test=facts)

    job.when(command).then_rejected(jobs.LabelsDiffer, "unheard")


def spec_of(command: SubmitJob) -> JobSpec:
    (event,) = job.when(command).decide()
    assert isinstance(event, JobSubmitted)
    return event.spec


def test_the_kind_of_the_rows_says_which_method_and_base_model_suit() -> None:
    texts, chats = spec_of(submit()), spec_of(submit(train=CHATS))

    assert (texts.method, texts.base_model) == ("sequence_classification", DEFAULT_BASE_MODEL)
    assert (chats.method, chats.base_model) == ("sft", TINY)


def test_what_is_chosen_is_laid_over_the_defaults_of_method_and_base_model() -> None:
    chosen = HyperparameterChoices(epochs=2, lora=LoraChoices(rank=4))

    tiny = spec_of(submit(train=CHATS, hyperparameters=chosen))
    other = spec_of(submit(train=CHATS, base_model="a-folder", hyperparameters=chosen))
    texts = spec_of(submit(hyperparameters=chosen))

    assert tiny.hyperparameters.lora.alpha == SFT.lora.alpha
    assert tiny.hyperparameters.learning_rate > SFT.learning_rate
    assert other.hyperparameters == SFT.model_copy(
        update={"epochs": 2, "lora": SFT.lora.model_copy(update={"rank": 4})}
    )
    assert texts.hyperparameters == Hyperparameters(
        epochs=2, lora=Hyperparameters().lora.model_copy(update={"rank": 4})
    )


def choices(**chosen: Any) -> HyperparameterChoices:
    return HyperparameterChoices.model_validate(chosen)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "sft"}, "of the kind classification"),
        ({"method": "sequence_classification", "train": CHATS}, "of the kind chat"),
        ({"base_model": TINY}, "cannot train finetrail/tiny"),
        ({"base_model": DEFAULT_BASE_MODEL, "train": CHATS}, "cannot train finetrail/minilm"),
        ({"test_dataset_id": samples.DATASET, "test": CHATS}, "the test dataset"),
        (
            {"test_dataset_id": samples.DATASET, "test": VALID, "train": CHATS},
            "the test dataset",
        ),
        (
            {"hyperparameters": HyperparameterChoices(tuning="qlora")},
            "sequence_classification is trained with lora; qlora is for language models",
        ),
        ({"method": "grpo"}, "of the kind classification"),
        ({"method": "dpo", "train": CHATS}, "dpo cannot learn from the dataset"),
        (
            {"train": CHATS, "hyperparameters": choices(grpo={"group_size": 4})},
            "sft takes no grpo",
        ),
        (
            {"train": CHATS, "hyperparameters": choices(preference={"beta": 0.2})},
            "sft takes no preference",
        ),
        (
            {
                "method": "grpo",
                "train": CHATS,
                "hyperparameters": choices(grpo={"reward": "regular_expression"}),
            },
            "needs grpo.pattern",
        ),
    ],
)
def test_a_method_is_not_let_near_what_it_cannot_train_or_learn_from(
    changes: dict[str, Any], reason: str
) -> None:
    job.when(submit(**changes)).then_rejected(jobs.MethodUnfit, reason)


def test_reinforcement_takes_conversations_and_what_is_chosen_of_it() -> None:
    asked = choices(grpo={"group_size": 4, "reward": "numeric"}, tuning="qlora")

    spec = spec_of(submit(train=CHATS, method="grpo", hyperparameters=asked))

    assert (spec.method, spec.base_model) == ("grpo", TINY)
    assert spec.hyperparameters.grpo == GrpoConfig(group_size=4, reward="numeric")
    assert spec.hyperparameters.tuning == "qlora"
    assert spec.hyperparameters.lora.dropout == 0


def test_what_came_later_is_written_only_where_it_says_something() -> None:
    """An agent of an older build refuses what it does not know, and does all other work."""
    plain = spec_of(submit(train=CHATS))
    chosen = spec_of(submit(train=CHATS, hyperparameters=choices(schedule="cosine")))
    later = {"tuning", "schedule", "precision", "optimizer", "keep_best", "preference", "grpo"}

    assert plain.model_dump()["hyperparameters"].keys().isdisjoint(later)
    assert chosen.model_dump()["hyperparameters"].keys() & later == {"schedule"}
    assert plain.in_full()["hyperparameters"].keys() >= later
    assert plain.in_full()["hyperparameters"]["lora"]["rslora"] is False
    assert type(plain).model_validate_json(plain.model_dump_json()) == plain
    assert json.loads(json.dumps(plain.in_full())) == plain.in_full()


@pytest.mark.parametrize(
    "asked",
    [{}, {"train": CHATS}, {"train": CHATS, "method": "grpo"}],
    ids=["sequence_classification", "sft", "grpo"],
)
def test_the_hyperparameters_of_a_job_can_be_given_to_another_one(asked: dict[str, Any]) -> None:
    """As they are shown, with those that the method has no use for."""
    first = spec_of(submit(**asked))
    shown = json.loads(json.dumps(first.in_full()["hyperparameters"]))

    assert spec_of(submit(**asked, hyperparameters=choices(**shown))) == first


def test_rows_of_all_kinds_that_a_language_model_learns_from_may_be_mixed() -> None:
    prompts = samples.CHATS.model_copy(update={"kind": "prompt_completion"})
    facts = DatasetFacts(status="valid", ref=prompts)

    spec = spec_of(submit(train=CHATS, test_dataset_id=samples.DATASET, test=facts))

    assert spec.test == prompts


@pytest.mark.parametrize("command", [cancel, claim(), expire(), complete()])
def test_a_job_that_was_never_submitted_is_not_found(command: JobCommand) -> None:
    job.when(command).then_rejected(NotFound)


def test_the_live_attempt_is_claimed_once() -> None:
    job.given(submitted).when(claim()).then(claimed())
    job.given(submitted, claimed()).when(claim()).then_rejected(StaleAttempt)
    job.given(submitted, claimed()).when(claim(agent=OTHER)).then_rejected(StaleAttempt)


def test_only_the_attempt_that_was_queued_may_be_claimed() -> None:
    job.given(submitted).when(claim(2)).then_rejected(StaleAttempt)
    job.given(submitted, interrupted()).when(claim(1)).then_rejected(StaleAttempt)
    job.given(submitted, interrupted()).when(claim(2)).then(claimed(2))


def test_reports_of_the_holder_are_recorded() -> None:
    running = job.given(submitted, claimed())

    running.when(start()).then(started())
    running.when(epoch(1)).then(epoch_completed(1))
    running.when(save(20)).then(saved(20))
    running.when(halve()).then(
        MicroBatchHalved(
            job_id=JOB, attempt=1, step=12, micro_batch_tokens=1024, reason="no memory"
        )
    )
    running.when(fail()).then(JobFailed(job_id=JOB, attempt=1, code="oom", message="no memory"))
    job.given(submitted, claimed(), started()).when(complete()).then(succeeded())


def test_a_result_without_a_start_is_refused() -> None:
    job.given(submitted, claimed()).when(complete()).then_rejected(jobs.NotStarted)


@pytest.mark.parametrize("report", [start(agent=OTHER), epoch(1, agent=OTHER), complete(1, OTHER)])
def test_another_agents_report_is_refused(report: JobCommand) -> None:
    job.given(submitted, claimed(), started()).when(report).then_rejected(NotYours)


@pytest.mark.parametrize("report", [start(1), epoch(2), save(40), complete(), fail(), release()])
def test_a_report_from_an_older_attempt_is_refused(report: JobCommand) -> None:
    newer = job.given(submitted, claimed(), started(), interrupted(), claimed(2), started(2))

    newer.when(report).then_rejected(StaleAttempt)


@pytest.mark.parametrize("end", [succeeded(), cancelled(1), fail()])
def test_nothing_is_reported_after_the_end(end: JobEvent | FailJob) -> None:
    last = (
        JobFailed(job_id=JOB, attempt=1, code="c", message="m") if isinstance(end, FailJob) else end
    )
    ended = job.given(submitted, claimed(), started(), last)

    for report in (complete(), fail(), epoch(2), release(), claim(2)):
        ended.when(report).then_rejected(StaleAttempt)
    ended.when(expire()).then_nothing()
    ended.when(cancel).then_nothing()


def test_a_redelivered_report_changes_nothing() -> None:
    running = job.given(submitted, claimed(), started(), epoch_completed(1), saved(20))

    running.when(start()).then_nothing()
    running.when(epoch(1)).then_nothing()
    running.when(save(20)).then_nothing()
    running.when(save(10)).then_nothing()


def test_cancelling_a_waiting_job_ends_it_at_once() -> None:
    job.given(submitted).when(cancel).then(cancelled(0))
    job.given(submitted, claimed(), interrupted()).when(cancel).then(cancelled(1))


def test_cancelling_a_running_job_asks_its_agent_once() -> None:
    job.given(submitted, claimed()).when(cancel).then(requested)
    job.given(submitted, claimed(), requested).when(cancel).then_nothing()


@pytest.mark.parametrize("command", [release(), expire()])
def test_a_job_that_was_to_be_cancelled_ends_when_its_attempt_does(command: JobCommand) -> None:
    job.given(submitted, claimed(), requested).when(command).then(cancelled(1))


def test_a_job_that_finishes_before_the_cancellation_reaches_it_has_succeeded() -> None:
    job.given(submitted, claimed(), started(), requested).when(complete()).then(succeeded())


def test_an_expired_or_released_attempt_is_followed_by_the_next() -> None:
    job.given(submitted).when(expire()).then(interrupted())
    job.given(submitted, claimed()).when(expire()).then(interrupted())
    job.given(submitted, claimed()).when(release()).then(interrupted(reason="drained"))
    job.given(submitted, claimed(), interrupted()).when(expire(1)).then_nothing()


def test_the_next_attempt_inherits_checkpoint_epoch_and_threads() -> None:
    history = (submitted, claimed(), started(), epoch_completed(1), saved(20), interrupted())

    state = decider.fold(history)

    assert isinstance(state, jobs.Waiting)
    assert state.attempt == 2
    assert state.progress.checkpoint == samples.checkpoint(20)
    assert state.progress.epoch == 1
    assert state.progress.threads == samples.ENVIRONMENT.threads


def started_on(base: BaseModelRecord | None, threads: int, attempt: int) -> JobStarted:
    environment = samples.ENVIRONMENT.model_copy(update={"threads": threads})
    changes = {"base_model": base, "environment": environment}
    return started(attempt).model_copy(update=changes)


def test_later_attempts_run_on_what_the_first_start_was_said_to_run_on() -> None:
    other = samples.MADE_HERE.model_copy(update={"sha256": {"model.safetensors": f"{12:064x}"}})
    again = started_on(other, 8, attempt=2)
    history = (submitted, claimed(), started_on(samples.MADE_HERE, 2, 1), interrupted())

    state = decider.fold([*history, claimed(2), again, interrupted(2)])

    assert isinstance(state, jobs.Waiting)
    assert (state.progress.base_model, state.progress.threads) == (samples.MADE_HERE, 2)


def test_a_job_begun_before_base_models_were_recorded_is_pinned_by_its_next_start() -> None:
    history = (submitted, claimed(), started(), interrupted(), claimed(2))

    state = decider.fold([*history, started_on(samples.MADE_HERE, 2, 2), interrupted(2)])

    assert isinstance(state, jobs.Waiting)
    assert state.progress.base_model == samples.MADE_HERE


def test_what_was_supervised_is_recorded_with_the_start() -> None:
    report = start().model_copy(
        update={"base_model": samples.MADE_HERE, "supervision": samples.SUPERVISION}
    )

    (event,) = job.given(submitted, claimed()).when(report).decide()

    assert isinstance(event, JobStarted)
    assert (event.base_model, event.supervision) == (samples.MADE_HERE, samples.SUPERVISION)


def test_attempts_come_to_an_end() -> None:
    history: list[JobEvent] = [submitted]
    for attempt in range(1, MAX_ATTEMPTS):
        history += [claimed(attempt), interrupted(attempt)]

    (failed,) = job.given(*history, claimed(MAX_ATTEMPTS)).when(expire(MAX_ATTEMPTS)).decide()

    assert isinstance(failed, JobFailed)
    assert failed.code == "attempts_exhausted"
    assert "silent" in failed.message


attempts = st.integers(min_value=1, max_value=4)
agent_ids = st.sampled_from([AGENT, OTHER])
any_command = st.one_of(
    st.just(submit()),
    st.just(cancel),
    st.builds(claim, attempts, agent_ids),
    st.builds(start, attempts, agent_ids),
    st.builds(epoch, st.integers(1, 3), attempts, agent_ids),
    st.builds(save, st.integers(1, 60), attempts),
    st.builds(complete, attempts, agent_ids),
    st.builds(fail, attempts),
    st.builds(release, attempts),
    st.builds(expire, attempts),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_command, max_size=40))
def test_whatever_is_asked_a_job_ends_at_most_once_and_attempts_only_grow(
    commands: Sequence[JobCommand],
) -> None:
    history: list[JobEvent] = []
    for command in commands:
        try:
            events = decider.decide(command, decider.fold(history))
        except Rejected:
            continue
        history += events

    ends = [event for event in history if isinstance(event, TERMINAL)]
    claims = [event.attempt for event in history if isinstance(event, JobClaimed)]
    assert len(ends) <= 1
    assert not ends or history[-1] is ends[0]
    assert claims == sorted(set(claims))
    assert [event for event in history if isinstance(event, JobSubmitted)] == history[:1]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([
    submitted, claimed(1), claimed(2), started(1), epoch_completed(2), saved(20), requested,
    interrupted(1), interrupted(3), succeeded(1), cancelled(0),
]), max_size=12))  # fmt: skip
def test_any_history_folds_to_a_state(history: Sequence[JobEvent]) -> None:
    state = decider.fold(history)

    assert isinstance(state, jobs.Absent | jobs.Waiting | jobs.Running | jobs.Ended)
    assert isinstance(state, jobs.Absent) == (submitted not in history)
