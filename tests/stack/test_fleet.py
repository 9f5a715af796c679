"""Who is let in from other machines, as the log says it."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import nkeys
import pytest
from nats.aio.client import Client

from domain.agents.commands import JoinAgent
from domain.agents.events import AgentJoined, AgentRevoked
from domain.agents.joining import user_key
from domain.messages import Command, Envelope, Event, StreamId
from domain.wire import encode_event
from finetrail.stack.fleet import joined_agents
from finetrail.stack.nats_config import server_config
from finetrail.stack.nats_server import find_server
from tests.infra import nats_server

pytestmark = [pytest.mark.infra, pytest.mark.timeout(60)]


def key() -> str:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public: bytes = nkeys.from_seed(bytearray(seed)).public_key
    return public.decode()


async def record(nc: Client, event: AgentJoined | AgentRevoked) -> None:
    stream = StreamId("default", "agent", event.agent_id)
    command = JoinAgent(
        agent_id=event.agent_id,
        name="",
        public_key=key(),
        token_hmac="0" * 64,
        at=datetime.now(UTC),
    )
    cause: Envelope[Command] = Envelope(
        id=uuid4(),
        stream=stream,
        source="gateway",
        actor="test",
        correlation_id=uuid4(),
        causation_id=None,
        sent_at=command.at,
        command=command,
    )
    said: Event = event
    headers, body = encode_event(said, event_id=uuid4(), cause=cause, recorded_at=command.at)
    await nc.jetstream().publish(stream.subject, body, headers=headers)


def joined(agent_id: UUID, public_key: str) -> AgentJoined:
    return AgentJoined(agent_id=agent_id, name="", public_key=public_key, invited_by="test")


async def test_a_machine_that_joined_twice_with_one_key_is_the_agent_it_became_last(
    tmp_path: Path,
) -> None:
    first, second, other = uuid4(), uuid4(), uuid4()
    same = key()
    async with nats_server(tmp_path / "nats") as server:
        nc = await server.connect("admin")
        for agent_id, public_key in ((first, same), (other, key()), (second, same)):
            await record(nc, joined(agent_id, public_key))
        let_in = await joined_agents(nc)
        await record(nc, AgentRevoked(agent_id=first))
        after_revoking_the_first = await joined_agents(nc)
        await record(nc, AgentRevoked(agent_id=second))
        after_revoking_both = await joined_agents(nc)
        await nc.close()

    assert let_in.keys() == {str(other), str(second)}
    assert after_revoking_the_first == let_in
    assert after_revoking_both.keys() == {str(other)}
    assert accepted_by_the_server(let_in, tmp_path)
    assert not accepted_by_the_server(let_in | {str(first): same}, tmp_path)


def accepted_by_the_server(agents: dict[str, str], folder: Path) -> bool:
    config = server_config(lambda role: role, "own", "127.0.0.1:4222", str(folder), agents)
    (folder / "nats.conf").write_text(json.dumps(config))
    command = [str(find_server()), "-t", "-c", str(folder / "nats.conf")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_only_the_public_key_of_a_user_is_let_in() -> None:
    good = key()
    other = nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_ACCOUNT)))

    assert user_key(good) is not None
    for bad in ("", "U" + "A" * 55, good[:-1], good.lower(), other.public_key.decode(), "U!"):
        assert user_key(bad) is None, bad
