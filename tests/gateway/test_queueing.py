"""The queue over HTTP: why things wait, the policy, quotas and priorities."""

from typing import Any
from uuid import UUID

import pytest

from domain.queues.commands import Assign, Enqueue, SetPolicy
from domain.queues.policy import QueuePolicy
from domain.queues.queue import queue_id
from handlers.follow_ups import queue_stream
from tests.gateway.world import W, World, envelope

METHOD = "sequence_classification"
POLICY = "/api/v1/queue/policy"


async def queued(world: World, job: dict[str, Any], **more: Any) -> None:
    """What the reaction to a submission does."""
    about = {"kind": "train", "method": METHOD, "attempt": 1, "user": job["submitted_by"]}
    work = Enqueue(work_id=UUID(job["id"]), **about | {"priority": job["priority"]} | more)
    await world.decide(work, queue_id(W))


async def assign(world: World) -> None:
    await world.decide(Assign(), queue_id(W))


async def get(world: World, path: str, role: str = "viewer") -> Any:
    async with world.client(role) as client:
        answer = await client.get(f"/api/v1{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()


async def submit(world: World, **more: Any) -> Any:
    dataset = await world.uploaded(name=f"rows {world.events}.csv")
    async with world.client("editor") as client:
        body = {"model": "support", "dataset_id": dataset["id"]} | more
        return await client.post("/api/v1/jobs", json=body)


async def test_a_job_says_who_wants_it_how_urgently_and_where(world: World) -> None:
    needs = {"accelerator": "gpu", "memory_bytes": 10}
    job = (await submit(world, priority=80, pool="lab", needs=needs)).json()

    assert job["submitted_by"] == f"key:{world.keys['editor'].key_id}"
    assert (job["priority"], job["pool"], job["needs"]) == (80, "lab", needs)
    assert job["waiting"] is None  # the reaction to it has not queued it


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": "80"}, "priority"),
        ({"pool": "No Such"}, "pool"),
        ({"needs": {"memory_bytes": 0}}, "memory_bytes"),
        ({"needs": {"memory": 1}}, "memory"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_name(
    world: World, asked: dict[str, Any], named: str
) -> None:
    answer = await submit(world, **asked)

    assert answer.status_code == 400
    assert named in answer.json()["errors"][0]["field"]


async def test_a_waiting_job_says_why_and_when_it_may_start(world: World) -> None:
    first, second = await world.submitted("one"), await world.submitted("two")
    await queued(world, first)
    alone = (await get(world, f"/jobs/{first['id']}"))["waiting"]
    await world.offered()
    await queued(world, second)
    await assign(world)
    waiting = (await get(world, f"/jobs/{second['id']}"))["waiting"]

    assert (alone["code"], alone["reason"]) == ("no_agent", "no agent is connected")
    assert (waiting["position"], waiting["code"], waiting["ahead"]) == (1, "agents_busy", 0)
    assert waiting["reason"] == (
        f"the only agent that can run it is busy: box with job {first['id']}"
    )
    assert waiting["estimated_start"] is None
    assert waiting["estimate"] == "nothing is known of how long what goes before it takes"
    assert (await get(world, f"/jobs/{first['id']}"))["waiting"] is None


async def test_the_queue_shows_what_is_assigned_then_what_waits_in_its_order(world: World) -> None:
    jobs = [await world.submitted(name) for name in ("one", "two", "three")]
    await world.offered()
    await queued(world, jobs[0])
    await assign(world)
    await queued(world, jobs[1], user="key:other", priority=10)
    await queued(world, jobs[2], priority=90, pool="lab")

    items = (await get(world, "/queue"))["items"]

    assert [item["work_id"] for item in items] == [jobs[0]["id"], jobs[1]["id"], jobs[2]["id"]]
    assert [item["position"] for item in items] == [None, 1, 2]
    assert [item["user"] for item in items][1] == "key:other"
    assert items[0]["reason"].startswith("first of 1 waiting; priority 50;")
    assert [item["waiting"] and item["waiting"]["code"] for item in items] == [
        None,
        "agents_busy",
        "no_agent_of_pool",
    ]


async def test_a_job_of_the_past_does_not_say_why_it_waited(world: World) -> None:
    job = await world.submitted()
    await queued(world, job)

    past = await get(world, f"/jobs/{job['id']}?as_of={world.events}")

    assert past["waiting"] is None


async def test_the_built_in_policy_is_in_force_until_another_is_set(world: World) -> None:
    before = await get(world, "/queue/policy")
    mine = {"users": {"key:abc": {"weight": 2, "running": 1}}, "patience": 7}
    async with world.client("admin") as client:
        put = await client.put(POLICY, json=mine)
        again = await client.put(POLICY, json=mine)
    after = await get(world, "/queue/policy")

    assert (before["number"], before["set_by"], before["patience"]) == (0, None, 100)
    assert put.status_code == 200, put.text
    assert put.json() == after == again.json()
    assert after["number"] == 1
    assert after["patience"] == 7
    assert after["users"] == {"key:abc": {"weight": 2, "running": 1, "queued": None}}
    assert after["set_by"] == f"key:{world.keys['admin'].key_id}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"patience": 0}, "patience"),
        ({"memory": 1.5}, "memory"),
        ({"everyone": {"weight": 0}}, "everyone.weight"),
        ({"everyone": {"running": -1}}, "everyone.running"),
        ({"users": {"abc": {}}}, "users"),
        ({"users": {"key:abc": {"runing": 1}}}, "runing"),
        ({"quota": 1}, "quota"),
    ],
)
async def test_a_policy_that_cannot_be_meant_is_refused_by_name(
    world: World, body: dict[str, Any], field: str
) -> None:
    async with world.client("admin") as client:
        answer = await client.put(POLICY, json=body)

    assert answer.status_code == 400
    assert field in answer.json()["errors"][0]["field"] + answer.json()["errors"][0]["message"]


async def test_a_policy_is_set_by_an_admin_at_the_revision_that_was_read(world: World) -> None:
    async with world.client("editor") as client:
        assert (await client.put(POLICY, json={})).status_code == 403
    async with world.client("admin") as client:
        tag = (await client.get(POLICY)).headers["etag"]
        first = await client.put(POLICY, json={"patience": 5}, headers={"If-Match": tag})
        second = await client.put(POLICY, json={"patience": 6}, headers={"If-Match": tag})

    assert (first.status_code, second.status_code) == (200, 412)


async def test_a_submission_over_the_quota_is_refused_and_a_cancelled_job_makes_room(
    world: World,
) -> None:
    user = f"key:{world.keys['editor'].key_id}"
    policy = QueuePolicy.model_validate({"users": {user: {"queued": 2}}})
    await world.decide(SetPolicy(policy=policy), queue_id(W), "gateway")

    answers = [await submit(world, model=name) for name in ("one", "two", "three")]

    assert [answer.status_code for answer in answers] == [202, 202, 429]
    refused = answers[2].json()
    assert refused["code"] == "queue_quota_reached"
    assert refused["detail"].startswith("2 of your jobs wait and 2 may")
    for answer in answers[:2]:
        await queued_as_the_reaction_does(world, answer.json())
    assert (await submit(world)).status_code == 429
    async with world.client("admin") as client:
        dataset = await world.uploaded(name="others.csv")
        body = {"model": "support", "dataset_id": dataset["id"]}
        assert (await client.post("/api/v1/jobs", json=body)).status_code == 202


async def queued_as_the_reaction_does(world: World, job: dict[str, Any]) -> None:
    """With the command's id of the reaction, by which it is known that the job has arrived."""
    from domain.messages import follow_up_id

    history = await world.store.everything()
    (submitted,) = [one for one in history if one.stream.id == UUID(job["id"])]
    work = Enqueue(
        work_id=submitted.stream.id,
        kind="train",
        method=METHOD,
        attempt=1,
        user=job["submitted_by"],
    )
    id_ = follow_up_id(submitted.id, "enqueue")
    await world.bus.decide(envelope(work, queue_stream(W).id, "reaction", id_=id_))


async def test_a_priority_is_changed_until_the_job_has_ended(world: World) -> None:
    job = await world.submitted()
    path = f"/api/v1/jobs/{job['id']}"
    async with world.client("editor") as client:
        changed = await client.post(f"{path}/priority", json={"priority": 90})
        wrong = await client.post(f"{path}/priority", json={"priority": 200})
        await client.post(f"{path}/cancel")
        late = await client.post(f"{path}/priority", json={"priority": 10})
    async with world.client("viewer") as client:
        forbidden = await client.post(f"{path}/priority", json={"priority": 10})

    assert (changed.status_code, changed.json()["priority"]) == (202, 90)
    assert wrong.status_code == 400
    assert (late.status_code, late.json()["code"]) == (409, "job_has_ended")
    assert forbidden.status_code == 403
