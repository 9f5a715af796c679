"""What happens is told to webhooks: in order, again and again, and on past what cannot be delivered."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from itertools import chain, repeat
from uuid import UUID

import pytest

from domain.dead_letters.dead_letter import letter_id
from domain.dead_letters.events import DeadLetterDiscarded, DeadLetterRetried, LetterFacts
from domain.jobs.events import JobCancelled
from domain.models.events import ModelCreated
from domain.webhooks.commands import DisableWebhook
from domain.webhooks.deliveries import Answer
from domain.webhooks.events import (
    WebhookDisabled,
    WebhookEnabled,
    WebhookRemoved,
    WebhookReplayed,
    WebhookSecretRotated,
)
from domain.webhooks.messages import secret_text
from tests.delivery.memory import KEY_ID, SECRET, START, URL, URL_ID, WEBHOOK, World

JOBS = [UUID(int=100 + number) for number in range(4)]
HOUR = 3600.0
SCHEDULE = [0.0, 5.0, 305.0, 2105.0, 9305.0]  # of the first five attempts, without jitter


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.add()
    yield world
    await world.kill()


def happen(world: World, number: int, job: UUID | None = None) -> list[int]:
    """So many events of jobs; give their sequences."""
    return [
        world.log.append("job", job or JOBS[n % len(JOBS)], JobCancelled(job_id=JOBS[0], attempt=1))
        for n in range(number)
    ]


def sequences(world: World, url: str = URL) -> list[int]:
    """What was posted, in order, by its place in the log."""
    return [
        json.loads(body)["data"]["sequence"]
        for at, _, body, _ in world.receivers.posted
        if at == url
    ]


def refusing(sequence: int) -> Callable[[bytes], int]:
    """A receiver that has a quarrel with one event."""
    return lambda body: 500 if json.loads(body)["data"]["sequence"] == sequence else 200


def answers(*statuses: int | Answer, then: int = 200) -> Iterator[int | Answer]:
    return chain(statuses, repeat(then))


async def test_what_happens_after_a_webhook_was_added_is_told(world: World) -> None:
    world.start()
    wanted = happen(world, 20)
    world.log.append(
        "model", UUID(int=9), ModelCreated(model_id=UUID(int=9), name="m", base_model="b")
    )

    await world.until(lambda: len(world.receivers.posted) == 20 and not world.waiting())

    assert sorted(sequences(world)) == wanted
    assert len(set(world.receivers.ids())) == 20


async def test_what_happened_before_it_was_added_is_not_told() -> None:
    world = World()
    happen(world, 5)
    world.add()
    after = happen(world, 5)
    world.start()
    await world.until(lambda: len(world.receivers.posted) == 5)
    await world.kill()

    assert sorted(sequences(world)) == after


async def test_the_pauses_between_attempts_are_those_of_the_specification(world: World) -> None:
    said = answers(500, 500, 301, 503)
    world.receivers.answers[URL] = lambda _: next(said)
    happen(world, 1)
    world.start()

    await world.until(lambda: len(world.receivers.posted) == 5)

    assert world.receivers.times() == SCHEDULE
    assert len(set(world.receivers.ids())) == 1


async def test_what_one_aggregate_waits_for_delays_no_other(world: World) -> None:
    world.timer.until = START  # the hours stand still
    first, *rest = happen(world, 1, JOBS[0]) + happen(world, 3, JOBS[0])
    others = happen(world, 3, JOBS[1])

    world.receivers.answers[URL] = refusing(first)
    world.start()
    await world.until(lambda: set(others) <= set(sequences(world)))
    await asyncio.sleep(0.05)
    assert not set(rest) & set(sequences(world))

    world.receivers.answers[URL] = lambda _: 200
    world.timer.until = START + timedelta(hours=1)
    await world.until(lambda: not world.waiting())

    its = [sequence for sequence in sequences(world) if sequence not in others]
    assert its == [first, first, *rest]


async def test_a_receiver_that_is_slow_delays_no_other(world: World) -> None:
    slow, url = UUID(int=0x510), "https://slow.example.org/"
    world.add(slow, url)
    world.receivers.slow[url] = asyncio.Event()
    wanted = happen(world, 30)
    world.start()

    await world.until(lambda: sorted(sequences(world)) == wanted)

    assert len(sequences(world, url)) == len(JOBS)  # one of each aggregate is under way
    world.receivers.slow[url].set()
    await world.until(lambda: len(sequences(world, url)) == 30)


async def test_a_delivery_without_attempts_left_becomes_a_dead_letter_and_the_rest_goes_on(
    world: World,
) -> None:
    lost, told = happen(world, 2, JOBS[0])
    world.receivers.answers[URL] = refusing(lost)
    world.start()

    await world.until(lambda: bool(world.put.letters) and world.waiting("dead") == [lost])

    ((subject, headers),) = world.put.letters
    assert subject.startswith("dead.webhooks.job.")
    assert headers["webhook-id"] == world.receivers.ids()[0]
    assert "the receiver answered 500" in headers["dead-reason"]
    assert Counter(sequences(world))[lost] == 10
    assert world.receivers.times()[9] == pytest.approx(75 * HOUR + 35 * 60 + 5)
    await world.until(lambda: told in sequences(world))


def facts(world: World) -> LetterFacts:
    _, headers = world.put.letters[-1]
    return LetterFacts(
        sequence=7,
        kind="webhooks",
        subject=headers["dead-subject"],
        message_type=headers["ce-type"],
        message_id=headers["webhook-id"],
        failure=headers["dead-reason"],
    )


async def test_a_dead_letter_that_is_retried_is_delivered_under_its_own_id(world: World) -> None:
    (lost,) = happen(world, 1)
    world.receivers.answers[URL] = lambda _: 500
    world.start()
    await world.until(lambda: world.waiting("dead") == [lost])
    world.receivers.answers[URL] = lambda _: 200

    retried = DeadLetterRetried(letter=facts(world), reason="fixed")
    world.log.append("dead_letter", letter_id("default", 7), retried)

    await world.until(lambda: not world.store.rows)
    assert len(set(world.receivers.ids())) == 1
    assert len(world.receivers.posted) == 11


async def test_a_retry_that_fails_again_leaves_another_letter_that_names_the_first(
    world: World,
) -> None:
    happen(world, 1)
    world.receivers.answers[URL] = lambda _: 500
    world.start()
    await world.until(lambda: bool(world.waiting("dead")))

    retried = DeadLetterRetried(letter=facts(world), reason="")
    world.log.append("dead_letter", letter_id("default", 7), retried)
    await world.until(lambda: len(world.put.letters) == 2)

    first, second = (headers for _, headers in world.put.letters)
    assert second["dead-retry-of"] == "7"
    assert first["Nats-Msg-Id"] != second["Nats-Msg-Id"]


async def test_a_dead_letter_that_is_given_up_is_not_kept(world: World) -> None:
    happen(world, 1)
    world.receivers.answers[URL] = lambda _: 500
    world.start()
    await world.until(lambda: bool(world.waiting("dead")))

    discarded = DeadLetterDiscarded(letter=facts(world), reason="not wanted")
    world.log.append("dead_letter", letter_id("default", 7), discarded)

    await world.until(lambda: not world.store.rows)
    assert len(world.receivers.posted) == 10


async def test_a_receiver_that_is_gone_is_asked_once_and_disabled(world: World) -> None:
    world.receivers.answers[URL] = lambda _: 410
    happen(world, 3, JOBS[0])
    world.start()

    await world.until(lambda: bool(world.bus.sent))

    (envelope,) = world.bus.sent
    assert envelope.stream.id == WEBHOOK
    assert envelope.source == "delivery"
    assert isinstance(envelope.command, DisableWebhook)
    assert envelope.command.by == "gone"
    assert len(world.receivers.posted) == 1


async def test_what_happens_while_a_webhook_is_disabled_waits_for_it(world: World) -> None:
    world.start()
    happen(world, 2)
    await world.until(lambda: len(world.receivers.posted) == 2)
    world.log.append("webhook", WEBHOOK, WebhookDisabled(webhook_id=WEBHOOK, by="gone", reason=""))
    await world.until(lambda: world.store.cursors_[WEBHOOK].handled == 4)
    meanwhile = happen(world, 5)
    await asyncio.sleep(0.05)
    assert len(world.receivers.posted) == 2

    world.log.append("webhook", WEBHOOK, WebhookEnabled(webhook_id=WEBHOOK))

    await world.until(lambda: sorted(sequences(world))[2:] == meanwhile)


async def test_enabling_tries_at_once_what_was_waiting(world: World) -> None:
    world.timer.until = START
    world.receivers.answers[URL] = lambda _: 500
    happen(world, 1)
    world.start()
    await world.until(lambda: [row.attempts for row in world.store.rows.values()] == [1])
    world.receivers.answers[URL] = lambda _: 200

    world.log.append(
        "webhook", WEBHOOK, WebhookDisabled(webhook_id=WEBHOOK, by="person", reason="")
    )
    world.log.append("webhook", WEBHOOK, WebhookEnabled(webhook_id=WEBHOOK))

    await world.until(lambda: not world.waiting())
    assert world.receivers.times() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (Answer(0.1, status=429, retry_after="120"), 120.0),
        (Answer(0.1, status=429, retry_after="Sat, 21 Nov 2026 12:10:00 GMT"), 600.0),
        (Answer(0.1, status=429, retry_after="999999999"), 24 * HOUR),
        (Answer(0.1, status=502), 60.0),
        (Answer(0.1, status=504, retry_after="soon"), 60.0),
    ],
)
async def test_a_receiver_that_asks_for_less_is_left_alone_altogether(
    world: World, answer: Answer, pause: float
) -> None:
    said = answers(answer)
    world.receivers.answers[URL] = lambda _: next(said)
    happen(world, 1, JOBS[0])
    world.start()
    await world.until(lambda: bool(world.store.log))
    happen(world, 3, JOBS[1])

    await world.until(lambda: len(world.receivers.posted) == 5)

    assert world.receivers.times()[1:] == [pause] * 4


async def test_while_a_secret_rotates_both_sign_and_then_the_new_one_alone(world: World) -> None:
    new = secret_text(b"n" * 32)
    world.store.secrets[WEBHOOK, "key_2222222222222222"] = new
    rotated = WebhookSecretRotated(
        webhook_id=WEBHOOK,
        key_id="key_2222222222222222",
        old_key_id=KEY_ID,
        old_valid_until=START + timedelta(hours=24),
    )
    world.log.append("webhook", WEBHOOK, rotated)
    happen(world, 1)
    world.start()
    await world.until(lambda: len(world.receivers.posted) == 1)

    world.timer.time = START + timedelta(hours=24)
    happen(world, 1)
    await world.until(lambda: len(world.receivers.posted) == 2)

    signatures = [headers["webhook-signature"] for _, headers, _, _ in world.receivers.posted]
    assert [len(one.split()) for one in signatures] == [2, 1]


async def test_a_changed_address_is_used_for_what_waits(world: World) -> None:
    from domain.webhooks.events import WebhookChanged

    world.timer.until = START
    world.receivers.answers[URL] = lambda _: 500
    (waiting,) = happen(world, 1)
    world.start()
    await world.until(lambda: len(world.store.log) == 1)
    moved = "https://elsewhere.example.org/"
    world.store.secrets[WEBHOOK, "url_2222222222222222"] = moved
    world.timer.until = START + timedelta(hours=1)
    world.log.append(
        "webhook",
        WEBHOOK,
        WebhookChanged(
            webhook_id=WEBHOOK,
            url=moved,
            url_id="url_2222222222222222",
            event_types=None,
            description="",
        ),
    )

    await world.until(lambda: waiting in sequences(world, moved))


async def test_a_replay_tells_again_what_comes_behind_its_position(world: World) -> None:
    told = happen(world, 6)
    world.start()
    await world.until(lambda: len(world.receivers.posted) == 6 and not world.waiting())
    before = world.receivers.ids()

    world.log.append("webhook", WEBHOOK, WebhookReplayed(webhook_id=WEBHOOK, after=told[2]))

    await world.until(lambda: len(world.receivers.posted) == 9)
    assert sorted(sequences(world)[6:]) == told[3:]
    assert set(world.receivers.ids()[6:]) <= set(before)


async def test_a_replay_is_done_once_also_when_the_process_begins_anew(world: World) -> None:
    told = happen(world, 4)
    world.log.append("webhook", WEBHOOK, WebhookReplayed(webhook_id=WEBHOOK, after=told[0]))
    world.start()
    await world.until(lambda: len(world.receivers.posted) == 3 and not world.waiting())
    await world.kill()

    world.start()
    (last,) = happen(world, 1)
    await world.until(lambda: last in sequences(world))

    assert len(world.receivers.posted) == 4


async def test_nothing_is_kept_of_a_webhook_that_was_removed(world: World) -> None:
    world.receivers.answers[URL] = lambda _: 500
    world.timer.until = START
    happen(world, 3)
    world.start()
    await world.until(lambda: len(world.waiting()) == 3)

    world.log.append("webhook", WEBHOOK, WebhookRemoved(webhook_id=WEBHOOK))

    await world.until(lambda: not world.store.cursors_ and not world.store.rows)


async def test_a_process_that_is_killed_at_any_moment_loses_nothing() -> None:
    for moment in range(1, 12):
        world = World()
        world.add()
        wanted = happen(world, 12)
        world.start()
        await world.until(lambda at=moment, w=world: len(w.receivers.posted) >= at)  # type: ignore[misc]
        await world.kill()
        world.start()
        await world.until(
            lambda w=world, all_=wanted: set(sequences(w)) == set(all_) and not w.waiting()  # type: ignore[misc]
        )
        await world.kill()

        assert len(set(world.receivers.ids())) == 12
        by_job = {
            job: [s for s in dict.fromkeys(sequences(world)) if s % 4 == job] for job in range(4)
        }
        assert all(its == sorted(its) for its in by_job.values())


async def test_absences_of_the_log_and_the_database_are_waited_for(world: World) -> None:
    world.start()
    await world.until(lambda: WEBHOOK in world.store.cursors_)
    world.store.away = world.log.away = True
    happen(world, 3)
    await asyncio.sleep(0.05)
    world.store.away = world.log.away = False

    await world.until(lambda: len(set(world.receivers.ids())) == 3)


async def test_a_cursor_behind_the_end_of_an_older_log_does_not_swallow_what_comes(
    world: World,
) -> None:
    from domain.webhooks.deliveries import Cursor

    world.store.cursors_[WEBHOOK] = Cursor(5000, 5000)
    world.start()
    await world.until(lambda: world.store.cursors_[WEBHOOK].sequence == 1)

    (told,) = happen(world, 1)

    await world.until(lambda: sequences(world) == [told])


async def test_without_its_secret_nothing_is_sent_and_it_waits(world: World) -> None:
    world.timer.until = START
    del world.store.secrets[WEBHOOK, KEY_ID]
    happen(world, 1)
    world.start()
    await world.until(lambda: len(world.store.log) == 1)

    assert world.receivers.posted == []
    assert "secret" in world.store.log[0].answer.error
    world.store.secrets[WEBHOOK, KEY_ID] = SECRET
    world.timer.until = START + timedelta(minutes=1)
    await world.until(lambda: len(world.receivers.posted) == 1)
    assert world.store.secrets[WEBHOOK, URL_ID] == URL
