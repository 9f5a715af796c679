"""Dead letters over HTTP: listed in order, shown whole without secrets, closed once by an admin."""

import json
from typing import Any

import pytest

from domain.dead_letters.events import DeadLetterDiscarded, DeadLetterRetried
from tests.gateway.world import Message, World

API = "/api/v1/dead-letters"
JOB = "019369c1-0a44-7d51-8c0e-2f6b9d1e3a58"


def put_aside(
    world: World,
    sequence: int,
    body: bytes = b'{"type": "CancelJob"}',
    *,
    kind: str = "commands",
    workspace: str = "default",
    **headers: str,
) -> None:
    subject = f"commands.gateway.{workspace}.job.{JOB}"
    known = {
        "ce-type": "CancelJob",
        "ce-id": JOB,
        "dead-subject": subject,
        "dead-reason": "ValueError: broken",
        "Nats-Time-Stamp": "2026-11-20T17:43:05.123456789Z",
        "Nats-Sequence": str(sequence),
    }
    message = Message(sequence, f"dead.{kind}.job", known | headers, body)
    world.feed.dead.append(message)


async def listed(world: World, query: str = "") -> dict[str, Any]:
    async with world.client("admin") as client:
        answer = await client.get(f"{API}{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_open_letters_are_listed_oldest_first_page_by_page(world: World) -> None:
    for sequence in (3, 4, 9):
        put_aside(world, sequence)
    put_aside(world, 10, workspace="another")

    first = await listed(world, "?limit=2")
    rest = await listed(world, f"?limit=2&cursor={first['next']}")

    assert [item["sequence"] for item in first["items"] + rest["items"]] == [3, 4, 9]
    assert rest["next"] is None
    assert first["items"][0] == {
        "sequence": 3,
        "status": "open",
        "kind": "commands",
        "subject": f"commands.gateway.default.job.{JOB}",
        "type": "CancelJob",
        "message_id": JOB,
        "reason": "ValueError: broken",
        "put_aside_at": "2026-11-20T17:43:05.123456Z",
        "size": 21,
        "retry_of": None,
    }


async def test_many_letters_of_another_workspace_hide_none_of_ours(world: World) -> None:
    for sequence in range(1, 251):
        put_aside(world, sequence, workspace="another")
    put_aside(world, 251)

    assert [item["sequence"] for item in (await listed(world))["items"]] == [251]


async def test_a_letter_is_shown_whole_but_for_what_is_secret(world: World) -> None:
    body = {"type": "IssueKey", "secret_hmac": "c0ffee", "deep": [{"token": "t", "tokens": 7}]}
    put_aside(world, 1, json.dumps(body).encode(), **{"ce-actor": "key:Ab3dEf7h"})
    put_aside(world, 2, b'{"secret_hmac": "c0ffee", "nam', **{"dead-retry-of": "1"})
    put_aside(world, 3, b"\xff\xfe")

    async with world.client("admin") as client:
        whole, cut, raw = [(await client.get(f"{API}/{n}")).json() for n in (1, 2, 3)]

    assert whole["body"] == {
        "type": "IssueKey",
        "secret_hmac": "(hidden)",
        "deep": [{"token": "(hidden)", "tokens": 7}],
    }
    assert whole["headers"] == {"ce-type": "CancelJob", "ce-id": JOB, "ce-actor": "key:Ab3dEf7h"}
    assert (cut["body"], cut["retry_of"]) == (None, 1)
    assert cut["text"] == '{"secret_hmac": "(hidden)", "nam'
    assert (raw["body"], raw["text"]) == (None, "��")


async def test_a_retry_stands_in_the_log_with_who_wanted_it_and_why(world: World) -> None:
    put_aside(world, 7)

    async with world.client("admin") as client:
        answer = await client.post(f"{API}/7/retry", json={"reason": "the rules were fixed"})

    assert answer.status_code == 202
    (recorded,) = await world.store.everything(after=answer.json()["log_sequence"] - 1)
    assert isinstance(recorded.event, DeadLetterRetried)
    assert recorded.actor == f"key:{world.keys['admin'].key_id}"
    assert recorded.event.reason == "the rules were fixed"
    assert recorded.event.letter.model_dump() == {
        "sequence": 7,
        "kind": "commands",
        "subject": f"commands.gateway.default.job.{JOB}",
        "message_type": "CancelJob",
        "message_id": JOB,
        "failure": "ValueError: broken",
    }


async def test_a_retry_needs_no_reason_and_a_discard_does(world: World) -> None:
    put_aside(world, 7)
    put_aside(world, 8)

    async with world.client("admin") as client:
        bare = await client.post(f"{API}/7/retry")
        silent = [await client.post(f"{API}/8/discard", json=b) for b in ({}, {"reason": ""})]
        said = await client.post(f"{API}/8/discard", json={"reason": "sent by mistake"})

    assert bare.status_code == 202, bare.text
    assert [answer.status_code for answer in silent] == [400, 400]
    assert (said.status_code, said.json()["status"]) == (200, "discarded")
    (recorded,) = await world.store.everything(after=said.json()["log_sequence"] - 1)
    assert isinstance(recorded.event, DeadLetterDiscarded)


@pytest.mark.parametrize("gone", [False, True])
async def test_a_letter_is_closed_once_and_the_same_request_gets_the_same_answer(
    world: World, gone: bool
) -> None:
    put_aside(world, 7)
    same = {"Idempotency-Key": "once"}

    async with world.client("admin") as client:
        first = await client.post(f"{API}/7/discard", json={"reason": "no"}, headers=same)
        if gone:  # the handlers have removed it
            world.feed.dead.clear()
        repeated = await client.post(f"{API}/7/discard", json={"reason": "no"}, headers=same)
        other = await client.post(f"{API}/7/retry")
        shown = await client.get(f"{API}/7")

    assert repeated.json() == first.json()
    assert (other.status_code, other.json()["code"]) == (409, "dead_letter_closed")
    assert shown.status_code == (409 if gone else 200)


async def test_a_letter_that_never_was_is_not_found(world: World) -> None:
    put_aside(world, 5, workspace="another")

    async with world.client("admin") as client:
        answers = [
            await client.get(f"{API}/5"),
            await client.post(f"{API}/6/retry"),
            await client.post(f"{API}/0/discard", json={"reason": "no"}),
            await client.get(f"{API}/{10**30}"),
        ]

    assert {answer.status_code for answer in answers} == {404}
