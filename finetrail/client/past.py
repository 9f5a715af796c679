"""The past: what was, what became different, and why."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from finetrail.client.calls import PAGE, Calls, Point, part, point
from finetrail.client.models import Event
from finetrail.client.transport import API, json_object


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Activation(_Answer):
    """What was in service, and until when; None: it is there."""

    number: int
    version_id: str
    activated_at: datetime
    activated_by: str
    until: datetime | None = None
    sequence: int
    until_sequence: int | None = None


class FieldChange(_Answer):
    field: str
    before: Any = None
    after: Any = None


class Difference(_Answer):
    """What became of one thing between two points of the log."""

    aggregate: str
    id: str
    name: str
    change: str  # created, changed, deleted
    before_sequence: int | None = None
    sequence: int
    fields: list[FieldChange] = []


class CommandFacts(_Answer):
    id: str
    type: str | None = None
    actor: str
    key_id: str | None = None
    key_name: str | None = None
    source: str
    because_of: str | None = None  # the event that led to it


class CausalLink(_Answer):
    event: Event
    command: CommandFacts


class Beginning(_Answer):
    actor: str
    key_id: str | None = None
    key_name: str | None = None
    source: str
    request_id: str | None = None
    address: str | None = None  # only an admin is told it


class Why(_Answer):
    """The event that was asked about comes first, what began it last."""

    chain: list[CausalLink]
    began: Beginning
    complete: bool
    note: str | None = None


class PastCalls(Calls):
    def activations(self, name: str, *, as_of: Point | None = None) -> list[Activation]:
        """What of a model was in service when, newest first."""
        path = f"/models/{part(name)}/activations"
        return [
            Activation.model_validate(each) for each in self._pages(path, None, as_of=point(as_of))
        ]

    def why(self, event: str | int) -> Why:
        """What led to an event, named by its sequence or its id."""
        return Why.model_validate(self._get(f"/events/{part(str(event))}/why"))

    def diff(
        self,
        since: Point,
        until: Point | None = None,
        *,
        aggregate: str | None = None,
        limit: int | None = None,
    ) -> list[Difference]:
        """What was created, changed and deleted after one point of the log and up to another.

        Args:
            since: a sequence, or a time with its zone; 0 is before everything.
            until: now if left out.
        """
        asked: dict[str, str | int | None] = {"from": point(since), "to": point(until)}
        asked["aggregate"] = aggregate
        found: list[Difference] = []
        while limit is None or len(found) < limit:
            asked["limit"] = PAGE if limit is None else min(PAGE, limit - len(found))
            page = json_object(self._transport.call("GET", f"{API}/events/diff", params=asked))
            found += [Difference.model_validate(each) for each in page["items"]]
            if page.get("next") is None:
                break
            asked["cursor"] = page["next"]
        return found
