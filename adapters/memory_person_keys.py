"""The keys of people in memory: for tests, and the twin that shows what the contract asks."""

import secrets
from collections.abc import Collection
from uuid import UUID

KEY_BYTES = 32


class MemoryPersonKeys:
    """``away`` refuses everything, as an absent database does."""

    def __init__(self) -> None:
        self.keys: dict[UUID, bytes | None] = {}
        self.away = False

    async def get_or_make(self, person_id: UUID) -> bytes | None:
        self._refuse()
        return self.keys.setdefault(person_id, secrets.token_bytes(KEY_BYTES))

    async def find(self, people: Collection[UUID]) -> dict[UUID, bytes | None]:
        self._refuse()
        return {person: self.keys[person] for person in people if person in self.keys}

    async def destroy(self, people: Collection[UUID]) -> int:
        self._refuse()
        had = [person for person in set(people) if self.keys.get(person) is not None]
        self.keys |= dict.fromkeys(people)
        return len(had)

    def _refuse(self) -> None:
        if self.away:
            raise ConnectionError("the database is away")
