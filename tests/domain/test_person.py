"""The rules of a person, and of what is said of one."""

from uuid import UUID

import pytest

from domain.access.access import decider as access_decider
from domain.access.access import holder_of
from domain.access.commands import IssueKey
from domain.access.events import KeyIssued
from domain.datasets.commands import RecordValidation, RegisterDataset
from domain.datasets.dataset import NOT_QUOTED
from domain.datasets.dataset import decider as dataset_decider
from domain.datasets.events import DatasetRegistered, DatasetRejected, DatasetValidated
from domain.evaluations.evaluation import decider as evaluation_decider
from domain.evaluations.events import EvaluationCompleted
from domain.people.commands import AddPerson, ForgetPerson
from domain.people.events import PersonAdded, PersonForgotten
from domain.people.person import (
    NotSealed,
    PersonExists,
    PersonIsForgotten,
    decider,
    holder_id,
)
from domain.sealing import Sealed
from domain.work import Example, Segment
from tests.domain import test_dataset as datasets
from tests.domain import test_evaluation as evaluations
from tests.spec import Spec

person = Spec(decider)
access = Spec(access_decider)
dataset = Spec(dataset_decider)
evaluation = Spec(evaluation_decider)
ANA, BEN = UUID(int=1), UUID(int=2)
NAME = Sealed(ANA, bytes(40)).text
ADD = AddPerson(person_id=ANA, name=NAME)
ADDED = PersonAdded(person_id=ANA, name=NAME)
FORGET = ForgetPerson(person_id=ANA, reason="asked by letter")
FORGOTTEN = PersonForgotten(person_id=ANA, reason="asked by letter")
ISSUE = IssueKey(key_id="Ab3dEf7h", name=NAME, role="editor", secret_hmac="0" * 64, person_id=ANA)
REGISTER = RegisterDataset(
    **datasets.registered.model_dump(exclude={"type", "name", "person_id"}),
    name=NAME,
    person_id=ANA,
)
REGISTERED = DatasetRegistered(**REGISTER.model_dump(exclude={"type", "forgotten"}))


def test_a_person_is_added_under_a_sealed_name() -> None:
    person.when(ADD).then(ADDED)


@pytest.mark.parametrize("name", ["Ana", Sealed(BEN, bytes(40)).text, NAME[:-1]])
def test_a_name_that_others_could_read_is_refused(name: str) -> None:
    person.when(ADD.model_copy(update={"name": name})).then_rejected(NotSealed)


def test_a_person_is_added_once() -> None:
    person.given(ADDED).when(ADD).then_rejected(PersonExists)


def test_forgetting_is_final() -> None:
    person.given(ADDED).when(FORGET).then(FORGOTTEN)
    person.given(ADDED, FORGOTTEN).when(FORGET.model_copy(update={"reason": "again"})).then()
    person.given(ADDED, FORGOTTEN).when(ADD).then_rejected(PersonIsForgotten)


def test_who_only_holds_a_key_can_be_forgotten_and_is_never_added_then() -> None:
    person.when(FORGET).then(FORGOTTEN)
    person.given(FORGOTTEN).when(ADD).then_rejected(PersonIsForgotten)


def test_a_key_has_a_holder_whose_name_for_it_is_sealed() -> None:
    issued = KeyIssued(**ISSUE.model_dump(exclude={"type", "forgotten"}))

    access.when(ISSUE).then(issued)
    access.when(ISSUE.model_copy(update={"name": "Ana's laptop"})).then_rejected(NotSealed)
    assert holder_of(issued, "default") == ANA


def test_a_key_of_nobody_in_particular_has_a_holder_of_its_own() -> None:
    issued = KeyIssued(key_id="Ab3dEf7h", name="ci", role="editor", secret_hmac="0" * 64)

    assert holder_of(issued, "default") == holder_id("default", "Ab3dEf7h")
    assert holder_of(issued, "other") != holder_of(issued, "default")


def test_nothing_more_is_recorded_of_who_is_forgotten() -> None:
    access.when(ISSUE.model_copy(update={"forgotten": True})).then_rejected(PersonIsForgotten)
    dataset.when(REGISTER.model_copy(update={"forgotten": True})).then_rejected(PersonIsForgotten)


def test_a_dataset_of_a_person_has_a_sealed_name_and_jobs_know_only_its_id() -> None:
    dataset.when(REGISTER).then(REGISTERED)
    dataset.when(REGISTER.model_copy(update={"name": "Ana's mail"})).then_rejected(NotSealed)
    state = dataset_decider.fold([REGISTERED])

    ref = state.ref  # type: ignore[union-attr]  # it was registered
    assert (ref.name, ref.person_id) == (f"dataset {REGISTER.dataset_id}", ANA)


def test_rows_of_a_person_are_quoted_by_no_event_of_their_dataset() -> None:
    said = (Segment(text="I am Ana", supervised=True),)
    valid = RecordValidation(dataset_id=REGISTER.dataset_id, messages=1, example=said)
    refused = valid.model_copy(update={"problem_code": "wrong", "problem": "line 2: I am Ana"})

    (validated,) = dataset_decider.decide(valid, dataset_decider.fold([REGISTERED]))
    (rejected,) = dataset_decider.decide(refused, dataset_decider.fold([REGISTERED]))

    assert isinstance(validated, DatasetValidated)
    assert (validated.messages, validated.example) == (1, ())
    assert isinstance(rejected, DatasetRejected)
    assert (rejected.code, rejected.message) == ("wrong", NOT_QUOTED)


def test_rows_of_a_person_are_quoted_by_no_evaluation() -> None:
    spec = evaluations.requested.spec
    personal = spec.model_copy(update={"test": spec.train.model_copy(update={"person_id": ANA})})
    requested = evaluations.requested.model_copy(update={"spec": personal})
    example = Example(text="I am Ana", expected="a", base="a", fine_tuned="a", winner="both")
    result = evaluations.result()
    summary = result.summary.model_copy(update={"examples": (example,)})
    result = result.model_copy(update={"summary": summary})

    for asked, quoted in ((requested, False), (evaluations.requested, True)):
        state = evaluation_decider.fold([asked, evaluations.started()])
        (completed,) = evaluation_decider.decide(result, state)
        assert isinstance(completed, EvaluationCompleted)
        assert bool(completed.summary.examples) == quoted
