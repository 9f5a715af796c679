"""Events become rows: pure functions, no database."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

import pytest

from domain.access.events import KeyRevoked
from domain.agents.events import AgentDrained
from domain.catalog import EVENTS
from domain.messages import Event
from domain.queues.queue import decider
from domain.queues.waiting import explain
from domain.telemetry import MetricsLogged
from projections import (
    access_keys,
    agents,
    datasets,
    evaluations,
    jobs,
    metrics,
    model_versions,
    models,
    queue_ledger,
    timeline,
    work_items,
)
from projections.answers import QueueStanding, with_progress
from projections.projection import registry
from projections.view import Key, View, changed
from tests import samples
from tests.domain.test_queue_properties import asked, played
from tests.projections import histories as h

R = TypeVar("R")
BIRTHS = (
    "DatasetRegistered",
    "JobSubmitted",
    "EpochCompleted",
    "ModelCreated",
    "VersionRegistered",
    "EvaluationRequested",
    "EvaluationCompleted",
    "AgentEnrolled",
    "AgentInvited",
    "WorkQueued",
    "SlotsOffered",
    "PolicySet",
    "KeyIssued",
    "PersonAdded",
    "PersonForgotten",  # of who held a key that the log says nothing more of
    "WebhookAdded",
)
OF_EVERYTHING = (timeline.VIEW, timeline.BLOCKS)
# What only auditors ask for; it is no state of anything that is listed.
TIMELINE_ONLY = {
    "LinkIssued",
    "DeadLetterRetried",
    "DeadLetterDiscarded",
    "LogsArchived",
    "LogChunkTaken",
}


def rows(view: View[Any, R], events: Sequence[Event]) -> dict[Key, R]:
    found: dict[Key, R] = {}
    for message in h.Log().add(*events).messages:
        recorded = message.recorded
        key = view.key(recorded)
        if key is not None:
            row = view.project(found.get(key), recorded)
            if row is not None:
                found[key] = row
    return found


def the_row(view: View[Any, R], events: Sequence[Event]) -> R:
    (row,) = rows(view, events).values()
    return row


def test_a_dataset_is_pending_until_it_was_judged() -> None:
    pending = the_row(datasets.VIEW, [h.dataset_registered("a")])
    valid = the_row(datasets.VIEW, [h.dataset_registered("a"), h.dataset_validated("a")])
    rejected = the_row(datasets.VIEW, [h.dataset_registered("a"), h.dataset_rejected("a")])

    assert (pending.status, pending.labels) == ("pending", {"no": 20, "yes": 20})
    assert (valid.status, valid.duplicate_rows) == ("valid", 1)
    assert (rejected.status, rejected.code) == ("rejected", "too_few_rows")


def test_a_dataset_of_conversations_shows_the_first_one() -> None:
    pending = the_row(datasets.VIEW, [h.chat_registered("a")])
    valid = the_row(datasets.VIEW, [h.chat_registered("a"), h.chat_validated("a")])

    assert (pending.kind, pending.messages, pending.example) == ("chat", None, [])
    assert (valid.messages, valid.supervised_messages) == (80, 40)
    assert valid.example == [
        {"text": "user: why?", "supervised": False},
        {"text": "so", "supervised": True},
    ]


def test_a_row_knows_the_event_that_made_it_and_its_streams_last_one() -> None:
    row = the_row(datasets.VIEW, [h.dataset_registered("a"), h.dataset_validated("a")])

    assert (row.created_sequence, row.sequence) == (1, 2)
    assert row.created_at == h.START + timedelta(seconds=1)


def test_a_job_waits_runs_waits_again_and_succeeds() -> None:
    events = [h.submitted("j"), h.claimed("j"), h.started("j"), h.interrupted("j")]
    statuses = [the_row(jobs.VIEW, events[: n + 1]).status for n in range(len(events))]
    waiting = the_row(jobs.VIEW, events)
    ended = the_row(jobs.VIEW, [*events, h.claimed("j", 2), h.started("j", 2), h.succeeded("j", 2)])

    assert statuses == ["queued", "running", "running", "queued"]
    assert (waiting.agent_id, waiting.interrupted) == (None, "the agent is silent")
    assert (ended.status, ended.attempt, ended.step, ended.epoch) == ("succeeded", 2, 20, 2)
    assert ended.started_at == h.START + timedelta(seconds=2)
    assert ended.ended_at == h.START + timedelta(seconds=7)


def test_a_job_knows_its_base_model_and_what_is_supervised_once_it_has_started() -> None:
    of_language_model = {
        "base_model": samples.MADE_HERE,
        "supervision": samples.SUPERVISION,
    }
    started = h.started("j").model_copy(update=of_language_model)
    events = [h.submitted("j"), h.claimed("j"), started]

    before = the_row(jobs.VIEW, events[:2])
    row = the_row(jobs.VIEW, events)
    again = the_row(jobs.VIEW, [*events, h.interrupted("j"), h.claimed("j", 2), h.started("j", 2)])

    assert (before.base_model_record, before.supervision) == (None, None)
    assert row.base_model_record == samples.MADE_HERE.model_dump(mode="json")
    assert row.supervision == samples.SUPERVISION.model_dump(mode="json")
    assert again.base_model_record == row.base_model_record
    assert again.supervision == row.supervision


def test_a_version_knows_its_method_and_its_base_model() -> None:
    classifier = the_row(model_versions.VIEW, [h.version_registered("j", 1)])
    changes = {"spec": samples.CHAT_SPEC, "base_model": samples.MADE_HERE}
    registered = h.version_registered("j", 1).model_copy(update=changes)
    row = the_row(model_versions.VIEW, [registered])

    assert (classifier.method, classifier.base_model_record) == ("sequence_classification", None)
    assert (row.method, row.base_model) == ("sft", samples.TINY)
    assert row.base_model_record == samples.MADE_HERE.model_dump(mode="json")


def test_a_job_that_is_asked_to_stop_is_cancelling_until_it_has() -> None:
    events = [h.submitted("j"), h.claimed("j"), h.cancellation_requested("j")]

    assert the_row(jobs.VIEW, events).status == "cancelling"
    assert the_row(jobs.VIEW, [*events, h.cancelled("j")]).status == "cancelled"


def test_a_failed_job_says_why() -> None:
    row = the_row(jobs.VIEW, [h.submitted("j"), h.claimed("j"), h.failed("j")])

    assert (row.error_code, row.error_message) == ("loss_not_finite", "the loss is NaN")


def test_a_job_names_the_version_and_the_first_evaluation_that_came_of_it() -> None:
    row = the_row(jobs.VIEW, [*h.whole_life("j"), h.evaluation_requested("j", "again")])

    assert (row.version_id, row.version_number) == (h.id_of("version", "j"), 1)
    assert row.evaluation_id == h.id_of("evaluation", "j", "first")


def test_an_epoch_done_again_by_a_later_attempt_is_one_row() -> None:
    events = [h.epoch_completed("j", 1), h.epoch_completed("j", 2), h.epoch_completed("j", 2, 2)]
    found = rows(jobs.EPOCHS, [h.submitted("j"), *events])

    assert {row.epoch: row.attempt for row in found.values()} == {1: 1, 2: 2}


def test_a_model_counts_its_versions_and_knows_the_active_one() -> None:
    row = the_row(
        models.VIEW,
        [
            h.model_created(),
            h.version_numbered("a", 1),
            h.version_numbered("b", 2),
            h.activated("a", 1),
        ],
    )

    assert (row.versions, row.latest, row.active_number) == (2, 2, 1)
    assert row.activated_by == "key:3f9a2c1b"


def test_a_version_is_ready_or_failed_after_its_files_were_looked_at() -> None:
    registered = h.version_registered("j", 1)
    new = the_row(model_versions.VIEW, [registered])
    ready = the_row(model_versions.VIEW, [registered, h.model_ready("j")])
    broken = the_row(model_versions.VIEW, [registered, h.model_failed("j")])

    assert (new.status, new.size) == ("uploading", 1000)
    assert ready.status == "ready"
    assert (broken.status, broken.message) == ("error", "a file is missing")


def test_an_evaluations_examples_are_kept_apart_from_its_figures() -> None:
    events = [h.evaluation_requested("j"), h.evaluation_started("j"), h.evaluation_completed("j")]
    row = the_row(evaluations.VIEW, events)
    examples = the_row(evaluations.EXAMPLES, events)

    assert row.summary is not None
    assert (row.status, row.summary["verdict"]) == ("completed", "better")
    assert "examples" not in row.summary
    assert [example["winner"] for example in examples.examples] == ["fine_tuned"] * 3


def test_an_interrupted_evaluation_waits_again() -> None:
    events = [h.evaluation_requested("j"), h.evaluation_started("j"), h.evaluation_interrupted("j")]

    assert the_row(evaluations.VIEW, events).status == "queued"


def test_a_drained_agent_that_enrols_again_stays_drained() -> None:
    drained = AgentDrained(agent_id=h.AGENT)
    row = the_row(agents.VIEW, [h.enrolled(), drained, h.enrolled("another name")])

    assert (row.name, row.status, row.created_sequence) == ("another name", "draining", 1)


def test_work_keeps_its_place_when_it_is_queued_again() -> None:
    work = h.id_of("job", "j")
    row = the_row(work_items.VIEW, [h.queued(work), h.assigned(work), h.queued(work, 2)])

    assert (row.status, row.attempt, row.agent_id, row.queued_sequence) == ("waiting", 2, None, 1)


@pytest.mark.parametrize("seed", range(20))
def test_the_queue_is_read_as_the_rules_know_it(seed: int) -> None:
    """Whatever happens in it, an explanation from rows is one from the log."""
    events = [event for _, event in played(asked(seed))]
    items = rows(work_items.VIEW, events).values()
    ledgers = list(rows(queue_ledger.VIEW, events).values())
    live = sorted(
        (row for row in items if row.status != "withdrawn"), key=attrgetter("queued_sequence")
    )
    state = decider.fold(events)

    read = QueueStanding(live, *ledgers).queue()

    assert read.ledger == state.ledger
    assert explain(read) == [
        replace(wait, work=replace(wait.work, place=read.waiting[wait.work.work_id].place))
        for wait in explain(state)
    ]
    assert read.running() == state.running()


def test_no_view_keeps_the_hash_of_a_secret() -> None:
    key = the_row(access_keys.VIEW, [h.key_issued()])
    said = the_row(timeline.VIEW, [h.key_issued()])

    assert "0" * 64 not in repr(key)
    assert "0" * 64 not in repr(said)
    assert json.loads(said.data)["name"] == "a person"


def test_the_timeline_tells_an_event_as_the_log_holds_it() -> None:
    (message,) = h.Log().add(h.submitted("a job", "a model", 3)).messages
    entry = timeline.project(None, message.recorded)

    assert json.loads(entry.data) == json.loads(message.data)
    assert timeline.told(message.recorded).data == json.loads(message.data)


def test_a_row_with_changes_equals_a_row_made_with_them() -> None:
    row = the_row(jobs.VIEW, [h.submitted("a job", "a model", 3)])

    assert changed(row, status="running", step=7) == replace(row, status="running", step=7)


def test_a_revoked_key_stays_visible_as_revoked() -> None:
    row = the_row(access_keys.VIEW, [h.key_issued(), KeyRevoked(key_id="3f9a2c1b")])

    assert (row.status, row.revoked_at) == ("revoked", h.START + timedelta(seconds=2))


def test_the_timeline_has_a_row_for_every_event() -> None:
    events = h.everything()
    found = rows(timeline.VIEW, events)

    assert [row.type for row in found.values()] == [type(event).__name__ for event in events]


@pytest.mark.parametrize("type_", sorted(set(EVENTS) - TIMELINE_ONLY))
def test_every_event_changes_a_row_of_some_view_beside_the_timeline(type_: str) -> None:
    views = [view for view in registry.views if view not in OF_EVERYTHING]
    known: dict[tuple[str, Key], Any] = {}
    touched = False
    for message in h.Log().add(*h.everything()).messages:
        recorded = message.recorded
        for view in views:
            key = view.key(recorded)
            if key is not None:
                before = known.get((view.table.name, key))
                after = known[view.table.name, key] = view.project(before, recorded)
                touched |= after != before and type(recorded.event).__name__ == type_

    assert touched


@pytest.mark.parametrize("view", registry.views, ids=lambda view: view.table.name)
def test_a_view_wants_every_event_that_has_a_place_in_it(view: View[Any, Any]) -> None:
    """What it does not name is not even read for it."""
    placed = {
        type(message.recorded.event).__name__
        for message in h.Log().add(*h.everything()).messages
        if view.key(message.recorded) is not None
    }

    assert placed
    assert view.wants is None or placed <= view.wants <= set(EVENTS)


@pytest.mark.parametrize("view", registry.views, ids=lambda view: view.table.name)
def test_an_event_of_something_unknown_makes_no_row(view: View[Any, Any]) -> None:
    for message in h.Log().add(*h.everything()).messages:
        recorded = message.recorded
        orphaned = type(recorded.event).__name__ not in BIRTHS
        if orphaned and view not in OF_EVERYTHING and view.key(recorded) is not None:
            assert view.project(None, recorded) is None


def steps_of(*messages: h.Stored) -> list[metrics.StepRow]:
    return [
        row
        for message in messages
        for row in metrics.decode_steps(message.subject, message.sequence, message.data)
    ]


def fold_steps(
    view: View[metrics.StepRow, metrics.StepRow], reported: Sequence[metrics.StepRow]
) -> list[metrics.StepRow]:
    found: dict[Key, metrics.StepRow] = {}
    for row in reported:
        key = view.key(row)
        assert key is not None
        projected = view.project(found.get(key), row)
        assert projected is not None
        found[key] = projected
    return list(found.values())


def test_a_step_reported_again_by_a_later_attempt_replaces_the_row_in_whatever_order() -> None:
    first, second = (
        h.reported(n, "j", n, [h.step(5, loss=float(n)), h.step(6, loss=float(n))]) for n in (1, 2)
    )

    for order in ((first, second), (second, first)):
        found = fold_steps(metrics.STEPS, steps_of(*order))
        assert [(row.step, row.attempt, row.loss) for row in found] == [(5, 2, 2.0), (6, 2, 2.0)]


def test_progress_is_the_newest_step_of_the_latest_attempt() -> None:
    first = h.reported(1, "j", 1, [h.step(n) for n in (7, 8, 9)])
    second = h.reported(2, "j", 2, [h.step(6)])
    late = h.reported(3, "j", 1, [h.step(10)])

    (row,) = fold_steps(metrics.PROGRESS, steps_of(first, second, late))

    assert (row.attempt, row.step) == (2, 6)


def test_jobs_of_the_same_id_in_two_workspaces_are_two() -> None:
    here = h.reported(1, "j", 1, [h.step(1)])
    there = h.reported(2, "j", 1, [h.step(1)], workspace="other")

    assert len(fold_steps(metrics.STEPS, steps_of(here, there))) == 2


def test_a_running_job_shows_what_telemetry_last_said() -> None:
    row = the_row(jobs.VIEW, [h.submitted("j"), h.claimed("j"), h.started("j")])
    (newest,) = steps_of(h.reported(1, "j", 1, [h.step(13, loss=0.5)]))

    job = with_progress(row, newest)

    assert (job.progress.epoch, job.progress.step, job.progress.percent) == (2, 13, 65.0)
    assert (job.loss, job.tokens_per_s, job.progress.eta_s) == (0.5, 900.0, 7.0)


def test_a_job_that_waits_after_an_interruption_is_back_at_its_checkpoint_without_speed() -> None:
    saved = h.checkpoint_saved("j", 10)
    events = [h.submitted("j"), h.claimed("j"), h.started("j"), saved, h.interrupted("j")]
    (newest,) = steps_of(h.reported(1, "j", 1, [h.step(13, loss=0.5)]))

    job = with_progress(the_row(jobs.VIEW, events), newest)

    assert (job.progress.step, job.progress.eta_s, job.tokens_per_s) == (10, None, None)
    assert job.loss == 0.5


def test_metrics_that_run_ahead_of_the_log_count_already() -> None:
    row = the_row(jobs.VIEW, [h.submitted("j"), h.claimed("j")])
    (newest,) = steps_of(h.reported(1, "j", 1, [h.step(1)]))

    job = with_progress(row, newest)

    assert (job.progress.step, job.progress.steps, job.progress.percent) == (1, None, None)


def test_a_succeeded_job_is_at_its_end_whatever_telemetry_lost() -> None:
    job = with_progress(the_row(jobs.VIEW, list(h.whole_life("j"))), None)

    assert (job.progress.epoch, job.progress.step, job.progress.percent) == (2, 20, 100.0)
    assert (job.loss, job.progress.eta_s) == (0.125, None)


def test_metrics_on_a_subject_that_is_none_are_refused() -> None:
    data = MetricsLogged(steps=(h.step(1),)).model_dump_json().encode()

    with pytest.raises(ValueError, match="badly formed"):
        metrics.decode_steps("telemetry.default.metrics.nobody.1", 1, data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", 2**63),
        ("time", "0001-01-01T00:00:00+14:00"),
        ("time", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_metrics_that_no_table_could_hold_are_refused(field: str, value: object) -> None:
    step = h.step(1).model_dump(mode="json") | {field: value}

    with pytest.raises(ValueError, match=field):
        metrics.decode_steps(
            f"telemetry.default.metrics.{UUID(int=1)}.1", 1, json.dumps({"steps": [step]}).encode()
        )


def test_a_view_whose_row_and_table_differ_is_refused() -> None:
    with pytest.raises(TypeError, match="differ"):
        View(datasets.VIEW.table, jobs.JobRow, lambda _: None, lambda row, _: row)
