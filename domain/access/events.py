"""What happens to the keys of a workspace. Secrets never enter the log, only keyed hashes."""

from typing import Literal
from uuid import UUID

from domain.messages import Event

Role = Literal["viewer", "editor", "admin"]


class KeyIssued(Event):
    type: Literal["KeyIssued"] = "KeyIssued"
    key_id: str  # eight characters, public
    name: str  # sealed where there is a holder
    role: Role
    secret_hmac: str  # HMAC-SHA256(pepper, secret), hex
    person_id: UUID | None = None  # who holds it; None of a key from before there were people


class KeyRevoked(Event):
    type: Literal["KeyRevoked"] = "KeyRevoked"
    key_id: str


AccessEvent = KeyIssued | KeyRevoked
