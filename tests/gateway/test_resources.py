"""What the routes answer when all is well."""

from tests.gateway.world import World


async def test_an_uploaded_dataset_is_answered_when_it_is_validated(world: World) -> None:
    dataset = await world.uploaded()

    async with world.client("viewer") as client:
        shown = (await client.get(f"/api/v1/datasets/{dataset['id']}")).json()
        rows = (await client.get(f"/api/v1/datasets/{dataset['id']}/rows?limit=2")).json()
    assert shown == dataset
    assert dataset["status"] == "valid"
    assert dataset["name"] == "messages"
    assert dataset["labels"] == {"delivery": 20, "refund": 20}
    assert rows["items"] == [
        {"line": 2, "text": "message number 0", "label": "refund"},
        {"line": 3, "text": "message number 1", "label": "delivery"},
    ]
