"""The rules of a person: known under a sealed name or only as a key's holder, and forgotten for good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

from domain.errors import Rejected
from domain.messages import Decider
from domain.people.commands import AddPerson, ForgetPerson, PersonCommand
from domain.people.events import PersonAdded, PersonEvent, PersonForgotten
from domain.sealing import person_of
from domain.subjects import derived_id


class PersonExists(Rejected):
    """A person with this id was added before, by another command."""

    code = "person_exists"


class PersonIsForgotten(Rejected):
    """Nothing more is recorded of somebody who is forgotten."""

    code = "person_forgotten"


class NotSealed(Rejected):
    """What is said of a person enters the log sealed under that person's key, or not at all."""

    code = "not_sealed"


@dataclass(frozen=True, slots=True)
class Unnamed:
    """Nobody has added the person; they may hold a key all the same."""


@dataclass(frozen=True, slots=True)
class Known:
    added: PersonAdded


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing ever changes that."""


Person = Unnamed | Known | Forgotten


def holder_id(workspace: str, key_id: str) -> UUID:
    """The person who holds a key that was issued for nobody else."""
    return derived_id(workspace, "holder", key_id)


def require_sealed(text: str, person_id: UUID, what: str) -> None:
    """See that a text can be read with this person's key alone.

    Raises:
        NotSealed: It is clear, or somebody else's.
    """
    if person_of(text) != person_id:
        raise NotSealed(f"{what} is not sealed under person {person_id}")


def require_remembered(person_id: UUID, *, forgotten: bool) -> None:
    """See that something may be recorded of this person.

    Raises:
        PersonIsForgotten: It may not.
    """
    if forgotten:
        raise PersonIsForgotten(f"person {person_id} is forgotten")


def decide(command: PersonCommand, person: Person) -> Sequence[PersonEvent]:
    match command:
        case AddPerson():
            require_remembered(command.person_id, forgotten=isinstance(person, Forgotten))
            if isinstance(person, Known):
                raise PersonExists(f"person {command.person_id} was added before")
            require_sealed(command.name, command.person_id, "the name")
            return [PersonAdded(person_id=command.person_id, name=command.name)]
        case ForgetPerson():
            gone = isinstance(person, Forgotten)
            forgotten = PersonForgotten(person_id=command.person_id, reason=command.reason)
            return [] if gone else [forgotten]
        case _:
            assert_never(command)


def evolve(person: Person, event: PersonEvent) -> Person:
    match event:
        case PersonAdded():
            return Known(event) if isinstance(person, Unnamed) else person
        case PersonForgotten():
            return Forgotten()
        case _:
            assert_never(event)


decider: Decider[PersonCommand, Person, PersonEvent] = Decider(Unnamed(), decide, evolve)
