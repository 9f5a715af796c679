"""The rules of access: a key is issued once and revoked for good."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never
from uuid import UUID

from domain.access.commands import AccessCommand, IssueKey, RevokeKey
from domain.access.events import AccessEvent, KeyIssued, KeyRevoked
from domain.errors import NotFound, Rejected
from domain.messages import Decider
from domain.people.person import holder_id, require_remembered, require_sealed
from domain.subjects import derived_id


class KeyExists(Rejected):
    """A key with this id was issued before."""

    code = "key_exists"


@dataclass(frozen=True, slots=True)
class Access:
    keys: dict[str, KeyIssued] = field(default_factory=dict)  # those in force
    revoked: frozenset[str] = frozenset()


def access_id(workspace: str) -> UUID:
    """A workspace has one access stream."""
    return derived_id(workspace, "access")


def decide(command: AccessCommand, access: Access) -> Sequence[AccessEvent]:
    match command:
        case IssueKey():
            if command.key_id in access.keys or command.key_id in access.revoked:
                raise KeyExists(f"key {command.key_id} was issued before")
            return [_issued(command)]
        case RevokeKey():
            if command.key_id in access.revoked:
                return []
            if command.key_id not in access.keys:
                raise NotFound(f"there is no key {command.key_id}")
            return [KeyRevoked(key_id=command.key_id)]
        case _:
            assert_never(command)


def _issued(command: IssueKey) -> KeyIssued:
    if command.person_id is not None:
        require_remembered(command.person_id, forgotten=command.forgotten)
        require_sealed(command.name, command.person_id, "the key's name")
    return KeyIssued(**command.model_dump(exclude={"type", "forgotten"}))


def holder_of(key: KeyIssued, workspace: str) -> UUID:
    """Who holds a key; of one that was issued for nobody, a person that is derived from it."""
    return key.person_id or holder_id(workspace, key.key_id)


def evolve(access: Access, event: AccessEvent) -> Access:
    match event:
        case KeyIssued():
            return replace(access, keys=access.keys | {event.key_id: event})
        case KeyRevoked():
            keys = {key_id: key for key_id, key in access.keys.items() if key_id != event.key_id}
            return replace(access, keys=keys, revoked=access.revoked | {event.key_id})
        case _:
            assert_never(event)


decider: Decider[AccessCommand, Access, AccessEvent] = Decider(Access(), decide, evolve)
