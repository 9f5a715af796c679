"""People: who the log speaks of, what is held of them, and to have them forgotten."""

from typing import Any

from finetrail.client.calls import Calls, Point, part, point


class PeopleCalls(Calls):
    def people(
        self, limit: int | None = None, *, as_of: Point | None = None
    ) -> list[dict[str, Any]]:
        """Newest first; the names of who is forgotten by now are None at every point."""
        return self._pages("/people", limit, as_of=point(as_of))

    def add_person(self, name: str) -> dict[str, Any]:
        """Somebody whom keys and datasets may be of; the name enters the log sealed."""
        return self._post("/people", {"name": name})

    def person(self, person_id: str) -> dict[str, Any]:
        """One of them, with all that is held of them: what forgetting them would touch."""
        return self._get(f"/people/{part(person_id)}")

    def forget_person(self, person_id: str, reason: str = "") -> dict[str, Any]:
        """Make all that is sealed of a person unreadable, for good."""
        return self._post(f"/people/{part(person_id)}/forget", {"reason": reason})
