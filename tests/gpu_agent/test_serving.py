"""The serving process: ready before it is asked, every answer told apart, and gone with its parent."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import UUID

import pytest
import torch
from pydantic import BaseModel

from domain.inference import (
    Begun,
    End,
    GenerateRequest,
    Piece,
    Refused,
    Sampling,
    ServedModel,
    Turn,
)
from domain.work import PredictReply
from gpu_agent.answering import Answering
from gpu_agent.generation import Engine
from gpu_agent.predictor import Predictor
from gpu_agent.protocol import (
    SLOTS,
    CancelOrder,
    GenerateOrder,
    Predicted,
    ServedFolders,
    ServingInput,
    ServingReady,
    ServingRequest,
    Warmed,
    WarmOrder,
    Working,
    serving_reply,
)
from gpu_agent.serving import serve
from tests.gpu_agent import babble, processes, tiny

BASE = "babble"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier's base and a language model."""
    folder = tmp_path_factory.mktemp("models")
    tiny.build_base_model(folder / tiny.NAME)
    babble.write_model(folder / BASE)
    return folder


@pytest.fixture
def config(models: Path) -> ServingInput:
    return ServingInput(threads=1, device="cpu", models_folder=models)


@pytest.fixture
def said() -> list[Any]:
    return []


@pytest.fixture
def answering(config: ServingInput, said: list[Any]) -> Answering:
    return Answering(config, said.append)


def predict(folder: Path, number: int = 1) -> ServingRequest:
    return ServingRequest(
        request_id=f"p{number}",
        workspace="default",
        model_id=UUID(int=1),
        version_id=UUID(int=number),
        base_model=tiny.NAME,
        labels=tiny.LABELS,
        adapter=(),
        max_length=64,
        texts=tiny.TEXTS,
        adapter_folder=folder,
    )


def served(version: int | None = None, base_model: str = BASE) -> ServedModel:
    version_id = UUID(int=version) if version else None
    return ServedModel(
        method="sft", version_id=version_id, base_model=base_model, max_length=babble.CONTEXT
    )


def generate(
    request_id: str,
    says: str = "hello",
    *,
    prompt: str | None = None,
    version: int | None = None,
    adapter: Path | None = None,
    base_model: str = BASE,
    **sampling: Any,
) -> GenerateOrder:
    request = GenerateRequest(
        request_id=request_id,
        workspace="default",
        served=served(version, base_model),
        messages=() if prompt is not None else (Turn(role="user", content=says),),
        prompt=prompt,
        sampling=Sampling(**{"temperature": 0.0, "max_tokens": 12} | sampling),
    )
    return GenerateOrder(request=request, folders=ServedFolders(adapter=adapter))


def take(answering: Answering, order: BaseModel) -> None:
    answering.take(order.model_dump_json().encode())


def to_the_end(answering: Answering) -> None:
    while answering.busy:
        answering.step()


def of(said: list[Any], request_id: str) -> list[Any]:
    return [reply for reply in said if getattr(reply, "request_id", "") == request_id]


def text(replies: list[Any]) -> str:
    return "".join(reply.text for reply in replies if isinstance(reply, Piece))


def refusal(said: list[Any]) -> tuple[str, bool]:
    (reply,) = (reply for reply in said if isinstance(reply, Refused))
    return reply.error.code, reply.error.retryable


def test_text_has_a_beginning_and_an_end(answering: Answering, said: list[Any]) -> None:
    take(answering, generate("g"))
    to_the_end(answering)

    replies = of(said, "g")
    assert isinstance(replies[0], Begun)
    assert isinstance(replies[-1], End)
    assert [piece.number for piece in replies[1:-1]] == list(range(len(replies) - 2))
    assert sum(piece.tokens for piece in replies[1:-1]) == replies[-1].completion_tokens == 12


def test_messages_are_put_into_the_chat_template_and_a_prompt_is_not(
    answering: Answering, said: list[Any]
) -> None:
    take(answering, generate("chat", "hello"))
    take(answering, generate("plain", prompt="hello"))
    to_the_end(answering)

    assert of(said, "chat")[0].prompt_tokens == 1 + len("hello") + 2  # three control tokens
    assert of(said, "plain")[0].prompt_tokens == len("hello")
    assert text(of(said, "chat")) != text(of(said, "plain"))


def test_prediction_is_answered_while_text_is_generated(
    answering: Answering, said: list[Any], models: Path, tmp_path: Path
) -> None:
    expected = tiny.make_adapter(tmp_path / "a", models, tiny.LABELS, rank=8)
    take(answering, generate("g"))
    answering.step()

    take(answering, predict(tmp_path / "a"))
    (reply,) = (message.reply for message in said if isinstance(message, Predicted))
    to_the_end(answering)

    scores = [list(prediction.scores.values()) for prediction in reply.predictions]
    assert torch.allclose(torch.tensor(scores), expected, atol=1e-6)
    assert of(said, "g")[-1].completion_tokens == 12


def test_warm_model_needs_its_adapters_folder_no_more(
    answering: Answering, said: list[Any], models: Path, tmp_path: Path
) -> None:
    adapter = babble.write_adapter(tmp_path / "a", models / BASE)

    take(
        answering,
        WarmOrder(warm_id="w", served=served(1), folders=ServedFolders(adapter=adapter)),
    )
    take(answering, generate("with", version=1, adapter=tmp_path / "none"))
    take(answering, generate("without"))
    to_the_end(answering)

    assert [m for m in said if isinstance(m, Warmed)] == [Warmed(warm_id="w")]
    assert text(of(said, "with")) != text(of(said, "without"))
    assert isinstance(of(said, "with")[-1], End)


def test_base_model_is_loaded_once_for_all_adapters_and_that_is_announced(
    answering: Answering, said: list[Any], models: Path, tmp_path: Path
) -> None:
    for number in (1, 2, 3):
        adapter = babble.write_adapter(tmp_path / str(number), models / BASE, seed=number)
        take(answering, generate(f"g{number}", version=number, adapter=adapter))
    to_the_end(answering)

    assert len([message for message in said if isinstance(message, Working)]) == 1
    assert len({text(of(said, f"g{number}")) for number in (1, 2, 3)}) == 3


def test_cancelled_text_ends_at_once(answering: Answering, said: list[Any]) -> None:
    take(answering, generate("g", max_tokens=None))
    answering.step()
    answering.step()

    take(answering, CancelOrder(request_id="g"))

    assert not answering.busy
    assert of(said, "g")[-1].reason == "cancelled"


def test_slot_of_a_cancelled_request_is_taken_within_one_token(
    config: ServingInput, said: list[Any]
) -> None:
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    cancelled_at = 0

    def say(message: Any) -> None:
        nonlocal cancelled_at
        said.append(message)
        if isinstance(message, Piece) and message.request_id == "0" and message.number == 5:
            cancelled_at = len(said)
            lines.put(CancelOrder(request_id="0").model_dump_json().encode())
        if isinstance(message, Begun) and message.request_id == "late":
            lines.put(None)

    for number in range(SLOTS):
        lines.put(generate(str(number), max_tokens=40).model_dump_json().encode())
    lines.put(generate("late").model_dump_json().encode())
    serve(lines, Answering(config, say), say)

    after = said[cancelled_at:]
    assert not [reply for reply in after if isinstance(reply, Piece) and reply.request_id == "0"]
    for number in range(1, SLOTS):  # the token that was under way, and one more
        assert len([reply for reply in of(after, str(number)) if isinstance(reply, Piece)]) <= 2


def test_cancelling_what_is_unknown_is_nothing_wrong(answering: Answering, said: list[Any]) -> None:
    take(answering, CancelOrder(request_id="g"))

    assert not said


def test_what_cannot_be_loaded_or_said_is_refused_in_the_words_of_the_wire(
    answering: Answering, said: list[Any], tmp_path: Path
) -> None:
    def refused(order: GenerateOrder) -> tuple[str, bool]:
        said.clear()
        take(answering, order)
        assert not answering.busy
        return refusal(said)

    none = tmp_path / "none"
    assert refused(generate("1", version=9, adapter=none)) == ("adapter_unreadable", False)
    assert refused(generate("2", base_model="unknown")) == ("base_model_refused", False)
    assert refused(generate("3", "x" * babble.CONTEXT)) == ("context_too_long", False)
    assert refused(generate("4", prompt="")) == ("bad_request", False)


def test_step_that_fails_is_told_to_everybody_and_the_next_request_is_answered(
    answering: Answering, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_engine: Engine) -> None:
        raise MemoryError

    take(answering, generate("1"))
    take(answering, generate("2"))
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "step", breaks)
        answering.step()
    take(answering, generate("3"))
    to_the_end(answering)

    for request_id in ("1", "2"):
        assert refusal(of(said, request_id)) == ("out_of_memory", True)
    assert isinstance(of(said, "3")[-1], End)


def test_prediction_that_fails_is_a_reply(
    answering: Answering, said: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_predictor: Predictor, _request: ServingRequest) -> PredictReply:
        raise ZeroDivisionError

    take(answering, predict(tmp_path / "none"))
    monkeypatch.setattr(Predictor, "answer", breaks)
    take(answering, predict(tmp_path / "none", 2))
    answering.take(b"nonsense")

    errors = [m.reply.error for m in said if isinstance(m, Predicted)]
    assert [error and error.code for error in errors] == [
        "checkpoint_unreadable",
        "prediction_failed",
    ]


def test_model_that_cannot_be_warmed_is_named(answering: Answering, said: list[Any]) -> None:
    take(answering, WarmOrder(warm_id="w", served=served(1), folders=ServedFolders()))

    (warmed,) = (message for message in said if isinstance(message, Warmed))
    assert warmed.error is not None
    assert warmed.error.code == "checkpoint_unreadable"


class Steps:
    """Work that ends after a number of steps."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.left = 0

    @property
    def busy(self) -> bool:
        return self.left > 0

    def take(self, line: bytes) -> None:
        self.taken.append(line)
        self.left += 2

    def step(self) -> None:
        self.left = max(0, self.left - 1)


def test_lines_are_taken_between_steps_and_silence_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gpu_agent.serving.SIGN_S", 0.01)
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    lines.put(b"one")
    work = Steps()
    said: list[BaseModel] = []

    def say(message: BaseModel) -> None:
        said.append(message)
        lines.put(None)

    serve(lines, work, say)

    assert work.taken == [b"one"]
    assert not work.busy
    assert said[0] == Working()


@contextmanager
def serving(config: ServingInput) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], Any]]]:
    with processes.started("gpu_agent.serving", config) as child:
        assert child.stdout
        stdout = child.stdout
        yield child, lambda: serving_reply.validate_json(stdout.readline())


@pytest.mark.slow
def test_process_predicts_and_generates_and_ends_with_its_input(
    config: ServingInput, models: Path, tmp_path: Path
) -> None:
    expected = tiny.make_adapter(tmp_path / "a", models, tiny.LABELS, rank=8)

    with serving(config) as (child, next_reply):
        assert isinstance(next_reply(), ServingReady)
        for order in (generate("g"), predict(tmp_path / "a")):
            processes.say(child, order)
        replies: list[Any] = []
        while not {End, Predicted} <= set(map(type, replies)):
            replies.append(next_reply())
        assert child.stdin
        child.stdin.close()
        child.stdin = None
        status = child.wait(processes.TIME_LIMIT_S)

    assert status == 0
    (predicted,) = (reply for reply in replies if isinstance(reply, Predicted))
    said = [list(prediction.scores.values()) for prediction in predicted.reply.predictions]
    assert torch.allclose(torch.tensor(said), expected, atol=1e-6)
