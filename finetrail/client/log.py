"""The event log, the fleet, and who may do what."""

from collections.abc import Iterator
from json import loads
from typing import Any

from finetrail.client.calls import PAGE, PATIENCE_S, Calls, Point, part, point, without_none
from finetrail.client.errors import FinetrailError
from finetrail.client.follow import follow
from finetrail.client.models import Event
from finetrail.client.transport import API


class LogCalls(Calls):
    def events(
        self,
        *,
        aggregate: str | None = None,
        id: str | None = None,  # noqa: A002 - the API's own word
        type: str | None = None,  # noqa: A002 - the API's own word
        actor: str | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Those after a position of the log, oldest first, or without one the last of all.

        ``limit`` is 100 if left out; without ``after`` it is never more.
        """
        wanted = limit or PAGE
        filters = {"aggregate": aggregate, "id": id, "type": type, "actor": actor}
        found: list[Event] = []
        while len(found) < wanted:
            size = min(PAGE, wanted - len(found))
            page = self._list("/events", after=after, limit=size, **filters)
            found += [Event.model_validate(each) for each in page]
            if after is None or len(page) < size:
                break
            after = found[-1].sequence
        return found

    def follow_events(
        self,
        *,
        aggregate: str | None = None,
        id: str | None = None,  # noqa: A002 - the API's own word
        type: str | None = None,  # noqa: A002 - the API's own word
        actor: str | None = None,
        after: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Iterator[Event]:
        """Yield events after a position of the log and then as they happen; it does not end."""
        filters = {"aggregate": aggregate, "id": id, "type": type, "actor": actor}
        path = f"{API}/events"
        for message in follow(
            self._transport, path, params=filters, after=after, patience_s=patience_s
        ):
            data = loads(message.data) if message.data else None
            if isinstance(data, dict) and "aggregate_id" in data:
                yield Event.model_validate(data)

    def agents(self, *, as_of: Point | None = None) -> list[dict[str, Any]]:
        """With ``as_of`` what an agent says itself every second is None."""
        return self._list("/agents", as_of=point(as_of))

    def agent(self, agent_id: str, *, as_of: Point | None = None) -> dict[str, Any]:
        """One of them; in the past nothing is said of what it says itself every second."""
        return self._get(f"/agents/{part(agent_id)}", as_of=point(as_of))

    def join_token(self, name: str = "", *, minutes: int = 10) -> dict[str, Any]:
        """The answer's ``token`` lets one machine in, once, and is shown this once."""
        return self._post("/agents/join-tokens", {"name": name, "minutes": minutes})

    def drain_agent(self, agent_id: str) -> dict[str, Any]:
        """It finishes what it holds and is given nothing more."""
        return self._post(f"/agents/{part(agent_id)}/drain")

    def revoke_agent(self, agent_id: str) -> dict[str, Any]:
        """It is let in no more, for good; what it holds is given to others."""
        return self._post(f"/agents/{part(agent_id)}/revoke")

    def keys(self, *, as_of: Point | None = None) -> list[dict[str, Any]]:
        return self._list("/keys", as_of=point(as_of))

    def key(self, key_id: str, *, as_of: Point | None = None) -> dict[str, Any]:
        return self._get(f"/keys/{part(key_id)}", as_of=point(as_of))

    def issue_key(self, name: str, role: str, person_id: str | None = None) -> dict[str, Any]:
        """The answer's ``secret`` is shown this once; the server keeps only a keyed hash."""
        asked = {"name": name, "role": role, "person_id": person_id}
        return self._post("/keys", without_none(asked))

    def revoke_key(self, key_id: str) -> None:
        self._delete(f"/keys/{part(key_id)}")

    def ready(self) -> bool:
        """Whether the server answers and has all it needs."""
        try:
            return self._transport.call("GET", "/health/ready").is_success
        except FinetrailError:
            return False
