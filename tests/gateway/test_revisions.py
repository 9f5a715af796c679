"""Entity tags of things: what is known is not sent again, what has changed meanwhile is not changed blindly."""

from typing import Any

import pytest

from tests.gateway.world import World


async def things(world: World) -> list[str]:
    """One of each that has a page of its own."""
    job = await world.trained()
    async with world.client("viewer") as client:
        evaluation = (await client.get("/api/v1/evaluations")).json()["items"][0]["id"]
    return [
        f"/api/v1/datasets/{job['dataset_id']}",
        f"/api/v1/jobs/{job['id']}",
        "/api/v1/models/support",
        "/api/v1/models/support/versions/1",
        f"/api/v1/evaluations/{evaluation}",
    ]


async def test_a_thing_that_is_known_is_not_sent_again(world: World) -> None:
    urls = await things(world)
    async with world.client("viewer") as client:
        for url in urls:
            first = await client.get(url)
            etag = first.headers["etag"]
            assert etag.startswith(f'"{first.json()["sequence"]}-')
            for held in (etag, f"W/{etag}", f'"1", {etag}', "*"):
                again = await client.get(url, headers={"If-None-Match": held})
                assert (again.status_code, again.content) == (304, b"")
                assert again.headers["etag"] == etag
            other = await client.get(url, headers={"If-None-Match": '"1-0"'})
            assert (other.status_code, other.json()) == (200, first.json())


async def test_what_is_shown_beside_a_thing_makes_another_tag_too(world: World) -> None:
    await world.trained()
    url = "/api/v1/models/support/versions/1"
    async with world.client("admin") as client:
        first = await client.get(url)
        await client.post("/api/v1/evaluations", json={"model": "support", "version": 1})
        known = await client.get(url, headers={"If-None-Match": first.headers["etag"]})

    assert known.status_code == 200
    assert known.json()["sequence"] == first.json()["sequence"]
    assert known.json()["evaluation"] != first.json()["evaluation"]


async def test_only_the_revision_of_a_tag_counts_for_a_change(world: World) -> None:
    job = await world.submitted()
    url = f"/api/v1/jobs/{job['id']}"
    async with world.client("editor") as client:
        sequence = (await client.get(url)).json()["sequence"]
        a_step_ago = {"If-Match": f'"{sequence}-0123456789abcdef"'}
        answer = await client.post(f"{url}/cancel", headers=a_step_ago)

    assert answer.status_code == 202


@pytest.mark.parametrize("read", ["etag", "sequence", "any", "several", "nothing"])
async def test_a_change_at_the_revision_that_was_read_is_made(world: World, read: str) -> None:
    await world.trained()
    url = "/api/v1/models/support"
    async with world.client("admin") as client:
        seen = await client.get(url)
        header = {
            "etag": seen.headers["etag"],
            "sequence": f'"{seen.json()["sequence"]}"',
            "any": "*",
            "several": f'"1", {seen.headers["etag"]}',
        }
        headers = {"If-Match": header[read]} if read in header else {}
        answer = await client.post(f"{url}/activate", json={"version": 1}, headers=headers)

    assert answer.status_code == 200
    assert answer.json()["active"]["number"] == 1


async def test_a_change_of_what_has_changed_meanwhile_is_not_made(world: World) -> None:
    job = await world.submitted()
    await world.trained()
    await world.enrolled()
    async with world.client("admin") as client:
        evaluation = (await client.get("/api/v1/evaluations")).json()["items"][0]["id"]
        agent = (await client.get("/api/v1/agents")).json()["items"][0]["id"]
        changes: list[tuple[str, str, Any]] = [
            ("POST", "/api/v1/models/support/activate", {"version": 1}),
            ("POST", f"/api/v1/jobs/{job['id']}/cancel", None),
            ("POST", f"/api/v1/evaluations/{evaluation}/cancel", None),
            ("DELETE", f"/api/v1/datasets/{job['dataset_id']}", None),
            ("POST", f"/api/v1/agents/{agent}/drain", None),
        ]
        events = world.events
        for method, url, body in changes:
            for stale in ('"1"', 'W/"2"', "nonsense", '""'):
                answer = await client.request(method, url, json=body, headers={"If-Match": stale})
                assert (answer.status_code, url) == (412, url)
                assert answer.json()["code"] == "precondition_failed"
                assert f"{answer.json()['sequence']}" in answer.json()["detail"]

    assert world.events == events


async def test_of_two_who_read_the_same_only_the_first_changes_it(world: World) -> None:
    job = await world.submitted()
    url = f"/api/v1/jobs/{job['id']}"
    async with world.client("editor") as client:
        seen = {"If-Match": (await client.get(url)).headers["etag"]}
        answers = [await client.post(f"{url}/cancel", headers=seen) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 412]
