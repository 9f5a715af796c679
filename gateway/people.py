"""People over HTTP: who the log speaks of, what is held of them, and to have them forgotten."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from domain.people.commands import MAX_REASON, AddPerson, ForgetPerson
from domain.people.person import PersonIsForgotten
from gateway.as_of import Listed, Readable, Shown, missing
from gateway.commanding import Caller, Commands, Done, note_of
from gateway.naming import person_name
from gateway.pages import Limit, Page
from gateway.problems import Problem
from gateway.sealing import Opened, Sealing
from projections.answers import Belongings
from projections.people import PersonRow
from projections.queries import Queries

STILL_TO_COME = (
    "This is recorded, and the handlers destroy the person's key as soon as the database is back."
)


class NewPersonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whom keys and datasets may be of."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ForgetBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why. The reason stands in the log for ever: name nobody in it."""

    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""


class Person(msgspec.Struct):
    """Somebody the log speaks of. `name` is null of who only holds a key, and of who is forgotten."""

    id: UUID
    name: str | None
    forgotten: bool
    forgotten_at: datetime | None
    forgotten_by: str | None
    reason: str | None
    created_at: datetime | None
    created_by: str
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class HeldKey(msgspec.Struct):
    key_id: str
    name: str | None
    status: Literal["active", "revoked"]


class HeldDataset(msgspec.Struct):
    id: UUID
    name: str | None
    status: Literal["pending", "valid", "rejected", "deleted"]


class HeldJob(msgspec.Struct):
    """What learned from the person's rows or was tested on them. A version of a model stays."""

    job_id: UUID
    status: str
    model: str
    version: int | None


class HeldEvaluation(msgspec.Struct):
    id: UUID
    model: str
    status: str


class HeldBlob(msgspec.Struct):
    """Bytes of the person's rows. Once they are forgotten, `finetrail blobs collect` may delete it."""

    sha256: str
    size: int
    of: Literal["dataset", "evaluation"]
    id: UUID


class Held(msgspec.Struct):
    """All that is of a person. `sealed` says whether what is sealed can still be read."""

    sealed: Literal["readable", "destroyed"]
    keys: list[HeldKey]
    datasets: list[HeldDataset]
    jobs: list[HeldJob]
    evaluations: list[HeldEvaluation]
    blobs: list[HeldBlob]


class PersonWithHeld(msgspec.Struct):
    """A person and what is held of them; of the past `held` is null."""

    id: UUID
    name: str | None
    forgotten: bool
    forgotten_at: datetime | None
    forgotten_by: str | None
    reason: str | None
    created_at: datetime
    created_by: str
    held: Held | None
    sequence: int
    note: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is held of people in one workspace."""

    queries: Queries
    sealing: Sealing
    workspace: str

    async def of(self, person_id: UUID) -> Held:
        found = await self.queries.belongings(self.workspace, person_id)
        opened = await self.sealing.opened(
            [
                *(("key.name", row.name) for row in found.keys),
                *(("dataset.name", row.name) for row in found.datasets),
            ],
            [person_id],
        )
        kept = person_id not in opened.forgotten and await self.sealing.has_key(person_id)
        return held_answer(found, opened, readable=kept)


class PeopleController(Controller):
    path = "/people"
    tags = ("people",)

    @get("/")
    async def list_people(
        self,
        listed: NamedDependency[Listed],
        sealing: NamedDependency[Sealing],
        workspace: NamedDependency[str],
        limit: Limit = 20,
    ) -> Response[Page[Person]]:
        """Newest first. Who is forgotten by now is shown so at every point of the past, too."""
        rows = await listed.queries.people(workspace, limit=limit + 1, before=listed.before)
        opened = await opened_people(sealing, rows)
        return listed.page(
            rows, limit, lambda row: row.created_sequence, lambda row: person_answer(row, opened)
        )

    @post("/", status_code=201)
    async def add(
        self,
        data: JSONBody[NewPersonBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        sealing: NamedDependency[Sealing],
    ) -> Person:
        """Add a person. The name enters the log sealed."""
        person_id, name = caller.resource_id, person_name(data.name)
        sealed = await sealing.sealed(person_id, "person.name", name)
        command = AddPerson(person_id=person_id, name=sealed)
        done = await commands.send(caller, "person", person_id, command)
        return Person(
            id=person_id,
            name=name,
            forgotten=False,
            forgotten_at=None,
            forgotten_by=None,
            reason=None,
            created_at=None,
            created_by=caller.principal.actor,
            sequence=done.sequence,
            note=note_of(done),
        )

    @get("/{person_id:uuid}")
    async def person(
        self,
        person_id: FromPath[UUID],
        shown: NamedDependency[Shown],
        sealing: NamedDependency[Sealing],
        holdings: NamedDependency[Holdings],
        workspace: NamedDependency[str],
    ) -> Response[PersonWithHeld]:
        """One of them, with all that is held of them: it is what forgetting them would touch."""
        row = await require_person(shown.queries, workspace, person_id)
        opened = await opened_people(sealing, [row])
        held = await holdings.of(person_id) if shown.queries.sequence is None else None
        return shown.answered(_with_held(row, opened, held))

    @post("/{person_id:uuid}/forget", status_code=200)
    async def forget(
        self,
        person_id: FromPath[UUID],
        data: JSONBody[ForgetBody],
        caller: NamedDependency[Caller],
        commands: NamedDependency[Commands],
        queries: NamedDependency[Queries],
        sealing: NamedDependency[Sealing],
        holdings: NamedDependency[Holdings],
        workspace: NamedDependency[str],
    ) -> PersonWithHeld:
        """Make all that is sealed of a person unreadable, for good; asking twice changes nothing.

        Their keys are revoked and their datasets deleted within moments; the answer says how far
        that is.
        """
        await require_person(queries, workspace, person_id)
        command = ForgetPerson(person_id=person_id, reason=data.reason)
        done = await commands.send(caller, "person", person_id, command)
        note = done.note
        if done.sequence:
            try:
                await sealing.forget(person_id)
            except ConnectionError:
                note = STILL_TO_COME
        row = await require_person(queries, workspace, person_id)
        opened = Opened(forgotten=frozenset({person_id} if done.sequence else ()))
        held = None if note else await holdings.of(person_id)
        return _with_held(row, opened, held, Done(done.sequence, note))


async def require_person(queries: Readable, workspace: str, person_id: UUID) -> PersonRow:
    row = await queries.person(workspace, person_id)
    if row is None:
        raise missing(queries, f"person {person_id}")
    return row


async def require_remembered(queries: Queries, workspace: str, person_id: UUID) -> None:
    """See that something may be made for this person.

    Raises:
        Problem: There is none, or they are forgotten.
    """
    if (await require_person(queries, workspace, person_id)).status == "forgotten":
        raise Problem(PersonIsForgotten.code, f"Person {person_id} is forgotten.")


async def opened_people(sealing: Sealing, rows: list[PersonRow]) -> Opened:
    return await sealing.opened([("person.name", row.name) for row in rows], [r.id for r in rows])


def person_answer(row: PersonRow, opened: Opened) -> Person:
    return Person(
        id=row.id,
        name=opened.said("person.name", row.name),
        forgotten=row.id in opened.forgotten,
        forgotten_at=row.forgotten_at,
        forgotten_by=row.forgotten_by,
        reason=row.reason,
        created_at=row.created_at,
        created_by=row.created_by,
        sequence=row.sequence,
    )


def held_answer(found: Belongings, opened: Opened, *, readable: bool) -> Held:
    mine = {row.id for row in found.datasets}
    tested = {row.id for row in found.jobs if (row.test_dataset_id or row.dataset_id) in mine}
    blobs = [HeldBlob(row.sha256, row.size, "dataset", row.id) for row in found.datasets]
    blobs += [
        HeldBlob(row.outputs["sha256"], row.outputs["size"], "evaluation", row.id)
        for row in found.evaluations
        if row.outputs is not None and row.job_id in tested
    ]
    return Held(
        sealed="readable" if readable else "destroyed",
        keys=[
            HeldKey(row.key_id, opened.said("key.name", row.name) if readable else None, row.status)
            for row in found.keys
        ],
        datasets=[
            HeldDataset(row.id, opened.said("dataset.name", row.name), row.status)
            for row in found.datasets
        ],
        jobs=[HeldJob(row.id, row.status, row.model, row.version_number) for row in found.jobs],
        evaluations=[HeldEvaluation(row.id, row.model, row.status) for row in found.evaluations],
        blobs=blobs,
    )


def _with_held(
    row: PersonRow, opened: Opened, held: Held | None, done: Done | None = None
) -> PersonWithHeld:
    person = person_answer(row, opened)
    return PersonWithHeld(
        id=person.id,
        name=person.name,
        forgotten=person.forgotten,
        forgotten_at=person.forgotten_at,
        forgotten_by=person.forgotten_by,
        reason=person.reason,
        created_at=row.created_at,
        created_by=person.created_by,
        held=held,
        sequence=person.sequence,
        note=note_of(done),
    )
