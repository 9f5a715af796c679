"""What happens to the keys of a workspace. Secrets never enter the log, only keyed hashes."""

from typing import Literal

from domain.messages import Event

Role = Literal["viewer", "editor", "admin"]


class KeyIssued(Event):
    type: Literal["KeyIssued"] = "KeyIssued"
    key_id: str  # eight characters, public
    name: str
    role: Role
    secret_hmac: str  # HMAC-SHA256(pepper, secret), hex


class KeyRevoked(Event):
    type: Literal["KeyRevoked"] = "KeyRevoked"
    key_id: str


AccessEvent = KeyIssued | KeyRevoked
