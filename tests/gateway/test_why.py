"""Why something happened: from an event back to the request that began it."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest

from domain.jobs.commands import ClaimJob
from domain.messages import Command, Recorded
from domain.people.person import holder_id
from domain.queues.commands import Assign, Enqueue
from domain.queues.queue import queue_id
from domain.sealing import person_of
from domain.wire import client_address
from gateway.why import FROM_BEFORE
from tests.gateway.world import AGENT, W, World, envelope


async def ask(world: World, event: object, role: str = "admin") -> httpx.Response:
    async with world.client(role) as client:
        return await client.get(f"/api/v1/events/{event}/why")


async def because(
    world: World, cause: Recorded[Any] | None, command: Command, id_: UUID, source: str
) -> Recorded[Any]:
    sent = envelope(command, id_, source)
    if cause is not None:
        sent = replace(sent, causation_id=cause.id, correlation_id=cause.correlation_id)
    outcome = await world.bus.decide(sent)
    assert outcome.status == "recorded", outcome
    return (await world.store.everything())[outcome.sequence - 1]


@pytest.fixture
async def claimed(world: World) -> Recorded[Any]:
    """The claim of a job that somebody submitted, through queue, scheduler and agent."""
    job = await world.submitted()
    job_id = UUID(job["id"])
    await world.enrolled()
    submitted = (await world.store.everything())[job["sequence"] - 1]
    first = queue_id(W)
    work = {"kind": "train", "method": "sequence_classification", "attempt": 1, "priority": 90}
    queued = Enqueue(work_id=job_id, **work)
    await because(world, submitted, queued, first, "reaction")
    await world.offered(AGENT)
    assigned = await because(world, None, Assign(), first, "reaction")
    claim = ClaimJob(job_id=job_id, attempt=1, boot_id="boot")
    return await because(world, assigned, claim, job_id, str(AGENT))


async def test_a_chain_goes_back_to_the_request_that_began_it(
    world: World, claimed: Recorded[Any]
) -> None:
    for named in (claimed.sequence, claimed.id):
        answer = await ask(world, named)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert [(one["event"]["type"], one["command"]["type"]) for one in told["chain"]] == [
            ("JobClaimed", "ClaimJob"),
            ("WorkAssigned", "Assign"),
            ("WorkQueued", "Enqueue"),
            ("JobSubmitted", "SubmitJob"),
        ]
        assert told["chain"][0]["command"]["because_of"] == told["chain"][1]["event"]["id"]
        assert told["chain"][0]["command"]["source"] == str(AGENT)
        assert told["chain"][-1]["command"]["because_of"] is None
        assert (told["complete"], told["note"]) == (True, None)


async def test_what_began_it_names_the_key_the_request_and_the_address(
    world: World, claimed: Recorded[Any]
) -> None:
    began = (await ask(world, claimed.sequence)).json()["began"]
    key = world.keys["editor"].key_id

    assert began["request_id"] is not None
    assert (began["actor"], began["key_id"], began["key_name"]) == (f"key:{key}", key, "editor")
    assert (began["source"], began["address"]) == ("gateway", "127.0.0.1")


async def test_only_an_admin_is_told_an_address(world: World, claimed: Recorded[Any]) -> None:
    began = (await ask(world, claimed.sequence, "viewer")).json()["began"]

    assert began["address"] is None
    assert began["key_name"] == "editor"


async def test_an_address_is_told_of_the_command_itself_only(world: World) -> None:
    job = await world.submitted()
    async with world.client("editor") as client:
        await client.post(f"/api/v1/jobs/{job['id']}/cancel")
    addresses = [client_address(record[1]) for record in world.store._log]
    holder = holder_id(W, world.keys["editor"].key_id)

    told = [address for address in addresses if address]
    assert len(told) == 3  # the upload, the job, its end
    assert {person_of(address) for address in told} == {holder}  # and none of them is clear


async def test_an_event_of_before_says_that_its_cause_is_not_known(
    world: World, claimed: Recorded[Any]
) -> None:
    for _, headers, _ in world.store._log:
        for name in ("ce-commandtype", "ce-commandcause", "ce-clientaddress"):
            headers.pop(name, None)

    told = (await ask(world, claimed.sequence)).json()
    began = (await ask(world, told["chain"][0]["event"]["sequence"])).json()
    submitted = next(r for r in await world.store.everything() if r.source == "gateway")
    first = (await ask(world, submitted.sequence)).json()

    assert (told["complete"], told["note"]) == (False, FROM_BEFORE)
    assert [one["command"]["type"] for one in told["chain"]] == [None]
    assert began["began"]["request_id"] is None
    assert (first["complete"], first["began"]["address"]) == (True, None)


async def test_what_names_no_event_is_refused(world: World) -> None:
    unknown = [await ask(world, one) for one in (world.events + 1, "9" * 19, UUID(int=5))]
    wrong = [await ask(world, one) for one in ("JobClaimed", "1.5", "-1", "9" * 30)]

    assert [one.status_code for one in unknown] == [404] * 3
    assert [one.status_code for one in wrong] == [400] * 4
    assert "its id" in wrong[0].json()["detail"]


async def test_while_the_log_is_away_nobody_can_say_why(world: World) -> None:
    job = await world.submitted()
    world.feed.away = True

    assert (await ask(world, job["sequence"])).json()["code"] == "log_unavailable"
