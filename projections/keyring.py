"""The keys in force, folded in memory, so that authentication works while Postgres is away."""

from domain.access.events import KeyIssued, KeyRevoked
from domain.messages import Event, Recorded


class Keyring:
    """Feed it the access stream in order; what comes twice or late changes nothing."""

    def __init__(self) -> None:
        self._keys: dict[str, KeyIssued] = {}
        self.sequence = 0  # of the last event taken in

    def apply(self, recorded: Recorded[Event]) -> None:
        if recorded.sequence <= self.sequence:
            return
        self.sequence = recorded.sequence
        match recorded.event:
            case KeyIssued() as issued:
                self._keys[issued.key_id] = issued
            case KeyRevoked(key_id=key_id):
                self._keys.pop(key_id, None)
            case _:
                return

    def find(self, key_id: str) -> KeyIssued | None:
        """The key if it was issued and not revoked."""
        return self._keys.get(key_id)
