"""Join tokens over HTTP: what a repeated request is told."""

from tests.gateway.world import World


async def test_a_repeated_request_is_told_of_the_token_as_it_was_made(world: World) -> None:
    repeated = {"Idempotency-Key": "one machine"}
    async with world.client() as client:

        async def make(name: str, minutes: int) -> dict[str, object]:
            body = {"name": name, "minutes": minutes}
            answer = await client.post("/api/v1/agents/join-tokens", json=body, headers=repeated)
            assert answer.status_code == 201, answer.text
            told: dict[str, object] = answer.json()
            return told

        first, again = await make("box", 1), await make("other", 1440)

    assert again == first
