"""Blobs through a gateway: what an agent waits for, and for how long."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from nats.aio.client import Client

from adapters.gateway_blobs import GatewayBlobs
from domain.blob_tickets import TicketAnswer


class Asked(Client):
    """A gateway that gives a ticket for everything."""

    async def request(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(data=TicketAnswer(path="/api/v1/blobs/t").model_dump_json().encode())


async def test_the_larger_a_file_the_longer_the_gateway_may_take_to_store_it(
    tmp_path: Path,
) -> None:
    waited: list[float] = []

    async def store(request: httpx.Request) -> httpx.Response:
        await request.aread()
        waited.append(request.extensions["timeout"]["read"])
        return httpx.Response(204)

    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"a few bytes")
    with large.open("wb") as file:
        file.truncate(50_000_000)
    async with GatewayBlobs(Asked(), "http://gateway", workspace="w", agent_id="a") as blobs:
        await blobs._http.aclose()
        blobs._http = httpx.AsyncClient(transport=httpx.MockTransport(store))
        for path in (small, large):
            await blobs.put_file(path)

    assert waited[0] >= 60
    assert waited[1] - waited[0] >= 4
