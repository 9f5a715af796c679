"""Text over NATS: streamed, kept alive, cancelled, refused, and nothing left behind."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from nats.aio.msg import Msg

from adapters import nats_agent_link
from adapters.local_blobs import LocalBlobs
from domain.blobs import BlobRef, FileEntry
from domain.inference import (
    Begun,
    End,
    GenerateReply,
    GenerateRequest,
    InService,
    Piece,
    Refused,
    Sampling,
    ServedModel,
    generate_reply,
)
from domain.subjects import control_subject, inference_subject
from gpu_agent import agent, serving_child, text_stream
from gpu_agent.protocol import BASES, SLOTS
from gpu_agent.serving_child import Serving, ServingConfig
from tests.agent.conftest import RunAgent
from tests.agent.core import Core, alive, pids, until

pytestmark = pytest.mark.infra

MODEL = UUID(int=7)
BASE = ServedModel(method="sft", version_id=None, base_model="base", max_length=64)


def request(says: str, request_id: str = "1", **changes: Any) -> GenerateRequest:
    return GenerateRequest(
        **{
            "request_id": request_id,
            "workspace": "default",
            "served": BASE,
            "prompt": says,
        }
        | changes
    )


class Client:
    """Whoever asks: the replies in order, and words on the control subject."""

    def __init__(self, core: Core, asked: GenerateRequest) -> None:
        self.core = core
        self.asked = asked
        self.replies: list[Any] = []

    @property
    def ended(self) -> bool:
        return bool(self.replies) and isinstance(self.replies[-1], End | Refused)

    @property
    def text(self) -> str:
        return "".join(reply.text for reply in self.replies if isinstance(reply, Piece))

    async def take(self, msg: Msg) -> None:
        self.replies.append(generate_reply.validate_json(msg.data))

    async def say(self, word: str) -> None:
        subject = control_subject("default", self.asked.request_id)
        await self.core.nc.publish(subject, word.encode())

    async def end(self) -> GenerateReply:
        await until(lambda: self.ended, f"an end of {self.asked.request_id}")
        reply: GenerateReply = self.replies[-1]
        return reply


@asynccontextmanager
async def asking(core: Core, asked: GenerateRequest) -> AsyncIterator[Client]:
    client = Client(core, asked)
    inbox = core.nc.new_inbox()
    subscription = await core.nc.subscribe(inbox, cb=client.take)
    body = asked.model_dump_json().encode()
    await core.nc.publish(inference_subject("default", MODEL), body, reply=inbox)
    try:
        yield client
    finally:
        await subscription.unsubscribe()


async def answer(core: Core, asked: GenerateRequest) -> Client:
    async with asking(core, asked) as client:
        await client.end()
    return client


async def ready(core: Core) -> None:
    await until(lambda: core.presences and core.presences[-1].serving == "ready")


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the stand-in leaves word of."""
    path = tmp_path / "notes"
    monkeypatch.setenv("STAND_IN_NOTES", str(path))
    return lambda: path.read_text().splitlines() if path.exists() else []


async def test_text_is_streamed_from_its_beginning_to_its_end(core: Core, run: RunAgent) -> None:
    async with run():
        await ready(core)
        client = await answer(core, request("hello"))

    begun, *pieces, end = [r for r in client.replies if not _sign_of_life(r)]
    assert isinstance(begun, Begun)
    assert begun.agent_id.endswith("00a")
    assert [piece.text for piece in pieces] == ["hello"]
    assert isinstance(end, End)
    assert end.reason == "stop"
    assert end.first_token_s is not None
    assert 0 < end.first_token_s <= end.seconds


def _sign_of_life(reply: Any) -> bool:
    return isinstance(reply, Piece) and not reply.text and not reply.tokens


async def test_adapter_is_fetched_for_the_model_that_answers(
    core: Core, run: RunAgent, rows: BlobRef
) -> None:
    adapter = (FileEntry(path="lora_adapters/adapter_model.safetensors", blob=rows),)
    served = BASE.model_copy(update={"version_id": UUID(int=8), "adapter": adapter})

    async with run():
        await ready(core)
        client = await answer(core, request("hello", served=served))

    assert client.text == "hello"


async def test_adapter_that_is_gone_is_named(core: Core, run: RunAgent) -> None:
    gone = (FileEntry(path="a", blob=BlobRef(sha256="0" * 64, size=1, crc32=0)),)
    served = BASE.model_copy(update={"version_id": UUID(int=8), "adapter": gone})

    async with run():
        await ready(core)
        end = (await answer(core, request("hello", served=served))).replies[-1]

    assert isinstance(end, Refused)
    assert (end.error.code, end.error.retryable) == ("adapter_unreadable", False)


async def test_cancel_reaches_the_child(
    core: Core, run: RunAgent, notes: Callable[[], list[str]]
) -> None:
    async with run():
        await ready(core)
        async with asking(core, request("slow")) as client:
            await until(lambda: client.text)
            await client.say("cancel")
            end = await client.end()
        await until(lambda: "cancelled 1" in notes())

    assert isinstance(end, End)
    assert end.reason == "cancelled"
    assert end.completion_tokens == client.text.count("word")


async def test_cancel_that_overtakes_its_request_is_heard(
    core: Core, run: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_stream, "SILENCE_S", 60.0)

    async with run():
        await ready(core)
        await answer(core, request("hello", "0"))
        early = Client(core, request("slow"))
        await early.say("cancel")
        async with asking(core, early.asked) as client:
            end = await client.end()

    assert isinstance(end, End)
    assert (end.reason, client.text) == ("cancelled", "")


async def test_answer_that_nobody_listens_to_any_more_is_cancelled(
    core: Core,
    run: RunAgent,
    notes: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_stream, "SILENCE_S", 0.5)

    async with run():
        await ready(core)
        async with asking(core, request("slow")) as client:
            end = await client.end()
        await until(lambda: "cancelled 1" in notes())

    assert isinstance(end, End)
    assert end.reason == "cancelled"


async def test_word_from_whoever_asked_keeps_the_answer_going(
    core: Core, run: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run():
        await ready(core)
        await answer(core, request("hello", "0"))
        monkeypatch.setattr(text_stream, "SILENCE_S", 0.6)
        async with asking(core, request("slow")) as client:
            for words in range(1, 13):
                await until(lambda words=words: client.text.count("word") > 4 * words)  # type: ignore[misc]
                assert not client.ended
                await client.say("keep")
            await client.say("cancel")
            await client.end()


async def test_signs_of_life_fill_the_silence_and_are_counted(
    core: Core, run: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_stream, "KEEP_S", 0.1)

    async with run():
        await ready(core)
        async with asking(core, request("wait")) as client:
            await until(lambda: len(client.replies) >= 3)
            await client.say("cancel")
            await client.end()

    pieces = client.replies[:-1]
    assert all(_sign_of_life(piece) for piece in pieces)
    assert [piece.number for piece in pieces] == list(range(len(pieces)))


async def test_deadline_ends_what_has_begun_and_refuses_what_has_not(
    core: Core, run: RunAgent, notes: Callable[[], list[str]]
) -> None:
    async with run():
        await ready(core)
        await answer(core, request("hello", "0"))
        begun, waiting = await asyncio.gather(
            answer(core, request("slow", "1", deadline_s=0.4)),
            answer(core, request("wait", "2", deadline_s=0.4)),
        )
        await until(lambda: "cancelled 1" in notes())

    assert isinstance(begun.replies[-1], End)
    assert begun.replies[-1].reason == "deadline"
    assert begun.replies[-1].completion_tokens > 0
    refused = waiting.replies[-1]
    assert isinstance(refused, Refused)
    assert (refused.error.code, refused.error.retryable) == ("deadline", True)


async def test_more_than_may_wait_are_refused_at_once(
    core: Core, run: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_child, "SLOTS", 1)
    monkeypatch.setattr(serving_child, "MAX_WAITING", 2)

    async with run():
        await ready(core)
        async with (
            asking(core, request("slow", "1")),
            asking(core, request("slow", "2")),
            asking(core, request("slow", "3")) as third,
        ):
            await until(lambda: third.text)
            refused = (await answer(core, request("hello", "4"))).replies[-1]
            await third.say("cancel")
            await third.end()
            accepted = await answer(core, request("hello", "5"))

    assert isinstance(refused, Refused)
    assert (refused.error.code, refused.error.retryable) == ("busy", True)
    assert accepted.text == "hello"


async def test_all_that_the_child_was_busy_with_is_refused_when_it_dies(
    core: Core, run: RunAgent, pid_file: Path
) -> None:
    async with run():
        await ready(core)
        async with (
            asking(core, request("slow", "1")) as first,
            asking(core, request("wait", "2")) as second,
        ):
            await until(lambda: first.text)
            (child,) = pids(pid_file)
            os.kill(child, signal.SIGKILL)
            ends = [await first.end(), await second.end()]
        again = await answer(core, request("hello", "3"))

    for end in ends:
        assert isinstance(end, Refused)
        assert (end.error.code, end.error.retryable) == ("serving_restarted", True)
    assert again.text == "hello"
    assert not any(alive(pid) for pid in pids(pid_file))


async def test_agent_that_stops_refuses_what_it_has_not_finished(core: Core, run: RunAgent) -> None:
    async with run():
        await ready(core)
        client = Client(core, request("slow"))
        inbox = core.nc.new_inbox()
        await core.nc.subscribe(inbox, cb=client.take)
        body = client.asked.model_dump_json().encode()
        await core.nc.publish(inference_subject("default", MODEL), body, reply=inbox)
        await until(lambda: client.text)
    end = await client.end()

    assert isinstance(end, Refused)
    assert end.error.code == "serving_restarted"


async def test_request_that_cannot_be_read_is_refused_in_its_own_form(
    core: Core, run: RunAgent
) -> None:
    async with run():
        await ready(core)
        subject = inference_subject("default", MODEL)
        body = b'{"kind": "generate", "request_id": "9"}'
        msg = await core.nc.request(subject, body, timeout=20)

    refused = generate_reply.validate_json(msg.data)
    assert isinstance(refused, Refused)
    assert (refused.request_id, refused.error.code) == ("9", "bad_request")


async def test_part_that_is_larger_than_a_message_ends_the_answer(
    core: Core, run: RunAgent
) -> None:
    async with run():
        await ready(core)
        end = (await answer(core, request("large"))).replies[-1]

    assert isinstance(end, Refused)
    assert end.error.code == "reply_too_large"


async def test_what_is_in_service_is_warm_before_the_agent_is_ready(
    core: Core, run: RunAgent, notes: Callable[[], list[str]], rows: BlobRef
) -> None:
    adapter = (FileEntry(path="lora_adapters/adapter_model.safetensors", blob=rows),)
    served = BASE.model_copy(update={"version_id": UUID(int=8), "adapter": adapter})
    core.in_service = InService(models=(served,))

    async with run():
        await until(lambda: core.presences)
        assert core.presences[0].serving == "starting"
        await ready(core)
        assert notes() == [f"warmed {UUID(int=8)}"]


async def test_what_comes_into_service_is_warmed_once_and_again_after_a_death(
    core: Core,
    run: RunAgent,
    notes: Callable[[], list[str]],
    pid_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent, "IN_SERVICE_S", 0.1)

    async with run():
        await ready(core)
        assert not pids(pid_file), "nothing is in service, so nothing is started"
        core.in_service = InService(models=(BASE,))
        await until(lambda: notes() == ["warmed base"])
        core.in_service = InService(models=(BASE, BASE.model_copy(update={"base_model": "other"})))
        await until(lambda: notes() == ["warmed base", "warmed other"])
        os.kill(pids(pid_file)[0], signal.SIGKILL)
        await until(lambda: notes()[2:] == ["warmed base", "warmed other"])


async def test_no_more_is_warmed_than_the_child_keeps(
    core: Core, run: RunAgent, notes: Callable[[], list[str]]
) -> None:
    bases = [f"base {number}" for number in range(BASES + 1)]
    models = tuple(BASE.model_copy(update={"base_model": base}) for base in bases)
    core.in_service = InService(models=models)

    async with run():
        await ready(core)

    assert notes() == [f"warmed {base}" for base in bases[:BASES]]


async def test_model_that_kills_the_child_does_not_keep_the_agent_from_serving(
    core: Core,
    run: RunAgent,
    notes: Callable[[], list[str]],
    pid_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent, "IN_SERVICE_S", 0.1)
    deadly = BASE.model_copy(update={"base_model": "deadly"})
    core.in_service = InService(models=(deadly, BASE))

    async with run():
        await ready(core)
        await until(lambda: len(pids(pid_file)) == serving_child.WARM_TRIES + 1)
        await until(lambda: notes().count("warmed base") == 2)
        client = await answer(core, request("hello"))

    assert client.text == "hello"
    assert len(pids(pid_file)) == serving_child.WARM_TRIES + 1


async def test_agent_does_not_wait_for_a_gateway_that_does_not_come(
    core: Core, run: RunAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "GATEWAY_S", 0.3)
    monkeypatch.setattr(nats_agent_link, "IN_SERVICE_TIMEOUT_S", 0.2)
    core.in_service = None

    async with run():
        await ready(core)
        assert (await answer(core, request("hello"))).text == "hello"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    from tests.gpu_agent import babble

    babble.write_model(tmp_path / "models" / "babble")
    return tmp_path / "models"


def real_serving(tmp_path: Path, models: Path) -> Serving:
    config = ServingConfig(
        agent_id="agent",
        folder=tmp_path / "serving",
        models_folder=models,
        made_folder=tmp_path / "made",
        device="cpu",
        threads=1,
        environment=dict(os.environ),
        command=(sys.executable, "-m", "gpu_agent.serving"),
    )
    return Serving(config, LocalBlobs(tmp_path / "blobs"))


@pytest.mark.slow
async def test_fifty_clients_that_come_and_go_leave_nothing_behind(
    tmp_path: Path, models: Path
) -> None:
    # In a loop of its own: fixtures of the session have tasks that come and go in this one.
    await asyncio.to_thread(asyncio.run, fifty_clients(tmp_path, models))


async def fifty_clients(tmp_path: Path, models: Path) -> None:
    dice = random.Random(5)
    serving = real_serving(tmp_path, models)
    babble = BASE.model_copy(update={"base_model": "babble", "max_length": 256})
    ends: dict[str, list[Any]] = {}

    async def client(number: int) -> None:
        asked = request(
            "x" * dice.randint(1, 60),
            str(number),
            served=babble,
            sampling=Sampling(
                temperature=dice.choice([0.0, 1.0]), max_tokens=dice.choice([5, 190])
            ),
        )
        stay = dice.randint(0, 40)  # replies
        how = dice.choice(["stay", "cancel", "vanish", "break"])
        replies = ends[asked.request_id] = []

        async def take(reply: Any) -> None:
            replies.append(reply)
            if len(replies) == stay and how == "break":
                raise ConnectionError("gone")
            if len(replies) == stay and how == "cancel":
                serving.control(asked.request_id, "cancel")

        await asyncio.sleep(dice.random() * 1.5)
        task = asyncio.create_task(serving.generate(asked, take))
        if how == "vanish":
            await asyncio.sleep(dice.random())
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    running = asyncio.create_task(serving.run())
    try:
        await serving.warm([babble])
        before = asyncio.all_tasks()
        await asyncio.gather(*(client(number) for number in range(50)))

        assert asyncio.all_tasks() == before
        assert not serving._streams
        assert all(not kept.users for kept in serving._files._adapters.values())
        stayed = [replies for replies in ends.values() if replies and isinstance(replies[-1], End)]
        assert stayed, "some were answered to the end"

        # All slots are free: as many begin before any of them ends.
        log: list[tuple[type, str]] = []

        async def note(reply: Any) -> None:
            log.append((type(reply), reply.request_id))

        sampling = Sampling(temperature=0.0, max_tokens=60)
        everybody = [
            request("again", f"again-{n}", served=babble, sampling=sampling) for n in range(SLOTS)
        ]
        await asyncio.gather(*(serving.generate(asked, note) for asked in everybody))
        kinds = [kind for kind, _ in log]
        assert kinds.index(End) > max(n for n, kind in enumerate(kinds) if kind is Begun)
        assert kinds.count(End) == kinds.count(Begun) == SLOTS
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
