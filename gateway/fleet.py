"""Who of the agents is there right now, as they say themselves every second."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, runtime_checkable

from domain.work import Presence

CONNECTED_S: Final = 5.0  # presence comes every second
FORGET: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Seen:
    presence: Presence
    at: datetime

    @property
    def connected(self) -> bool:
        return (datetime.now(UTC) - self.at).total_seconds() < CONNECTED_S


@runtime_checkable
class Fleet(Protocol):
    def seen(self, agent_id: str) -> Seen | None:
        """The last that was heard of an agent since this gateway listens."""
        ...


class Presences:
    """Remembers the last presence of each agent; `hear` is told them as they come."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}

    def hear(self, agent_id: str, presence: Presence) -> None:
        now = datetime.now(UTC)
        if agent_id not in self._seen:
            for known, seen in list(self._seen.items()):
                if now - seen.at > FORGET:
                    del self._seen[known]
        self._seen[agent_id] = Seen(presence, now)

    def seen(self, agent_id: str) -> Seen | None:
        return self._seen.get(agent_id)
