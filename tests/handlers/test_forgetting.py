"""What follows when a person is forgotten, on a log in memory."""

import asyncio
from uuid import UUID, uuid5

import pytest

from domain.access.access import access_id
from domain.access.commands import IssueKey
from domain.access.events import KeyIssued, KeyRevoked
from domain.datasets.events import DatasetDeleted, DatasetRegistered, DatasetValidated
from domain.evaluations.commands import RunEvaluation
from domain.jobs.commands import SubmitJob
from domain.jobs.events import JobCancelled, JobSubmitted
from domain.people.commands import ForgetPerson
from domain.people.events import PersonForgotten
from domain.people.person import PersonIsForgotten, holder_id
from domain.sealing import Sealed
from handlers.forgetting import keep_forgotten
from tests import samples
from tests.domain import test_dataset as dataset
from tests.domain import test_model_version as version
from tests.handlers.inside import Inside, envelope

ANA, BEN = UUID(int=0xA11A), UUID(int=0xBE11)
ACCESS = access_id(samples.WORKSPACE)
FORGOTTEN = PersonForgotten(person_id=ANA, reason="asked")


@pytest.fixture
def inside() -> Inside:
    return Inside()


def key(key_id: str, person: UUID | None) -> KeyIssued:
    name = Sealed(person, bytes(40)).text if person else "ci"
    return KeyIssued(
        key_id=key_id, name=name, role="editor", secret_hmac="0" * 64, person_id=person
    )


def registered(person: UUID | None, n: int) -> DatasetRegistered:
    return dataset.registered.model_copy(
        update={"dataset_id": UUID(int=0xDA00 + n), "person_id": person}
    )


def submitted(person: UUID | None, n: int) -> JobSubmitted:
    ref = samples.SPEC.train.model_copy(update={"person_id": person})
    spec = samples.SPEC.model_copy(update={"train": ref})
    return JobSubmitted(job_id=UUID(int=0x10B00 + n), spec=spec)


async def test_the_key_is_destroyed_and_all_that_is_of_the_person_ends(inside: Inside) -> None:
    await inside.person_keys.get_or_make(ANA)
    kept = await inside.person_keys.get_or_make(BEN)
    await inside.happened("access", ACCESS, key("aaaaaaaa", ANA), key("bbbbbbbb", BEN))
    for n, person in enumerate([ANA, BEN, None]):
        one = registered(person, n)
        await inside.happened("dataset", one.dataset_id, one)
        job = submitted(person, n)
        await inside.happened("job", job.job_id, job)
    await inside.happened("person", ANA, FORGOTTEN)

    await inside.react()

    happened = [recorded.event for recorded in await inside.store.everything()]
    assert await inside.person_keys.find([ANA, BEN]) == {ANA: None, BEN: kept}
    assert [e.key_id for e in happened if isinstance(e, KeyRevoked)] == ["aaaaaaaa"]
    assert {e.dataset_id for e in happened if isinstance(e, DatasetDeleted)} == {UUID(int=0xDA00)}
    assert {e.job_id for e in happened if isinstance(e, JobCancelled)} == {UUID(int=0x10B00)}


async def test_a_key_of_nobody_in_particular_ends_with_its_holder(inside: Inside) -> None:
    holder = holder_id(samples.WORKSPACE, "cccccccc")
    await inside.happened("access", ACCESS, key("cccccccc", None))
    await inside.happened("person", holder, FORGOTTEN.model_copy(update={"person_id": holder}))

    await inside.react()

    assert "KeyRevoked" in await inside.types()


async def test_forgetting_that_is_done_twice_has_the_same_ids(inside: Inside) -> None:
    await inside.happened("access", ACCESS, key("aaaaaaaa", ANA))
    await inside.happened("person", ANA, FORGOTTEN)
    await inside.react()
    before, sent = await inside.types(), {asked.id for asked in inside.bus.sent}

    await inside.react_again()

    assert await inside.types() == before
    assert {asked.id for asked in inside.bus.sent} == sent


async def test_while_the_keys_are_away_nothing_counts_as_done(inside: Inside) -> None:
    await inside.happened("access", ACCESS, key("aaaaaaaa", ANA))
    await inside.happened("person", ANA, FORGOTTEN)
    inside.person_keys.away = True

    with pytest.raises(ConnectionError):
        await inside.react()

    inside.person_keys.away = False
    await inside.react_again()
    assert await inside.person_keys.get_or_make(ANA) is None
    assert "KeyRevoked" in await inside.types()


async def test_what_comes_after_all_is_taken_back(inside: Inside) -> None:
    await inside.happened("person", ANA, FORGOTTEN)
    await inside.react()
    late = registered(ANA, 1)
    await inside.happened("dataset", late.dataset_id, late)
    await inside.happened("access", ACCESS, key("aaaaaaaa", ANA))
    await inside.happened("job", submitted(ANA, 1).job_id, submitted(ANA, 1))

    await inside.react()

    types = await inside.types()
    assert {"DatasetDeleted", "KeyRevoked", "JobCancelled"} <= set(types)
    assert not {"DatasetValidated", "DatasetRejected", "WorkQueued"} & set(types)


async def test_nothing_new_begins_for_who_is_forgotten(inside: Inside) -> None:
    await inside.happened("person", ANA, FORGOTTEN)
    one = registered(ANA, 1)
    valid = DatasetValidated(
        dataset_id=one.dataset_id,
        duplicate_rows=0,
        conflicting_texts=0,
        longest_text_chars=1,
        mean_text_chars=1.0,
    )
    await inside.happened("dataset", one.dataset_id, one, valid)
    issue = IssueKey(**key("aaaaaaaa", ANA).model_dump(exclude={"type"}))
    submit = SubmitJob(job_id=samples.JOB, model_name="m", dataset_id=one.dataset_id)

    first = await inside.bus.send(envelope(issue, "access", ACCESS, command_id=1))
    second = await inside.bus.send(envelope(submit, "job", samples.JOB, command_id=2))

    assert (first.status, first.code) == ("rejected", PersonIsForgotten.code)
    assert (second.code, second.message) == ("dataset_unusable", "the dataset was deleted")


async def test_no_model_is_asked_about_rows_of_who_is_forgotten(inside: Inside) -> None:
    ref = samples.SPEC.train.model_copy(update={"person_id": ANA})
    spec = samples.SPEC.model_copy(update={"train": ref, "test": None})
    mine = version.registered.model_copy(update={"spec": spec})
    await inside.happened("model_version", mine.version_id, mine, version.ready)
    id_ = uuid5(ANA, "evaluation")
    run = RunEvaluation(evaluation_id=id_, version_id=mine.version_id)
    forget = ForgetPerson(person_id=ANA)

    await inside.bus.send(envelope(forget, "person", ANA, command_id=1))
    refused = await inside.bus.send(envelope(run, "evaluation", id_, command_id=2))

    assert refused.code == PersonIsForgotten.code


async def test_a_key_that_a_restored_database_brings_back_is_destroyed_again(
    inside: Inside,
) -> None:
    await inside.happened("person", ANA, FORGOTTEN)
    inside.person_keys.keys[ANA] = b"k" * 32
    inside.person_keys.keys[BEN] = b"b" * 32
    stop = asyncio.Event()

    keeping = asyncio.create_task(
        keep_forgotten(samples.WORKSPACE, inside.scan, inside.person_keys, stop)
    )
    async with asyncio.timeout(5):
        while inside.person_keys.keys[ANA] is not None:
            await asyncio.sleep(0)
    stop.set()
    await keeping

    assert inside.person_keys.keys[BEN] == b"b" * 32
