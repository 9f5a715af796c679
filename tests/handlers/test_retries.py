"""Dead letters are handled once more or given up, as the log says, and the log says who wanted it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.nats_feed import NatsFeed
from domain.dead_letters.commands import DiscardDeadLetter, RetryDeadLetter
from domain.dead_letters.dead_letter import DeadLetterClosed, decider, letter_id
from domain.dead_letters.events import (
    DeadLetterDiscarded,
    DeadLetterEvent,
    DeadLetterRetried,
    LetterFacts,
)
from domain.jobs.events import JobSubmitted
from domain.messages import Command, Envelope, Outcome, Recorded, StreamId
from domain.wire import Headers
from gateway.dead_letters import DeadLetter, Letters, facts_of
from handlers import commands, settle
from handlers.authority import ForbiddenSource, Misaddressed, admit
from handlers.dead_letters import DeadLetters
from handlers.execute import execute
from handlers.reactions import REACTIONS
from handlers.retries import Retries
from tests import samples
from tests.handlers.inside import envelope
from tests.handlers.test_pipeline import (
    AGENTS,
    World,
    agent_at,
    connected,
    eventually,
    handling,
    of,
)
from tests.infra import nats_server
from tests.spec import Spec

LETTER = LetterFacts(
    sequence=7,
    kind="reactions",
    subject=f"events.default.job.{samples.JOB}",
    message_type="JobSubmitted",
    message_id="5f0c0f0e-7f0f-5d8e-9a43-6b5b8f0c3a11",
    failure="RuntimeError: broken",
)
ID = letter_id(samples.WORKSPACE, 7)
RETRY = RetryDeadLetter(letter=LETTER, reason="fixed")
RETRIED = DeadLetterRetried(letter=LETTER, reason="fixed")
DISCARD = DiscardDeadLetter(letter=LETTER, reason="not wanted")
DISCARDED = DeadLetterDiscarded(letter=LETTER, reason="not wanted")

letter = Spec(decider)


def test_an_open_letter_is_retried_or_discarded() -> None:
    letter.given().when(RETRY).then(RETRIED)
    letter.given().when(DISCARD).then(DISCARDED)


def test_a_letter_is_closed_once() -> None:
    letter.given(RETRIED).when(DISCARD).then_rejected(DeadLetterClosed)
    letter.given(DISCARDED).when(RETRY).then_rejected(DeadLetterClosed)


def test_only_people_close_letters_and_only_the_one_they_name() -> None:
    for source in ("reaction", str(samples.AGENT)):
        with pytest.raises(ForbiddenSource):
            admit(envelope(RETRY, "dead_letter", ID, source=source))
    with pytest.raises(Misaddressed):
        admit(envelope(RETRY, "dead_letter", letter_id(samples.WORKSPACE, 8)))
    assert admit(envelope(DISCARD, "dead_letter", ID, source="operator")) == DISCARD


@dataclass
class Kept:
    kind: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Box:
    """Letters in memory."""

    letters: dict[int, Kept] = field(default_factory=dict)

    async def read(self, sequence: int) -> Kept | None:
        return self.letters.get(sequence)

    async def remove(self, sequence: int) -> None:
        self.letters.pop(sequence, None)


@dataclass
class Sent:
    messages: list[tuple[str, bytes, Headers]] = field(default_factory=list)

    async def __call__(self, subject: str, body: bytes, headers: Headers) -> None:
        self.messages.append((subject, body, headers))


def happened(event: DeadLetterEvent) -> Recorded[DeadLetterEvent]:
    return Recorded(
        id=UUID(int=5),
        stream=StreamId(samples.WORKSPACE, "dead_letter", ID),
        sequence=90,
        recorded_at=samples.NOW,
        actor="key:Ab3dEf7h",
        source="gateway",
        correlation_id=UUID(int=6),
        causation_id=UUID(int=7),
        event=event,
    )


async def test_a_retried_letter_is_sent_once_and_then_gone() -> None:
    box, sent = Box({7: Kept("commands", {"ce-id": "1", "reply_to": "_INBOX.1"}, b"{}")}), Sent()
    retries = Retries(box, sent)

    await retries.carry_out(happened(RETRIED))
    await retries.carry_out(happened(RETRIED))

    ((subject, body, headers),) = sent.messages
    assert (subject, body) == ("retry.commands", b"{}")
    assert headers["ce-id"] == "1"
    assert "reply_to" not in headers
    assert headers["Nats-Msg-Id"] == str(UUID(int=5))
    assert box.letters == {}


async def test_a_discarded_letter_is_gone_and_sent_nowhere() -> None:
    box, sent = Box({7: Kept("commands", {}, b"{}")}), Sent()

    await Retries(box, sent).carry_out(happened(DISCARDED))

    assert (box.letters, sent.messages) == ({}, [])


async def test_a_delivery_to_a_webhook_is_begun_again_by_whoever_delivers() -> None:
    box, sent = Box({7: Kept("webhooks", {}, b"{}")}), Sent()
    letter = LETTER.model_copy(update={"kind": "webhooks"})

    await Retries(box, sent).carry_out(happened(DeadLetterRetried(letter=letter, reason="")))

    assert (box.letters, sent.messages) == ({}, [])


async def test_a_letter_of_an_older_build_still_knows_where_its_original_was() -> None:
    older = {"dead-subject": LETTER.subject, "Nats-Msg-Id": "dead.reactions.42"}
    sent = Sent()

    await Retries(Box({7: Kept("reactions", older, b"{}")}), sent).carry_out(happened(RETRIED))

    assert sent.messages[0][2]["dead-sequence"] == "42"


async def test_each_retry_that_fails_leaves_a_letter_of_its_own() -> None:
    put = Sent()
    letters = DeadLetters(put)
    for headers in ({}, {}, {"dead-retry-of": "1"}, {"dead-retry-of": "2"}):
        await letters.put(
            "reactions", LETTER.subject, headers, b"{}", key="42", reason="broken\nagain"
        )

    ids = [headers["Nats-Msg-Id"] for _, _, headers in put.messages]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert len({subject for subject, _, _ in put.messages}) == 3
    assert {headers["dead-reason"] for _, _, headers in put.messages} == {"broken again"}


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder: Path = tmp_path_factory.mktemp("retries")
    async with nats_server(folder, agents=AGENTS, secured=True) as server:
        settings = of(server, folder)
        async with handling(settings), connected(server, settings) as world:
            yield world


@contextmanager
def broken_reaction() -> Iterator[None]:
    """Nothing can follow from a submitted job, and that is seen at once."""

    async def fail(*_: object) -> Any:
        raise RuntimeError("the reaction is broken")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settle, "MAX_DELIVERIES", 1)
        patch.setitem(REACTIONS, JobSubmitted, fail)
        yield


async def letters_of(world: World) -> list[DeadLetter]:
    """What the gateway, with its own permissions, sees of the letters."""
    return (await Letters(NatsFeed(world.gateway), "default").page(0, 100)).items


async def the_letter(world: World, after: int = 0) -> LetterFacts:
    """The next letter that is put aside, as the gateway would speak of it."""
    found: list[DeadLetter] = []

    async def there() -> bool:
        found[:] = [each for each in await letters_of(world) if each.sequence > after]
        return bool(found)

    await eventually(there, f"a letter after {after}")
    message = await Letters(NatsFeed(world.gateway), "default").read(found[0].sequence)
    assert message is not None
    return facts_of(message)


async def retry(world: World, facts: LetterFacts) -> Outcome:
    command = RetryDeadLetter(letter=facts, reason="it was fixed")
    return await world.say(command, "dead_letter", letter_id("default", facts.sequence))


@pytest.mark.infra
async def test_a_job_that_nobody_queued_ends_well_after_its_letter_was_retried(
    world: World,
) -> None:
    dataset_id = await world.valid_dataset()
    with broken_reaction():
        await world.submit(dataset_id)
        first = await the_letter(world)
        assert (first.kind, first.message_type) == ("reactions", "JobSubmitted")
        assert "the reaction is broken" in first.failure

        await retry(world, first)
        second = await the_letter(world, after=first.sequence)
    assert [each.retry_of for each in await letters_of(world)] == [first.sequence]
    assert second.message_id == first.message_id
    assert "WorkQueued" not in await world.types()

    async with agent_at(world) as agent:
        agent.files = (await world.blob(b"config"), await world.blob(b"weights"))
        await retry(world, second)
        types = await world.until("EvaluationCompleted")

    assert types.count("DeadLetterRetried") == 2
    assert types.count("JobSucceeded") == 1
    assert (await world.types()).count("JobSubmitted") == 1
    assert await letters_of(world) == []


@pytest.mark.infra
async def test_a_follow_up_that_could_not_be_decided_is_decided_by_a_retry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_id = await world.valid_dataset()

    async def fail(asked: Envelope[Command], *rest: Any) -> Outcome:
        if type(asked.command).__name__ == "Enqueue":
            raise RuntimeError("the queue is broken")
        return await execute(asked, *rest)

    queued = (await world.types()).count("WorkQueued")
    monkeypatch.setattr(settle, "MAX_DELIVERIES", 1)
    monkeypatch.setattr(commands, "execute", fail)
    await world.submit(dataset_id)
    facts = await the_letter(world)
    assert (facts.kind, facts.message_type) == ("commands", "Enqueue")
    monkeypatch.undo()

    await retry(world, facts)
    await world.until("WorkQueued", queued + 1)

    again = await retry(world, facts)
    assert (again.status, again.code) == ("rejected", "dead_letter_closed")


@pytest.mark.infra
async def test_a_discarded_letter_changes_nothing_but_the_log(world: World) -> None:
    dataset_id = await world.valid_dataset()
    await world.quiet()
    queued = (await world.types()).count("WorkQueued")
    with broken_reaction():
        await world.submit(dataset_id)
        facts = await the_letter(world)
        discard = DiscardDeadLetter(letter=facts, reason="submitted by mistake")
        await world.say(discard, "dead_letter", letter_id("default", facts.sequence))
        await world.quiet()

    assert await letters_of(world) == []
    assert (await world.types()).count("WorkQueued") == queued
    last = (await world.events())[-1]
    assert (type(last.event), last.source) == (DeadLetterDiscarded, "gateway")
