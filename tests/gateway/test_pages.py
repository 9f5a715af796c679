"""Lists: pages by cursor and by number, links to the next, and which models are chosen."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dates import behind, first_moment
from gateway.pages import decode_cursor, encode_cursor
from gateway.problems import Problem
from tests.gateway.world import World

MODELS = "/api/v1/models"


async def names(client: httpx.AsyncClient, **asked: Any) -> list[str]:
    answer = await client.get(MODELS, params=asked)
    assert answer.status_code == 200, answer.text
    return [model["name"] for model in answer.json()["items"]]


async def followed(client: httpx.AsyncClient, url: str) -> list[list[str]]:
    """The ids of each page, as far as the links lead."""
    pages = []
    while True:
        answer = await client.get(url)
        pages.append([item["id"] for item in answer.json()["items"]])
        if "next" not in answer.links:
            assert answer.json()["next"] is None
            return pages
        url = answer.links["next"]["url"]


@pytest.mark.parametrize(
    "query", ["limit=2", "limit=2&page=1", "limit=2&base_model=finetrail/tiny"]
)
async def test_the_links_lead_through_all_models_once(world: World, query: str) -> None:
    for number in range(5):
        await world.talking(f"model-{number}")
    async with world.client("viewer") as client:
        whole = await client.get(f"{MODELS}?limit=100")
        pages = await followed(client, f"{MODELS}?{query}")

    assert [len(page) for page in pages] == [2, 2, 1]
    assert sum(pages, []) == [model["id"] for model in whole.json()["items"]]  # noqa: RUF017
    assert "link" not in whole.headers


@pytest.mark.parametrize("path", ["datasets", "jobs", "evaluations", "models/support/versions"])
async def test_every_list_links_to_its_next_page(world: World, path: str) -> None:
    for _ in range(2):
        await world.trained()
    async with world.client("viewer") as client:
        pages = await followed(client, f"/api/v1/{path}?limit=1")

    assert [len(page) for page in pages] == [1, 1]


async def test_a_cursor_is_not_shifted_by_a_new_model_and_a_page_is(world: World) -> None:
    for name in ("one", "two", "three"):
        await world.talking(name)
    async with world.client("viewer") as client:
        cursor = (await client.get(MODELS, params={"limit": 2})).json()["next"]
        await world.talking("four")
        by_cursor = await names(client, limit=2, cursor=cursor)
        by_page = await names(client, limit=2, page=2)
        behind_all = await names(client, page=1_000_000)

    assert by_cursor == ["one"]
    assert by_page == ["two", "one"]
    assert behind_all == []


async def test_models_are_chosen_by_what_they_are(world: World) -> None:
    await world.talking("talker")
    await world.talking("waiting", active=False)
    await world.talking("uploading", active=False, ready=False)
    await world.trained("classifier")
    async with world.client("viewer") as client:
        assert await names(client, status="active") == ["talker"]
        assert await names(client, status="ready") == ["classifier", "waiting", "talker"]
        assert await names(client, status="uploading") == ["uploading"]
        assert await names(client, status="error") == []
        assert await names(client, base_model="finetrail/minilm") == ["classifier"]
        assert await names(client, base_model="finetrail/tiny", status="ready") == ["waiting", "talker"]  # fmt: skip
        created = (await client.get(f"{MODELS}/waiting")).json()["created_at"]
        today, day = datetime.fromisoformat(created).date(), timedelta(days=1)
        assert len(await names(client, date_from=str(today), date_to=str(today))) == 4
        assert await names(client, date_from=str(today + day)) == []
        assert await names(client, date_to=str(today - day)) == []
        for field in ("date_from", "date_to"):
            assert "waiting" in await names(client, **{field: created})
        just_behind = (datetime.fromisoformat(created) + timedelta(microseconds=1)).isoformat()
        assert "waiting" not in await names(client, date_from=just_behind.replace("+00:00", "Z"))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=1&cursor=MTA", "page"),
        ("cursor=" + encode_cursor(2**63), "cursor"),
        ("status=sleeping", "status"),
        ("date_from=yesterday", "date_from"),
        ("date_to=2026-02-30", "date_to"),
        ("date_to=9999-12-31", "date_to"),
        ("limit=101", "limit"),
    ],
)
async def test_what_cannot_be_asked_is_named(world: World, query: str, field: str) -> None:
    async with world.client("viewer") as client:
        answer = await client.get(f"{MODELS}?{query}")

    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@given(st.text(max_size=30))
def test_a_text_is_a_moment_or_a_problem(text: str) -> None:
    for read in (first_moment, behind):
        try:
            found = read(text)
        except Problem as problem:
            found = None
            field = problem.extras["errors"][0]["field"]
        else:
            field = ""
        assert (found is None) == (field in {"date_from", "date_to"})


@given(st.integers(1, 2**63 - 1))
def test_a_cursor_is_read_as_it_was_written(sequence: int) -> None:
    assert decode_cursor(encode_cursor(sequence)) == sequence


@pytest.mark.parametrize("number", ["2147483648", "99999999999999999999", "0", "-1"])
async def test_no_number_of_a_version_breaks_the_answer(world: World, number: str) -> None:
    await world.trained()
    async with world.client("viewer") as client:
        answer = await client.get(f"{MODELS}/support/versions/{number}")

    assert answer.status_code == 404
