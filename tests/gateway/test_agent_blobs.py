"""Tickets for agents on other machines: what is refused for good, and what only now."""

from uuid import UUID

import pytest

from domain.agents.commands import RevokeAgent
from domain.blob_tickets import TicketQuestion
from domain.blobs import BlobRef
from domain.queues.commands import Assign, Enqueue
from domain.queues.queue import queue_id
from projections.answers import QueueStanding
from tests.gateway.world import AGENT, W, World

ME = str(AGENT)


@pytest.fixture
def served(world: World, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Hashes of what belongs to versions that are ready."""
    hashes: set[str] = set()

    async def is_served(_workspace: str, sha256: str) -> bool:
        return sha256 in hashes

    monkeypatch.setattr(world.queries, "is_served", is_served)
    return hashes


async def given(world: World) -> BlobRef:
    """Have the scheduler give a job to the agent; gives what it is to be trained on."""
    job = await world.submitted()
    work_id = UUID(job["id"])
    queued = Enqueue(work_id=work_id, kind="train", method="sequence_classification", attempt=1)
    await world.decide(queued, queue_id(W))
    await world.offered(UUID(ME))
    await world.decide(Assign(), queue_id(W))
    dataset = await world.queries.dataset(W, UUID(job["dataset_id"]))
    assert dataset is not None
    return BlobRef(sha256=dataset.sha256, size=dataset.size, crc32=0)


async def ask(world: World, verb: str, blob: BlobRef) -> tuple[bool, bool, str]:
    """Whether there is a ticket, whether to ask again, and what was refused."""
    question = TicketQuestion.model_validate({"verb": verb, "blob": blob})
    answer = await world.gateway.agent_blobs.answer(ME, question)
    return bool(answer.path), answer.unavailable, answer.refused


@pytest.mark.usefixtures("served")
async def test_what_a_lagging_read_model_does_not_know_yet_is_not_refused_for_good(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await given(world)
    assert await ask(world, "GET", blob) == (True, False, "")

    async def nothing_yet(_workspace: str) -> QueueStanding:
        return QueueStanding([], None)

    async def behind(*_: object, **__: object) -> bool:
        return False

    monkeypatch.setattr(world.queries, "queue", nothing_yet)
    caught_up = await ask(world, "GET", blob)
    monkeypatch.setattr(world.queries, "wait_for", behind)
    lagging = await ask(world, "GET", blob)

    assert (caught_up[0], caught_up[1]) == (False, False)
    assert (lagging[0], lagging[1]) == (False, True)


async def test_a_revoked_agent_gets_no_ticket_not_even_for_what_is_served(
    world: World, served: set[str]
) -> None:
    blob = BlobRef(sha256="ab" * 32, size=2, crc32=0)
    served.add(blob.sha256)
    await world.enrolled()
    before = await ask(world, "GET", blob)

    await world.decide(RevokeAgent(agent_id=AGENT), AGENT, "gateway")
    after = await ask(world, "GET", blob)

    assert before == (True, False, "")
    assert after == (False, False, "the agent is revoked")
