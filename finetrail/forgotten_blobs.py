"""Which places of the log name bytes of people who are forgotten: nobody needs those blobs any more.

A blob is such a person's where an event names it as their dataset's, or as the outputs of an evaluation
on their rows. That the same bytes are named in another place too keeps them.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from nats.aio.client import Client

from adapters.nats_feed import FeedMessage, NatsFeed
from domain.evaluations.events import EvaluationRequested
from domain.people.events import PersonForgotten

PAGE: Final = 500
OUTPUTS: Final = "outputs"
_REQUESTED: Final = EvaluationRequested.__name__
_FORGOTTEN: Final = PersonForgotten.__name__


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Ids, as the log spells them, of forgotten people and of evaluations on their rows."""

    people: frozenset[str] = field(default_factory=frozenset)
    evaluations: frozenset[str] = field(default_factory=frozenset)

    def without_theirs(self, data: bytes) -> bytes:
        """A message without what it says of their blobs; the same bytes if it says nothing of them."""
        if not any(person.encode() in data for person in self.people) and not (
            OUTPUTS.encode() in data and any(id_.encode() in data for id_ in self.evaluations)
        ):
            return data
        try:
            payload = json.loads(data)
        except ValueError:
            return data
        return json.dumps(self._cleaned(payload)).encode()

    def _cleaned(self, value: Any) -> Any:
        match value:
            case dict():
                left_out = set(self._theirs(value))
                return {
                    name: self._cleaned(inner)
                    for name, inner in value.items()
                    if name not in left_out
                }
            case list():
                return [self._cleaned(inner) for inner in value]
            case _:
                return value

    def _theirs(self, said: dict[str, Any]) -> Iterator[str]:
        if said.get("person_id") in self.people:
            yield "blob"
        if said.get("evaluation_id") in self.evaluations:
            yield OUTPUTS


async def forgotten(nc: Client) -> Forgotten:
    """Read who is forgotten, and which evaluations were on rows of theirs.

    Raises:
        StoreUnavailable: The log does not answer.
    """
    feed = NatsFeed(nc)
    people = frozenset(
        [
            message.subject.rpartition(".")[2]
            async for message in _messages(feed, "person", _FORGOTTEN)
        ]
    )
    if not people:
        return Forgotten()
    evaluations = frozenset(
        [
            message.subject.rpartition(".")[2]
            async for message in _messages(feed, "evaluation", _REQUESTED)
            if _tested(message.data) in people
        ]
    )
    return Forgotten(people, evaluations)


def _tested(requested: bytes) -> str | None:
    """Whose rows an evaluation is on."""
    spec: dict[str, Any] = json.loads(requested)["spec"]
    rows: dict[str, Any] = spec.get("test") or spec["train"]
    person: str | None = rows.get("person_id")
    return person


async def _messages(feed: NatsFeed, aggregate: str, type_: str) -> AsyncIterator[FeedMessage]:
    after, more = 0, True
    while more:
        page, more = await feed.page("EVENTS", f"events.*.{aggregate}.*", after, PAGE)
        for message in page:
            after = message.sequence
            if message.headers.get("ce-type") == type_:
                yield message
