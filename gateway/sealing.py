"""Seals what is said of people before it leaves for the log, and opens it for an answer.

Keys for opening are asked for with every answer and kept nowhere, so that no gateway shows what another
one has made unreadable. A key for sealing may be kept: what is sealed with one that is destroyed
can be read by nobody.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from domain.people.person import PersonIsForgotten
from domain.sealing import SealedField, is_sealed, person_of
from gateway.metrics import ADDRESSES_LEFT_OUT
from gateway.ports import PersonKeys, Sealer
from gateway.problems import Problem
from projections.queries import Queries

REMEMBERED: Final = 1024  # keys for sealing
FRESH_S: Final = 600.0  # then the key is asked for again, and used on while the database is away

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """What sealed texts say, and who is forgotten."""

    texts: Mapping[tuple[SealedField, str], str] = field(default_factory=dict)
    forgotten: frozenset[UUID] = frozenset()

    def said(self, what: SealedField, text: str | None) -> str | None:
        """The text as people read it; None where nobody can any more."""
        if text is None or not is_sealed(text):
            return text
        return self.texts.get((what, text))


class Sealing:
    """Texts of one workspace."""

    def __init__(self, keys: PersonKeys, sealer: Sealer, queries: Queries, workspace: str) -> None:
        self._keys = keys
        self._sealer = sealer
        self._queries = queries
        self._workspace = workspace
        self._cached: OrderedDict[UUID, tuple[bytes, float]] = OrderedDict()

    async def sealed(self, person_id: UUID, what: SealedField, text: str) -> str:
        """The text as it may enter the log.

        Raises:
            Problem: ``people_unavailable`` without a key, ``person_forgotten`` where it is destroyed.
        """
        try:
            key = await self._key(person_id)
        except ConnectionError as error:
            raise unavailable() from error
        if key is None:
            raise Problem(PersonIsForgotten.code, f"Person {person_id} is forgotten.")
        return self._sealer.seal(key, person_id, what, text)

    async def address(self, person_id: UUID, address: str) -> str:
        """A client's address sealed under who holds its key; left out where that cannot be done."""
        if not address:
            return ""
        try:
            key = await self._key(person_id)
        except ConnectionError as error:
            _log.info("an address is left out: %s", error)
            ADDRESSES_LEFT_OUT.inc()
            return ""
        return self._sealer.seal(key, person_id, "key.address", address) if key else ""

    async def opened(
        self, texts: Iterable[tuple[SealedField, str | None]], people: Iterable[UUID | None] = ()
    ) -> Opened:
        """Open texts, those that are sealed, and say who of their people is forgotten.

        Raises:
            Problem: The keys cannot be had.
        """
        wanted = {(what, text): person_of(text) for what, text in texts if text is not None}
        whose = {person for person in (*wanted.values(), *people) if person is not None}
        if not whose:
            return Opened()
        keys, forgotten = await self._known(whose)
        found: dict[tuple[SealedField, str], str] = {}
        for (what, text), person in wanted.items():
            key = keys.get(person) if person is not None and person not in forgotten else None
            said = self._sealer.open(key, what, text) if key else None
            if said is not None:
                found[what, text] = said
        return Opened(found, forgotten)

    async def require_remembered(self, person_id: UUID | None, what: str) -> None:
        """Refuse to show what is of somebody who is forgotten.

        Raises:
            Problem: ``not_found``.
        """
        if person_id is not None and person_id in (await self.opened((), [person_id])).forgotten:
            raise Problem("not_found", f"{what} was of a person who is forgotten.")

    async def forget(self, person_id: UUID) -> None:
        """Destroy a person's key here and now; the handlers do it too, whatever happens to us.

        Raises:
            ConnectionError: The database is away.
        """
        self._cached.pop(person_id, None)
        await self._keys.destroy([person_id])

    async def has_key(self, person_id: UUID) -> bool:
        """Whether there is a key of the person's that is not destroyed."""
        try:
            return (await self._keys.find([person_id])).get(person_id) is not None
        except ConnectionError as error:
            raise unavailable() from error

    async def _known(
        self, people: Collection[UUID]
    ) -> tuple[Mapping[UUID, bytes | None], frozenset[UUID]]:
        """Keys, and whose there are to be none: a restored one may come before the handlers."""
        try:
            keys = await self._keys.find(sorted(people))
        except ConnectionError as error:
            raise unavailable() from error
        destroyed = {person for person, key in keys.items() if key is None}
        said = await self._queries.forgotten_people(self._workspace)
        return keys, frozenset(destroyed | (said & set(people)))

    async def _key(self, person_id: UUID) -> bytes | None:
        known = self._cached.get(person_id)
        if known is not None and time.monotonic() - known[1] < FRESH_S:
            return known[0]
        try:
            key = await self._keys.get_or_make(person_id)
        except ConnectionError:
            if known is None:
                raise
            return known[0]
        self._cached.pop(person_id, None)
        if key is not None:
            self._cached[person_id] = key, time.monotonic()
            if len(self._cached) > REMEMBERED:
                self._cached.popitem(last=False)
        return key


def unavailable() -> Problem:
    return Problem("people_unavailable", "What is kept of people cannot be reached now.")
